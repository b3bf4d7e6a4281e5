"""A port that is closed, closed from elsewhere, used by several threads, or dropped without a word."""

# ruff: noqa: PT012 - what is tested is how blocks end

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

import lpt_client
from lpt_client import backoff, blocking
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import U64
from tests.clients import uses
from tests.clients.blocking_harness import BOUND_S, FakeServer, Peer, serving, socket_of
from tests.clients.fake_daemon import GRANT, interrupt, keeping, notice

ALLOCATE, FREE = "PARALLEL_PORT_ALLOCATE", "PARALLEL_PORT_FREE"
STATE = {
    "goes_on": "False",
    "grant": "None",
    "is_connected": "False",
    "lease_warning": "None",
    "revoked": "None",
    "session": "PortClosed",
    "waiting": "0",
}

# After close


@pytest.mark.parametrize("options", [{}, {"reconnect": True}, {"reconnect": True, "resume": False}])
def test_everything_is_refused_once_it_is_closed(options: dict[str, Any]) -> None:
    with serving() as server:
        server.make_daemon = keeping()
        with server.open_port(**options) as port:
            port.allocate()
        outcomes = {name: uses.outcome(use) for name, use in uses.methods(port).items()}
        assert outcomes.pop("close") == "None"
        assert len(outcomes) > 25
        assert set(outcomes.values()) == {"PortClosed"}, outcomes
        state = {name: uses.outcome(partial(getattr, port, name)) for name in uses.properties(port)}
        assert state == {**STATE, "url": repr(port.url)}
        assert server.attempts == 1


def test_blocks_inside_of_which_it_is_closed() -> None:
    with serving() as server, server.open_port() as port:
        server.peers[0].then["ping"] = lambda: server.peers[0].send(interrupt(0))
        with pytest.raises(lpt_client.PortClosed), port.allocated():
            with port.connect_interrupt() as interrupts, port.connect_port_check(print):
                port.ping()
                assert port.poll(BOUND_S) or interrupts.event_count
                port.close()
                assert interrupts.next(BOUND_S) == (0, 1, 1000, 0xC0, 0x1C)  # what had come stays
                with pytest.raises(lpt_client.PortClosed):
                    interrupts.next()
                with pytest.raises(lpt_client.PortClosed):
                    next(interrupts)
            assert list(interrupts) == []
            assert interrupts.next() is None


def test_a_descriptor_that_is_somebody_elses_by_now_is_left_alone() -> None:
    with serving() as server:
        port = server.open_port()
        number = socket_of(port).fileno()
        reader, writer = os.pipe()
        port.close()
        os.dup2(writer, number)
        try:
            for use in uses.methods(port).values():
                uses.outcome(use)
            os.fstat(number)
            os.set_blocking(reader, False)
            with pytest.raises(BlockingIOError):
                os.read(reader, 1)
        finally:
            for each in (reader, writer, number):
                os.close(each)


# Threads


def _waits(port: blocking.Port) -> dict[str, Callable[[], object]]:
    """All that waits without end."""
    interrupts = port.connect_interrupt()
    iterator = interrupts.__enter__()

    def iterate() -> object:
        try:
            return next(iterator)
        finally:
            interrupts.__exit__(None, None, None)

    return {
        "ping": port.ping,
        "allocate": port.allocate,
        "poll": lambda: port.poll(None),
        "next": lambda: iterator.next(),
        "iterate": iterate,
    }


@pytest.mark.parametrize("name", ["ping", "allocate", "poll", "next", "iterate"])
@pytest.mark.parametrize("options", [{}, {"reconnect": True}])
def test_another_thread_closes_it(name: str, options: dict[str, Any]) -> None:
    """A GUI's button, for example: the wait ends at once, and by the error that says why."""
    with serving() as server, server.open_port(**options) as port:
        server.peers[0].daemon.answers |= {"ping": None, ALLOCATE: None}
        waits = _waits(port)
        outcomes: list[str] = []
        thread = threading.Thread(target=lambda: outcomes.append(uses.outcome(waits[name])))
        thread.start()
        while not port._keeper.link._in_use.locked():
            pass
        port.close()
        thread.join(BOUND_S)
        assert outcomes == ["PortClosed"]
        assert socket_of(port).fileno() == -1
        server.peers[0].finish()


def test_another_thread_closes_it_while_it_connects_again() -> None:
    with serving() as server, server.open_port(reconnect=True) as port:
        connecting, go_on = threading.Event(), threading.Event()

        def prepare(_number: int, _peer: Peer) -> None:
            connecting.set()
            go_on.wait(BOUND_S)

        server.prepare = prepare
        server.peers[0].drop()
        outcomes: list[str] = []
        thread = threading.Thread(target=lambda: outcomes.append(uses.outcome(lambda: port.poll(BOUND_S))))
        thread.start()
        assert connecting.wait(BOUND_S)
        with pytest.raises(RuntimeError, match="in use"):
            port.wait_connected(BOUND_S)
        port.close()
        go_on.set()
        thread.join(BOUND_S)
        assert outcomes == ["PortClosed"]
        server.peers[1].finish()


