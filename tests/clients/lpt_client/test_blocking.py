"""The blocking client, over socket pairs: calls, ownership, Ctrl-C, the end of a connection, opening."""

# ruff: noqa: PT012 - what is tested is how blocks end, and in which order

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

import lpt_client
from lpt_client import blocking, operations
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.messages import Notification
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from tests.clients.blocking_harness import BOUND_S, Peer, interrupt_main, serving
from tests.clients.fake_daemon import GRANT, FakeDaemon, notice

ALLOCATE, FREE = "PARALLEL_PORT_ALLOCATE", "PARALLEL_PORT_FREE"
CONNECT = "PARALLEL_CONNECT_INTERRUPT"


def grant_of(port: blocking.Port) -> int | None:
    """Its grant, looked up anew (mypy takes an attribute for one that stays as it was)."""
    return port.grant


def test_the_vocabulary() -> None:
    with serving() as server, server.open_port() as port:
        assert port.session.session == 1
        assert str(port.url) == "lpt://daemon:5378/LPT1"
        assert port.is_connected
        assert port.ping() == (123, 456)
        assert port.status() == {"port": "LPT1"}
        assert port.port_info().Context == 4711
        assert port.waiters() == 2
        assert port.try_allocate() == port.grant == GRANT
        port.free()
        assert grant_of(port) is None
        assert port.allocate() == GRANT
        assert [port.read_data(), port.read_status(), port.read_control()] == [0x40, 0x41, 0x42]
        assert port.read(2) == 0x42
        assert port.write_data(0x55, grant=GRANT) == 99
        assert port.write_control(0x0C) == 99
        assert port.write(0, 1) == 99
        assert port.frob_control(4, 4) == 0x0C
        assert port.pulse(1, 0, width_us=10) == (1000, 3000)
        assert port.pulse(1, 0, width_us=9_000_000) == (1000, 3000)
        assert port.ioctl(0x162040, b"\0", 1, internal=False) == (1, b"\x40")
        daemon = server.peers[0].daemon
        daemon.answers["GET_MORE_PARALLEL_PORT_INFO"] = bytes(32)
        daemon.answers["GET_PARALLEL_PNP_INFO"] = bytes(112)
        assert port.more_port_info().InterruptVector == 0
        assert port.pnp_info().PortNumber == 0
        daemon.answers["TRY_ALLOCATE_PORT"] = bytes(16)
        assert port.try_allocate() is None


def test_it_has_what_the_trio_client_has() -> None:
    trio_port = {name for name in dir(lpt_client.Port) if not name.startswith("_")}
    blocking_port = {name for name in dir(blocking.Port) if not name.startswith("_")}
    assert blocking_port - trio_port == {"close", "poll"}
    assert trio_port - blocking_port == {"wait_lost"}


def test_a_block_owns_the_port_and_frees_it() -> None:
    with serving() as server, server.open_port() as port:
        with port.allocated(timeout=1.5) as grant:
            assert grant == port.grant == GRANT
        assert server.peers[0].daemon.names[-2:] == [ALLOCATE, FREE]
        assert server.peers[0].daemon.request(ALLOCATE).params[3] == {"timeout_ms": 1500}
        with pytest.raises(KeyError), port.allocated():
            raise KeyError
        assert server.peers[0].daemon.names.count(FREE) == 2
        with port.allocated():
            port.free()
        assert server.peers[0].daemon.names.count(FREE) == 3


def test_errors_carry_their_status() -> None:
    with serving() as server, server.open_port() as port:
        server.peers[0].daemon.answers["PULSE"] = RequestError(Status.STATUS_ACCESS_DENIED, "not yours")
        with pytest.raises(lpt_client.AccessDenied) as caught:
            port.pulse(1, width_us=10)
        assert caught.value.status == Status.STATUS_ACCESS_DENIED
        assert port.read_data() == 0x40


def test_places_in_the_queue() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[ALLOCATE] = None

        def play() -> None:
            msgid = peer.daemon.request(ALLOCATE).msgid
            peer.send(notice("queued", msgid, 2) + notice("queued", 9999, 7) + notice("waiters", 3))
            peer.send(notice("queued", msgid, 1) + peer.daemon.answer(ALLOCATE, U64.pack(GRANT)))

        peer.then[ALLOCATE] = play
        places: list[int] = []
        with port.allocated(on_queued=places.append):
            assert places == [2, 1]


def test_what_on_queued_raises_ends_the_waiting() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[ALLOCATE] = None
        peer.then[ALLOCATE] = lambda: peer.send(notice("queued", peer.daemon.request(ALLOCATE).msgid, 2))
        peer.then["cancel"] = lambda: peer.answer(ALLOCATE, RequestError(Status.STATUS_CANCELLED))

        def use_the_port(_place: int) -> None:
            port.ping()

        with pytest.raises(RuntimeError, match="in use"):
            port.allocate(on_queued=use_the_port)
        assert port.ping() == (123, 456)


