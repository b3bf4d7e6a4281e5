"""The daemon under a service manager: the test holds the listening sockets and hears what systemd would."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import RawClient
from tests.e2e.daemons import STOP_TIMEOUT_S, DaemonProcess, eventually, serving
from tests.server.manager import Manager, says

SIMULATE = ("--simulate", "--listen")
IDLE = "STATUS=LPT1: free, 0 waiting, 0 sessions"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix socket has 107 bytes at the most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager


@contextlib.contextmanager
def listening(path: Path | None = None) -> Iterator[socket.socket]:
    """What a socket unit holds: on a free TCP port, or at a path."""
    with socket.socket(socket.AF_UNIX) if path is not None else socket.create_server(("127.0.0.1", 0)) as sock:
        if path is not None:
            sock.bind(str(path))
            sock.listen(64)
        yield sock


# States


@pytest.mark.parametrize("is_abstract", [False, True])
def test_ready_comes_when_clients_can_connect_and_stopping_when_they_leave(folder: Path, is_abstract: bool) -> None:
    with Manager(is_abstract=is_abstract) as manager:
        unix = f"lpt+unix://{folder}/s"
        daemon = DaemonProcess(*SIMULATE, unix, environment={"NOTIFY_SOCKET": manager.address})
        try:
            assert manager.wait_for(says("READY=1")) == [["READY=1", IDLE]]
            client = RawClient(f"{folder}/s").hello(client="EEG")
            client.allocate()
            seen = manager.wait_for(lambda message: message[1].startswith("STATUS=LPT1: owned by 'EEG'"))
            assert len(seen) <= 2
            daemon.signal(signal.SIGTERM)
            assert manager.wait_for(says("STOPPING=1"))[0][0].startswith("EXTEND_TIMEOUT_USEC=")
            client.close()
            assert daemon.process.wait(STOP_TIMEOUT_S) == 0
        finally:
            daemon.kill()


def test_a_reload_begins_and_ends(manager: Manager, tmp_path: Path) -> None:
    path = tmp_path / "lptd.toml"
    path.write_text('[server]\nlisten = ["lpt://127.0.0.1:0"]\n')
    with serving("--config", str(path), environment={"NOTIFY_SOCKET": manager.address}) as daemon:
        manager.wait_for(says("READY=1"))
        before_us = time.monotonic_ns() // 1000
        daemon.signal(signal.SIGHUP)
        (began, monotonic), *_, ended = manager.wait_for(says(IDLE))
        assert (began, ended) == ("RELOADING=1", ["READY=1", IDLE])
        assert before_us <= int(monotonic.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        path.write_text("nonsense")
        daemon.signal(signal.SIGHUP)
        refused = manager.wait_for(says("READY=1"))
        assert refused[-1][1].startswith("STATUS=the last reload was refused, see the log; LPT1: free")


# Signs of life


def test_signs_of_life_stop_when_the_daemon_does(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
    with serving(*SIMULATE, "lpt://127.0.0.1:0", environment=environment) as daemon:
        for _ in range(5):
            manager.wait_for(says("WATCHDOG=1"))
        daemon.signal(signal.SIGSTOP)
        eventually(lambda: Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        manager.heard()
        time.sleep(0.5)
        assert manager.heard() == []
        daemon.signal(signal.SIGCONT)
        manager.wait_for(says("WATCHDOG=1"))


def test_there_are_none_for_another_process(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}
    with serving(*SIMULATE, "lpt://127.0.0.1:0", environment=environment):
        time.sleep(0.3)
        assert ["WATCHDOG=1"] not in manager.heard()


def test_a_daemon_that_is_aborted_says_where_it_was() -> None:
    """As systemd does when signs of life stay away."""
    daemon = DaemonProcess(*SIMULATE, "lpt://127.0.0.1:0")
    try:
        daemon.wait_until_ready()
        daemon.signal(signal.SIGABRT)
        assert daemon.process.wait(STOP_TIMEOUT_S) == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in daemon.log()
        assert "lpt_service/cli.py" in daemon.log()
    finally:
        daemon.kill()


# Sockets


def test_the_first_client_of_a_cold_daemon_gets_its_answer(manager: Manager, folder: Path) -> None:
    """It has connected, and asked, before the daemon was started because of it."""
    with listening(folder / "s") as unix, listening() as tcp:
        clients = [RawClient(f"{folder}/s"), RawClient(tcp.getsockname())]
        hellos = [client.request("hello", {"protocol": 1}) for client in clients]
        environment = {"NOTIFY_SOCKET": manager.address}
        host, port = tcp.getsockname()
        with serving(
            *SIMULATE, f"lpt://{host}:{port}", sockets=(unix, tcp), environment=environment, lines=2
        ) as daemon:
            assert daemon.lines == [
                f"listening on lpt+unix://{folder}/s#LPT1",
                f"listening on lpt://{host}:{port}/LPT1",
            ]
            for client, msgid in zip(clients, hellos, strict=True):
                assert client.reply(msgid)["port"] == "LPT1"
                client.close()
        assert os.listdir(folder) == ["s"], "the file is the socket unit's"


def test_what_is_configured_besides_is_added(folder: Path) -> None:
    with (
        listening() as tcp,
        serving(*SIMULATE, f"lpt+unix://{folder}/s", sockets=(tcp,), lines=2) as daemon,
    ):
        assert daemon.addresses == [tcp.getsockname(), f"{folder}/s"]
        for address in daemon.addresses:
            RawClient(address).hello().close()


class Crowd(threading.Thread):
    """Clients that come and go without a pause, one after the other, until `is_over` is set.

    Attributes:
        answered: how many hellos were answered.
        refused: why somebody could not connect; then nobody comes any more.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__()
        self.answered = 0
        self.refused: OSError | None = None
        self.is_over = threading.Event()
        self._address = address

    def run(self) -> None:
        while not self.is_over.is_set():
            try:
                client = RawClient(self._address)
            except OSError as exc:
                self.refused = exc
                return
            with contextlib.suppress(EOFError, OSError):  # the daemon may stop in the middle
                client.hello()
                self.answered += 1
            client.close()


