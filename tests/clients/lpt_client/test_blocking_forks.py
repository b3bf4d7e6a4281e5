"""Forked children: they are refused the parent's port, in words, and the parent notices nothing of them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import pytest

import lpt_client
from lpt_client import blocking
from tests.clients import uses
from tests.clients.blocking_harness import BOUND_S, FakeServer, serving, socket_of
from tests.clients.fake_daemon import interrupt
from tests.clients.forking import in_child

if not hasattr(os, "fork"):
    pytest.skip("this system does not fork", allow_module_level=True)

# Python 3.12 and later warn of forks beside threads; the fake daemon's are threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

# What a child is told of the state of a port that is not its own.
_NOTHING = {
    "goes_on": "False",
    "grant": "None",
    "is_connected": "False",
    "lease_warning": "None",
    "revoked": "None",
    "session": "OtherProcess",
    "url": "Url('lpt://daemon:5378/LPT1')",
    "waiting": "0",
}


def test_everything_is_refused_in_a_child() -> None:
    with serving() as server, server.open_port() as port:
        port.allocate()
        names = list(server.peers[0].daemon.names)

        def use_it() -> dict[str, str]:
            by_method = {name: uses.outcome(use) for name, use in uses.methods(port).items() if name != "close"}
            by_property = {name: uses.outcome(partial(getattr, port, name)) for name in uses.properties(port)}
            return by_method | by_property | {"close": uses.outcome(port.close)}

        outcomes = in_child(use_it)
        assert {name: value for name, value in outcomes.items() if name in _NOTHING} == {
            **_NOTHING,
            "url": repr(port.url),
        }
        refused = {name: value for name, value in outcomes.items() if name not in {*_NOTHING, "close"}}
        assert len(refused) > 25
        assert set(refused.values()) == {"OtherProcess"}, refused
        assert outcomes["close"] == "None"
        assert port.ping() == (123, 456)
        assert server.peers[0].daemon.names == [*names, "ping"]


def test_the_error_says_whose_the_port_is() -> None:
    with serving() as server, server.open_port() as port:

        def ask() -> str:
            try:
                port.ping()
            except lpt_client.OtherProcess as exc:
                return f"{exc.opened_in == os.getppid()}, {exc.used_in == os.getpid()}: {exc}"
            return "it was answered"

        told = in_child(ask)
        assert told.startswith("True, True: ")
        assert f"opened in process {os.getpid()}" in told
        assert "open a port here, after the fork" in told


@pytest.mark.parametrize("options", [{}, {"reconnect": True}, {"reconnect": True, "resume": False}])
def test_a_child_does_not_reconnect(options: dict[str, Any]) -> None:
    with serving() as server, server.open_port(**options) as port:

        def use_it() -> list[str]:
            waits = [uses.outcome(lambda: port.wait_connected(30)), uses.outcome(lambda: port.poll(30))]
            return [*waits, uses.outcome(port.ping), str(server.attempts)]

        assert in_child(use_it) == ["OtherProcess"] * 3 + ["1"]
        assert port.ping() == (123, 456)


def test_blocks_that_were_entered_before_the_fork() -> None:
    with serving() as server, server.open_port() as port:
        allocated, connected = port.allocated(), port.connect_interrupt()
        with allocated, connected as interrupts:
            server.peers[0].send(interrupt(0) + interrupt(1))
            port.poll(BOUND_S)
            names = list(server.peers[0].daemon.names)

            def leave() -> list[str]:
                return [
                    str(interrupts.event_count),
                    uses.outcome(interrupts.next),
                    uses.outcome(lambda: next(interrupts)),
                    uses.outcome(lambda: connected.__exit__(None, None, None)),
                    uses.outcome(lambda: allocated.__exit__(None, None, None)),
                    uses.outcome(lambda: port.__exit__(None, None, None)),
                ]

            assert in_child(leave) == ["0", "OtherProcess", "OtherProcess", "False", "OtherProcess", "None"]
            assert server.peers[0].daemon.names == names
            assert [next(interrupts)[0] for _ in range(2)] == [0, 1]
            assert port.grant is not None


def test_blocks_that_are_dropped_in_the_child() -> None:
    with serving() as server, server.open_port() as port:
        held = [port.allocated(), port.connect_interrupt(), port.connect_port_check(print)]
        for block in held:
            block.__enter__()
        names = list(server.peers[0].daemon.names)
        assert in_child(held.clear) is None
        assert port.ping() == (123, 456)
        assert server.peers[0].daemon.names == [*names, "ping"]
        while held:
            held.pop().__exit__(None, None, None)


def test_another_thread_is_in_a_call_when_the_process_forks() -> None:
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        peer.daemon.answers["ping"] = None
        thread = threading.Thread(target=port.ping)
        thread.start()
        peer.seen("ping")
        assert in_child(lambda: [uses.outcome(port.read_data), uses.outcome(port.close)]) == ["OtherProcess", "None"]
        peer.answer("ping", [1, 2])
        thread.join(BOUND_S)
        assert not thread.is_alive()
        assert port.read_data() == 0x40


def test_a_callback_that_forks() -> None:
    """The child goes on in the midst of a call."""
    with serving() as server, server.open_port() as port:
        peer = server.peers[0]
        told: list[Any] = []

        def fork_again(*_: Any) -> None:
            told.append(in_child(lambda: [uses.outcome(port.ping), uses.outcome(port.close)]))

        with port.connect_interrupt(isr=fork_again, on_other=fork_again):
            peer.send(interrupt(0))
            assert port.poll(BOUND_S)
        assert told == [["OtherProcess", "None"]]


def test_the_connection_ends_with_the_parent_alone() -> None:
    """A child that lives on does not keep the connection of a parent that is gone."""
    with serving() as server:
        port = server.open_port()
        peer = server.peers[0]
        go, stop = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(stop)
            peer._sock.close()  # the fake daemon's end is not what is tested
            os.read(go, 1)
            os._exit(0)
        socket_of(port).close()  # as the kernel does when the parent is killed
        peer.finish()  # it has seen the end
        os.close(stop)
        os.close(go)
        os.waitpid(child, 0)
        port.close()


def test_several_generations() -> None:
    with serving() as server, server.open_port() as port:
        assert in_child(lambda: in_child(lambda: uses.outcome(port.ping))) == "OtherProcess"


def test_a_child_opens_a_port_of_its_own() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, serving() as server, server.open_port() as port:

        def open_one() -> list[str]:
            try:
                blocking.open_port(f"lpt://127.0.0.1:{listener.getsockname()[1]}/LPT1", connect_timeout_s=0.01)
            except lpt_client.ConnectFailed:
                pass
            own = FakeServer().open_port()
            outcomes = [uses.outcome(port.ping), str(own.ping())]
            own.close()
            return outcomes

        assert in_child(open_one) == ["OtherProcess", "Clock(monotonic_ns=123, realtime_ns=456)"]


def _ask(port: blocking.Port, answers: Any) -> None:
    answers.put(uses.outcome(port.ping))


def test_a_process_of_multiprocessing() -> None:
    fork = multiprocessing.get_context("fork")
    with serving() as server, server.open_port() as port:
        answers = fork.SimpleQueue()
        process = fork.Process(target=_ask, args=(port, answers))
        process.start()
        assert answers.get() == "OtherProcess"
        process.join(BOUND_S)
        assert process.exitcode == 0
        answers.close()
        assert port.ping() == (123, 456)


def test_a_port_is_not_sent_to_another_process() -> None:
    spawn = multiprocessing.get_context("spawn")
    with serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:
        for each in (port, interrupts):
            with pytest.raises(TypeError, match="stays in the process that opened it; hand over its address"):
                spawn.Process(target=_ask, args=(each, None)).start()


def test_programs_that_are_started_do_not_inherit_it() -> None:
    with serving() as server, server.open_port() as port:
        number = socket_of(port).fileno()
        code = f"import os\ntry: os.fstat({number})\nexcept OSError: print('closed')"
        for options in ({}, {"close_fds": False}, {"preexec_fn": os.getpid}):
            done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)
            assert done.stdout == "closed\n"
        assert port.ping() == (123, 456)
