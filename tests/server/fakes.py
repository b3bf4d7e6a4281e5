"""A clock that shows trio's time, a connection in memory, and the client at its other end."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgpack
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.config import Config, ListenerConfig, parse
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.structs import PARALLEL_INTERRUPT_SERVICE_ROUTINE, PULSE
from lpt_service.server.daemon import Daemon
from lpt_service.server.identity import Identity, Origin
from lpt_service.server.listener_set import Change, ListenerSet

START_NS = 1_000_000_000_000
START_REALTIME_NS = 1_700_000_000_000_000_000
BOUND_S = 40  # against hanging alone
INTERNAL = "internal_device_control"
MEMORY = Origin("memory", "memory")
ROOT = Origin("uid 0 pid 1", "user 0", Identity(uid=0))


class VirtualClock:
    """Shows trio's time; under the autojump clock, that of the test."""

    def monotonic_ns(self) -> int:
        return START_NS + round(trio.current_time() * 1e9)

    def realtime_ns(self) -> int:
        return START_REALTIME_NS + round(trio.current_time() * 1e9)

    async def sleep_until(self, at_ns: int) -> None:
        await trio.sleep_until((at_ns - START_NS) / 1e9)


class MemoryStream:
    """A `Stream` with a bounded buffer in either direction, and the client's end of it.

    Attributes:
        room: how many bytes it holds for the client; `try_send` takes no more until the client has read.
        received: how many bytes the daemon has read.
        taken_at_most: the largest number of bytes that waited for the client.
        failure: what every call of the daemon raises from now on.
        is_closed, is_finished: the daemon has called `close`, `finish`.
        dead_peer_s: what the daemon has set.
        unsent: what `unsent_bytes` answers; None: what waits for the client.
        silent_since_s: since when the client's kernel has not answered.
        is_window_closed: what was sent and not read would be lost if the connection were closed.
        last_room: how many bytes it holds from `make_room` on.
    """

    def __init__(self, room: int = 1 << 30) -> None:
        self.received = 0
        self.taken_at_most = 0
        self.failure: Exception | None = None
        self.is_closed = self.is_finished = False
        self.unsent: int | None = None
        self.dead_peer_s: float | None = None
        self.silent_since_s = math.inf
        self.is_window_closed = False
        self.last_room = 1 << 20
        self._incoming: deque[bytes] = deque()
        self._is_eof = False
        self._outgoing = bytearray()
        self._room = room
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def room(self) -> int:
        return self._room

    @room.setter
    def room(self, room: int) -> None:
        self._room = room
        self._changed.unpark_all()

    # The daemon's end

    def try_receive(self) -> bytes | None:
        self._check()
        if self._incoming:
            data = self._incoming.popleft()
            self.received += len(data)
            return data
        return b"" if self._is_eof else None

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while (data := self.try_receive()) is None:
            await self._changed.park()
        return data

    def try_send(self, data: bytes | memoryview) -> int:
        self._check()
        sent = max(0, min(len(data), self.room - len(self._outgoing)))
        self._outgoing += data[:sent]
        self.taken_at_most = max(self.taken_at_most, len(self._outgoing))
        return sent

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        while len(self._outgoing) >= self.room:
            await self._changed.park()
            self._check()

    def unsent_bytes(self) -> int:
        if self.is_closed:
            raise ValueError("a closed socket has no descriptor to ask")
        self._check()
        return len(self._outgoing) if self.unsent is None else self.unsent

    def set_dead_peer_s(self, dead_peer_s: float) -> None:
        self._check()
        self.dead_peer_s = dead_peer_s

    def is_unreachable(self, dead_peer_s: float) -> bool:
        self._check()
        return trio.current_time() - self.silent_since_s >= dead_peer_s

    def make_room(self) -> None:
        self._check()
        self.room = max(self.room, self.last_room)

    async def finish(self) -> None:
        self._check()
        self.is_finished = True
        await trio.lowlevel.checkpoint()

    async def wait_until_taken(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.is_window_closed and self._outgoing:
            await self._changed.park()
            self._check()

    def close(self) -> None:
        self.is_closed = True
        self._changed.unpark_all()

    def _check(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError("closed here")
        if self.failure is not None:
            raise self.failure

    # The client's end

    def feed(self, *chunks: bytes) -> None:
        """Send; each chunk is one read of the daemon's."""
        self._incoming.extend(chunks)
        self._changed.unpark_all()

    def end(self) -> None:
        """Close the client's end."""
        self._is_eof = True
        self._changed.unpark_all()

    def break_(self, failure: Exception) -> None:
        """The connection fails."""
        self.failure = failure
        self._changed.unpark_all()

    def take(self, at_most: int | None = None) -> bytes:
        """Read what is there."""
        data = bytes(self._outgoing[:at_most])
        del self._outgoing[:at_most]
        self._changed.unpark_all()
        return data


class Peer:
    """A client of a daemon in this process."""

    def __init__(self, daemon: Daemon, room: int = 1 << 30, origin: Origin = MEMORY) -> None:
        self.stream = MemoryStream(room)
        self.session = daemon.serve(self.stream, origin)
        self._unpacker = msgpack.Unpacker()
        self._msgids = itertools.count(1)

    # Sending

    def send(self, method: str, *params: Any, msgid: int | None = None) -> int:
        """Send a request, and return its msgid."""
        msgid = next(self._msgids) if msgid is None else msgid
        self.stream.feed(request(msgid, method, *params))
        return msgid

    def control(self, code: int, input_: bytes = b"", output_length: int = 0, **options: Any) -> int:
        """Send a control request of the internal class."""
        params: tuple[Any, ...] = (int(code), input_, output_length)
        return self.send(INTERNAL, *params, *([options] if options else []))

    def allocate(self, **options: Any) -> int:
        return self.control(Ioctl.PARALLEL_PORT_ALLOCATE, **options)

    def free(self) -> int:
        return self.control(Ioctl.PARALLEL_PORT_FREE)

    def connect_interrupt(self, isr: int = 1, deferred: int = 0, **options: Any) -> int:
        return self.control(Ioctl.PARALLEL_CONNECT_INTERRUPT, routine(isr, deferred), 40, **options)

    def disconnect_interrupt(self, isr: int = 1, deferred: int = 0) -> int:
        return self.control(Ioctl.PARALLEL_DISCONNECT_INTERRUPT, routine(isr, deferred), 8)

    def pulse(self, value: int, after: int, width_us: int) -> int:
        return self.control(Ioctl.PULSE, PULSE.pack(value, after, width_us), 16)

    # Receiving

    async def messages(self) -> list[Any]:
        """What the daemon has sent, once it has nothing more to do now."""
        await wait_all_tasks_blocked()
        return self.read()

    def read(self, at_most: int | None = None) -> list[Any]:
        """Read so many bytes: the messages that are whole by now."""
        self._unpacker.feed(self.stream.take(at_most))
        return list(self._unpacker)

    async def answer(self, msgid: int) -> Any:
        """The [error, result] of a request; everything else that has come is dropped."""
        (answer,) = [message[2:] for message in await self.messages() if message[:2] == [1, msgid]]
        return answer

    async def result(self, msgid: int) -> Any:
        error, result = await self.answer(msgid)
        assert error is None, error
        return result

    async def status_of(self, msgid: int) -> str:
        """The name of the status with which a request ended."""
        error, result = await self.answer(msgid)
        assert result is None
        name: str = error[1]
        return name

    async def say_hello(self, **keys: Any) -> Any:
        return await self.result(self.send("hello", {"protocol": 1, **keys}))


def request(msgid: int, method: str, *params: Any) -> bytes:
    """A request as bytes."""
    return msgpack.packb([0, msgid, method, params])


def routine(isr: int = 1, deferred: int = 0) -> bytes:
    """A PARALLEL_INTERRUPT_SERVICE_ROUTINE."""
    return PARALLEL_INTERRUPT_SERVICE_ROUTINE(isr, 0, deferred, 0).pack()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the kernel brings about, in real time; a virtual clock stands still meanwhile."""
    give_up_at = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < give_up_at
        await wait_all_tasks_blocked(0.001)


def closing(messages: list[Any]) -> str:
    """The reason of the one `closing`, which must be last."""
    assert [message[1] for message in messages].count("closing") == 1
    kind, name, params = messages[-1]
    assert (kind, name, len(params)) == (2, "closing", 1)
    reason: str = params[0]
    return reason


def is_open(peer: Peer) -> bool:
    """Whether the daemon still serves it."""
    return not peer.stream.is_closed


def config(**sections: Any) -> Config:
    """Settings for a daemon that listens on a free TCP port, which no test here uses."""
    return parse({"server": {"listen": ["lpt://127.0.0.1:0"]}, **sections})


async def start_daemon(nursery: trio.Nursery, *, server: Any = None, **sections: Any) -> Daemon:
    """A daemon on a virtual clock."""
    assert isinstance(trio.lowlevel.current_clock(), MockClock), "the test has to ask for autojump_clock by itself"
    sections = {"port": [{"enable_connect_interrupt": True}], **sections}
    if server is not None:
        sections["server"] = {"listen": ["lpt://127.0.0.1:0"], **server}
    daemon = Daemon(config(**sections), clock=VirtualClock())
    await nursery.start(daemon.run)
    return daemon


async def prepare(listeners: ListenerSet, urls: Iterable[str], *, is_open: bool = False) -> Change:
    """What `prepare` makes of URLs; `is_open`: whether anybody could use a port behind them."""
    return await listeners.prepare([ListenerConfig(url=url) for url in urls], lambda is_tls: is_open)


async def enter(daemon: Daemon, room: int = 1 << 30, **keys: Any) -> Peer:
    """A client that has said hello; from then on its connection holds `room` bytes."""
    peer = Peer(daemon)
    await peer.say_hello(**keys)
    peer.stream.room = room
    return peer


def simulated(daemon: Daemon, name: str = "LPT1") -> Any:
    """The simulated port itself, to play the peripheral."""
    return daemon.workers[name].driver.port


def status(daemon: Daemon, name: str = "LPT1") -> dict[str, Any]:
    """What `status` would answer."""
    return daemon.status(daemon.workers[name])