def test_nobody_is_refused_while_the_daemon_restarts() -> None:
    """The listening socket is kept, as systemd keeps it."""
    with listening() as tcp:
        host, port = tcp.getsockname()
        crowd = Crowd((host, port))
        crowd.start()
        try:
            for least in (5, 10, 15):
                with serving(*SIMULATE, f"lpt://{host}:{port}", sockets=(tcp,)):
                    eventually(lambda least=least: crowd.answered >= least)  # type: ignore[misc]
            crowd.is_over.set()
            refused = crowd.refused
        finally:
            crowd.is_over.set()
            tcp.close()
            crowd.join()
    assert refused is None


def test_a_client_that_comes_between_two_daemons_waits_and_is_served(folder: Path) -> None:
    with listening(folder / "s") as unix:
        url = f"lpt+unix://{folder}/s"
        with serving(*SIMULATE, url, sockets=(unix,)) as daemon:
            daemon.connect().close()
        client = RawClient(f"{folder}/s")
        msgid = client.request("hello", {"protocol": 1})
        with serving(*SIMULATE, url, sockets=(unix,)):
            assert client.reply(msgid)["port"] == "LPT1"
            client.close()


def test_a_descriptor_that_is_no_listener_is_one_line() -> None:
    with socket.socket() as idle:
        daemon = DaemonProcess(*SIMULATE, "lpt://127.0.0.1:0", sockets=(idle,))
        try:
            assert daemon.process.wait(STOP_TIMEOUT_S) == 1
            (line,) = daemon.log().splitlines()
            assert line.startswith("lptd: descriptor 3 (lptd), which systemd hands in, is no listening stream socket")
        finally:
            daemon.kill()


# The journal


def test_connected_to_the_journal_an_error_is_told_as_one(tmp_path: Path) -> None:
    """The journal reads the priority before a line. The daemon's records go to its socket, if there is one."""
    daemon = DaemonProcess("--config", str(tmp_path / "no.toml"), is_journal=True)
    try:
        assert daemon.process.wait(STOP_TIMEOUT_S) == 2
        assert daemon.log() == f"<3>lptd: {tmp_path}/no.toml: cannot be read: No such file or directory\n"
    finally:
        daemon.kill()
