"""A peer that cannot be reached any more is noticed within `dead_peer_s`: a real link goes down.

Needs root and `ip` (iproute2): the client lives in a network namespace of its own, at the other end of a veth pair.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import ALLOCATE, RawClient
from tests.e2e.daemons import serving
from tests.system.link import DAEMON_HOST, Link, linked

pytestmark = pytest.mark.system

DEAD_PEER_S = 3
# How much later than in the contract it may be noticed: a retransmission timer, a busy machine.
SLACK_S = 1.5


@pytest.fixture
def link() -> Iterator[Link]:
    with linked() as link:
        yield link


# Idle: keep-alive finds out. Interrupts on their way: TCP_USER_TIMEOUT does.
@pytest.mark.parametrize(("state", "pulse_hz"), [("owning", 0), ("all at once", 0), ("all at once", 50)])
def test_semantic_02_the_port_is_handed_on_within_dead_peer_s(
    link: Link, tmp_path: Path, state: str, pulse_hz: int
) -> None:
    path = tmp_path / "lptd.toml"
    path.write_text(
        f'[server]\nlisten = [{{url = "lpt://{DAEMON_HOST}:0", insecure = true}}, "lpt://127.0.0.1:0"]\n'
        f"[[port]]\nenable_connect_interrupt = true\npulse_hz = {pulse_hz}\n[limits]\ndead_peer_s = {DEAD_PEER_S}\n"
    )
    with (
        serving("--config", str(path), lines=2) as daemon,
        link.start("tests.e2e.victim", *map(str, daemon.address), state) as victim,
    ):
        try:
            assert victim.stdout is not None
            assert victim.stdout.readline() == "ready\n"
            waiter = RawClient(daemon.addresses[1]).hello()
            msgid = waiter.control(ALLOCATE)
            waiter.notification("queued")
            time.sleep(1.5 * DEAD_PEER_S)
            assert waiter.call("status")["owner"]["client"] == f"victim {state}", "a silent peer is not a dead one"
            link.cut()
            cut_at = time.monotonic()
            waiter.output(msgid)
            noticed_s = time.monotonic() - cut_at
            report = waiter.call("status")
            waiter.close()
        finally:
            victim.kill()
    assert noticed_s < DEAD_PEER_S + SLACK_S
    assert (report["waiting"], report["registered"], report["sessions"]) == (0, 0, 1)
    print(f"noticed after {noticed_s:.2f} s")
