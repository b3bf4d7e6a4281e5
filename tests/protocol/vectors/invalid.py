"""Bytes that end the conversation: not MessagePack, not a frame, over a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.protocol.wire import pack

TO_DAEMON: Final = "daemon"
TO_DAEMON_BEFORE_HELLO: Final = "daemon before hello"
TO_CLIENT: Final = "client"


@dataclass(frozen=True)
class Invalid:
    """Bytes at which the receiver gives up, and why."""

    data: bytes
    reason: str
    receiver: str = TO_DAEMON


def hex_bytes(text: str) -> bytes:
    return bytes.fromhex(text)


_PARAMS: Final = b"\x94\x00\x01\xa1m"  # [0, 1, "m", …

NOT_MESSAGEPACK = {
    "byte c1": Invalid(hex_bytes("c1"), "MessagePack never uses it."),
    "byte c1 inside": Invalid(_PARAMS + hex_bytes("91 c1"), "It is not legal anywhere."),
    "an extension type": Invalid(_PARAMS + hex_bytes("91 d4 01 00"), "This protocol has no extension types"),
    "a timestamp": Invalid(_PARAMS + hex_bytes("91 d6 ff 00 00 00 00"), "and no timestamps."),
    "text that is not UTF-8": Invalid(_PARAMS + hex_bytes("91 a1 ff"), "str must be UTF-8; what is not text is bin."),
    "a map as a map's key": Invalid(_PARAMS + hex_bytes("91 81 80 00"), "Keys are no maps."),
    "an HTTP request": Invalid(b"GET / HTTP/1.1\r\n", "Every letter is a MessagePack integer, and none is a frame."),
    "a TLS client hello": Invalid(hex_bytes("16 03 01 02 00"), "lpts where lpt was expected."),
}
NOT_A_FRAME = {
    "an integer": Invalid(pack(0), "A frame is an array."),
    "a map": Invalid(pack({"method": "ping"}), "A frame is an array."),
    "text": Invalid(pack("ping"), "A frame is an array."),
    "an empty array": Invalid(pack(()), "A frame begins with 0, 1 or 2."),
    "an unknown kind": Invalid(pack((3, 1, "ping", ())), "A frame begins with 0, 1 or 2."),
    "a kind that is a boolean": Invalid(pack((False, 1, "ping", ())), "false is not 0."),
    "a kind that is text": Invalid(pack(("0", 1, "ping", ())), 'Nor is "0".'),
    "a kind that is a float": Invalid(pack((0.0, 1, "ping", ())), "Nor is 0.0."),
    "a request of 3 items": Invalid(pack((0, 1, "ping")), "A request has 4 items."),
    "a request of 5 items": Invalid(pack((0, 1, "ping", (), ())), "A request has 4 items."),
    "a response of 3 items": Invalid(pack((1, 1, None)), "A response has 4 items."),
    "a notification of 4 items": Invalid(pack((2, 1, "cancel", ())), "A notification has 3 items."),
    "a negative msgid": Invalid(pack((0, -1, "ping", ())), "msgid is a u32."),
    "a msgid of 33 bits": Invalid(pack((0, 2**32, "ping", ())), "msgid is a u32."),
    "a msgid that is text": Invalid(pack((0, "1", "ping", ())), "msgid is a u32."),
    "a method that is a number": Invalid(pack((0, 1, 11, ())), "method is text, or bin that holds UTF-8."),
    "a method that is nil": Invalid(pack((2, None, ())), "method is text, or bin that holds UTF-8."),
    "a method in bin that is not UTF-8": Invalid(
        pack((0, 1, b"\xff\xfe", ())), "method is text, or bin that holds UTF-8."
    ),
}
# The bytes end where the receiver knows enough, whether or not more would come.
OVER_A_LIMIT = {
    "a frame of 65,537 bytes": Invalid(
        _PARAMS + hex_bytes("91 c6 00 00 ff f6"), "64 KiB is the limit; the header of the bin inside shows the excess."
    ),
    "a frame of 4 GiB": Invalid(_PARAMS + hex_bytes("91 c6 ff ff ff ff"), "Refused without waiting for it."),
    "a frame of 4,097 bytes before hello": Invalid(
        hex_bytes("94 00 01 a5") + b"hello" + hex_bytes("91 81 a1 78 c5 0f f1"),
        "4 KiB is the limit before hello.",
        TO_DAEMON_BEFORE_HELLO,
    ),
    "an array of 65 items": Invalid(_PARAMS + hex_bytes("dc 00 41"), "64 items are the limit."),
    "an array of 4,294,967,295 items": Invalid(_PARAMS + hex_bytes("dd ff ff ff ff"), "64 items are the limit."),
    "a frame that is an array of 65 items": Invalid(hex_bytes("dc 00 41"), "64 items are the limit."),
    "a map of 65 items": Invalid(_PARAMS + hex_bytes("91 de 00 41"), "64 items are the limit."),
    "text of 1,025 bytes": Invalid(_PARAMS + hex_bytes("91 da 04 01"), "1 KiB is the limit, in bytes of UTF-8."),
    "a method of 1,025 bytes": Invalid(hex_bytes("94 00 01 da 04 01"), "1 KiB is the limit."),
    "nesting of 9": Invalid(_PARAMS + hex_bytes("91 91 91 91 91 91 91 90"), "The frame is level 1; 8 is the limit."),
    "nesting of 9, in maps": Invalid(
        _PARAMS + hex_bytes("81 00 81 00 81 00 81 00 81 00 81 00 81 00 80"), "Maps count like arrays."
    ),
    "a frame of more than 1 MiB to a client": Invalid(
        hex_bytes("94 01 01 c0 92 ce 00 10 00 00 c6 00 10 00 00"), "The daemon's frames stay under 1 MiB.", TO_CLIENT
    ),
}
INVALID: dict[str, Invalid] = {**NOT_MESSAGEPACK, **NOT_A_FRAME, **OVER_A_LIMIT}
