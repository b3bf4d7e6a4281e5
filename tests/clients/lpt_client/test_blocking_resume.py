"""The blocking client when the connection breaks and its session goes on."""

# ruff: noqa: PT012 - what is tested is how blocks end, and in which order

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import lpt_client
from lpt_client import blocking
from lpt_client.blocking_keeper import Keeper
from lpt_client.events import Interrupt, LeaseWarning, Reconnected, Sync
from lpt_service.protocol import messages
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.messages import Notification
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from tests.clients.blocking_harness import BOUND_S, URL, FakeServer, Peer, interrupt_main, serving
from tests.clients.fake_daemon import GRANT, FakeDaemon, connected, interrupt, keeping, mark, notice, sync

CONNECT, DISCONNECT = "PARALLEL_CONNECT_INTERRUPT", "PARALLEL_DISCONNECT_INTERRUPT"
ALLOCATE, FREE, WRITE = "PARALLEL_PORT_ALLOCATE", "PARALLEL_PORT_FREE", "WRITE_PORT_UCHAR"


def event(seq: int) -> Interrupt:
    return Interrupt(seq, 1, 1000 + seq, 0xC0, 0x1C)


def structures(server: FakeServer) -> list[bytes]:
    """The registrations that the first connection was asked for."""
    return [each.params[1] for each in server.peers[0].daemon.seen if each.params[:1] == (0x160034,)]


def grant_of(port: blocking.Port) -> int | None:
    return port.grant


def warning_of(port: blocking.Port) -> LeaseWarning | None:
    return port.lease_warning


def drop_at(server: FakeServer, name: str) -> Peer:
    """Have the first connection break when it is asked this, which it does not answer."""
    peer = server.peers[0]
    peer.daemon.answers[name] = None
    peer.then[name] = peer.drop
    return peer


@contextmanager
def short_reply_timeout(port: blocking.Port) -> Iterator[None]:
    """For the calls of the block alone: those after it have as long as ever."""
    keeper = port._keeper
    usual_s, keeper._reply_timeout_s = keeper._reply_timeout_s, 0.2
    yield
    keeper._reply_timeout_s = usual_s


# Ownership


def test_a_holder_notices_nothing() -> None:
    with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        with server.open_port(reconnect=True) as port:
            with port.allocated():
                server.peers[0].drop("restarting")
                server.peers[0].finish()
                assert port.write_data(1) == 99
                assert port.grant == GRANT
                assert port.session.resumed is not None
            assert server.peers[1].daemon.names == ["hello", WRITE, FREE]
            hello = server.peers[1].daemon.request("hello")
            assert hello.params[0]["resume"] == f"{1:032x}"
            assert "from" not in hello.params[0]


def test_a_call_after_a_loss_that_is_known_is_simply_made() -> None:
    with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        with server.open_port(reconnect=True) as port, port.allocated():
            for number in range(1, 4):
                server.refuse = lpt_client.ConnectFailed("refused")
                server.peers[-1].drop()
                assert not port.poll(0.05)
                assert not port.is_connected
                assert port.grant == GRANT
                server.refuse = None
                assert port.write_data(1) == 99
                assert server.peers[-1].daemon.request("hello").params[0]["resume"] == f"{number:032x}"


def test_what_may_have_run_is_told() -> None:
    with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        with server.open_port(reconnect=True) as port, port.allocated():
            drop_at(server, WRITE)
            with pytest.raises(lpt_client.ConnectionLost, match="may have been carried out") as caught:
                port.write_data(1)
            assert caught.value.may_have_run
            assert caught.value.goes_on
            assert "the session goes on" in str(caught.value)
            assert port.write_data(1) == 99


def test_pending_requests_are_answered_on_the_new_connection() -> None:
    with serving() as server:
        server.make_daemon = keeping(pending=lambda: [server.peers[0].daemon.request(ALLOCATE).msgid])

        def prepare(number: int, peer: Peer) -> None:
            if number == 2:
                first = server.peers[0]
                msgid = first.daemon.request(ALLOCATE).msgid
                granted = first.daemon.answer(ALLOCATE, U64.pack(9))
                peer.then["hello"] = lambda: peer.send(notice("queued", msgid, 1) + granted)

        server.prepare = prepare
        with server.open_port(reconnect=True) as port:
            drop_at(server, ALLOCATE)
            places: list[int] = []
            with port.allocated(BOUND_S, on_queued=places.append) as grant:
                assert (grant, places) == (9, [1])
                assert port.write_data(1) == 99
            assert server.peers[1].daemon.names == ["hello", WRITE, FREE]


