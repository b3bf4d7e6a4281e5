"""Where clients come in: real sockets, and the ways in which they fail."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.server import listener_set
from lpt_service.server import listeners as module
from lpt_service.server.addresses import Address, bind
from lpt_service.server.listener_set import ListenError, ListenerSet
from lpt_service.server.listeners import Listener
from tests.server.fakes import BOUND_S, prepare, until

QUIET_HOSTS = ["127.7.7.2", "127.7.7.3"]  # of this test alone: what is free on one is free on the other


@pytest.fixture(autouse=True)
def names_may_take_long() -> Iterator[None]:
    """On a busy machine. None takes really long here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener_set, "RESOLVE_TIMEOUT_S", BOUND_S)
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix socket has 107 bytes at the most."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


async def open_listeners(text: str) -> ListenerSet:
    listeners = ListenerSet()
    listeners.commit(await prepare(listeners, [text]))
    return listeners


@contextlib.asynccontextmanager
async def listening(text: str) -> AsyncIterator[list[Listener]]:
    listeners = await open_listeners(text)
    try:
        yield list(listeners)
    finally:
        listeners.close()


class FailingSocket(socket.socket):
    """A listening socket whose next accepts fail."""

    failures: list[int]
    before_accept: Callable[[], None] | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        if self.before_accept is not None:
            self.before_accept()
        if self.failures:
            code = self.failures.pop(0)
            raise OSError(code, os.strerror(code))
        return super().accept()


@pytest.fixture
def failing() -> Iterator[FailingSocket]:
    with FailingSocket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.failures = []
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def listener_on(sock: socket.socket) -> Listener:
    return Listener(sock)


# TCP


async def test_a_free_tcp_port_is_picked_and_told(nursery: trio.Nursery) -> None:
    async with listening("lpt://127.0.0.1:0") as (listener,):
        assert listener.url.tcp_port != 0
        accepted: list[socket.socket] = []
        nursery.start_soon(listener.accept_forever, accepted.append)
        clients = [socket.create_connection((listener.url.host, listener.url.tcp_port)) for _ in range(50)]
        await until(lambda: len(accepted) == len(clients))
        names = {sock.getpeername() for sock in accepted}
        assert names == {client.getsockname() for client in clients}
        for sock in (*accepted, *clients):
            sock.close()


async def test_a_name_with_several_addresses_gets_a_listener_on_each_with_one_tcp_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in QUIET_HOSTS]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [*answers, answers[0]])
    async with listening("lpt://both.example:0") as listeners:
        assert [listener.url.host for listener in listeners] == QUIET_HOSTS
        assert len({listener.url.tcp_port for listener in listeners}) == 1


