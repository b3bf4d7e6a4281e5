"""One session that does not read, floods, or pipelines without end: it delays nobody and grows no memory.

Bounds are in bytes and in the order of events, never in time.
"""

from __future__ import annotations

import fcntl
import itertools
import socket
import struct
import tempfile
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from tests.e2e.client import DATA, INTERNAL, READ_PORT_UCHAR, Account, RawClient
from tests.e2e.conftest import Connect, Witness
from tests.e2e.daemons import DaemonProcess, eventually, serving

MIB = 1024 * 1024
LOG_FRAMES = 50
READ = msgpack.packb([0, 1, INTERNAL, [READ_PORT_UCHAR, DATA, 1]])
STATUS = msgpack.packb([0, 1, "status", []])


def push(client: RawClient, frame: bytes, at_most: int) -> int:
    """Send without reading until nothing more is taken for a while; how many bytes went."""
    client.socket.settimeout(0.1)
    sent, blob = 0, frame * (65536 // len(frame))
    try:
        while sent < at_most:
            sent += client.socket.send(blob)
    except TimeoutError:
        pass
    return sent


def unread_bytes(client: RawClient) -> int:
    """What lies in a client's socket."""
    (count,) = struct.unpack("i", fcntl.ioctl(client.socket, termios.FIONREAD, bytes(4)))
    return int(count)


@pytest.mark.parametrize("frame", [READ, STATUS], ids=["small replies", "large replies"])
def test_a_client_that_does_not_read_is_not_read_from(
    connect: Connect, witness: Witness, daemon: DaemonProcess, frame: bytes
) -> None:
    """The daemon does a few thousand of its requests, until replies wait in every buffer, and then no more."""
    before, requests_before = daemon.rss_bytes(), daemon.status()["counters"]["requests"]
    deaf = [connect() for _ in range(4)]
    for client in deaf:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert push(client, frame, 64 * MIB) < 32 * MIB, "it reads on and on"
        witness.client.call("ping")
    daemon.wait_until_idle()
    assert daemon.status()["counters"]["requests"] - requests_before < 4 * MIB // len(READ)
    assert daemon.rss_bytes() - before < 16 * MIB
    for client in deaf:
        client.reset()


def test_a_client_that_pipelines_without_end_has_one_turn_at_a_time(connect: Connect, witness: Witness) -> None:
    """Between two turns of another client at most a few turns of the greedy one's, of 64 requests, lie."""
    greedy, modest = connect(), connect()
    stop = threading.Event()

    def read_and_forget() -> None:
        while greedy.socket.recv(1 << 20):
            pass

    def flood() -> None:
        try:
            while not stop.is_set():
                greedy.socket.sendall(READ * 1000)
            greedy.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    rounds: list[list[int]] = []

    def was_flooded_meanwhile() -> bool:
        """Whether the greedy one had turns between the modest one's: while it is slow to read, it has none."""
        modest.send(*([0, 5000 + number, "status", []] for number in range(40)))
        rounds.append([modest.reply(5000 + number)["counters"]["requests"] for number in range(40)])
        return rounds[-1][0] < rounds[-1][-1]

    threads = [threading.Thread(target=run) for run in (read_and_forget, flood)]
    for thread in threads:
        thread.start()
    try:
        start = modest.call("status")["counters"]["requests"]
        eventually(lambda: bool(modest.call("status")["counters"]["requests"] > start + 2000))
        eventually(was_flooded_meanwhile)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    steps = [after - before for counts in rounds for before, after in itertools.pairwise(counts)]
    assert max(steps) <= 4 * 64, steps


@pytest.fixture(scope="module")
def pulsing() -> Iterator[DaemonProcess]:
    """A port that interrupts ten thousand times a second."""
    with serving("--simulate", "--listen", "lpt://127.0.0.1:0", "--pulse-hz", "10000") as daemon:
        yield daemon


def test_the_account_of_a_listener_that_stops_reading_and_goes_on(pulsing: DaemonProcess) -> None:
    """What was received and what was lost is what was generated; `status` says the same."""
    healthy = pulsing.connect()
    slow = RawClient(pulsing.address)
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.hello()
    first = {client: client.connect_interrupt() for client in (healthy, slow)}
    healthy_account, slow_account = Account(), Account()
    eventually(lambda: bool(healthy_account.add(healthy.heard()).received > 3000))
    slow_account.add(slow.heard())
    assert slow_account.lost == 0

    end = {client: client.disconnect_interrupt() for client in (healthy, slow)}
    for client, account in ((healthy, healthy_account), (slow, slow_account)):
        account.add(client.heard())
        assert account.received + account.lost == end[client] - first[client]
    assert healthy_account.lost == 0
    assert pulsing.status()["interrupts"]["generated"] == end[slow]
    healthy.close()
    slow.close()


def test_the_account_of_a_listener_that_is_overrun(tmp_path: Path) -> None:
    """A log of few entries, and a listener that reads nothing of it until the end. On a Unix socket: little fits in."""
    path = tmp_path / "lptd.toml"
    with tempfile.TemporaryDirectory() as folder:
        path.write_text(
            f'[server]\nlisten = ["lpt+unix://{folder}/s", "lpt://127.0.0.1:0"]\n'
            f"[[port]]\nenable_connect_interrupt = true\ninterrupt_log_frames = {LOG_FRAMES}\npulse_hz = 5000\n"
        )
        with serving("--config", str(path), lines=2) as daemon:
            slow, healthy = RawClient(daemon.addresses[0]).hello(), RawClient(daemon.addresses[1]).hello()
            accounts = {client: Account() for client in (slow, healthy)}
            first = {client: client.connect_interrupt() for client in accounts}
            progress = (0, 0)  # what lies in the slow one's socket; how many entries the other had heard by then

            def is_overrun() -> bool:
                """The socket takes no more, and the log has gone round since."""
                nonlocal progress
                heard, unread = len(accounts[healthy].add(healthy.heard()).kinds), unread_bytes(slow)
                if unread != progress[0]:
                    progress = unread, heard
                return heard > progress[1] + 2 * LOG_FRAMES

            eventually(is_overrun)
            end = {client: client.disconnect_interrupt() for client in accounts}
            for client, account in accounts.items():
                account.add(client.heard())
                assert account.received + account.lost == end[client] - first[client]
            assert accounts[slow].lost > 0
            assert accounts[slow].overruns > 0
            assert daemon.status()["counters"]["lost"] == sum(account.lost for account in accounts.values())
            slow.close()
            healthy.close()
