"""websockets: its asyncio server, its blocking client. One small binary message each way, without compression."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import websockets.asyncio.server
import websockets.sync.client


@contextmanager
def client(port: int) -> Iterator[Callable[[], object]]:
    """A connection; what it gives makes one round trip."""
    with websockets.sync.client.connect(f"ws://127.0.0.1:{port}", compression=None) as connection:

        def read() -> object:
            connection.send(b"\x01")
            return connection.recv()

        yield read


async def main() -> None:
    """Serve until ended."""

    async def answer(connection: Any) -> None:
        async for _ in connection:
            await connection.send(b"\x79")

    async with websockets.asyncio.server.serve(answer, "127.0.0.1", 0, compression=None) as server:
        print("ready", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
