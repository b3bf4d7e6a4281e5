"""The blocking client, over socket pairs: interrupts, and connecting again."""

# ruff: noqa: PT012 - what is tested is how blocks end, and in which order

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import lpt_client
from lpt_client import waits
from lpt_client.events import Interrupt, Mark, Reconnected, Sync
from lpt_service.protocol import messages
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from tests.clients.blocking_harness import BOUND_S, Peer, interrupt_main, serving
from tests.clients.fake_daemon import FakeDaemon, connected, interrupt, mark, notice, sync

CONNECT, DISCONNECT = "PARALLEL_CONNECT_INTERRUPT", "PARALLEL_DISCONNECT_INTERRUPT"


def event(seq: int, count: int = 1) -> Interrupt:
    return Interrupt(seq, count, 1000 + seq, 0xC0, 0x1C)


def make(**answers: Any) -> Any:
    def make_daemon(_number: int) -> FakeDaemon:
        daemon = FakeDaemon()
        daemon.answers.update(answers)
        return daemon

    return make_daemon


# Interrupts


def test_iteration() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[CONNECT] = connected(5)
        peer.daemon.answers[DISCONNECT] = U64.pack(9)
        with port.connect_interrupt() as interrupts:
            assert interrupts.next(0) is None
            peer.send(sync("connected", 5) + interrupt(5, 2) + mark(messages.KIND_MASKED, 7) + interrupt(7))
            found = [interrupts.next(BOUND_S) for _ in range(3)]
            assert found == [event(5, 2), Mark("masked", 7, 1000, 0xC0, 0x1C), event(7)]
            assert interrupts.next(0.01) is None
            peer.send(interrupt(8))
            port.ping()
            assert interrupts.buffered == 1
        assert list(interrupts) == [event(8)]
        assert (interrupts.received, interrupts.lost, interrupts.unknown_periods) == (4, 0, 1)


def test_iteration_is_interruptible() -> None:
    with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        thread = threading.Thread(target=interrupt_main)
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            interrupts.next()
        thread.join()
        server.peers[0].send(interrupt(0))
        assert next(interrupts) == event(0)
        server.peers[0].daemon.answers[DISCONNECT] = U64.pack(1)


