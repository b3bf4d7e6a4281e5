"""The limits of a daemon for /dev/parport1, in Python: a loop that does what must be done, and nothing else.

    python -m tests.vm.inside.bare_ppdev events | counts | trio | registers

`events`: for each wake-up of ppdev one frame as the daemon's, which says how many, when, and the two registers.
`counts`: the same without a look at the registers.
`trio`: the same as `events`, but trio waits for the wake-up.
`registers`: READ is answered with the status register, WRITE and a byte, which is written to data, with WRITE.

Prints "ready PORT", and serves one connection until ended.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from typing import Final

import trio

from tests.vm import ppdev
from tests.vm.ppdev import PpDev

# docs/protocol.md: seq, timestamp_ns, count, status, control, kind.
FRAME: Final = struct.Struct(">3s9sB BQ BQ BI BB BB BB")
WRITE: Final = b"w"
READ: Final = b"r"


def main() -> None:
    """Claim the port, serve one connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    with PpDev(1) as port:
        port.claim_exclusively()
        port.ioctl(ppdev.CLRIRQ)
        print("ready", listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.argv[1] == "registers":
            serve_registers(port, sock)
        elif sys.argv[1] == "trio":
            trio.run(send_interrupts_by_trio, port, sock)
        else:
            send_interrupts(port, sock, has_registers=sys.argv[1] == "events")


def send_interrupts(port: PpDev, sock: socket.socket, *, has_registers: bool) -> None:
    """Send a frame for each wake-up."""
    poll = select.epoll()
    poll.register(port.fd, select.EPOLLIN)
    seq = 0
    while True:
        poll.poll()
        seq += send_frame(port, sock, seq, has_registers=has_registers)


async def send_interrupts_by_trio(port: PpDev, sock: socket.socket) -> None:
    """The same; the socket takes what is sent at once."""
    seq = 0
    while True:
        await trio.lowlevel.wait_readable(port.fd)
        seq += send_frame(port, sock, seq, has_registers=True)


def send_frame(port: PpDev, sock: socket.socket, seq: int, *, has_registers: bool) -> int:
    """Take what was raised, and send it; how many."""
    now_ns = time.monotonic_ns()
    count = port.ioctl(ppdev.CLRIRQ)
    status = control = 0
    if has_registers:
        status, control = port.ioctl(ppdev.RSTATUS), port.ioctl(ppdev.RCONTROL)
    sock.sendall(frame(seq, now_ns, count, status, control))
    return count


def frame(seq: int, timestamp_ns: int, count: int, status: int, control: int) -> bytes:
    """The bytes of an `interrupt` notification."""
    return FRAME.pack(
        b"\x93\x02\xa9", b"interrupt", 0x96, 0xCF, seq, 0xCF, timestamp_ns, 0xCE, count, 0xCC, status, 0xCC, control,
        0xCC, 0,
    )  # fmt: skip


def serve_registers(port: PpDev, sock: socket.socket) -> None:
    """Answer writes of data and reads of status."""
    while request := sock.recv(64):
        if request[:1] == WRITE:
            port.ioctl(ppdev.WDATA, request[1])
            sock.sendall(WRITE)
        else:
            sock.sendall(bytes((port.ioctl(ppdev.RSTATUS),)))


if __name__ == "__main__":
    main()
