"""Start, stop, restart: with clients connected, in the middle of things, after a crash."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.client import ALLOCATE, PULSE, STOPPED, Account, RawClient, pulse
from tests.e2e.daemons import PROJECT, STOP_TIMEOUT_S, DaemonProcess, eventually, serving

SIMULATE = ("--simulate", "--listen")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix socket has 107 bytes at the most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_in_the_middle_of_everything(number: signal.Signals) -> None:
    """A pulse, waiters, listeners, one who has not said hello: each is told, and then the stream ends. Exit code 0."""
    with serving(*SIMULATE, "lpt://127.0.0.1:0", "--pulse-hz", "500") as daemon:
        owner, waiter, listener = (daemon.connect() for _ in range(3))
        stranger = RawClient(daemon.address)
        owner.allocate()
        waiting = waiter.control(ALLOCATE)
        waiter.notification("queued")
        first = listener.connect_interrupt()
        pulsing = owner.control(PULSE, pulse(1, 2, 10_000_000), 16)
        owner.heard()
        daemon.signal(number)
        messages = {client: client.rest() for client in (owner, waiter, listener, stranger)}
        for client in messages:
            client.close()
        assert daemon.process.wait(STOP_TIMEOUT_S) == 0
    for heard in messages.values():
        assert heard[-1][:2] == [2, "closing"]
        assert [message[1] for message in heard].count("closing") == 1
    for client, msgid in ((owner, pulsing), (waiter, waiting)):
        (reply,) = (message for message in messages[client] if message[0] == 1)
        assert reply[1] == msgid
        assert reply[2][1] == "STATUS_CANCELLED"
    account = Account().add(messages[listener])
    assert account.kinds[-1] == STOPPED
    assert account.lost == 0
    assert first >= 0


def test_stop_again_and_again(folder: Path) -> None:
    """Signals that come while it stops change nothing."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with serving(*SIMULATE, "lpt://127.0.0.1:0") as daemon:
        client = daemon.connect()
        for number in numbers:
            daemon.signal(number)
        assert [message[1] for message in client.rest()] == ["closing"]
        client.close()
        assert daemon.process.wait(STOP_TIMEOUT_S) == 0


def test_stop_leaves_by_its_deadline_though_a_client_reads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lptd.toml"
    path.write_text('[server]\nlisten = ["lpt://127.0.0.1:0"]\nstop_timeout_s = 0.3\n')
    with serving("--config", str(path)) as daemon:
        deaf = daemon.connect()
        deaf.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            fill(deaf)
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(STOP_TIMEOUT_S) == 0
        deaf.close()


def fill(client: RawClient) -> None:
    """Ask and never read, until nothing more is taken."""
    while True:
        client.send(*([0, 1, "status", []] for _ in range(1000)))


