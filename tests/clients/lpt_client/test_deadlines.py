"""Time-outs of the blocking client are deadlines: nothing that comes meanwhile begins one anew."""

from __future__ import annotations

import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import lpt_client
from lpt_client import blocking, blocking_transport, names, operations, sockets, waits
from lpt_client.operations import ANSWER_MARGIN_S, CLEANUP_TIMEOUT_S
from lpt_service.protocol.codec import encode_result
from lpt_service.protocol.messages import Response
from lpt_service.protocol.structs import U64
from lpt_service.protocol.url import Url
from tests.clients.blocking_harness import BOUND_S, URL, FakeServer, serving
from tests.clients.fake_daemon import GRANT, FakeDaemon, interrupt, notice

REPLY_S = 2.0

# By a clock that goes on with every wait: something always comes, and never what is waited for.


class Daemon:
    """In place of a transport: takes everything, and at each receive `comes` is there, a little later."""

    step_s = 0.01

    def __init__(self, comes: Iterator[bytes | None]) -> None:
        self.now_s = 1000.0
        self.receives = 0
        self._comes = comes

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def receive(self, deadline_s: float) -> bytes | None:
        self.receives += 1
        assert self.receives < 10_000, "the time began anew"
        self.now_s += self.step_s
        return next(self._comes)

    def send(self, data: bytes, deadline_s: float) -> None:
        """It is taken."""

    def shut_down(self) -> None:
        pass

    def close(self) -> None:
        """Nothing is held."""


def interrupts_at_a_kilohertz() -> Iterator[bytes]:
    seq = 0
    while True:
        yield interrupt(seq)
        seq += 1


def notices() -> Iterator[bytes]:
    while True:
        yield notice("waiters", 3)


def bytes_one_by_one() -> Iterator[bytes]:
    for byte in notice("closing", "x" * 60_000):
        yield bytes([byte])


def wake_ups_for_nothing() -> Iterator[None]:
    while True:
        yield None


COMES: list[Callable[[], Iterator[bytes | None]]] = [
    interrupts_at_a_kilohertz,
    notices,
    bytes_one_by_one,
    wake_ups_for_nothing,
]


def put(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, port: blocking.Port | None = None) -> None:
    """Have it in place of the port's daemon, and its clock in place of the system's."""
    clock = SimpleNamespace(monotonic=daemon.monotonic, sleep=daemon.sleep)
    for module in ("", "_link", "_keeper", "_ownership", "_registering", "_connector", "_interrupts"):
        monkeypatch.setattr(f"lpt_client.blocking{module}.time", clock)
    monkeypatch.setattr("lpt_client.waits.time", clock)
    for module in ("_link", "_keeper", "_ownership", "_registering"):
        monkeypatch.setattr(f"lpt_client.blocking{module}.CLEANUP_TIMEOUT_S", CLEANUP_TIMEOUT_S)
    if port is not None:
        port._keeper.link._transport.close()
        port._keeper.link._transport = daemon


def ping(port: blocking.Port) -> float:
    with pytest.raises(lpt_client.ConnectionLost, match="did not answer ping in time"):
        port.ping()
    return REPLY_S


def allocate(port: blocking.Port) -> float:
    with pytest.raises(lpt_client.ConnectionLost, match="did not answer PARALLEL_PORT_ALLOCATE in time"):
        port.allocate(3)
    return 3 + ANSWER_MARGIN_S


def long_pulse(port: blocking.Port) -> float:
    with pytest.raises(lpt_client.ConnectionLost, match="did not answer PULSE in time"):
        port.pulse(1, width_us=5_000_000)
    return REPLY_S + 5


def give_up(port: blocking.Port) -> float:
    with pytest.raises(KeyboardInterrupt), port.allocated(on_queued=interrupt_once):
        pass
    assert not port.is_connected
    return CLEANUP_TIMEOUT_S