@pytest.fixture(params=[True, False], autouse=True)
def has_poll(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to wait until a deadline: by poll, and, as on Windows, by select."""
    monkeypatch.setattr(waits, "HAS_POLL", request.param)


def test_functions_are_called_by_poll() -> None:
    heard: list[Any] = []

    def isr(each: Interrupt, context: object) -> None:
        heard.append((each, context, port.read_status()))  # a routine may use the port
        assert not port.poll()

    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        with port.connect_interrupt(
            isr, "rig", deferred=heard.append, on_other=lambda *each: heard.append(each)
        ) as one:
            token = U64.unpack_from(peer.daemon.request(CONNECT).params[1], 16)[0]
            peer.send(interrupt(0) + mark(messages.KIND_MASKED, 1) + notice("port_check", token, 0))
            port.ping()
            assert heard == [], "only in poll"
            assert port.poll(None), "what is there already is not waited for"
            assert heard == [(event(0), "rig", 0x41), (Mark("masked", 1, 1000, 0xC0, 0x1C), "rig"), "rig"]
            assert not port.poll()
            with pytest.raises(RuntimeError, match="poll"):
                one.next()
            peer.daemon.answers[DISCONNECT] = U64.pack(1)
        assert one.received == 1


def test_what_a_function_raises_is_raised_and_nothing_is_lost() -> None:
    heard: list[Interrupt] = []

    def isr(each: Interrupt, _context: object) -> None:
        heard.append(each)
        if each.seq == 0:
            raise ZeroDivisionError

    with serving() as server, server.open_port() as port, port.connect_interrupt(isr) as interrupts:
        server.peers[0].send(interrupt(0) + interrupt(1))
        with pytest.raises(ZeroDivisionError):
            port.poll(BOUND_S)
        assert port.poll(BOUND_S)
        assert heard == [event(0), event(1)]
        assert interrupts.received == 2
        server.peers[0].daemon.answers[DISCONNECT] = U64.pack(2)


def test_a_deferred_check_alone() -> None:
    heard: list[str] = []
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        with port.connect_port_check(heard.append, "context"):
            structure = peer.daemon.request(CONNECT).params[1]
            assert structure[:8] == bytes(8)
            peer.send(notice("port_check", U64.unpack_from(structure, 16)[0], 0) + notice("port_check", 99, 0))
            while not heard:
                assert port.poll(BOUND_S)
        assert heard == ["context"]


def test_leaving_waits_for_what_is_still_to_come() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[DISCONNECT] = U64.pack(2)
        peer.then[DISCONNECT] = lambda: peer.send(interrupt(0, 2))
        with port.connect_interrupt() as interrupts:
            pass
        assert list(interrupts) == [event(0, 2)]


def test_leaving_a_daemon_that_does_not_send_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpt_client.blocking_registering.CLEANUP_TIMEOUT_S", 0.05)
    with serving() as server, server.open_port() as port:
        server.peers[0].daemon.answers[DISCONNECT] = U64.pack(2)
        with port.connect_interrupt() as interrupts:
            pass
        assert (interrupts.lost, list(interrupts)) == (2, [])


def test_a_connect_that_is_refused_or_interrupted() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[CONNECT] = RequestError(Status.STATUS_UNSUCCESSFUL, "disabled")
        with pytest.raises(lpt_client.Unsuccessful), port.connect_interrupt():
            pass
        assert DISCONNECT not in peer.daemon.names
        peer.daemon.answers[CONNECT] = None
        peer.then[CONNECT] = interrupt_main
        peer.then["cancel"] = lambda: peer.answer(CONNECT, connected())
        with pytest.raises(KeyboardInterrupt), port.connect_interrupt():
            pass
        peer.seen(DISCONNECT)


def test_events_are_told_before_the_end_of_the_connection() -> None:
    with serving() as server, server.open_port() as port:
        heard: list[object] = []
        with port.connect_interrupt() as interrupts, port.connect_interrupt(lambda each, _: heard.append(each)):
            server.peers[0].send(interrupt(0))
            server.peers[0].drop("stopping")
            with pytest.raises(lpt_client.ConnectionLost):
                port.ping()
            assert interrupts.next() == event(0)
            with pytest.raises(lpt_client.ConnectionLost, match="stopping"):
                interrupts.next()
            assert heard == [event(0)]
            with pytest.raises(lpt_client.ConnectionLost, match="stopping"):
                port.poll(None)


def test_the_mark_stopped_is_the_last_of_a_registration() -> None:
    with serving() as server, server.open_port() as port:
        with port.connect_interrupt() as interrupts:
            server.peers[0].send(mark(messages.KIND_STOPPED, 0))
            assert interrupts.next(BOUND_S) == Mark("stopped", 0, 1000, 0xC0, 0x1C)
            with pytest.raises(lpt_client.PortStopped):
                interrupts.next()
        with port.connect_interrupt(lambda *_: None):
            server.peers[0].send(mark(messages.KIND_STOPPED, 0))
            with pytest.raises(lpt_client.PortStopped):
                port.poll(None)


REMOVED = "port removed: the device was unplugged"


def test_a_deferred_check_whose_port_is_removed_ends() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        with port.connect_interrupt() as interrupts, port.connect_port_check(lambda _: None):
            structure = peer.daemon.request(CONNECT).params[1]
            peer.send(
                notice("disconnected", interrupts.structure, REMOVED) + notice("disconnected", structure, REMOVED)
            )
            with pytest.raises(lpt_client.PortStopped, match="port removed: the device was unplugged"):
                port.poll(BOUND_S)
            peer.send(interrupt(0))
            assert interrupts.next(BOUND_S) == event(0), "the mark tells those that hear"
            peer.daemon.answers[DISCONNECT] = U64.pack(1)


def test_a_deferred_check_whose_port_is_removed_is_connected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpt_client.blocking_keeper._CLOSING_EXPECTED_S", 0.01)
    with serving() as server, server.open_port(reconnect=True) as port:
        peer = server.peers[0]
        with port.connect_port_check(lambda _: None):
            peer.send(notice("disconnected", peer.daemon.request(CONNECT).params[1], REMOVED))
            ends_s = time.monotonic() + BOUND_S
            while len(server.peers) < 2 or CONNECT not in server.peers[1].daemon.names:
                assert time.monotonic() < ends_s
                port.poll(0.01)


def test_a_pause_costs_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon says that it keeps the registration."""
    monkeypatch.setattr("lpt_client.blocking_keeper._CLOSING_EXPECTED_S", 0.01)
    with serving() as server, server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
        peer = server.peers[0]
        peer.daemon.answers["status"] = PAUSED
        peer.send(mark(messages.KIND_STOPPED, 0))
        assert interrupts.next(BOUND_S) is not None
        while "status" not in peer.daemon.names:
            assert interrupts.next(0.05) is None
        peer.send(mark(messages.KIND_UNHEARD, 0, 2000))
        assert isinstance(interrupts.next(BOUND_S), Mark)
        assert len(server.peers) == 1


PAUSED = {"port": "LPT1", "state": "ready", "paused": ""}


def test_a_registration_outlives_a_pause() -> None:
    heard: list[object] = []
    with serving() as server, server.open_port() as port:
        with port.connect_interrupt() as interrupts, port.connect_interrupt(lambda each, _: heard.append(each)):
            peer = server.peers[0]
            peer.daemon.answers["status"] = PAUSED
            peer.send(mark(messages.KIND_STOPPED, 0))
            assert interrupts.next(BOUND_S) == Mark("stopped", 0, 1000, 0xC0, 0x1C)
            assert interrupts.next(0.01) is None
            assert not port.poll(0.01)
            peer.send(mark(messages.KIND_UNHEARD, 0, 2000) + interrupt(0))
            assert [type(interrupts.next(BOUND_S)).__name__ for _ in range(2)] == ["Mark", "Interrupt"]
            port.poll()
            assert len(heard) == 1
            peer.daemon.answers[DISCONNECT] = U64.pack(1)
        assert len(server.peers) == 1


@pytest.mark.parametrize("status", [PAUSED | {"state": "absent"}, RequestError(Status.STATUS_ACCESS_DENIED, ""), 7])
def test_a_paused_port_that_is_removed_ends_it(status: object) -> None:
    with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        peer = server.peers[0]
        peer.daemon.answers["status"] = PAUSED
        peer.send(mark(messages.KIND_STOPPED, 0))
        assert interrupts.next(BOUND_S) is not None
        assert interrupts.next(0.01) is None
        peer.daemon.answers["status"] = status
        peer.send(mark(messages.KIND_STOPPED, 0, 2000))
        assert interrupts.next(BOUND_S) is not None
        with pytest.raises(lpt_client.PortStopped, match="removed, or its daemon stops"):
            interrupts.next(BOUND_S)


def test_what_comes_while_a_paused_port_is_asked_is_not_waited_for() -> None:
    with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        peer = server.peers[0]

        def status(_request: object) -> object:
            peer.send(mark(messages.KIND_UNHEARD, 0, 2000))
            return PAUSED

        peer.daemon.answers["status"] = status
        peer.send(mark(messages.KIND_STOPPED, 0))
        assert [interrupts.next().kind for _ in range(2)] == ["stopped", "unheard"]  # type: ignore[union-attr]


# Reconnecting


def resumed_at(next_seq: int, data: bytes) -> Any:
    """What a peer does after a connect: the sync and what follows."""

    def prepare(number: int, peer: Peer) -> None:
        if number > 1:
            peer.then[CONNECT] = lambda: peer.send(sync("resumed", max(0, next_seq), 0) + data)
            peer.daemon.answers[DISCONNECT] = U64.pack(next_seq + 1)

    return prepare


def test_interrupts_go_on_where_they_were() -> None:
    with serving() as server, server.open_port(reconnect=True) as port:
        server.prepare = resumed_at(5, interrupt(5))
        with port.connect_interrupt() as interrupts:
            server.peers[0].send(interrupt(0, 5))
            assert interrupts.next(BOUND_S) == event(0, 5)
            server.peers[0].drop("restarting")
            found = [interrupts.next(BOUND_S) for _ in range(3)]
            assert found == [Reconnected(2, 77), Sync("resumed", 5, 0), event(5)]
            assert server.peers[1].daemon.request(CONNECT).params[3] == {"from": (77, 5)}
            assert (interrupts.received, interrupts.lost) == (6, 0)
        assert port.session.session == 2


def test_a_call_meets_the_loss_and_wait_connected_mends_it() -> None:
    with serving() as server, server.open_port(reconnect=True) as port:
        with pytest.raises(lpt_client.ConnectionLost), port.allocated():
            server.peers[0].drop()
            with pytest.raises(lpt_client.ConnectionLost):
                port.ping()
            assert port.wait_connected(BOUND_S)
            assert port.grant is None
        assert port.ping() == (123, 456)
        assert server.peers[1].daemon.names == ["hello", "ping"]


def test_attempts_end_with_the_callers_patience() -> None:
    with serving() as server, server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
        server.refuse = lpt_client.ConnectFailed("refused")
        server.peers[0].drop()
        assert interrupts.next(1.0) is None
        assert not port.wait_connected(0.0)
        assert not port.poll(0.0)
        assert 2 <= server.attempts <= 6
        server.refuse = None
        server.prepare = resumed_at(-1, b"")
        assert interrupts.next(BOUND_S) == Reconnected(2, 77)


def test_reconnecting_ends_when_hello_is_refused_for_good() -> None:
    with serving() as server, server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
        server.make_daemon = make(hello=RequestError(Status.STATUS_ACCESS_DENIED, "token"))
        server.peers[0].drop()
        for _ in range(2):
            with pytest.raises(lpt_client.HelloRefused):
                interrupts.next(BOUND_S)
        with pytest.raises(lpt_client.HelloRefused):
            port.poll(BOUND_S)


def test_a_registration_that_cannot_be_made_again_ends_alone() -> None:
    with serving() as server, server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
        server.make_daemon = make(PARALLEL_CONNECT_INTERRUPT=RequestError(Status.STATUS_UNSUCCESSFUL, "disabled"))
        server.peers[0].drop()
        with pytest.raises(lpt_client.Unsuccessful):
            interrupts.next(BOUND_S)
        assert port.read_data() == 0x40


def test_a_port_that_is_away_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpt_client.blocking_keeper._CLOSING_EXPECTED_S", 0.05)
    away = RequestError(Status.STATUS_DEVICE_NOT_CONNECTED, "not there")

    def make_daemon(number: int) -> FakeDaemon:
        daemon = FakeDaemon(session=number)
        if number == 2:
            daemon.answers[CONNECT] = away
        return daemon

    with serving() as server, server.open_port(reconnect=True) as port, port.connect_interrupt() as interrupts:
        server.make_daemon = make_daemon
        server.peers[0].send(mark(messages.KIND_STOPPED, 0))
        found = [interrupts.next(BOUND_S) for _ in range(2)]
        assert found == [Mark("stopped", 0, 1000, 0xC0, 0x1C), Reconnected(3, 77)]