@pytest.mark.parametrize("redirection", [">&-", "| true"], ids=["closed", "a pipe without a reader"])
def test_a_daemon_whose_standard_output_nobody_reads_serves_all_the_same(folder: Path, redirection: str) -> None:
    serve = [sys.executable, "-m", "lpt_service", "serve", *SIMULATE, f"lpt+unix://{folder}/s"]
    script = f'{{ "$@"; echo "exit code $?" >&2; }} {redirection}'
    with subprocess.Popen(
        ["sh", "-c", script, "sh", *serve], cwd=PROJECT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as shell:
        try:
            eventually(lambda: is_served(f"{folder}/s"))
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{folder}/s")
                daemon_pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            os.kill(daemon_pid, signal.SIGTERM)
            _, log = shell.communicate(timeout=STOP_TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    assert log.splitlines()[-1] == "exit code 0"
    assert "Traceback" not in log
    assert "BrokenPipe" not in log


def is_served(path: str) -> bool:
    try:
        RawClient(path).hello().close()
    except OSError:
        return False
    return True


def test_restart_with_clients_connected(folder: Path) -> None:
    """They are told, they come back, nothing hangs; the log is another one; grants have grown."""
    url = f"lpt+unix://{folder}/s"
    streams, grants = set(), []
    for _ in range(2):
        with serving(*SIMULATE, url) as daemon:
            assert daemon.lines == [f"listening on {url}#LPT1"]
            client, listener = daemon.connect(), daemon.connect()
            streams.add(client.welcome["stream"])
            grants.append(client.allocate())
            listener.connect_interrupt()
            daemon.signal(signal.SIGTERM)
            assert client.rest()[-1][:2] == [2, "closing"]
            assert listener.rest()[-1][:2] == [2, "closing"]
            client.close()
            listener.close()
            assert daemon.process.wait(STOP_TIMEOUT_S) == 0
            assert list(folder.iterdir()) == []
    assert len(streams) == 2
    assert grants[0] < grants[1]


def test_resuming_in_the_log_of_a_daemon_that_is_gone(folder: Path) -> None:
    """`from` of an earlier stream: restarted, loss unknown."""
    url = f"lpt+unix://{folder}/s"
    with serving(*SIMULATE, url) as daemon:
        client = daemon.connect()
        earlier = [client.welcome["stream"], client.connect_interrupt()]
        client.close()
    with serving(*SIMULATE, url) as daemon:
        client = daemon.connect()
        first = client.connect_interrupt(from_=earlier)
        assert client.notification("interrupt_sync") == ["restarted", first, None]
        client.close()


def test_a_second_start_on_the_socket_of_a_daemon_that_was_killed(folder: Path) -> None:
    url = f"lpt+unix://{folder}/s"
    with serving(*SIMULATE, url) as daemon:
        client = daemon.connect()
        daemon.signal(signal.SIGKILL)
        assert client.rest() == []
        client.close()
        assert daemon.process.wait(STOP_TIMEOUT_S) == -signal.SIGKILL
    assert [path.name for path in folder.iterdir()] == ["s"]
    with serving(*SIMULATE, url) as daemon:
        daemon.connect().close()


def test_a_second_daemon_on_a_socket_in_use_says_so_and_disturbs_nobody(folder: Path) -> None:
    url = f"lpt+unix://{folder}/s"
    with serving(*SIMULATE, url) as daemon:
        client = daemon.connect()
        second = DaemonProcess(*SIMULATE, url)
        assert second.process.wait(STOP_TIMEOUT_S) == 1
        assert second.log() == (
            f"lptd: server.listen[0]: cannot listen on {url}: the address is in use (is another lptd running?)\n"
        )
        second.kill()
        client.call("ping")
        daemon.connect().close()
        client.close()


def test_tcp_and_unix_at_once(folder: Path) -> None:
    """One port, whichever way a client comes; on Unix sockets the peer is a user and a process."""
    unix = f"lpt+unix://{folder}/s"
    with serving(*SIMULATE, "lpt://127.0.0.1:0", "--listen", unix, lines=2) as daemon:
        over_tcp, over_unix = (RawClient(address).hello() for address in daemon.addresses)
        over_tcp.allocate()
        over_unix.control(ALLOCATE)
        assert over_unix.notification("queued")[1] == 1
        report = over_unix.call("status")
        assert report["owner"]["peer"].startswith("127.0.0.1:")
        assert report["waiters"][0]["peer"].startswith("uid ")
        over_tcp.close()
        over_unix.close()


def test_out_of_descriptors_accepting_pauses_and_goes_on() -> None:
    """Those who come wait in the kernel; those who are here notice nothing."""
    with serving(*SIMULATE, "lpt://127.0.0.1:0") as daemon:
        first = daemon.connect()
        limit = daemon.descriptors() + 5
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        others = [RawClient(daemon.address) for _ in range(10)]
        eventually(lambda: bool(first.call("ping")) and "accepting pauses" in daemon.log())
        for client in others:
            client.close()
        late = daemon.connect()
        assert "accepting again" in daemon.log()
        late.close()
        first.close()
