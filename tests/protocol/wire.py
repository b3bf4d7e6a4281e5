"""MessagePack written by hand, in any of its legal forms, and what the codec makes of bytes: for the tests here.

Source: the MessagePack specification, "Formats". Independent of msgpack and of the code under test.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest import mock

from lpt_service.protocol import codec
from lpt_service.protocol.codec import DAEMON_LIMITS, Decoder
from lpt_service.protocol.errors import ConversationError
from lpt_service.protocol.frame_scanner import Limits
from lpt_service.protocol.messages import Message, Notification, Request, Response

# --- encoding --------------------------------------------------------------------------------------------------------

# First byte, struct format of the number, lowest, highest.
_INTEGERS = (
    (0xCC, ">B", 0, 0xFF),
    (0xCD, ">H", 0, 0xFFFF),
    (0xCE, ">I", 0, 0xFFFF_FFFF),
    (0xCF, ">Q", 0, 0xFFFF_FFFF_FFFF_FFFF),
    (0xD0, ">b", -0x80, 0x7F),
    (0xD1, ">h", -0x8000, 0x7FFF),
    (0xD2, ">i", -0x8000_0000, 0x7FFF_FFFF),
    (0xD3, ">q", -0x8000_0000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF),
)
# First byte of the short form, its highest length, then the forms with 1, 2 and 4 bytes of length (None: not there).
_LENGTHS: dict[type, tuple[int | None, int, int | None, int, int]] = {
    str: (0xA0, 31, 0xD9, 0xDA, 0xDB),
    bytes: (None, -1, 0xC4, 0xC5, 0xC6),
    tuple: (0x90, 15, None, 0xDC, 0xDD),
    dict: (0x80, 15, None, 0xDE, 0xDF),
}

# Chooses one of several legal encodings, the shortest first.
Choose = Callable[[list[bytes]], bytes]


def shortest(forms: list[bytes]) -> bytes:
    return forms[0]


def longest(forms: list[bytes]) -> bytes:
    return forms[-1]


def pack(value: Any, choose: Choose = shortest) -> bytes:
    """One object as MessagePack; `choose` picks the form of each integer and each length."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return choose(_integer_forms(value))
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return choose(_length_forms(str, len(text))) + text
    if isinstance(value, bytes):
        return choose(_length_forms(bytes, len(value))) + value
    if isinstance(value, (tuple, list)):
        return choose(_length_forms(tuple, len(value))) + b"".join(pack(item, choose) for item in value)
    if isinstance(value, dict):
        items = (item for pair in value.items() for item in pair)
        return choose(_length_forms(dict, len(value))) + b"".join(pack(item, choose) for item in items)
    raise TypeError(type(value))


def _integer_forms(value: int) -> list[bytes]:
    forms = [struct.pack(">b", value)] if -32 <= value <= 127 else []
    fitting = [(first, form) for first, form, low, high in _INTEGERS if low <= value <= high]
    forms += [bytes([first]) + struct.pack(form, value) for first, form in fitting]
    return sorted(forms, key=len)


def _length_forms(kind: type, length: int) -> list[bytes]:
    short, short_max, *others = _LENGTHS[kind]
    forms = [bytes([short | length])] if short is not None and length <= short_max else []
    for first, form, high in zip(others, (">B", ">H", ">I"), (0xFF, 0xFFFF, 0xFFFF_FFFF), strict=True):
        if first is not None and length <= high:
            forms.append(bytes([first]) + struct.pack(form, length))
    return forms


def frame_of(message: Message) -> tuple[Any, ...]:
    """The array that a message is on the wire."""
    return ({Request: 0, Response: 1, Notification: 2}[type(message)], *message)


def message_of(frame: Sequence[Any]) -> Message:
    """The message that a well-formed array means."""
    return (Request, Response, Notification)[frame[0]](*frame[1:])


def pack_message(message: Message, choose: Choose = shortest) -> bytes:
    """The frame of a message."""
    return pack(frame_of(message), choose)


# --- decoding --------------------------------------------------------------------------------------------------------


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


WAYS = (whole, bytewise, halves)


def decode(
    chunks: Iterable[bytes], limits: Limits = DAEMON_LIMITS, *, as_before_1_2: bool = False
) -> tuple[list[Message], str | None]:
    """The messages in the chunks, and the text of the ConversationError if one ended them.

    `as_before_1_2`: the way of the codec with an older msgpack.
    """
    messages: list[Message] = []
    with mock.patch.object(codec, "_LEAKS_INCOMPLETE", as_before_1_2 or codec._LEAKS_INCOMPLETE):
        decoder = Decoder(limits)
        try:
            for chunk in chunks:
                decoder.receive(chunk)
                while (message := decoder.next_message()) is not None:
                    messages.append(message)
        except ConversationError as exc:
            return messages, str(exc)
    return messages, None
