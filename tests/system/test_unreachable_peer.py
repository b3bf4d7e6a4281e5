"""A peer that cannot be reached any more is noticed within `dead_peer_s`: a real link goes down.

Needs root and `ip` (iproute2): the client lives in a network namespace of its own, at the other end of a veth pair.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import ALLOCATE, RawClient
from tests.e2e.daemons import PROJECT, serving

pytestmark = pytest.mark.system

# Addresses of RFC 2544, for tests of networks: nobody's.
DAEMON_HOST, CLIENT_HOST = "198.18.77.1", "198.18.77.2"
DEAD_PEER_S = 3
# How much later than in the contract it may be noticed: a retransmission timer, a busy machine.
SLACK_S = 1.5


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Link:
    """A network namespace, and the link to it."""

    def __init__(self) -> None:
        self.namespace = f"lpt-{os.getpid()}"
        self._here, self._there = f"lptv{os.getpid()}"[:14] + "a", f"lptv{os.getpid()}"[:14] + "b"

    def up(self) -> None:
        ip("netns", "add", self.namespace)
        ip("link", "add", self._here, "type", "veth", "peer", "name", self._there)
        ip("link", "set", self._there, "netns", self.namespace)
        ip("addr", "add", f"{DAEMON_HOST}/30", "dev", self._here)
        ip("link", "set", self._here, "up")
        ip("-n", self.namespace, "addr", "add", f"{CLIENT_HOST}/30", "dev", self._there)
        ip("-n", self.namespace, "link", "set", self._there, "up")

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        ip("-n", self.namespace, "link", "set", self._there, "down")

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.namespace], check=False, capture_output=True)


@pytest.fixture
def link() -> Iterator[Link]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    link = Link()
    try:
        try:
            link.up()
        except subprocess.CalledProcessError as exc:
            pytest.skip(f"no network namespaces here: {exc.stderr.decode().strip()}")
        yield link
    finally:
        link.remove()


# Idle: keep-alive finds out. Interrupts on their way: TCP_USER_TIMEOUT does.
@pytest.mark.parametrize(("state", "pulse_hz"), [("owning", 0), ("all at once", 0), ("all at once", 50)])
def test_semantic_02_the_port_is_handed_on_within_dead_peer_s(
    link: Link, tmp_path: Path, state: str, pulse_hz: int
) -> None:
    path = tmp_path / "lptd.toml"
    path.write_text(
        f'[server]\nlisten = ["lpt://{DAEMON_HOST}:0", "lpt://127.0.0.1:0"]\n'
        f"[[port]]\nenable_connect_interrupt = true\npulse_hz = {pulse_hz}\n[limits]\ndead_peer_s = {DEAD_PEER_S}\n"
    )
    with serving("--config", str(path), lines=2) as daemon:
        command = [sys.executable, "-m", "tests.e2e.victim", *map(str, daemon.address), state]
        with subprocess.Popen(
            ["ip", "netns", "exec", link.namespace, *command], cwd=PROJECT, stdout=subprocess.PIPE, text=True
        ) as victim:
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
