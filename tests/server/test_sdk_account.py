"""The SDK and the daemon, in memory: the connection breaks after any number of bytes, and every account comes out."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import lpt_client
from lpt_client.interrupt_stream import InterruptStream
from lpt_service.server.daemon import Daemon
from tests.server.fakes import MEMORY, MemoryStream, simulated
from tests.server.resuming import graceful

_LOOK_S = 0.001
_RING = 16


class ClientEnd(trio.abc.Stream):
    """The client's end of a connection to a daemon; after `left` bytes nothing comes through any more."""

    def __init__(self, daemon: Daemon, left: int) -> None:
        self.left = left
        self.taken = 0
        self._stream = MemoryStream()
        daemon.serve(self._stream, MEMORY)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._stream.feed(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while self.left:
            data = self._stream.take(self.left)
            self.left -= len(data)
            self.taken += len(data)
            if data or self._stream.is_closed:
                return data
            await trio.sleep(_LOOK_S)
        await trio.sleep(0.1)  # the daemon goes on saying what is never read
        self._stream.end()
        raise trio.BrokenResourceError

    async def aclose(self) -> None:
        self._stream.end()
        await trio.lowlevel.checkpoint()


class Truth:
    """What the daemon knows of each registration: where it began and ended, by its structure."""

    def __init__(self, daemon: Daemon) -> None:
        self.ends: dict[bytes, int] = {}
        registry = daemon.workers["LPT1"].driver.registry
        disconnect = registry.disconnect

        def watched(session: object, key: bytes, now_ns: int) -> object:
            registration = disconnect(session, key, now_ns)  # type: ignore[arg-type]
            self.ends[key] = registry.log.next_seq
            return registration

        registry.disconnect = watched  # type: ignore[method-assign,assignment]

    def check(self, interrupts: InterruptStream) -> None:
        if interrupts.first_seq is None:
            return  # its connecting was not answered: the program has been told so
        heard = interrupts.received + interrupts.buffered + interrupts.lost
        assert interrupts.unknown_periods == 0
        assert heard == self.ends[interrupts.structure] - interrupts.first_seq


async def _raise(daemon: Daemon, times: int) -> None:
    for _ in range(times):
        simulated(daemon).raise_interrupt()
        await trio.sleep(0.002)


async def _use(port: lpt_client.Port, daemon: Daemon, truth: Truth, burst: int) -> None:
    made: list[InterruptStream] = []
    with suppress(lpt_client.ConnectionLost):
        async with port.connect_interrupt() as first:
            made.append(first)
            await _raise(daemon, burst)
            async with port.connect_interrupt() as second:
                made.append(second)
                await _raise(daemon, 1)
            await _raise(daemon, 1)
    await _raise(daemon, 2)
    with suppress(lpt_client.ConnectionLost):
        async with port.connect_interrupt() as third:
            made.append(third)
            await _raise(daemon, 2)
    await wait_all_tasks_blocked()
    for each in made:
        truth.check(each)


async def _play(left: int, burst: int) -> int:
    async with trio.open_nursery() as nursery:
        daemon = await graceful(nursery, grace_s=1000.0, port={"interrupt_log_frames": _RING})
        truth = Truth(daemon)
        ends: list[ClientEnd] = []

        async def open_stream(_url: object) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ends.append(ClientEnd(daemon, 1 << 30 if ends else left))
            return ends[-1]

        with suppress(lpt_client.ConnectFailed, lpt_client.ConnectionLost):
            async with lpt_client.open_port("lpt://daemon/LPT1", open_stream=open_stream, reconnect=True) as port:
                await _use(port, daemon, truth, burst)
        nursery.cancel_scope.cancel()
    return ends[0].taken


@pytest.mark.parametrize("burst", [2, 3 * _RING])
def test_every_account_comes_out_wherever_the_connection_breaks(burst: int) -> None:
    def play(left: int) -> int:
        return trio.run(partial(_play, left, burst), clock=MockClock(autojump_threshold=0))

    total = play(1 << 30)
    for left in range(300, total, burst + 17):
        play(left)