@pytest.mark.parametrize("times", [1, 15])
async def test_a_tcp_port_that_is_free_at_the_first_address_alone_is_given_back(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another is picked, until one is free at all of them."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in QUIET_HOSTS]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answers)
    with contextlib.ExitStack() as taken:

        def bind_late(address: Address, *, shared: bool = False) -> socket.socket:
            nonlocal times
            if address.host == QUIET_HOSTS[1] and times:
                times -= 1
                taken.enter_context(socket.create_server((QUIET_HOSTS[1], address.tcp_port)))
            return bind(address, shared=shared)

        monkeypatch.setattr(listener_set, "bind", bind_late)
        async with listening("lpt://both.example:0") as listeners:
            assert [listener.url.host for listener in listeners] == QUIET_HOSTS
            assert len({listener.url.tcp_port for listener in listeners}) == 1
    assert times == 0


async def test_an_address_that_the_machine_has_not_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` often stands for ::1 where there is no IPv6. 192.0.2.1 is nobody's."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answers)
    async with listening("lpt://both.example:0") as listeners:
        assert [listener.url.host for listener in listeners] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lpt://192.0.2.1:0", "cannot listen on lpt://192.0.2.1:0: Cannot assign requested address"),
        ("lpt://no.such.host.invalid:0", "cannot listen on lpt://no.such.host.invalid:0: "),
        ("lpt://[fe80::1%nowhere]:0", "there is no interface nowhere (`ip link` lists them)"),
        ("lpt+unix:///no/such/folder/s", "cannot listen on lpt+unix:///no/such/folder/s: the socket's folder does not"),
        ("lpt+unix:///tmp/" + "x" * 200, "AF_UNIX path too long"),
    ],
)
async def test_what_cannot_be_listened_on_is_said(text: str, said: str) -> None:
    with pytest.raises(ListenError) as caught:
        await open_listeners(text)
    assert str(caught.value).startswith("server.listen[0]: cannot listen on lpt")
    assert said in str(caught.value)


async def test_a_tcp_port_in_use_is_said() -> None:
    async with listening("lpt://127.0.0.1:0") as (first,):
        with pytest.raises(ListenError, match="the address is in use"):
            await open_listeners(str(first.url))


async def test_a_name_is_listened_on_as_a_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(f"lpt://{QUIET_HOSTS[1]}:0") as (taken,):
        port = taken.url.tcp_port
        answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in QUIET_HOSTS]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answers)
        with pytest.raises(ListenError):
            await open_listeners(f"lpt://both.example:{port}")
        with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect((QUIET_HOSTS[0], port))


async def test_ipv6_is_bracketed_in_the_url() -> None:
    try:
        listeners = await open_listeners("lpt://[::1]:0")
    except ListenError:
        pytest.skip("no IPv6 here")
    (listener,) = listeners
    assert str(listener.url).startswith("lpt://[::1]:")
    listeners.close()


# Unix sockets


async def test_a_unix_socket_is_for_owner_and_group_and_goes_when_closed(folder: Path) -> None:
    path = folder / "s"
    async with listening(f"lpt+unix://{path}"):
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    async with listening(f"lpt+unix://{path}"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


async def test_a_unix_socket_that_somebody_listens_on_is_left_alone(folder: Path) -> None:
    path = folder / "s"
    async with listening(f"lpt+unix://{path}"):
        with pytest.raises(ListenError, match="the address is in use"):
            await open_listeners(f"lpt+unix://{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


async def test_a_file_that_is_no_socket_is_left_alone(folder: Path) -> None:
    path = folder / "s"
    path.write_text("precious")
    with pytest.raises(ListenError):
        await open_listeners(f"lpt+unix://{path}")
    assert path.read_text() == "precious"


async def test_closing_minds_a_socket_file_that_is_gone(folder: Path) -> None:
    async with listening(f"lpt+unix://{folder}/s") as (listener,):
        (folder / "s").unlink()
        listener.close()
        listener.close()


async def test_closing_minds_a_socket_file_that_may_not_be_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon has to go on stopping."""

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    async with listening(f"lpt+unix://{folder}/s") as (listener,):
        monkeypatch.setattr(os, "unlink", refuse)
        listener.close()
    assert "the socket's file is left behind: Permission denied" in caplog.text


async def test_the_socket_file_goes_before_the_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that starts in between would take it for stale, and lose its own to this one's removal."""
    unlink, answered = os.unlink, []

    def look_and_unlink(path: str) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            answered.append(client.connect_ex(path))
        unlink(path)

    async with listening(f"lpt+unix://{folder}/s") as (listener,):
        monkeypatch.setattr(os, "unlink", look_and_unlink)
        listener.close()
    assert answered == [0]


# Accepting


@pytest.mark.parametrize("code", sorted((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)))
async def test_out_of_resources_accepting_pauses_and_goes_on(
    failing: FailingSocket,
    code: int,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing.failures = [code] * 5
    accepted: list[socket.socket] = []
    with socket.create_connection(failing.getsockname()):
        await trio.lowlevel.wait_readable(failing)  # before the virtual time begins to run
        nursery.start_soon(listener_on(failing).accept_forever, accepted.append)
        await trio.sleep(4.5 * module._OUT_OF_RESOURCES_PAUSE_S)
        assert accepted == []
        await trio.sleep(module._OUT_OF_RESOURCES_PAUSE_S)
        assert len(accepted) == 1
        accepted[0].close()
    said = [record.getMessage().split(": ", 1)[1] for record in caplog.records]
    assert said == [f"accepting pauses: {os.strerror(code)}", "accepting again"], "once each, however long it lasts"


@pytest.mark.parametrize("code", sorted(module._CONNECTION_FAILED))
async def test_a_connection_that_is_gone_before_it_is_accepted_is_skipped(
    failing: FailingSocket, code: int, nursery: trio.Nursery
) -> None:
    failing.failures = [code, code]
    accepted: list[socket.socket] = []
    nursery.start_soon(listener_on(failing).accept_forever, accepted.append)
    with socket.create_connection(failing.getsockname()):
        await until(lambda: bool(accepted))
        accepted[0].close()


async def test_another_failure_is_raised(failing: FailingSocket) -> None:
    failing.failures = [errno.EINVAL]
    with socket.create_connection(failing.getsockname()), pytest.raises(OSError, match="Invalid argument"):
        await listener_on(failing).accept_forever(lambda sock: None)


async def test_closing_ends_accepting(failing: FailingSocket, nursery: trio.Nursery) -> None:
    listener = listener_on(failing)
    async with trio.open_nursery() as accepting:
        accepting.start_soon(listener.accept_forever, lambda sock: None)
        await wait_all_tasks_blocked()
        listener.close()


async def test_closing_ends_accepting_that_pauses(
    failing: FailingSocket, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    failing.failures = [errno.EMFILE] * 1000
    listener = listener_on(failing)
    with socket.create_connection(failing.getsockname()):
        await trio.lowlevel.wait_readable(failing)
        async with trio.open_nursery() as accepting:
            accepting.start_soon(listener.accept_forever, lambda sock: None)
            await trio.sleep(1)
            listener.close()
    assert trio.current_time() < 2


async def test_closing_in_the_moment_in_which_somebody_comes(failing: FailingSocket) -> None:
    """The task has been told that somebody is there; when it looks, the socket is closed."""
    listener = listener_on(failing)
    failing.before_accept = listener.close
    with socket.create_connection(failing.getsockname()):
        await listener.accept_forever(lambda sock: None)
    assert failing.fileno() == -1
