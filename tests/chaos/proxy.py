"""A TCP proxy that puts faults into every connection, as a process of its own.

python -m tests.chaos.proxy HOST TCP_PORT SEED

It prints `HOST TCP_PORT CONTROL_PORT`, and ends when its standard input does. Who connects to the control port is sent
how many faults of each kind have happened, as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections import Counter, deque
from types import TracebackType

import trio

from tests.chaos.faults import DOWN, UP, Fault, Kind, plan
from tests.e2e.daemons import PROJECT

_CHUNK_BYTES = 65_536


class _Over(Exception):  # noqa: N818 - no error: the connection is to end
    """Both ends are to get a reset."""


class _Hole(Exception):  # noqa: N818 - no error either
    """Nothing comes through any more."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class _Connection:
    """One client and its connection to the daemon."""

    def __init__(self, ends: tuple[trio.SocketStream, trio.SocketStream], faults: list[Fault], tally: Counter[str]):
        self._ends = ends  # by direction: whom it is read from
        self._faults = [deque(fault for fault in faults if fault.direction == way) for way in (UP, DOWN)]
        self._tally = tally
        self._drips = [0, 0]  # bytes still to go on one at a time
        self._is_mute = [False, False]
        self._stalled_until = 0.0
        self._ways_left = 2
        self._is_done = trio.Event()
        self._is_doomed = trio.Event()
        self._lives_s = 0.0

    async def run(self) -> None:
        """Until both directions have ended, or one of them is broken."""
        holes: list[_Hole] = []
        try:
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                nursery.start_soon(self._reset_later)
                for way in (UP, DOWN):
                    nursery.start_soon(self._carry, way)
                await self._is_done.wait()
                nursery.cancel_scope.cancel()
        except* _Hole as group:
            holes += [each for each in group.exceptions if isinstance(each, _Hole)]
        except* (_Over, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        else:
            return
        if holes:
            await trio.sleep(holes[0].seconds)
            _reset(self._ends[DOWN])
            await _swallow_all(self._ends[UP])
        for end in self._ends:
            _reset(end)

    async def _reset_later(self) -> None:
        await self._is_doomed.wait()
        await trio.sleep(self._lives_s)
        raise _Over

    async def _carry(self, way: int) -> None:
        source, sink, offset = self._ends[way], self._ends[1 - way], 0
        while data := await source.receive_some(_CHUNK_BYTES):
            faults = self._faults[way]
            while faults and faults[0].kind is not Kind.SWALLOW and faults[0].at < offset + len(data):
                fault = faults.popleft()
                before = max(0, fault.at - offset)
                await self._forward(way, data[:before])
                data, offset = data[before:], offset + before
                self._tally[fault.kind] += 1
                await self._apply(fault)
            await self._forward(way, data)
            offset += len(data)
        for fault in self._faults[way]:
            if fault.kind is Kind.SWALLOW:
                self._tally[fault.kind] += 1
                await trio.sleep(fault.amount)
        if not self._is_mute[way]:
            await sink.send_eof()
        self._ways_left -= 1
        if not self._ways_left:
            self._is_done.set()

    async def _apply(self, fault: Fault) -> None:
        way = fault.direction
        match fault.kind:
            case Kind.DRIP:
                self._drips[way] += int(fault.amount)
            case Kind.DELAY:
                await trio.sleep(fault.amount)
            case Kind.STALL:
                self._stalled_until = trio.current_time() + fault.amount  # for the other direction
                await trio.sleep(fault.amount)
            case Kind.RESET:
                raise _Over
            case Kind.LATER:
                self._lives_s = fault.amount
                self._is_doomed.set()
            case Kind.ONE_SIDED:
                _reset(self._ends[way])
                await trio.sleep(fault.amount)
                raise _Over
            case Kind.MUTE:
                self._is_mute[way] = True
                with trio.move_on_after(fault.amount):
                    await _swallow_all(self._ends[way])
                    await trio.sleep_forever()
                raise _Over
            case Kind.BLACK_HOLE:
                raise _Hole(fault.amount)
            case Kind.HALF_CLOSE:
                self._is_mute[way] = True
                await self._ends[1 - way].send_eof()

    async def _forward(self, way: int, data: bytes) -> None:
        await trio.sleep_until(self._stalled_until)
        if self._is_mute[way]:
            return
        single = min(len(data), self._drips[way])
        self._drips[way] -= single
        for place in range(single):
            await self._ends[1 - way].send_all(data[place : place + 1])
        if single < len(data):
            await self._ends[1 - way].send_all(data[single:])


async def _swallow_all(source: trio.SocketStream) -> None:
    """Up to its end, in order or not; nothing of it is passed on."""
    try:
        while await source.receive_some(_CHUNK_BYTES):
            pass
    except trio.BrokenResourceError:
        pass


def _reset(end: trio.SocketStream) -> None:
    """Close in a way that the other side sees as an error."""
    if end.socket.fileno() != -1:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.socket.close()


async def _serve(host: str, tcp_port: int, seed: int) -> None:
    tally: Counter[str] = Counter()
    served = 0

    async def serve_one(client: trio.SocketStream) -> None:
        nonlocal served
        faults = plan(seed, served)
        served += 1
        try:
            daemon = await trio.open_tcp_stream(host, tcp_port)
        except OSError:
            _reset(client)
            return
        tally["connections"] += 1
        async with daemon:
            await _Connection((client, daemon), faults, tally).run()

    async def tell(asker: trio.SocketStream) -> None:
        with_total = {**tally, "faults": sum(tally.values()) - tally["connections"]}
        try:
            await asker.send_all(json.dumps(with_total).encode())
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(2)]
        for listener, handler in zip(listeners, (serve_one, tell), strict=True):
            nursery.start_soon(trio.serve_listeners, handler, [listener])
        ports = [listener.socket.getsockname()[1] for listener in listeners]
        print("127.0.0.1", *ports, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


class ChaosProxy:
    """The proxy as a process, for the length of a `with` block."""

    def __init__(self, address: tuple[str, int], seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.proxy", *map(str, address), str(seed)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        assert self._process.stdout is not None
        host, tcp_port, control_port = self._process.stdout.readline().split()
        self.address = (host, int(tcp_port))
        self._control = (host, int(control_port))

    def __enter__(self) -> ChaosProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        assert kind is not None or self._process.returncode == 0, "the proxy has failed"

    def tally(self) -> dict[str, int]:
        """How often each kind of fault has happened; "faults" is the sum."""
        with socket.create_connection(self._control, timeout=60) as sock:
            data = b"".join(iter(lambda: sock.recv(4096), b""))
        tally: dict[str, int] = json.loads(data)
        return tally


if __name__ == "__main__":
    trio.run(_serve, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
