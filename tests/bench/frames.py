"""A client of ready-made frames: so little of its own that what is measured is the daemon."""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

import msgpack

from lpt_service.protocol.codec import INTERRUPT_FRAME_BYTES
from lpt_service.protocol.ioctl import Ioctl
from tests.bench.bench import Address

_INTERNAL: Final = "internal_device_control"
_TIMEOUT_S: Final = 20.0
FRAME_BYTES: Final = INTERRUPT_FRAME_BYTES


def control(msgid: int, code: int, input_: bytes, output_length: int) -> bytes:
    """A control request."""
    return bytes(msgpack.packb([0, msgid, _INTERNAL, [int(code), input_, output_length]]))


def control_reply(msgid: int, output: bytes) -> bytes:
    """The answer to one."""
    return bytes(msgpack.packb([1, msgid, None, [len(output), output]]))


READ_STATUS: Final = control(1, Ioctl.READ_PORT_UCHAR, b"\x01", 1)
READ_REPLY_BYTES: Final = len(control_reply(1, b"\x00"))
PING: Final = bytes(msgpack.packb([0, 1, "ping", []]))
ALLOCATE: Final = control(2, Ioctl.PARALLEL_PORT_ALLOCATE, b"", 0)
FREE: Final = control(3, Ioctl.PARALLEL_PORT_FREE, b"", 0)
GRANTED: Final = control_reply(2, b"")
FREED: Final = control_reply(3, b"")


def dial(address: Address) -> socket.socket:
    """A connected blocking socket."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(_TIMEOUT_S)
    sock.connect(address)
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(None)  # a receive is one system call then; the kernel bounds it
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(_TIMEOUT_S), 0))
    return sock


def greet(address: Address, **keys: Any) -> socket.socket:
    """A connection on which hello has been answered."""
    sock = dial(address)
    sock.sendall(msgpack.packb([0, 0, "hello", [{"protocol": 1, "client": "bench", **keys}]]))
    sock.recv(65536)
    return sock


def listen(address: Address) -> socket.socket:
    """A connection that hears interrupts; what comes before the first one has been read."""
    sock = greet(address)
    connect_interrupt(sock)
    return sock


def connect_interrupt(sock: socket.socket) -> None:
    """Connect a routine, and read what comes before the first interrupt."""
    sock.sendall(control(1, Ioctl.PARALLEL_CONNECT_INTERRUPT, struct.pack("<4Q", 1, 0, 0, 0), 40))
    settle(sock)


def settle(sock: socket.socket) -> None:
    """Read all that the daemon has to say so far: up to the answer of a ping, and what is sent right behind it."""
    sock.sendall(bytes(msgpack.packb([0, 9, "ping", []])))
    unpacker = msgpack.Unpacker()
    while True:
        unpacker.feed(sock.recv(65536))
        for message in unpacker:
            if message[:2] == [1, 9]:
                return


def drain(sock: socket.socket) -> None:
    """Throw away what is there."""
    try:
        while sock.recv(65536, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        pass
