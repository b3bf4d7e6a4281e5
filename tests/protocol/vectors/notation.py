"""How the vectors are written down: frames as Python tuples, with short words for the usual ones.

Bytes are made by `wire.pack`, which shares no code with the codec that they test.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.status import Status
from tests.protocol.wire import Choose, pack, shortest

Frame = tuple[Any, ...]

CLIENT: Final = "client"
DAEMON: Final = "daemon"
INTERNAL: Final = "internal_device_control"
DEVICE: Final = "device_control"

# What differs from session to session, as it is in all of the examples.
SESSION: Final = 7
STREAM: Final = 2_718_281_828_459_045
CONTEXT: Final = 0x5C0F_FEE5_0DDB_A115
GRANT: Final = 1042
MONOTONIC_NS: Final = 81_350_123_456_789
REALTIME_NS: Final = 1_763_720_400_123_456_789
# What a client chooses.
ROUTINE, ROUTINE_CONTEXT = 0x1001, 0x2002
CHECK, CHECK_CONTEXT = 0x3003, 0x4004

JSON_INTEGER_MAX: Final = 2**53  # beyond this, many readers of JSON round


@dataclass(frozen=True)
class Step:
    """One frame on its way: who sends it, its bytes, and what it means."""

    direction: str
    frame: Frame
    data: bytes
    meaning: str
    is_canonical: bool = True


def client(frame: Frame, meaning: str) -> Step:
    return Step(CLIENT, frame, pack(frame), meaning)


def client_otherwise(frame: Frame, meaning: str, choose: Choose = shortest, encoded: Frame | None = None) -> Step:
    """A frame of a client whose library encodes it in another way (`encoded`: with other types)."""
    return Step(CLIENT, frame, pack(encoded or frame, choose), meaning, is_canonical=False)


def daemon(frame: Frame, meaning: str) -> Step:
    return Step(DAEMON, frame, pack(frame), meaning)


def request(msgid: int, method: str, *params: Any) -> Frame:
    return (0, msgid, method, params)


def control(
    msgid: int,
    code: int,
    buffer: bytes = b"",
    output_length: int = 0,
    options: dict[str, Any] | None = None,
    method: str = INTERNAL,
) -> Frame:
    """A control request."""
    return request(msgid, method, int(code), buffer, output_length, *([] if options is None else [options]))


def result(msgid: int, value: Any) -> Frame:
    return (1, msgid, None, value)


def done(msgid: int, output: bytes = b"") -> Frame:
    """A control request's success: Information is the length of the output."""
    return result(msgid, (len(output), output))


def failed(msgid: int, status: Status, detail: str) -> Frame:
    return (1, msgid, (status.value, status.name, detail), None)


def notice(method: str, *params: Any) -> Frame:
    return (2, method, params)


def interrupt(
    seq: int, timestamp_ns: int, meaning: str, *, count: int = 1, status: int = 0xD8, control: int = 0x1C, kind: int = 0
) -> Step:
    """An entry of the log, in its fixed size."""
    numbers = (seq, timestamp_ns, count, status, control, kind)
    data = struct.pack(
        ">BBB9sB BQ BQ BI BB BB BB",
        *(0x93, 2, 0xA9, b"interrupt", 0x96),
        *(0xCF, seq, 0xCF, timestamp_ns, 0xCE, count, 0xCC, status, 0xCC, control, 0xCC, kind),
    )
    return Step(DAEMON, notice("interrupt", *numbers), data, meaning)


# Buffers


def u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


HANDLE: Final = u64(CONTEXT)
SERVICE_ROUTINE: Final = u64(ROUTINE, ROUTINE_CONTEXT, 0, 0)
PORT_CHECK_ONLY: Final = u64(0, 0, CHECK, CHECK_CONTEXT)
INTERRUPT_INFORMATION: Final = u64(
    STREAM, Ioctl.TRY_ALLOCATE_PORT_AT_INTERRUPT_LEVEL, Ioctl.FREE_PORT_FROM_INTERRUPT_LEVEL, CONTEXT
)
PORT_INFORMATION: Final = struct.pack(
    "<QQI4xQQQQ", 0, 0, 3, Ioctl.TRY_ALLOCATE_PORT, Ioctl.FREE_PORT, Ioctl.QUERY_NUM_WAITERS, CONTEXT
)
MORE_PORT_INFORMATION: Final = struct.pack("<IIIIQI4x", 1, 0, 0, 0, 0, 1)
PNP_INFORMATION: Final = struct.pack("<QQIII4xQQIIQIIQQQI4xQ", *[0] * 4, 8, *[0] * 9, CONTEXT, 0, 0)


# JSON


def to_json(value: Any) -> Any:
    """A frame in JSON: bin is {"bin": hex}, an integer that JSON readers may round is {"u64": decimal}."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, int) and not isinstance(value, bool) and value > JSON_INTEGER_MAX:
        return {"u64": str(value)}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(value: Any) -> Any:
    """The reverse of `to_json`."""
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if isinstance(value, dict):
        if value.keys() == {"bin"}:
            return bytes.fromhex(value["bin"])
        if value.keys() == {"u64"}:
            return int(value["u64"])
        return {key: from_json(item) for key, item in value.items()}
    return value
