"""Connections that mean harm, in five kinds, as a process of its own.

python -m tests.chaos.hostile HOST TCP_PORT COUNT SEED PORT KINDS

Each of COUNT connections is of one of the KINDS, whose names are joined by commas, and begins anew when the daemon ends
it. "ready" is printed once all have been
in place, and a tally as JSON when standard input ends.
"""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

import msgpack
import trio

from tests.e2e.daemons import PROJECT

_STATUS = msgpack.packb([0, 1, "status", []])
_HEAD = b"\x94\x00\x01\xa4ping\x91"
# Headers that declare far more than the daemon takes, or than comes.
HUGE = (
    _HEAD + b"\xc6\xff\xff\xff\xff",  # bin of 4 GiB
    _HEAD + b"\xdb\xff\xff\xff\xff",  # text of 4 GiB
    _HEAD + b"\xdd\xff\xff\xff\xff",  # array of 2^32 - 1
    _HEAD + b"\xdf\xff\xff\xff\xff",  # map of 2^32 - 1
    _HEAD + b"\xc9\xff\xff\xff\xff\x01",  # extension of 4 GiB
    b"\xdc\xff\xff" * 500,  # an array of 65,535 in an array of 65,535 in …
    b"\xdc\x00\x40" * 20_000,  # the same, each as long as is allowed
)
_PAUSE_S = 0.1
# Kept back, so that a drip lasts; the daemon ends it before (30 s a frame, 10 s without hello).
_DRIP_BYTES = 2_000

Hostile = Callable[["_Enemy"], Awaitable[None]]


class _Enemy:
    """One connection."""

    def __init__(self, stream: trio.SocketStream, chance: random.Random, port: str) -> None:
        self.stream = stream
        self.chance = chance
        self._port = port

    async def hello(self) -> None:
        keys = {"protocol": 1, "client": "hostile", "port": self._port}
        await self.stream.send_all(msgpack.packb([0, 0, "hello", [keys]]))
        await self.stream.receive_some(4096)

    async def wait_for_the_end(self) -> None:
        while await self.stream.receive_some(65_536):
            pass


async def garbage(enemy: _Enemy) -> None:
    """Random bytes."""
    if enemy.chance.random() < 0.5:
        await enemy.hello()
    await enemy.stream.send_all(enemy.chance.randbytes(enemy.chance.randrange(1, 60_000)))
    await enemy.wait_for_the_end()


async def slow_loris(enemy: _Enemy) -> None:
    """The largest frame that is allowed, whose last bytes come one at a time; before hello, or after."""
    size = 3_900
    if enemy.chance.random() < 0.7:
        await enemy.hello()
        size = 65_400
    frame = msgpack.packb([0, 1, "ping", [b"x" * size]])
    await enemy.stream.send_all(frame[:-_DRIP_BYTES])
    for place in range(len(frame) - _DRIP_BYTES, len(frame)):
        await enemy.stream.send_all(frame[place : place + 1])
        await trio.sleep(_PAUSE_S)


async def huge_sizes(enemy: _Enemy) -> None:
    """Headers that declare gigabytes."""
    await enemy.hello()
    await enemy.stream.send_all(enemy.chance.choice(HUGE))
    await enemy.wait_for_the_end()


async def deep_nesting(enemy: _Enemy) -> None:
    """Arrays in arrays, or maps in maps, ten thousand deep."""
    if enemy.chance.random() < 0.5:
        await enemy.hello()
    await enemy.stream.send_all(enemy.chance.choice((b"\x91", b"\x81\x00")) * 10_000)
    await enemy.wait_for_the_end()


async def deaf(enemy: _Enemy) -> None:
    """Requests without end, and no reply is read."""
    enemy.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await enemy.hello()
    while True:
        await enemy.stream.send_all(_STATUS * 5000)


KINDS: tuple[Hostile, ...] = (garbage, slow_loris, huge_sizes, deep_nesting, deaf)


async def _run(host: str, tcp_port: int, count: int, seed: int, port: str, kinds: list[Hostile]) -> None:
    tally: Counter[str] = Counter()
    in_place = 0

    async def one(number: int) -> None:
        nonlocal in_place
        chance = random.Random(f"{seed}:{number}")
        kind = kinds[number % len(kinds)]
        is_first = True
        while True:
            try:
                async with await trio.open_tcp_stream(host, tcp_port) as stream:
                    in_place += is_first
                    if in_place == count and is_first:
                        print("ready", flush=True)
                    is_first = False
                    tally[kind.__name__] += 1
                    await kind(_Enemy(stream, chance, port))
            except (OSError, trio.BrokenResourceError):
                pass
            await trio.sleep(chance.uniform(0, 4 * _PAUSE_S))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    print(json.dumps(tally), flush=True)


class Crowd:
    """Hostile connections as a process, for the length of a `with` block.

    Attributes:
        tally: after the block, how many connections of each kind there were.
    """

    def __init__(
        self, address: tuple[str, int], count: int, seed: int, port: str = "LPT1", kinds: Sequence[Hostile] = KINDS
    ) -> None:
        self.tally: dict[str, int] = {}
        names = ",".join(kind.__name__ for kind in kinds)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.hostile", *map(str, (*address, count, seed, port, names))],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )

    def __enter__(self) -> Crowd:
        return self

    def wait_until_in_place(self) -> None:
        """All of them have been accepted by the kernel at least."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            output, _ = self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        if kind is None:
            self.tally = json.loads(output.splitlines()[-1])


def main() -> None:
    """As said above."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    host, tcp_port, count, seed, port, names = sys.argv[1:]
    kinds = [kind for kind in KINDS if kind.__name__ in names.split(",")]
    trio.run(_run, host, int(tcp_port), int(count), int(seed), port, kinds)


if __name__ == "__main__":
    main()
