"""The limit of an interrupt's way: wait for an eventfd, send as many bytes as a frame has, nothing else.

    python -m tests.bench.rivals.bare_line EVENTFD FRAME-BYTES

The number of interrupts that came together stands in the frame's first 8 bytes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys


def main() -> None:
    """Serve one connection until ended."""
    descriptor, padding = int(sys.argv[1]), bytes(int(sys.argv[2]) - 8)
    listener = socket.create_server(("127.0.0.1", 0))
    print("ready", listener.getsockname()[1], flush=True)
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    poll = select.epoll()
    poll.register(descriptor, select.EPOLLIN)
    while True:
        poll.poll()
        sock.sendall(struct.pack("<Q", os.eventfd_read(descriptor)) + padding)


if __name__ == "__main__":
    main()