def test_the_answer_may_come_while_registrations_are_connected() -> None:
    with serving() as server:
        server.make_daemon = keeping(pending=lambda: [server.peers[0].daemon.request(ALLOCATE).msgid])

        def prepare(number: int, peer: Peer) -> None:
            if number == 2:
                peer.daemon.answers[CONNECT] = None
                granted = server.peers[0].daemon.answer(ALLOCATE, U64.pack(9))
                peer.then[CONNECT] = lambda: peer.send(granted + peer.daemon.answer(CONNECT, connected(0)))

        server.prepare = prepare
        with server.open_port(reconnect=True) as port, port.connect_interrupt():
            drop_at(server, ALLOCATE)
            assert port.allocate(BOUND_S) == 9
            assert FREE not in server.peers[1].daemon.names


def test_a_pending_request_whose_connection_breaks_twice() -> None:
    with serving() as server:
        server.make_daemon = keeping(pending=lambda: [server.peers[0].daemon.request(ALLOCATE).msgid])

        def prepare(number: int, peer: Peer) -> None:
            if number == 2:
                peer.then["hello"] = peer.drop
            if number == 3:
                granted = server.peers[0].daemon.answer(ALLOCATE, U64.pack(9))
                peer.then["hello"] = lambda: peer.send(granted)

        server.prepare = prepare
        with server.open_port(reconnect=True) as port:
            drop_at(server, ALLOCATE)
            assert port.allocate() == 9
            assert server.peers[2].daemon.names == ["hello"]


def test_an_allocate_whose_answer_was_lost_is_granted() -> None:
    with serving() as server:
        server.make_daemon = keeping(grant=9)
        with server.open_port(reconnect=True) as port:
            drop_at(server, ALLOCATE)
            with port.allocated() as grant:
                assert grant == port.grant == 9
            assert server.peers[1].daemon.names == ["hello", FREE]


@pytest.mark.parametrize(("grant", "names"), [(GRANT, ["hello", FREE]), (None, ["hello"])])
def test_the_answer_to_a_free_is_lost(grant: int | None, names: list[str]) -> None:
    with serving() as server:
        server.make_daemon = keeping(grant=grant)
        with server.open_port(reconnect=True) as port:
            with port.allocated():
                drop_at(server, FREE)
            assert port.grant is None
            assert server.peers[1].daemon.names == names
            # What was settled once is not settled again: the port may be owned anew by then.
            server.make_daemon = keeping(grant=501)
            server.peers[1].daemon.answers[ALLOCATE] = U64.pack(501)
            assert port.allocate() == 501
            server.peers[1].drop()
            assert port.poll(BOUND_S)
            assert port.ping()
            assert server.peers[2].daemon.names == ["hello", "ping"]


def test_an_answer_that_does_not_come_in_time_leaves_nothing_behind() -> None:
    """The wait is over; the session goes on at the next call, and gives back what was granted."""
    with serving() as server:
        server.make_daemon = keeping(grant=9)
        with server.open_port(reconnect=True) as port:
            port.waiters()  # what try_allocate asks first is known from now on
            server.peers[0].daemon.answers["TRY_ALLOCATE_PORT"] = None
            with short_reply_timeout(port), pytest.raises(lpt_client.ConnectionLost, match="in time"):
                port.try_allocate()
            assert port.ping() == (123, 456)
            assert grant_of(port) is None
            assert server.peers[1].daemon.names == ["hello", FREE, "ping"]


def test_ctrl_c_while_it_is_away_leaves_nothing_behind() -> None:
    with serving() as server:
        server.make_daemon = keeping(grant=9)
        with server.open_port(reconnect=True) as port:
            peer = drop_at(server, ALLOCATE)
            server.refuse = lpt_client.ConnectFailed("refused")

            def drop() -> None:
                peer.drop()
                interrupt_main(("go_on",))

            peer.then[ALLOCATE] = drop
            with pytest.raises(KeyboardInterrupt):
                port.allocate()
            server.refuse = None
            assert port.ping() == (123, 456)
            assert grant_of(port) is None
            assert server.peers[1].daemon.names == ["hello", FREE, "ping"]


