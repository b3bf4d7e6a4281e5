"""Clients whose MessagePack has no bin: what they send, and what they can read."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpt_service.protocol.codec import encode_interrupt, without_bin
from lpt_service.protocol.messages import Raw, Request
from tests.protocol.old_raw import OldDecoder, encode
from tests.protocol.strategies import MSGIDS, values
from tests.protocol.wire import WAYS, decode

METHOD = "internal_device_control"
QUIET = encode([2, "quiet", []])


def read(buffer: bytes) -> str | Raw:
    """What a raw is in a message: text, if it can be."""
    try:
        return buffer.decode()
    except UnicodeDecodeError:
        return Raw(buffer)


@given(MSGIDS, st.binary(max_size=1024), st.sampled_from(WAYS))
def test_any_bytes_may_be_the_input_and_can_be_told_from_text(msgid: int, buffer: bytes, way: Any) -> None:
    """Whatever a raw holds, the frames around it are read, and its bytes are not lost."""
    frame = encode([0, msgid, METHOD, [0x162044, buffer, 8, {"timeout_ms": 5}]])
    messages, fault = decode(way(QUIET + frame + QUIET))
    assert fault is None
    assert len(messages) == 3
    request = messages[1]
    assert request == Request(msgid, METHOD, (0x162044, read(buffer), 8, {"timeout_ms": 5}))
    assert isinstance(request, Request)
    assert type(request.params[1]) is type(read(buffer))


@pytest.mark.parametrize(
    "frame",
    [
        [0, 1, METHOD, [b"\xff"]],
        [0, 1, METHOD, [b"\xff", b"\xff", 8]],
        [0, 1, METHOD, [1, b"\xff", b"\xff"]],
        [0, 1, METHOD, [1, b"\xff", 8, {"grant": b"\xff"}]],
        [0, 1, METHOD, [1, b"\xff", 8, {b"\xff": 1}]],
        [0, 1, METHOD, [1, [b"\xff"], 8]],
        [0, 1, METHOD, {1: b"\xff"}],
        [0, 1, METHOD, b"\xff"],
        [0, 1, b"\xff", [1, b"\xff", 8]],
        [0, 1, "hello", [{"client": b"\xff"}]],
        [1, 1, None, [1, b"\xff", 8]],
        [2, "cancel", [1, b"\xff"]],
        [0, 1, METHOD, [1, b"\xff", 8], 5],
    ],
    ids=repr,
)
@pytest.mark.parametrize("way", WAYS)
def test_everywhere_else_text_is_utf_8(way: Any, frame: Any) -> None:
    messages, fault = decode(way(QUIET + encode(frame) + QUIET))
    assert len(messages) == 1
    assert fault is not None
    assert fault.startswith("not MessagePack: 'utf-8'")


@pytest.mark.parametrize("way", WAYS)
def test_the_limits_hold_for_it_as_for_text(way: Any) -> None:
    for frame, said in (
        ([0, 1, METHOD, [1, b"\xff" * 1025, 8]], "string too long: 1025 bytes, the limit is 1024"),
        ([0, 1, METHOD, [1, b"\xff", [[[[[[[1]]]]]]]]], "nested too deeply"),
        ([0, 1, METHOD, [1, b"\xff", [0] * 65]], "array too large"),
    ):
        messages, fault = decode(way(encode(frame)))
        assert messages == []
        assert fault is not None
        assert fault.startswith(said)


def as_bytes(value: Any) -> Any:
    """A value as a decoder has it that knows no text."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, tuple):
        return [as_bytes(item) for item in value]
    if isinstance(value, dict):
        return {as_bytes(key): as_bytes(item) for key, item in value.items()}
    return value


@given(values(3))
def test_a_frame_without_bin_is_the_same_to_who_knows_only_raw(value: Any) -> None:
    frame = without_bin(msgpack.packb([1, 7, None, value]))
    assert OldDecoder().feed(frame) == [[1, 7, None, as_bytes(value)]]


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 65535, 65536])
@pytest.mark.parametrize("kind", [bytes, str])
def test_every_length_of_text_and_bytes_is_raw(kind: type, size: int) -> None:
    value = bytes(size) if kind is bytes else "x" * size
    assert OldDecoder().feed(without_bin(msgpack.packb([value]))) == [[as_bytes(value)]]


def test_an_interrupt_needs_no_change_and_gets_none() -> None:
    frame = encode_interrupt(7, 2**63, 1, 0xD8, 0x1C, 0)
    answer = msgpack.packb([1, 7, None, [300, bytes(300)]])
    assert without_bin(answer + frame + answer) == without_bin(answer) + frame + without_bin(answer)
    assert without_bin(b"") == b""
    assert OldDecoder().feed(frame) == [[2, b"interrupt", [7, 2**63, 1, 0xD8, 0x1C, 0]]]