def interrupt_once(_position: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("comes", COMES)
@pytest.mark.parametrize("wait", [ping, allocate, long_pulse, give_up])
def test_an_answer_that_does_not_come(
    comes: Callable[[], Iterator[bytes | None]],
    wait: Callable[[blocking.Port], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def comes_first() -> Iterator[bytes | None]:
        if wait is give_up:
            yield notice("queued", 2, 1)  # the msgid after hello's
        yield from comes()

    with serving() as server, server.open_port(reply_timeout_s=REPLY_S) as port:
        daemon = Daemon(comes_first())
        put(daemon, monkeypatch, port)
        began_s = daemon.now_s
        waited_s = wait(port)
        assert waited_s <= daemon.now_s - began_s <= waited_s + 3 * daemon.step_s


@pytest.mark.parametrize("comes", COMES[1:])
def test_events_that_do_not_come(comes: Callable[[], Iterator[bytes | None]], monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server, server.open_port() as port:
        interrupts = port.connect_interrupt()
        stream = interrupts.__enter__()
        daemon = Daemon(comes())
        put(daemon, monkeypatch, port)
        began_s = daemon.now_s
        assert stream.next(3) is None
        assert 3 <= daemon.now_s - began_s <= 3.1
        port.close()
        interrupts.__exit__(None, None, None)


@pytest.mark.parametrize("comes", COMES[2:])
def test_a_poll_for_which_nothing_comes_waits_for_as_long_as_it_was_told(
    comes: Callable[[], Iterator[bytes | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a frame is nothing: it neither ends the waiting nor begins it anew."""
    with serving() as server, server.open_port() as port:
        daemon = Daemon(comes())
        put(daemon, monkeypatch, port)
        began_s = daemon.now_s
        assert not port.poll(3)
        assert 3 <= daemon.now_s - began_s <= 3.1


@pytest.mark.parametrize("comes", COMES)
def test_the_last_interrupts_before_a_disconnect_do_not_come(
    comes: Callable[[], Iterator[bytes | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def comes_after_the_answer() -> Iterator[bytes | None]:
        yield encode_result(3, (8, U64.pack(1_000_000)))
        yield from comes()

    with serving() as server, server.open_port() as port:
        with port.connect_interrupt() as interrupts:
            daemon = Daemon(comes_after_the_answer())
            put(daemon, monkeypatch, port)
            began_s = daemon.now_s
        assert CLEANUP_TIMEOUT_S <= daemon.now_s - began_s <= CLEANUP_TIMEOUT_S + 0.1
        assert interrupts.next_seq == 1_000_000


@pytest.mark.parametrize("comes", COMES[1:])
def test_a_hello_whose_answer_does_not_come(
    comes: Callable[[], Iterator[bytes | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(comes())
    put(daemon, monkeypatch)
    monkeypatch.setattr("lpt_client.blocking_connector.SocketTransport", lambda sock: daemon)
    here, there = socket.socketpair()
    with here, there, pytest.raises(lpt_client.ConnectFailed, match="no answer: timed out"):
        blocking.open_port(URL, connect_timeout_s=4, open_socket=lambda url, deadline_s: here)
    assert 4 <= daemon.now_s - 1000 <= 4.1


def test_what_is_asked_again_waits_for_the_time_that_is_left() -> None:
    call = operations.allocate(10)
    assert operations.with_time_left(call, 15) is call
    assert operations.with_time_left(operations.PING, 1) is operations.PING
    late = operations.with_time_left(call, ANSWER_MARGIN_S + 2.5)
    assert late.params[3] == {"timeout_ms": 2500}
    assert operations.with_time_left(call, 1).params[3] == {"timeout_ms": 0}
    assert late.undo is call.undo
    assert late.finish(Response(1, None, (8, U64.pack(GRANT)))) == GRANT


# By a real clock: a signal every 10 ms, whose handler returns.


@pytest.fixture
def signals() -> Iterator[Callable[[], int]]:
    """They come; gives how many have come."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("no interval timers")
    count = 0

    def handle(_number: int, _frame: object) -> None:
        nonlocal count
        count += 1
        assert count < 100 * BOUND_S, "the time began anew with each signal"

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    yield lambda: count
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=[True, False])
def has_poll(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "HAS_POLL", request.param)


TIMEOUT_S = 0.2


def signalled_ping(port: blocking.Port) -> None:
    with pytest.raises(lpt_client.ConnectionLost, match="did not answer ping in time"):
        port.ping()


def signalled_allocate(port: blocking.Port) -> None:
    with pytest.raises(lpt_client.ConnectionLost, match="did not answer PARALLEL_PORT_ALLOCATE in time"):
        port.allocate(TIMEOUT_S)


def signalled_send(port: blocking.Port) -> None:
    with pytest.raises(lpt_client.ConnectionLost, match="did not answer READ_PORT_UCHAR in time"):
        port.ioctl(0x162040, bytes(60_000), 1)


def signalled_poll(port: blocking.Port) -> None:
    assert not port.poll(TIMEOUT_S)


def signalled_iteration(port: blocking.Port) -> None:
    interrupts = blocking.Interrupts(1, None, None)  # of which the daemon does not know
    interrupts.pump = port._keeper.pump
    interrupts.begin(0)
    assert interrupts.next(TIMEOUT_S) is None


@pytest.mark.parametrize(
    "wait", [signalled_ping, signalled_allocate, signalled_send, signalled_poll, signalled_iteration]
)
def test_a_daemon_that_never_answers(
    wait: Callable[[blocking.Port], None],
    signals: Callable[[], int],
    has_poll: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "ANSWER_MARGIN_S", 0.0)
    monkeypatch.setattr("lpt_client.blocking_link._BYE_S", TIMEOUT_S)
    with silent_after_hello() as open_port, open_port(reply_timeout_s=TIMEOUT_S) as port:
        before = signals()
        wait(port)
        assert signals() > before, "it was interrupted"


@contextmanager
def silent_after_hello() -> Iterator[Callable[..., blocking.Port]]:
    """Opens a port of a daemon that answers hello, and then neither reads nor writes."""
    here, there = socket.socketpair()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    thread = threading.Thread(target=lambda: there.sendall(FakeDaemon().receive(there.recv(65536))), daemon=True)
    thread.start()
    with there:
        yield lambda **options: blocking.open_port(URL, open_socket=lambda url, deadline_s: here, **options)
        thread.join(BOUND_S)


def test_a_goodbye_that_nobody_takes(signals: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpt_client.blocking_link._BYE_S", TIMEOUT_S)
    with silent_after_hello() as open_port:
        port = open_port(reconnect=True)
        transport = port._keeper.link._transport
        assert isinstance(transport, blocking_transport.SocketTransport)
        while transport.try_send(bytes(4096)):
            pass  # until the kernel takes no more
        monkeypatch.setattr(port._keeper.link.conversation, "bye", lambda: b"bye")
        port.close()
        assert signals()


@pytest.mark.parametrize("scheme", ["lpt", "lpts"])
def test_a_daemon_that_accepts_and_says_nothing(scheme: str, signals: Callable[[], int]) -> None:
    here, there = socket.socketpair()
    with there, pytest.raises(lpt_client.ConnectFailed, match="timed out"):
        blocking.open_port(
            f"{scheme}://daemon/LPT1", connect_timeout_s=TIMEOUT_S, open_socket=lambda url, deadline_s: here
        )
    assert signals()


def drop(server: FakeServer, port: blocking.Port) -> None:
    """The connection breaks, and the port knows it."""
    server.peers[0].drop()
    while port.is_connected:
        port.poll(0)


def test_connecting_again_in_vain(signals: Callable[[], int]) -> None:
    with serving() as server, server.open_port(reconnect=True) as port:
        server.refuse = lpt_client.ConnectFailed("refused")
        drop(server, port)
        before = signals()
        assert not port.wait_connected(TIMEOUT_S * 3)
        assert signals() > before


# Connecting


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """An address of this computer that answers no connect: its queue is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_an_address_that_does_not_answer(black_hole: tuple[str, int], signals: Callable[[], int]) -> None:
    with pytest.raises(lpt_client.ConnectFailed, match="timed out"):
        blocking.open_port(f"lpt://127.0.0.1:{black_hole[1]}/LPT1", connect_timeout_s=TIMEOUT_S)
    assert signals()


def test_each_address_of_a_name_has_its_part_of_the_time(
    black_hole: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as good:
        addresses = [(socket.AF_INET, address) for address in (black_hole, black_hole, good.getsockname())]
        monkeypatch.setattr(names.LookUp, "wait", lambda self, deadline_s: addresses)
        url = Url.parse("lpt://several.example/LPT1")
        with sockets.connect_socket(url, time.monotonic() + 1.5) as sock:
            assert sock.getpeername() == good.getsockname()


def test_a_poll_of_no_time_at_all_connects_again_in_the_end() -> None:
    """What one call has no time for, the next goes on with."""
    with serving() as server, server.open_port(reconnect=True) as port:
        server.peers[0].drop()
        until_s = time.monotonic() + BOUND_S
        while len(server.peers) < 2 or not port.is_connected:
            port.poll(0)
            assert time.monotonic() < until_s
        assert server.attempts == 2
        assert port.ping() == (123, 456)


def test_the_callers_time_ends_an_attempt_for_the_moment() -> None:
    with serving() as server, server.open_port(reconnect=True, connect_timeout_s=BOUND_S) as port:
        server.make_daemon = unanswered_hello
        drop(server, port)
        while len(server.peers) < 2:
            assert not port.wait_connected(0.01)
        for _ in range(3):
            assert not port.wait_connected(0.01)
        assert server.attempts == 2, "it is the same attempt"
        server.peers[1].seen("hello")
        server.peers[1].answer("hello", server.peers[1].daemon.hello())
        assert port.wait_connected(BOUND_S)
        assert port.session.session == 2


def unanswered_hello(number: int) -> FakeDaemon:
    daemon = FakeDaemon(session=number)
    daemon.answers["hello"] = None
    return daemon


def test_closing_ends_an_attempt() -> None:
    with serving() as server:
        port = server.open_port(reconnect=True)
        server.make_daemon = unanswered_hello
        drop(server, port)
        while len(server.peers) < 2:
            assert not port.wait_connected(0.01)
        port.close()
        server.peers[1].finish()


def test_waits_that_no_system_knows_so_long() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.send(b"x")
        for deadline_s in (math.inf, 1e300, time.monotonic() + 1e10):
            waits.Readiness(one).wait(deadline_s)
            waits.Readiness(one, to_write=True).wait(deadline_s)