def test_ctrl_c_just_as_the_loss_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked then belongs to nobody: the next call does not take its answer for its own."""
    with serving() as server:
        server.make_daemon = keeping(grant=9)
        with server.open_port(reconnect=True) as port:
            drop_at(server, ALLOCATE)
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(Keeper, "is_suspended", property(interrupted))
                port.allocate()
            assert port.ping() == (123, 456)
            assert grant_of(port) is None
            assert server.peers[1].daemon.names == ["hello", FREE, "ping"]


def interrupted(_: Keeper) -> bool:
    raise KeyboardInterrupt


def test_ctrl_c_and_then_the_loss_of_what_is_pending() -> None:
    with serving() as server:
        server.make_daemon = keeping(pending=lambda: [server.peers[0].daemon.request(ALLOCATE).msgid])
        with server.open_port(reconnect=True) as port:
            peer = server.peers[0]
            peer.daemon.answers[ALLOCATE] = None
            peer.then[ALLOCATE] = interrupt_main
            peer.then["cancel"] = peer.drop
            with pytest.raises(KeyboardInterrupt):
                port.allocate()
            msgid = peer.daemon.request(ALLOCATE).msgid
            assert port.wait_connected(BOUND_S)
            again = server.peers[1]
            again.seen("cancel")
            assert again.daemon.seen[-1] == Notification("cancel", (msgid,))
            again.send(peer.daemon.answer(ALLOCATE, U64.pack(9)))  # the cancel has lost the race
            assert port.poll(BOUND_S)
            again.seen(FREE)


def test_a_port_that_was_taken_away_meanwhile() -> None:
    with serving() as server:
        server.make_daemon = keeping(grant=None)

        def prepare(number: int, peer: Peer) -> None:
            if number == 2:
                peer.then["hello"] = lambda: peer.send(notice("revoked", "lease: held for 60 s"))

        server.prepare = prepare
        with server.open_port(reconnect=True) as port:
            with pytest.raises(lpt_client.Revoked, match="lease: held for 60 s"), port.allocated():
                server.peers[0].drop()
                assert port.poll(BOUND_S)
                assert grant_of(port) is None
                assert port.poll(BOUND_S)
            with pytest.raises(lpt_client.Revoked, match="while the connection"), port.allocated():
                server.peers[1].drop()
                server.prepare = lambda _number, _peer: None
                assert port.poll(BOUND_S)
            assert FREE not in server.peers[1].daemon.names


# The session does not go on


def test_a_fresh_session_is_as_without_resume() -> None:
    def make(number: int) -> FakeDaemon:
        daemon = FakeDaemon(session=number)
        daemon.resume = f"{number:032x}"
        return daemon

    with serving() as server:
        server.make_daemon = make
        with server.open_port(reconnect=True) as port:
            with pytest.raises(lpt_client.ConnectionLost), port.allocated():
                drop_at(server, WRITE)
                with pytest.raises(lpt_client.ConnectionLost, match="may have been") as caught:
                    port.write_data(1)
                assert not caught.value.goes_on
                assert grant_of(port) is None
            assert port.ping() == (123, 456)
            assert server.peers[1].daemon.names == ["hello", "ping"]


def test_a_session_that_is_away_for_too_long_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpt_client.resume.RESUME_WITHIN_S", 0.3)
    with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        with server.open_port(reconnect=True) as port:
            with pytest.raises(lpt_client.ConnectionLost), port.allocated():
                server.refuse = lpt_client.ConnectFailed("refused")
                server.peers[0].drop()
                started_s = time.monotonic()
                with pytest.raises(lpt_client.ConnectionLost):
                    port.write_data(1)
                assert time.monotonic() - started_s > 0.2
                time.sleep(0.3)
                assert port.grant is None
            server.refuse = None
            assert port.wait_connected(BOUND_S)
            assert "resume" not in server.peers[1].daemon.request("hello").params[0]


def test_hello_is_refused_for_good() -> None:
    with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        with server.open_port(reconnect=True) as port:
            port.allocate()
            drop_at(server, WRITE)

            def refuse(_number: int) -> FakeDaemon:
                daemon = FakeDaemon()
                daemon.answers["hello"] = RequestError(Status.STATUS_ACCESS_DENIED, "token")
                return daemon

            server.make_daemon = refuse
            with pytest.raises(lpt_client.ConnectionLost):
                port.write_data(1)
            with pytest.raises(lpt_client.HelloRefused):
                port.poll(BOUND_S)
            with pytest.raises(lpt_client.ConnectionLost):
                port.free()
            assert grant_of(port) is None


@pytest.mark.parametrize("options", [{}, {"reconnect": True, "resume": False}])
def test_without_resume_the_daemon_is_told_at_once_that_nobody_comes_back(options: dict[str, Any]) -> None:
    with serving() as server:
        server.make_daemon = keeping(grant=GRANT)
        with server.open_port(**options) as port:
            server.peers[0].seen("bye")
            assert server.peers[0].daemon.names == ["hello", "bye"]
            with pytest.raises(lpt_client.ConnectionLost), port.allocated():
                drop_at(server, WRITE)
                port.write_data(1)
            if options:
                assert port.wait_connected(BOUND_S)
                assert "resume" not in server.peers[1].daemon.request("hello").params[0]


# Closing


def test_closing_in_order_says_bye() -> None:
    with serving() as server:
        server.make_daemon = keeping()
        with server.open_port(reconnect=True) as port:
            port.ping()
        server.peers[0].finish()
        assert server.peers[0].daemon.names == ["hello", "ping", "bye"]
        port.close()


# Interrupts


def test_registrations_are_not_connected_anew() -> None:
    def prepare(number: int, peer: Peer) -> None:
        if number == 2:
            # From an entry that it has seen on, as if there had been no `from`.
            peer.then["hello"] = lambda: peer.send(sync("resumed", 1, 0) + interrupt(1) + interrupt(4) + mark(2, 5))
            peer.daemon.answers[DISCONNECT] = U64.pack(5)

    with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server))
        server.prepare = prepare
        with server.open_port(reconnect=True) as port:
            with port.connect_interrupt() as one, port.connect_interrupt() as other:
                server.peers[0].send(interrupt(0) + interrupt(1))
                assert [one.next(BOUND_S), one.next(BOUND_S)] == [event(0), event(1)]
                server.peers[0].drop()
                found = [one.next(BOUND_S) for _ in range(4)]
                assert found == [Reconnected(1, 77), Sync("resumed", 2, 0), Sync("gap", 4, 2), event(4)]
                assert server.peers[1].daemon.request("hello").params[0]["from"] == (77, 2)
                assert [(each.received + each.buffered, each.lost) for each in (one, other)] == [(3, 2)] * 2
            assert server.peers[1].daemon.names == ["hello", DISCONNECT, DISCONNECT]


def test_a_registration_that_the_daemon_does_not_have_is_connected_again() -> None:
    with serving() as server:
        server.make_daemon = keeping(registrations=[])
        with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            server.peers[0].send(interrupt(0))
            assert interrupts.next(BOUND_S) == event(0)
            server.peers[0].drop()
            assert interrupts.next(BOUND_S) == Reconnected(1, 77)
            assert server.peers[1].daemon.request(CONNECT).params[3] == {"from": (77, 1)}
            server.peers[1].daemon.answers[DISCONNECT] = U64.pack(1)


def test_connecting_again_breaks_too() -> None:
    """The session's second secret is the one to come back with."""

    def prepare(number: int, peer: Peer) -> None:
        if number == 2:
            peer.daemon.answers[CONNECT] = None
            peer.then[CONNECT] = peer.drop

    with serving() as server:
        server.make_daemon = keeping(registrations=[])
        server.prepare = prepare
        with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            server.peers[0].drop()
            assert interrupts.next(BOUND_S) == Reconnected(1, 77)
            assert port.ping() == (123, 456)
            assert [peer.daemon.request("hello").params[0].get("resume") for peer in server.peers] == [
                None,
                f"{1:032x}",
                f"{2:032x}",
            ]


