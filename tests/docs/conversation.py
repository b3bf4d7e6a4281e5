"""The worked conversation of docs/protocol.md: how it is held, written down and read back.

    python -m tests.docs.conversation       hold it with a real daemon, and print it for the page

A frame on the page is `C` (client to daemon) or `D` (daemon to client), its bytes in hex, and after `=` what it says:
nil for none, h'0a0b' for bin, the rest as in JSON. A line that begins with `#` tells what happens.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from lpt_service.protocol.codec import CLIENT_LIMITS, DAEMON_LIMITS, Decoder, encode_request
from lpt_service.protocol.ioctl import CONTROL, DATA, STATUS, Ioctl
from lpt_service.protocol.messages import Message, Request, Response
from lpt_service.protocol.structs import PARALLEL_INTERRUPT_SERVICE_ROUTINE, REGISTER_WRITE
from lpt_service.protocol.url import Url

_INTERNAL = "internal_device_control"
ISR = PARALLEL_INTERRUPT_SERVICE_ROUTINE(InterruptServiceRoutine=7, InterruptServiceContext=0).pack()
_WIDTH = 115


class Step(NamedTuple):
    """What the client sends, and how many frames the daemon sends because of it."""

    what: str
    data: bytes
    answers: int


def _control(msgid: int, code: int, input_: bytes, output_length: int) -> bytes:
    return encode_request(msgid, _INTERNAL, (int(code), input_, output_length))


def _write(msgid: int, offset: int, value: int, output_length: int = 0) -> bytes:
    return _control(msgid, Ioctl.WRITE_PORT_UCHAR, REGISTER_WRITE.pack(offset, value), output_length)


STEPS = (
    Step("hello", encode_request(1, "hello", ({"protocol": 1, "client": "by hand", "port": "LPT1"},)), 1),
    Step(
        "PARALLEL_PORT_ALLOCATE: the port is free; the output is the grant",
        _control(2, Ioctl.PARALLEL_PORT_ALLOCATE, b"", 8),
        1,
    ),
    Step(
        "PARALLEL_CONNECT_INTERRUPT of routine 7: stream, callbacks 0x16200c and 0x162010, the handle, first_seq 0",
        _control(3, Ioctl.PARALLEL_CONNECT_INTERRUPT, ISR, 40),
        2,
    ),
    Step(
        "WRITE_PORT_UCHAR, data 0x08: the plug joins D3 to nAck, whose rising edge is an interrupt",
        _write(4, DATA, 0x08),
        2,
    ),
    Step("WRITE_PORT_UCHAR, status: refused", _write(5, STATUS, 0xFF), 1),
    Step(
        "READ_PORT_UCHAR, control: bit 4 is set, the daemon has enabled the interrupt",
        _control(6, Ioctl.READ_PORT_UCHAR, bytes([CONTROL]), 1),
        1,
    ),
    Step(
        "PARALLEL_DISCONNECT_INTERRUPT: end_seq 1; the fence",
        _control(7, Ioctl.PARALLEL_DISCONNECT_INTERRUPT, ISR, 8),
        1,
    ),
    Step("PARALLEL_PORT_FREE", _control(8, Ioctl.PARALLEL_PORT_FREE, b"", 0), 1),
    Step("the byte 0xc1 is not MessagePack: the last frame, then the end of the stream", b"\xc1", 1),
)


class Frame(NamedTuple):
    """One frame of the page: who sends it, its bytes, what it is said to say (nothing where it is no frame)."""

    sender: str
    data: bytes
    meaning: str


def decode(sender: str, data: bytes) -> Message:
    """The one message that `data` is, within the limits of whoever receives it."""
    decoder = Decoder(DAEMON_LIMITS if sender == "C" else CLIENT_LIMITS)
    decoder.receive(data)
    message = decoder.next_message()
    assert message is not None, "an incomplete frame"
    assert decoder.next_message() is None, "more than one frame"
    return message


def frame_of(message: Message) -> tuple[Any, ...]:
    """The array that a message is on the wire."""
    return (0 if type(message) is Request else 1 if type(message) is Response else 2, *message)


def notation(value: Any) -> str:
    """A value in the notation of the page."""
    if value is None:
        return "nil"
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, tuple):
        return f"[{', '.join(map(notation, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{notation(key)}: {notation(item)}' for key, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


# The page


def write_down(sender: str, data: bytes, meaning: str) -> Iterator[str]:
    """A frame as lines of the page."""
    rows = textwrap.wrap(data.hex(" "), _WIDTH - 2)
    yield f"{sender} {rows[0]}"
    yield from (f"  {row}" for row in rows[1:])
    if meaning:
        yield from textwrap.wrap(
            f"= {meaning}", _WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=True
        )


def read_back(page: str) -> list[Frame]:
    """The frames of the page's block."""
    frames: list[Frame] = []
    digits, meaning, sender = "", "", ""
    for line in [*page.splitlines(), "#"]:
        if line[:2] in ("C ", "D ") or line.startswith("#"):
            if sender:
                frames.append(Frame(sender, bytes.fromhex(digits), meaning.removeprefix("=").strip()))
            digits, meaning, sender = line[2:], "", "" if line.startswith("#") else line[0]
        elif meaning or line.strip().startswith("="):
            meaning += line.strip() + " "
        else:
            digits += line
    return frames


# The conversation


def receive_frames(sock: socket.socket, count: int) -> list[bytes]:
    """The next `count` frames, each as its bytes; a read gives one byte, so that the ends are seen."""
    frames = []
    for _ in range(count):
        decoder = Decoder(CLIENT_LIMITS)
        data = b""
        message = None
        while message is None:
            byte = sock.recv(1)
            assert byte, f"the daemon closed after {data.hex(' ')}"
            data += byte
            decoder.receive(byte)
            message = decoder.next_message()
        frames.append(data)
    return frames


Ask = Callable[[str, tuple[Any, ...]], Any]


@contextmanager
def connected(url: Url) -> Iterator[Ask]:
    """A connection on which one request after the other is asked; what is no answer is skipped, an error fails."""
    with socket.create_connection((url.host, url.tcp_port), timeout=40) as sock:
        msgids = itertools.count()

        def ask(method: str, params: tuple[Any, ...]) -> Any:
            sock.sendall(encode_request(next(msgids), method, params))
            while True:
                message = decode("D", *receive_frames(sock, 1))
                if type(message) is Response:
                    assert message.error is None, message.error
                    return message.result

        yield ask


def hold(url: Url) -> Iterator[tuple[Step, list[bytes]]]:
    """Hold the conversation with a daemon that serves a simulated port with its plug in."""
    with socket.create_connection((url.host, url.tcp_port), timeout=40) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for step in STEPS:
            sock.sendall(step.data)
            yield step, receive_frames(sock, step.answers)
        assert sock.recv(1) == b"", "the daemon has something to say after closing"


def _print_anew() -> None:
    from tests.docs.daemon import running_daemon

    with running_daemon() as url:
        lines: list[str] = []
        for step, answers in hold(url):
            lines += ["", f"# {step.what}"] if lines else [f"# {step.what}"]
            sent = "" if step.data == b"\xc1" else notation(frame_of(decode("C", step.data)))
            lines += write_down("C", step.data, sent)
            for data in answers:
                lines += write_down("D", data, notation(frame_of(decode("D", data))))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    _print_anew()
