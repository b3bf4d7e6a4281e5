"""A daemon without descriptors: it lets nobody in, and serves those who are inside.

See also tests/e2e/test_lifecycle.py (once) and tests/server/test_listeners.py (every reason, on a virtual clock).
"""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from tests.chaos.processes import usage
from tests.e2e.client import ALLOCATE, FREE, Account, RawClient
from tests.e2e.daemons import DaemonProcess, eventually, is_clean, serving

pytestmark = pytest.mark.timeout(300)

CONFIG = '[server]\nlisten = ["lpt://127.0.0.1:0"]\nlog_level = "info"\n[[port]]\nenable_connect_interrupt = true\n'
SPARE = 4
KNOCKING = 40
ROUNDS = 2


def limit(daemon: DaemonProcess, descriptors: int) -> None:
    """The soft limit alone: to raise the hard one again would need a privilege."""
    _, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def serve_the_inside(owner: RawClient, waiter: RawClient, listener: RawClient, account: Account) -> None:
    """A hand-over, interrupts, a status: all that needs no descriptor."""
    owner.allocate()
    msgid = waiter.control(ALLOCATE)
    waiter.notification("queued")
    owner.raise_interrupts(5)
    owner.ioctl(FREE)
    waiter.output(msgid)
    waiter.write(b"\x00", 0x55)
    assert owner.read(b"\x00") == 0x55
    waiter.ioctl(FREE)
    assert account.add(listener.heard()).lost == 0
    assert listener.call("status")["registered"] == 1


def test_out_of_descriptors_again_and_again(tmp_path: Path) -> None:
    """Who knocks meanwhile waits in the kernel, and is served once there is room, without knocking again."""
    path = tmp_path / "lptd.toml"
    path.write_text(CONFIG)
    with serving("--config", str(path)) as daemon:
        owner, waiter, listener = (daemon.connect(client=name) for name in ("owner", "waiter", "listener"))
        first = listener.connect_interrupt()
        account = Account()
        before = usage(daemon.process.pid)
        room = before.descriptors + SPARE
        for number in range(1, ROUNDS + 1):
            limit(daemon, room)
            knocking = [RawClient(daemon.address) for _ in range(KNOCKING)]
            for client in knocking:
                client.request("hello", {"protocol": 1})
            eventually(lambda number=number: daemon.log().count("accepting pauses") == number)  # type: ignore[misc]
            serve_the_inside(owner, waiter, listener, account)
            assert daemon.descriptors() <= room
            # No room even to read the file: the old settings stay.
            daemon.signal(signal.SIGHUP)
            eventually(lambda number=number: daemon.log().count("reload refused") == number)  # type: ignore[misc]
            serve_the_inside(owner, waiter, listener, account)

            limit(daemon, 1024)
            for client in knocking:
                assert client.reply(1)["port"] == "LPT1", "who waited in the kernel is served"
                client.close()
            assert daemon.log().count("accepting again") == number
            eventually(lambda: bool(listener.call("status")["sessions"] == 3))
        eventually(lambda: usage(daemon.process.pid).descriptors == before.descriptors, "descriptors are left")
        end = listener.disconnect_interrupt()
        account.add(listener.heard())
        assert account.received == end - first == 2 * 5 * ROUNDS
        for client in (owner, waiter, listener):
            client.close()
        eventually(lambda: is_clean(daemon.status()))


def test_a_descriptor_for_one_at_a_time(tmp_path: Path) -> None:
    """As little room as there can be: clients come and go one after the other, and each is served in its turn."""
    path = tmp_path / "lptd.toml"
    path.write_text(CONFIG)
    with serving("--config", str(path)) as daemon:
        only = daemon.connect()
        limit(daemon, daemon.descriptors())
        only.close()
        clients = [RawClient(daemon.address) for _ in range(3)]
        for client in clients:
            client.request("hello", {"protocol": 1})
        for client in clients:
            client.reply(1)
            client.allocate(timeout_ms=0)
            client.close()
        limit(daemon, 1024)
        eventually(lambda: is_clean(daemon.status()))