def test_a_connect_whose_answer_was_lost_is_undone() -> None:
    with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server))
        with server.open_port(reconnect=True) as port:
            drop_at(server, CONNECT)
            with pytest.raises(lpt_client.ConnectionLost), port.connect_interrupt():
                pass
            server.peers[1].seen(DISCONNECT)


@pytest.mark.parametrize("is_connected", [True, False])
def test_the_answer_to_a_disconnect_is_lost(is_connected: bool) -> None:
    with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server) if is_connected else [])
        with server.open_port(reconnect=True) as port:
            with port.connect_interrupt():
                drop_at(server, DISCONNECT)
            assert port.wait_connected(BOUND_S)
            assert port.ping()
            assert server.peers[1].daemon.names == ["hello"] + [DISCONNECT] * is_connected + ["ping"]


def test_a_block_left_while_there_is_no_connection_is_disconnected_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("blocking_ownership", "blocking_registering"):
        monkeypatch.setattr(f"lpt_client.{module}.CLEANUP_TIMEOUT_S", 0.2)
    with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server), grant=GRANT)
        with server.open_port(reconnect=True) as port:
            with pytest.raises(lpt_client.ConnectionLost), port.allocated(), port.connect_interrupt():
                server.refuse = lpt_client.ConnectFailed("refused")
                server.peers[0].drop()
                assert not port.poll(0.05)
            server.refuse = None
            assert port.ping() == (123, 456)
            assert server.peers[1].daemon.names == ["hello", FREE, DISCONNECT, "ping"]


