"""Hostile connections of five kinds at once: the daemon stays below a bound of memory, and serves whoever behaves.

The bound, for N connections of which a fifth is of each kind:

    N × 24 KiB     a session as such: its task, its decoder, its outbox, its socket; one read of a few KiB that failed
    N/5 × 256 KiB  replies for somebody who reads none: BACKLOG_MAX_BYTES, then nothing is read from it any more
    N/5 × 128 KiB  the read that was under way, twice: RECEIVE_BYTES, and the copy that the parser looks at
    N/5 × 128 KiB  a frame that is not finished: max_frame_bytes, twice, because a buffer that grows is copied
    N/5 × 128 KiB  garbage, until it is found out: RECEIVE_BYTES, and the copy that the parser looks at
    16 MiB         what the interpreter keeps for later

that is 164 MiB for a thousand.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos import settings
from tests.chaos.hostile import KINDS, Crowd, deaf
from tests.chaos.processes import MIB, usage
from tests.chaos.well_behaved import WellBehaved
from tests.e2e.daemons import eventually, is_clean, serving

KIB = 1024
_SESSION_BYTES = 24 * KIB
_DEAF_BYTES = (256 + 128) * KIB
_LORIS_BYTES = 128 * KIB
_GARBAGE_BYTES = 128 * KIB
_KEPT_BYTES = 16 * MIB


def bound_bytes(count: int) -> int:
    """What so many hostile connections may add to the daemon's memory."""
    each = count // len(KINDS)
    return count * _SESSION_BYTES + each * (_DEAF_BYTES + _LORIS_BYTES + _GARBAGE_BYTES) + _KEPT_BYTES


def besiege(count: int, stays_s: float, seed: int) -> str:
    """Hostile connections for so long; what was measured, in words."""
    with serving("--simulate", "--listen", "lpt://127.0.0.1:0") as daemon:
        address = daemon.address
        assert isinstance(address, tuple)
        good = WellBehaved(daemon)
        good.round()
        before = usage(daemon.process.pid)
        with Crowd(address, count, seed) as crowd:
            crowd.wait_until_in_place()
            until, most = time.monotonic() + stays_s, 0
            while time.monotonic() < until:
                good.round()
                most = max(most, usage(daemon.process.pid).descriptors)
        during = usage(daemon.process.pid)
        eventually(lambda: bool(good.client.call("status")["sessions"] == 1), "a hostile session is left")
        good.round()
        good.leave()
        eventually(lambda: is_clean(daemon.status()))
        eventually(lambda: daemon.descriptors() <= before.descriptors, "descriptors are left")
        after = usage(daemon.process.pid)
    added = during.peak_bytes - before.peak_bytes
    found = (
        f"{count} hostile connections for {stays_s} s: {crowd.tally}; memory {before.rss_bytes / MIB:.1f} MiB, at the "
        f"most {during.peak_bytes / MIB:.1f} (bound {(before.rss_bytes + bound_bytes(count)) / MIB:.1f}), then "
        f"{after.rss_bytes / MIB:.1f}; at the most {most} descriptors; {good.rounds} rounds of the well-behaved "
        f"client, the longest {good.longest_s:.2f} s"
    )
    assert added < bound_bytes(count), found
    assert set(crowd.tally) == {kind.__name__ for kind in KINDS}
    return found


@pytest.mark.timeout(300)
def test_a_hundred_hostile_connections() -> None:
    print(besiege(100, 0.5, settings.seed(1)))


@pytest.mark.system
@pytest.mark.timeout(600)
def test_who_reads_nothing_is_not_answered_for_ever(tmp_path: Path) -> None:
    """Among all kinds the daemon may be too busy to fill its buffers; with these alone it has the time."""
    count, path = 40, tmp_path / "lptd.toml"
    path.write_text('[server]\nlisten = ["lpt://127.0.0.1:0"]\n[limits]\ndead_peer_s = 120\n')
    with serving("--config", str(path)) as daemon:
        address = daemon.address
        assert isinstance(address, tuple)
        before = usage(daemon.process.pid)
        with Crowd(address, count, settings.seed(settings.LONG), kinds=[deaf]) as crowd:
            crowd.wait_until_in_place()
            until, peak = time.monotonic() + 60, -1
            while peak != (peak := usage(daemon.process.pid).peak_bytes) and time.monotonic() < until:
                time.sleep(2)
    added, bound = peak - before.peak_bytes, count * (_SESSION_BYTES + _DEAF_BYTES) + _KEPT_BYTES
    print(f"{count} who read nothing: {added / MIB:.1f} MiB (bound {bound / MIB:.1f})")
    assert added < bound


@pytest.mark.system
@pytest.mark.timeout(600)
def test_a_thousand_hostile_connections() -> None:
    print(besiege(1000, settings.number("CHAOS_HOSTILE_S", 45), settings.seed(settings.LONG)))