def test_a_callback_closes_it() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[ALLOCATE] = None
        peer.then[ALLOCATE] = lambda: peer.send(notice("queued", peer.daemon.request(ALLOCATE).msgid, 2))
        with pytest.raises(lpt_client.PortClosed):
            port.allocate(on_queued=lambda _place: port.close())
        peer.finish()


def test_threads_that_share_it_are_served_or_refused() -> None:
    """Never the answer of another thread's request, never a broken conversation."""
    with serving() as server, server.open_port() as port:
        server.peers[0].daemon.answers["READ_PORT_UCHAR"] = lambda request: bytes([request.params[1][0]])
        served = [0] * 4
        wrong: list[object] = []

        def hammer(number: int) -> None:
            for _ in range(20_000):
                if served[number] >= 200:
                    return
                try:
                    value = port.read(number)
                except RuntimeError as exc:
                    if "open a port for each" not in str(exc):
                        wrong.append(exc)
                except BaseException as exc:
                    wrong.append(exc)
                else:
                    served[number] += 1
                    if value != number:
                        wrong.append((number, value))

        threads = [threading.Thread(target=hammer, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND_S)
        assert wrong == []
        assert sum(served) >= 200
        assert port.ping() == (123, 456)


# Dropped


@contextmanager
def without_collector() -> Iterator[None]:
    """Nothing but the last reference lets an object go."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _end_of(server: FakeServer, port_of: Callable[[], Any]) -> list[str]:
    """Drop what `port_of` gives; the warnings of that. Its connection has ended then."""
    told: list[str] = []

    def note(message: warnings.WarningMessage) -> None:  # and not the message itself, which holds the port
        assert message.category is ResourceWarning
        assert isinstance(message.source, blocking.Port)
        told.append(str(message.message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings._showwarnmsg_impl = note  # type: ignore[attr-defined]
        port = port_of()
        gone = weakref.ref(port)
        del port
        assert gone() is None
    for peer in server.peers:
        peer.finish()
    return told


def _fail(port: blocking.Port) -> None:
    with suppress(lpt_client.LptError):
        port.pulse(1, width_us=10)


def _raise_through(port: blocking.Port) -> None:
    def use_it() -> None:
        with port.allocated():
            port.pulse(1, width_us=10)
            raise KeyError

    with suppress(KeyError, lpt_client.LptError):
        use_it()


def _abandon_blocks(port: blocking.Port) -> None:
    blocks = [port.allocated(), port.connect_interrupt(print), port.connect_port_check(print)]
    for block in blocks:
        block.__enter__()


def _abandon_generator(port: blocking.Port) -> None:
    def edges() -> Iterator[object]:
        with port.allocated(), port.connect_interrupt() as interrupts:
            yield interrupts

    next(edges())


def _abandon_iterator(port: blocking.Port) -> None:
    block = port.connect_interrupt()
    iter(block.__enter__()).next(0)


_WAYS: dict[str, Callable[[blocking.Port], object]] = {
    "unused": lambda _port: None,
    "used": lambda port: port.ping(),
    "owning": lambda port: port.allocate(),
    "refused": _fail,
    "raised through": _raise_through,
    "blocks abandoned": _abandon_blocks,
    "generator abandoned": _abandon_generator,
    "iterator abandoned": _abandon_iterator,
}


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("options", [{}, {"reconnect": True}])
def test_the_last_reference_releases_it(way: str, options: dict[str, Any]) -> None:
    with serving() as server, without_collector():
        server.make_daemon = keeping()

        def leave() -> blocking.Port:
            port = server.open_port(**options)
            answers = server.peers[0].daemon.answers
            if way == "refused":
                answers["PULSE"] = RequestError(Status.STATUS_ACCESS_DENIED, "not yours")
            _WAYS[way](port)
            return port

        (warning,) = _end_of(server, leave)
        assert "lpt://daemon:5378/LPT1" in warning
        assert "blocking_harness.py:" in warning  # where it was opened
        if "abandoned" in way or way == "raised through":
            assert FREE in server.peers[0].daemon.names or way == "iterator abandoned"
        if options:
            assert server.peers[0].daemon.names[-1] == "bye"


@pytest.mark.parametrize("name", sorted(set(uses.public_names(blocking.Port)) - {"close", "url"}))
def test_no_failed_call_keeps_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks in the midst of each call; then it is made anew, and the port dropped."""
    monkeypatch.setattr(backoff, "FIRST_DELAY_S", 0.0)
    with serving() as server, without_collector():
        server.prepare = lambda number, peer: _drop_at_first_request(peer) if number == 1 else None

        def leave() -> blocking.Port:
            port = server.open_port(reconnect=True)
            server.peers[0].then["cancel"] = server.peers[0].drop
            use = uses.methods(port).get(name, lambda: getattr(port, name))
            uses.outcome(use)
            del use
            assert port.wait_connected(BOUND_S)
            return port

        assert len(_end_of(server, leave)) == 1


def _drop_at_first_request(peer: Peer) -> None:
    for name in (*peer.daemon.answers, "drain", "GET_MORE_PARALLEL_PORT_INFO", "GET_PARALLEL_PNP_INFO"):
        if name != "hello":
            peer.daemon.answers[name] = None
            peer.then[name] = peer.drop


def test_a_session_that_went_on_and_is_dropped() -> None:
    """Calls whose answers were lost, or came later, keep nothing alive."""
    with serving() as server, without_collector():
        server.make_daemon = keeping()
        server.prepare = lambda number, peer: _drop_at_first_request(peer) if number == 1 else None

        def leave() -> blocking.Port:
            port = server.open_port(reconnect=True)
            assert uses.outcome(port.ping) == "ConnectionLost"
            assert port.ping() == (123, 456)
            return port

        assert len(_end_of(server, leave)) == 1
        assert server.peers[1].daemon.names[-1] == "bye"


def test_connecting_again_was_refused_for_good() -> None:
    with serving() as server, without_collector():

        def leave() -> blocking.Port:
            port = server.open_port(reconnect=True)
            server.refuse = lpt_client.HelloRefused(Status.STATUS_ACCESS_DENIED, "no longer")
            server.peers[0].drop()
            for _ in range(2):
                with pytest.raises(lpt_client.HelloRefused):
                    port.poll(BOUND_S)
            server.refuse = None
            return port

        with warnings.catch_warnings(record=True):
            _end_of(server, leave)


def test_nothing_is_said_of_one_that_was_closed_or_lost() -> None:
    with serving() as server, without_collector():

        def leave() -> blocking.Port:
            with server.open_port() as port:
                port.ping()
            return port

        def lose() -> blocking.Port:
            port = server.open_port()
            server.peers[-1].drop()
            assert uses.outcome(port.ping) == "ConnectionLost"
            return port

        assert _end_of(server, leave) == []
        assert _end_of(server, lose) == []


def test_the_next_port_of_the_process_is_granted() -> None:
    with serving() as server, without_collector():
        with pytest.warns(ResourceWarning):
            server.open_port().allocate()
        server.peers[0].finish()  # its session has ended
        with server.open_port() as port:
            assert port.allocate() == GRANT


def test_a_program_that_ends_without_closing() -> None:
    """Says nothing on standard error, unless asked to; and tells the daemon that nobody comes back."""
    program = """
from tests.clients.blocking_harness import FakeServer
from tests.clients.fake_daemon import keeping
server = FakeServer()
server.make_daemon = keeping()
port = server.open_port(reconnect=True)
port.allocate()
block = port.connect_interrupt(print)
block.__enter__()
import atexit
atexit.register(print, 1)  # called last, for it is the first
"""
    for options, told in (([], ""), (["-X", "tracemalloc=9", "-W", "always::ResourceWarning"], "without being closed")):
        done = subprocess.run(
            [sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=BOUND_S, check=True
        )
        assert told in done.stderr
        assert "Traceback" not in done.stderr
        if not options:
            assert done.stderr == ""


# What it was told of the daemon


def test_a_timeout_passes_on_what_the_daemon_said() -> None:
    with serving() as server, server.open_port() as port:
        detail = "lab has owned LPT1 for 7 s"
        server.peers[0].daemon.answers[ALLOCATE] = RequestError(Status.STATUS_IO_TIMEOUT, detail)
        with pytest.raises(lpt_client.TimedOut, match="lab has owned LPT1"):
            port.allocate(0)


def test_late_grants_are_given_back() -> None:
    """An allocate whose caller is gone by the time that it is granted."""
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers[ALLOCATE] = None
        peer.then[ALLOCATE] = lambda: peer.send(notice("queued", peer.daemon.request(ALLOCATE).msgid, 1))
        peer.then["cancel"] = lambda: peer.answer(ALLOCATE, U64.pack(GRANT))

        def leave(_place: int) -> None:
            raise KeyError

        with pytest.raises(KeyError):
            port.allocate(on_queued=leave)
        assert peer.daemon.names[-1] == FREE