def test_a_timeout_is_the_daemons() -> None:
    with serving() as server, server.open_port() as port:
        server.peers[0].daemon.answers[ALLOCATE] = RequestError(Status.STATUS_IO_TIMEOUT)
        with pytest.raises(lpt_client.TimedOut):
            port.allocate(1)


def test_a_daemon_that_does_not_keep_its_timeout_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "ANSWER_MARGIN_S", 0.05)
    with serving() as server, server.open_port() as port:
        server.peers[0].daemon.answers[ALLOCATE] = None
        with pytest.raises(lpt_client.ConnectionLost, match="did not answer PARALLEL_PORT_ALLOCATE in time"):
            port.allocate(0.05)
        assert not port.is_connected


def test_a_daemon_that_does_not_answer_is_lost() -> None:
    with serving() as server, server.open_port(reply_timeout_s=0.1) as port:
        server.peers[0].daemon.answers["ping"] = None
        with pytest.raises(lpt_client.ConnectionLost, match="did not answer ping in time") as caught:
            port.ping()
        assert caught.value.may_have_run
        with pytest.raises(lpt_client.ConnectionLost) as caught:
            port.ping()
        assert not caught.value.may_have_run


def test_one_thread_at_a_time() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers["PULSE"] = None
        caught: list[BaseException] = []

        def other() -> None:
            peer.seen("PULSE")
            try:
                port.ping()
            except BaseException as exc:
                caught.append(exc)
            peer.answer("PULSE", bytes(16))

        thread = threading.Thread(target=other)
        thread.start()
        assert port.pulse(1, width_us=10) == (0, 0)
        thread.join()
        assert isinstance(caught[0], RuntimeError)


# Ctrl-C


def test_an_interrupted_request_is_withdrawn() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers["PULSE"] = None
        peer.then["PULSE"] = interrupt_main
        with pytest.raises(KeyboardInterrupt):
            port.pulse(1, width_us=10)
        peer.seen("cancel")
        assert peer.daemon.seen[-1] == Notification("cancel", (peer.daemon.request("PULSE").msgid,))
        peer.answer("PULSE", RequestError(Status.STATUS_CANCELLED))
        assert port.read_data() == 0x40, "the late answer is for nobody"


@pytest.mark.parametrize("granted", [True, False])
def test_an_interrupted_allocate_leaves_nothing_behind(granted: bool) -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[ALLOCATE] = None
        peer.then[ALLOCATE] = interrupt_main
        answer = U64.pack(GRANT) if granted else RequestError(Status.STATUS_CANCELLED)
        peer.then["cancel"] = lambda: peer.answer(ALLOCATE, answer)
        with pytest.raises(KeyboardInterrupt):
            port.allocate()
        assert grant_of(port) is None
        assert port.ping() == (123, 456)
        expected = [ALLOCATE, "cancel", FREE, "ping"] if granted else [ALLOCATE, "cancel", "ping"]
        assert peer.daemon.names[1:] == expected


def test_a_daemon_that_does_not_answer_a_cancel_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpt_client.blocking_link.CLEANUP_TIMEOUT_S", 0.05)
    with serving() as server, server.open_port() as port:
        server.peers[0].daemon.answers[ALLOCATE] = None
        server.peers[0].then[ALLOCATE] = interrupt_main
        with pytest.raises(KeyboardInterrupt):
            port.allocate()
        with pytest.raises(lpt_client.ConnectionLost, match="cancelling"):
            port.ping()


# The end of a connection


@pytest.mark.parametrize("name", ["PULSE", ALLOCATE, "ping", CONNECT])
def test_a_lost_connection_ends_the_call(name: str) -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[name] = None
        peer.then[name] = lambda: peer.drop("the daemon stops")
        with pytest.raises(lpt_client.ConnectionLost, match="the daemon stops") as caught:
            if name == "PULSE":
                port.pulse(1, width_us=2_000_000)
            elif name == CONNECT:
                with port.connect_interrupt():
                    pass
            else:
                port.allocate() if name == ALLOCATE else port.ping()
        assert caught.value.request == name
        assert caught.value.may_have_run
        with pytest.raises(lpt_client.ConnectionLost):
            port.wait_connected(0)


def test_a_holder_is_told_on_leaving() -> None:
    with serving() as server, server.open_port() as port:
        with pytest.raises(lpt_client.ConnectionLost), port.allocated():
            server.peers[0].drop()
            with pytest.raises(lpt_client.ConnectionLost):
                port.ping()
        assert grant_of(port) is None