def test_a_pause_costs_one_new_connection_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpt_client.blocking_keeper._CLOSING_EXPECTED_S", 0.05)

    def prepare(number: int, peer: Peer) -> None:
        if number == 2:
            peer.then["hello"] = lambda: peer.send(sync("resumed", 0, 0) + mark(messages.KIND_STOPPED, 0))

    with serving() as server:
        server.make_daemon = keeping(registrations=lambda: structures(server))
        server.prepare = prepare
        with server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
            server.peers[0].send(mark(messages.KIND_STOPPED, 0))
            kinds = [type(interrupts.next(BOUND_S)).__name__ for _ in range(3)]
            assert kinds == ["Mark", "Reconnected", "Sync"]
            assert interrupts.next(0.5) is None
            assert len(server.peers) == 2


# Leases, administration


def test_a_lease_is_told() -> None:
    with serving() as server, server.open_port() as port, port.allocated():
        server.peers[0].send(notice("lease", "idle", 5000))
        assert port.poll(BOUND_S)
        assert warning_of(port) == LeaseWarning("idle", 5000)
        port.free()
        port.allocate()
        assert warning_of(port) is None


def test_administration() -> None:
    calls: list[tuple[Callable[[blocking.Port], Any], str, dict[str, Any]]] = [
        (lambda port: port.revoke(), "revoke", {}),
        (lambda port: port.revoke("why"), "revoke", {"reason": "why"}),
        (lambda port: port.kick(7), "kick", {"session": 7}),
        (lambda port: port.kick(7, "why"), "kick", {"session": 7, "reason": "why"}),
        (lambda port: port.pause(), "pause", {}),
        (lambda port: port.pause("why"), "pause", {"reason": "why"}),
        (lambda port: port.resume_port(), "resume", {}),
        (lambda port: port.queue(), "queue", {}),
        (lambda port: port.queue(1001), "queue", {"first": 1001}),
    ]
    with serving() as server, server.open_port() as port:
        daemon = server.peers[0].daemon
        for call, method, params in calls:
            assert call(port) == daemon.answers[method]
            assert daemon.request(method).params == (params,)
        daemon.answers["PULSE"] = RequestError(Status.STATUS_DEVICE_NOT_READY, "port LPT1 is paused")
        with pytest.raises(lpt_client.PortPaused):
            port.pulse(1, width_us=1)


class OnceSocket(socket.socket):
    """Sends one frame and no other."""

    has_sent = False

    def send(self, data: Any, flags: int = 0, /) -> int:
        if self.has_sent:
            raise ConnectionResetError(104, "Connection reset by peer")
        self.has_sent = True
        return super().send(data, flags)


def test_a_connection_that_breaks_before_the_goodbye() -> None:
    daemon = FakeDaemon()
    daemon.resume = f"{1:032x}"
    peer = Peer(daemon)
    with pytest.raises(lpt_client.ConnectFailed, match="the connection broke: Connection reset by peer"):
        blocking.open_port(URL, open_socket=lambda url, deadline_s: OnceSocket(fileno=peer.client.detach()))
    peer.finish()
    assert daemon.names == ["hello"]


def test_who_asks_while_it_is_away_waits_in_the_queue_for_the_time_that_is_left() -> None:
    with serving() as server:
        server.make_daemon = keeping()
        with server.open_port(reconnect=True) as port:
            server.peers[0].drop()
            assert port.allocate(20) == GRANT
            assert 0 < server.peers[1].daemon.request(ALLOCATE).params[3]["timeout_ms"] < 20_000
