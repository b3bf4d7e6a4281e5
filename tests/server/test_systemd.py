"""What systemd hands over, and how it is told: with a notification socket and descriptors of the test's."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpt_service.server.systemd import Handover, HandoverError, Notifier, take_over
from tests.server.manager import Manager

# Notifying


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_message_is_one_datagram_of_lines(is_abstract: bool) -> None:
    with Manager(is_abstract=is_abstract) as manager:
        notifier = Notifier(manager.address)
        assert notifier.is_heard
        assert notifier.notify("READY=1", "STATUS=port LPT1: frei für alle")
        assert manager.heard() == [["READY=1", "STATUS=port LPT1: frei für alle"]]
        notifier.close()
        assert not notifier.notify("READY=1")
        assert manager.heard() == []


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\x0b", "\u2028"])
def test_a_line_break_in_a_value_makes_no_assignment(manager: Manager, line_break: str) -> None:
    notifier = Notifier(manager.address)
    notifier.notify("READY=1", f"STATUS=owned by{line_break}MAINPID=1")
    notifier.close()
    assert manager.heard() == [["READY=1", "STATUS=owned by MAINPID=1"]]


def test_a_value_that_is_no_unicode_is_sent_all_the_same(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    assert notifier.notify("STATUS=\udcff")
    notifier.close()
    assert manager.heard() == [["STATUS=?"]]


def test_without_a_service_manager_it_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier()
    assert not notifier.is_heard
    assert not notifier.notify("READY=1")
    assert (notifier.failures, caplog.records) == (0, [])
    notifier.close()


def test_a_service_manager_that_is_gone_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with Manager() as manager:
        notifier = Notifier(manager.address)
    for _ in range(3):
        assert not notifier.notify("READY=1")
    assert notifier.failures == 3
    assert len(caplog.records) == 1
    assert "systemd does not hear" in caplog.text
    notifier.close()


def test_a_service_manager_that_does_not_read_is_not_waited_for(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    while notifier.notify("WATCHDOG=1"):
        pass
    assert notifier.failures == 1
    assert manager.heard()
    assert notifier.notify("WATCHDOG=1")
    notifier.close()


# What is handed over


def listening_socket(folder: Path | None = None) -> socket.socket:
    if folder is None:
        return socket.create_server(("127.0.0.1", 0))
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(folder / "s"))
    sock.listen()
    return sock


def handed(*sockets: socket.socket, names: str = "", pid: int | None = None) -> tuple[dict[str, str], int]:
    """An environment and the first descriptor: copies of `sockets`, one after the other, inheritable as by exec."""
    first = 200
    for number, sock in enumerate(sockets):
        os.dup2(sock.fileno(), first + number, inheritable=True)
    pid = os.getpid() if pid is None else pid
    return {"LISTEN_PID": str(pid), "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names, "HOME": "/"}, first


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_outside_systemd_nothing_is_handed_over() -> None:
    environ = {"HOME": "/"}
    handover = take_over(environ)
    assert handover.sockets == ()
    assert not handover.notifier.is_heard
    assert (handover.watchdog_s, handover.state_directory) == (None, None)
    assert environ == {"HOME": "/"}
    assert Handover().sockets == ()


def test_sockets_are_taken_in_order_and_are_nobody_else_s() -> None:
    with tempfile.TemporaryDirectory() as name, listening_socket() as tcp, listening_socket(Path(name)) as unix:
        environ, first = handed(tcp, unix, names="lptd:lptd")
        handover = take_over(environ, first)
        assert [each.getsockname() for each in handover.sockets] == [tcp.getsockname(), f"{name}/s"]
        assert [each.fileno() for each in handover.sockets] == [first, first + 1]
        assert not any(each.get_inheritable() for each in handover.sockets)
        assert environ == {"HOME": "/"}
        for each in handover.sockets:
            each.close()


def test_what_is_meant_for_another_process_is_left_alone() -> None:
    with listening_socket() as sock:
        environ, first = handed(sock, pid=os.getpid() + 1)
        environ |= {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
        handover = take_over(environ, first)
        assert (handover.sockets, handover.watchdog_s) == ((), None)
        assert environ == {"HOME": "/"}
        assert is_open(first)
        os.close(first)


def test_what_is_no_listening_socket_is_refused_with_its_name() -> None:
    connected, peer = socket.socketpair()
    with socket.socket() as idle, listening_socket() as good, connected, peer:
        for bad in (idle, connected):
            environ, first = handed(good, bad, names="good:bad")
            with pytest.raises(HandoverError, match=r"descriptor 201 \(bad\).*Accept=no"):
                take_over(environ, first)
            assert not is_open(first)
            assert not is_open(first + 1)


def test_a_socket_of_another_kind_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0lptd-test-" + str(os.getpid()))
        abstract.listen()
        for bad, said in ((datagrams, "no listening stream socket"), (abstract, "has no path")):
            environ, first = handed(bad)
            with pytest.raises(HandoverError, match=said):
                take_over(environ, first)
        with (tmp_path / "file").open("w") as file:
            os.dup2(file.fileno(), 200)
            with pytest.raises(HandoverError, match="is no socket"):
                take_over({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}, 200)
            os.close(200)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LISTEN_FDS": "many"}, "LISTEN_FDS=many"),
        ({"LISTEN_FDS": "65"}, "64 is the limit"),
        ({"WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC=soon"),
    ],
)
def test_nonsense_is_refused(variables: dict[str, str], said: str) -> None:
    with pytest.raises(HandoverError, match=said):
        take_over({"LISTEN_PID": str(os.getpid()), **variables})


@pytest.mark.parametrize(
    ("usec", "pid", "watchdog_s"),
    [("15000000", "", 15.0), ("15000000", "me", 15.0), ("15000000", "1", None), ("0", "", None)],
)
def test_the_watchdog(usec: str, pid: str, watchdog_s: float | None) -> None:
    pid = str(os.getpid()) if pid == "me" else pid
    assert take_over({"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}).watchdog_s == watchdog_s


def test_the_first_state_directory_is_ours() -> None:
    assert take_over({"STATE_DIRECTORY": "/var/lib/lptd:/var/lib/other"}).state_directory == Path("/var/lib/lptd")