def test_a_port_that_is_taken_away() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        with pytest.raises(lpt_client.Revoked), port.allocated():
            peer.send(notice("waiters", 4) + notice("revoked", "held for too long"))
            port.ping()
            assert port.waiting == 4
            assert port.revoked == "held for too long"
            assert grant_of(port) is None
            peer.daemon.answers["WRITE_PORT_UCHAR"] = RequestError(Status.STATUS_ACCESS_DENIED)
            with pytest.raises(lpt_client.Revoked, match="held for too long"):
                port.write_data(1)
        assert FREE not in peer.daemon.names
        with port.allocated():
            assert port.revoked is None


def test_a_port_that_is_taken_away_while_it_is_freed() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[FREE] = None
        refused = RequestError(Status.STATUS_INVALID_DEVICE_STATE)
        peer.then[FREE] = lambda: peer.send(notice("revoked", "lease") + peer.daemon.answer(FREE, refused))
        with pytest.raises(lpt_client.Revoked), port.allocated():
            pass


def test_a_daemon_that_breaks_the_protocol() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers["ping"] = None
        peer.then["ping"] = lambda: peer.send(b"\xc1")
        with pytest.raises(lpt_client.ConnectionLost, match="broke the protocol"):
            port.ping()
        with pytest.raises(lpt_client.ConnectionLost):
            port.poll()
    with serving() as server, server.open_port() as port:
        server.peers[0].send(b"\xc1")
        with pytest.raises(lpt_client.ConnectionLost, match="broke the protocol"):
            port.poll(BOUND_S)


def test_an_answer_of_another_shape_ends_the_conversation() -> None:
    with serving() as server, server.open_port() as port:
        server.peers[0].daemon.answers["ping"] = "pong"
        with pytest.raises(lpt_client.ConversationError):
            port.ping()
        with pytest.raises(lpt_client.ConnectionLost):
            port.ping()


def test_after_close() -> None:
    with serving() as server:
        port = server.open_port()
        port.close()
        port.close()
        for call in (port.ping, port.allocate, port.try_allocate, port.waiters, port.poll, port.wait_connected):
            with pytest.raises(lpt_client.PortClosed):
                call()


# Opening


def make(**answers: Any) -> Any:
    def make_daemon(_number: int) -> FakeDaemon:
        daemon = FakeDaemon()
        daemon.answers.update(answers)
        return daemon

    return make_daemon


def test_a_daemon_that_says_nothing() -> None:
    with serving() as server:
        server.make_daemon = make(hello=None)
        with pytest.raises(lpt_client.ConnectFailed, match="no answer: timed out"):
            server.open_port(connect_timeout_s=0.05)


def test_a_hello_that_is_refused() -> None:
    with serving() as server:
        server.make_daemon = make(hello=RequestError(Status.STATUS_NO_SUCH_DEVICE, "no such port"))
        with pytest.raises(lpt_client.HelloRefused, match="no such port"):
            server.open_port()


@pytest.mark.parametrize(
    ("answer", "text"),
    [(notice("closing", "too many sessions"), "too many sessions"), (b"HTTP/1.1 400", "no daemon of this protocol")],
)
def test_somebody_else_answers_or_the_daemon_is_full(answer: bytes, text: str) -> None:
    with serving() as server:
        server.make_daemon = make(hello=None)

        def prepare(_number: int, peer: Peer) -> None:
            def play() -> None:
                peer.send(answer)
                peer.drop()

            peer.then["hello"] = play

        server.prepare = prepare
        with pytest.raises(lpt_client.ConnectFailed, match=text):
            server.open_port()


def test_nobody_listens(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(lpt_client.ConnectFailed, match="refused"):
        blocking.open_port(f"lpt://127.0.0.1:{unused_tcp_port}/LPT1")
    with pytest.raises(lpt_client.ConnectFailed, match="No such file"):
        blocking.open_port("lpt+unix:///nowhere/lptd.sock")
    with pytest.raises(lpt_client.UrlError):
        blocking.open_port("nonsense")

    def look_up(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)  # how long a look-up takes is the network's affair
    with pytest.raises(lpt_client.ConnectFailed, match="not known"):
        blocking.open_port("lpt://host.invalid/LPT1")


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    """A port that nobody listens on, or can while it is bound."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


def test_ctrl_c_before_the_port_could_be_freed_does_not_leave_it_owned(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server, server.open_port() as port:
        block = port.allocated()
        block.__enter__()
        conversation = port._keeper.link.conversation
        request = conversation.request

        def interrupted(*_: object) -> NoReturn:
            monkeypatch.setattr(conversation, "request", request)
            raise KeyboardInterrupt

        monkeypatch.setattr(conversation, "request", interrupted)
        with pytest.raises(KeyboardInterrupt):
            block.__exit__(None, None, None)
        assert port.grant is None
        port.ping()
        assert server.peers[0].daemon.names.count(FREE) == 1
