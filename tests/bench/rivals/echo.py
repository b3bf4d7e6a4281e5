"""The limit: a bare server that answers each request of a fixed size with the bytes of a ready-made reply.

    python -m tests.bench.rivals.echo blocking|trio tcp|UNIX-PATH REQUEST-BYTES REPLY-HEX

`blocking` is a thread with a blocking socket for each connection, `trio` a trio.SocketStream; neither parses anything.
"""

from __future__ import annotations

import socket
import sys
import threading

import trio


def serve_blocking(listener: socket.socket, request_bytes: int, reply: bytes) -> None:
    """A thread for each connection."""
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_answer, args=(sock, request_bytes, reply), daemon=True).start()


def _answer(sock: socket.socket, request_bytes: int, reply: bytes) -> None:
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rest = 0
    while data := sock.recv(65536):
        whole, rest = divmod(rest + len(data), request_bytes)
        if whole:
            sock.sendall(reply * whole)


async def serve_trio(listener: socket.socket, request_bytes: int, reply: bytes) -> None:
    """A task for each connection."""

    async def answer(stream: trio.SocketStream) -> None:
        rest = 0
        async for data in stream:
            whole, rest = divmod(rest + len(data), request_bytes)
            if whole:
                await stream.send_all(reply * whole)

    await trio.serve_listeners(answer, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])


def main() -> None:
    """Listen, say where, serve until ended."""
    kind, where, request_bytes, reply = sys.argv[1], sys.argv[2], int(sys.argv[3]), bytes.fromhex(sys.argv[4])
    listener = socket.socket(socket.AF_INET if where == "tcp" else socket.AF_UNIX)
    listener.bind(("127.0.0.1", 0) if where == "tcp" else where)
    listener.listen()
    print("ready", listener.getsockname()[1] if where == "tcp" else 0, flush=True)
    if kind == "blocking":
        serve_blocking(listener, request_bytes, reply)
    else:
        trio.run(serve_trio, listener, request_bytes, reply)


if __name__ == "__main__":
    main()
