"""A peer that cannot be reached any more is noticed by `dead_peer_s`: a real link goes down. With a time of grace the
port is its own for so much longer, and it can come back.

How long it took is printed, and bounded far above: a kernel that was not told of `dead_peer_s` would take a quarter of
an hour, or two hours.

Needs root and `ip` (iproute2): the client lives in a network namespace of its own, at the other end of a veth pair.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.client import ALLOCATE, RawClient
from tests.e2e.daemons import DaemonProcess, eventually, serving
from tests.system.link import DAEMON_HOST, Link, linked

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

DEAD_PEER_S = 3
NEVER_S = 3600
PATIENCE_S = 240
BOUND_S = 10 * DEAD_PEER_S  # a retransmission timer, a machine that stands still for a while


@pytest.fixture
def link() -> Iterator[Link]:
    with linked() as link:
        yield link


# Idle: keep-alive finds out. Interrupts on their way: what is sent again, and not acknowledged. More replies than its
# connection holds, for it does not read: probes of its closed window.
@pytest.mark.parametrize(
    ("state", "pulse_hz"), [("owning", 0), ("all at once", 0), ("all at once", 50), ("not reading", 0)]
)
def test_semantic_02_the_port_is_handed_on_by_dead_peer_s(
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
            waiter.socket.settimeout(PATIENCE_S)
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
    assert noticed_s < BOUND_S
    assert (report["waiting"], report["registered"], report["sessions"]) == (0, 0, 1)
    print(f"noticed after {noticed_s:.2f} s")


class Cabled:
    """A client of the SDK that owns the port at the far end of a link, and one here that waits for it."""

    def __init__(self, link: Link, folder: Path, stack: ExitStack, *, dead_peer_s: float, grace_s: float) -> None:
        path = folder / "lptd.toml"
        path.write_text(
            f'[server]\nlisten = [{{url = "lpt://{DAEMON_HOST}:0", insecure = true}}, "lpt://127.0.0.1:0"]\n'
            f"[[port]]\ngrace_s = {grace_s}\n[limits]\ndead_peer_s = {dead_peer_s}\n"
        )
        self.daemon: DaemonProcess = stack.enter_context(serving("--config", str(path), lines=2))
        self._owner = stack.enter_context(link.start("tests.system.returning", *map(str, self.daemon.address)))
        stack.callback(self._owner.kill)
        self.grant, self._returns, _ = self._owner_says()
        self.waiter = RawClient(self.daemon.addresses[1]).hello()
        self.waiter.socket.settimeout(PATIENCE_S)
        self.waiting = self.waiter.control(ALLOCATE)
        self.waiter.notification("queued")

    def wait_until_owner_is_away(self) -> None:
        """Until the owner has noticed that the daemon does not answer."""
        state = "here"
        while state == "here":
            _, self._returns, state = self._owner_says()

    def wait_until_owner_is_back(self) -> None:
        """Until it has written, by the same grant and over another connection than before."""
        is_back = False
        while not is_back:
            grant, returns, state = self._owner_says()
            assert grant == self.grant
            is_back = returns > self._returns and state == "here"

    def _owner_says(self) -> tuple[int, int, str]:
        """By which grant it has written just now, how often it has come back, and whether it was answered."""
        grant, returns, state = self._line().split()
        return int(grant), int(returns), state

    def owner_gives_up(self) -> str:
        """Why, when it does."""
        while not (line := self._line()).startswith("lost "):
            pass
        return line

    def _line(self) -> str:
        assert self._owner.stdout is not None
        line = self._owner.stdout.readline()
        assert line, "it has ended"
        return line

    def grant_in_force(self) -> int:
        """As the daemon tells it to the one who waits."""
        return int(self.waiter.call("status")["owner"]["grant"])


# It is back before the daemon has noticed (then nothing has happened), and after.
@pytest.mark.parametrize("is_noticed", [False, True])
def test_who_is_back_within_its_grace_has_its_port(link: Link, tmp_path: Path, is_noticed: bool) -> None:
    with ExitStack() as stack:
        dead_peer_s = DEAD_PEER_S if is_noticed else NEVER_S
        cabled = Cabled(link, tmp_path, stack, dead_peer_s=dead_peer_s, grace_s=NEVER_S)
        link.cut()
        cabled.wait_until_owner_is_away()
        if is_noticed:
            eventually(lambda: bool(cabled.waiter.call("status")["away"] == 1))
        assert cabled.grant_in_force() == cabled.grant, "the next one was granted while there was grace"
        assert (f"for {NEVER_S} s without a connection" in cabled.daemon.log()) == is_noticed
        link.mend()
        mended_at = time.monotonic()
        cabled.wait_until_owner_is_back()
        back_s = time.monotonic() - mended_at
        assert cabled.grant_in_force() == cabled.grant
        report = cabled.waiter.call("status")
        assert (report["waiting"], report["sessions"], report["away"]) == (1, 2, 0)
        eventually(lambda: "back: " in cabled.daemon.log())
        cabled.waiter.close()
    print(f"back after {back_s:.2f} s")


def test_who_stays_away_has_lost_its_port_when_its_grace_is_over(link: Link, tmp_path: Path) -> None:
    grace_s = 2
    with ExitStack() as stack:
        cabled = Cabled(link, tmp_path, stack, dead_peer_s=DEAD_PEER_S, grace_s=grace_s)
        cut_at = time.monotonic()
        link.cut()
        cabled.waiter.output(cabled.waiting)
        noticed_s = time.monotonic() - cut_at
        assert grace_s < noticed_s < grace_s + BOUND_S
        assert cabled.grant_in_force() > cabled.grant
        link.mend()
        print(cabled.owner_gives_up())
        cabled.waiter.close()
    print(f"handed on after {noticed_s:.2f} s")
