"""Frames ⇄ messages: the three properties, the shapes, the interrupt frame."""

import importlib.metadata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpt_service.protocol import codec
from lpt_service.protocol.codec import (
    BEFORE_HELLO_LIMITS,
    CLIENT_LIMITS,
    DAEMON_LIMITS,
    Decoder,
    encode_error,
    encode_interrupt,
    encode_notification,
    encode_request,
    encode_result,
)
from lpt_service.protocol.errors import ConversationError
from lpt_service.protocol.frame_scanner import Limits
from lpt_service.protocol.messages import Message, Notification, Request, Response
from tests.protocol.strategies import GARBAGE, MESSAGES, METHODS, MSGIDS, PARAMS, chunkings, encodings, streams
from tests.protocol.wire import WAYS, bytewise, decode, longest, pack, pack_message, whole

ALL_LIMITS = st.sampled_from([BEFORE_HELLO_LIMITS, DAEMON_LIMITS, CLIENT_LIMITS])

# The three properties


@settings(max_examples=400)
@given(st.data(), streams(), st.booleans())
def test_any_chunking_gives_the_same_messages(
    data: st.DataObject, stream: tuple[list[Message], bytes], as_before_1_2: bool
) -> None:
    messages, frames = stream
    chunks = data.draw(chunkings(frames))
    assert decode(chunks, as_before_1_2=as_before_1_2) == (messages, None)


@settings(max_examples=600)
@given(st.data(), streams(), GARBAGE, st.booleans())
def test_any_chunking_finds_the_same_fault_after_the_same_messages(
    data: st.DataObject, stream: tuple[list[Message], bytes], garbage: bytes, as_before_1_2: bool
) -> None:
    messages, frames = stream
    expected, fault = decode([frames + garbage])
    assert expected[: len(messages)] == messages
    got, got_fault = decode(data.draw(chunkings(frames + garbage)), as_before_1_2=as_before_1_2)
    assert repr(got) == repr(expected)  # by repr: garbage may hold a NaN
    assert (got_fault is None) == (fault is None)


@settings(max_examples=300)
@given(st.data(), MESSAGES)
def test_every_legal_encoding_means_the_same(data: st.DataObject, message: Message) -> None:
    assert decode([data.draw(encodings(message))]) == ([message], None)
    assert decode([pack_message(message, longest)]) == ([message], None)


@given(MSGIDS, METHODS, PARAMS, PARAMS)
def test_round_trip(msgid: int, method: str, params: Any, result: Any) -> None:
    frames = [
        encode_request(msgid, method, params),
        encode_result(msgid, result),
        encode_error(msgid, 0xC000000D, "STATUS_INVALID_PARAMETER", method),
        encode_notification(method, params),
    ]
    messages: list[Message] = [
        Request(msgid, method, params),
        Response(msgid, None, result),
        Response(msgid, (0xC000000D, "STATUS_INVALID_PARAMETER", method), None),
        Notification(method, params),
    ]
    assert decode(frames) == (messages, None)
    assert decode([b"".join(frames)]) == (messages, None)
    assert frames == [pack_message(message) for message in messages], "the shortest form of everything"


@settings(max_examples=1000)
@given(GARBAGE, ALL_LIMITS, st.booleans())
def test_garbage_gives_messages_or_conversation_errors(garbage: bytes, limits: Limits, as_before_1_2: bool) -> None:
    """`decode` catches ConversationError alone."""
    for way in WAYS:
        _, fault = decode(way(garbage), limits, as_before_1_2=as_before_1_2)
        assert fault is None or 10 < len(fault) < 300


# Shapes

QUIET = pack((2, "quiet", ()))


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (0, "not a frame"),
        ("hello", "not a frame"),
        (b"hello", "not a frame"),
        (None, "not a frame"),
        ({}, "not a frame"),
        ((), "not a frame"),
        ((0,), "got 1 items beginning with 0"),
        ((0, 1, "ping"), "got 3 items beginning with 0"),
        ((0, 1, "ping", (), ()), "got 5 items beginning with 0"),
        ((1, 1, None), "got 3 items beginning with 1"),
        ((2, "quiet"), "got 2 items beginning with 2"),
        ((2, "quiet", (), ()), "got 4 items beginning with 2"),
        ((3, 1, "ping", ()), "got 4 items beginning with 3"),
        ((-1, 1, "ping", ()), "got 4 items beginning with -1"),
        ((False, 1, "ping", ()), "begins with 0, 1 or 2"),
        ((True, 1, None, None), "begins with 0, 1 or 2"),
        ((2.0, "quiet", ()), "begins with 0, 1 or 2"),
        (("0", 1, "ping", ()), "begins with 0, 1 or 2"),
        ((0, -1, "ping", ()), "msgid is a u32, got -1"),
        ((0, 1 << 32, "ping", ()), "msgid is a u32, got 4294967296"),
        ((0, "1", "ping", ()), "msgid is a u32, got '1'"),
        ((0, True, "ping", ()), "msgid is a u32, got True"),
        ((0, 1.0, "ping", ()), "msgid is a u32, got 1.0"),
        ((0, None, "ping", ()), "msgid is a u32, got None"),
        ((1, -1, None, None), "msgid is a u32, got -1"),
        ((0, 1, 7, ()), "method is text, got int"),
        ((0, 1, None, ()), "method is text, got NoneType"),
        ((0, 1, ("ping",), ()), "method is text, got tuple"),
        ((0, 1, b"\xff", ()), "method is not UTF-8"),
        ((2, 7, ()), "method is text, got int"),
        ((2, b"\xff", ()), "method is not UTF-8"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("way", WAYS)
def test_what_has_not_the_shape_of_a_frame(way: Any, frame: Any, fault: str) -> None:
    messages, text = decode(way(QUIET + pack(frame) + QUIET))
    assert messages == [Notification("quiet", ())]
    assert text is not None
    assert fault in text


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\xc1", "byte 0xc1"),
        (b"\x94\x00\x01\xa4ping\x91\xc1", "byte 0xc1"),
        (b"\x94\x00\x01\xa4ping\x91\xd4\x01\x00", "extension types"),
        (b"\x94\x00\x01\xa4ping\x91\xc7\x00\x01", "extension types"),
        (b"\x94\x00\x01\xa4ping\x91\xc7\x01\x01\x00", "extension types"),
        (b"\x94\x00\x01\xa4ping\x91\xd6\xff\x00\x00\x00\x00", "extension types"),  # a timestamp
        (b"\x94\x00\x01\xa4ping\x91\xa1\xff", "not MessagePack: 'utf-8'"),
        (b"\x94\x00\x01\xa4\xff\xff\xff\xff\x90", "not MessagePack: 'utf-8'"),
        (b"\x94\x00\x01\xa4ping\x91\x81\x80\x00", "not MessagePack: unhashable"),  # a map as a map's key
        (b"GET / HTTP/1.1\r\n\r\n", "not a frame"),
        (b"\x16\x03\x01\x02\x00", "not a frame"),  # a TLS client hello
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not a frame"),
        (b"\x00" * 8, "not a frame"),
        (b"\xff" * 8, "not a frame"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_messagepack(way: Any, data: bytes, fault: str) -> None:
    messages, text = decode(way(QUIET + data + QUIET))
    assert messages == [Notification("quiet", ())]
    assert text is not None
    assert fault in text


@pytest.mark.parametrize("way", WAYS)
def test_a_method_may_be_bin(way: Any) -> None:
    frames = pack((0, 7, b"ping", ())) + pack((2, "größe".encode(), (1,)))
    assert decode(way(frames)) == ([Request(7, "ping", ()), Notification("größe", (1,))], None)


def test_params_are_handed_on_as_they_are() -> None:
    assert decode([pack((0, 1, "m", None))]) == ([Request(1, "m", None)], None)
    assert decode([pack((0, 1, "m", {1: b"x"}))]) == ([Request(1, "m", {1: b"x"})], None)
    assert decode([pack((1, 1, "error", "and result"))]) == ([Response(1, "error", "and result")], None)


# The decoder over time


def test_nothing_comes_of_nothing() -> None:
    decoder = Decoder()
    assert decoder.next_message() is None
    decoder.receive(b"")
    assert decoder.next_message() is None
    assert not decoder.is_mid_frame


def test_mid_frame_is_known() -> None:
    decoder = Decoder()
    for byte in bytewise(QUIET)[:-1]:
        decoder.receive(byte)
        assert decoder.next_message() is None
        assert decoder.is_mid_frame
    decoder.receive(QUIET[-1:] + QUIET + QUIET[:1])
    for _ in range(2):
        assert decoder.next_message() == Notification("quiet", ())
    assert decoder.next_message() is None
    assert decoder.is_mid_frame
    decoder.receive(QUIET[1:])
    assert decoder.next_message() == Notification("quiet", ())
    assert decoder.next_message() is None
    assert not decoder.is_mid_frame


@pytest.mark.parametrize("bad", [b"\xc1", b"\x94\x00\x01\xa1m\xc6\xff\xff\xff\xff", pack((9, 9)), b"\x91\xa1\xff"])
@pytest.mark.parametrize("way", WAYS)
def test_a_decoder_that_has_failed_fails_for_ever(way: Any, bad: bytes) -> None:
    decoder, first = Decoder(), decode(way(bad))[1]
    for chunk in way(bad)[:-1]:
        decoder.receive(chunk)
        assert decoder.next_message() is None
    for chunk in (way(bad)[-1], b"", QUIET, bad, QUIET):
        decoder.receive(chunk)
        with pytest.raises(ConversationError) as again:
            decoder.next_message()
        assert str(again.value) == first


def test_a_foreign_error_is_the_cause() -> None:
    decoder = Decoder()
    decoder.receive(b"\x91\xa1\xff")
    with pytest.raises(ConversationError) as caught:
        decoder.next_message()
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)


# The interrupt frame


def test_the_interrupt_frame_is_that_of_the_contract() -> None:
    """`93 02 a9"interrupt" 96 cf seq cf timestamp_ns ce count cc status cc control cc kind`."""
    frame = encode_interrupt(0x0102030405060708, 0x1112131415161718, 0x21222324, 0x31, 0x32, 0x33)
    assert frame == bytes.fromhex(
        "93 02 a9 69 6e 74 65 72 72 75 70 74 96"
        " cf 01 02 03 04 05 06 07 08"
        " cf 11 12 13 14 15 16 17 18"
        " ce 21 22 23 24"
        " cc 31 cc 32 cc 33"
    )
    assert len(frame) == codec.INTERRUPT_FRAME_BYTES == 42


@given(
    st.tuples(
        st.integers(0, (1 << 53) - 1),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, codec.INTERRUPT_COUNT_MAX),
        *[st.integers(0, 255)] * 3,
    )
)
def test_the_interrupt_frame_has_one_size(params: tuple[int, int, int, int, int, int]) -> None:
    frame = encode_interrupt(*params)
    assert len(frame) == 42
    assert decode([frame], CLIENT_LIMITS) == ([Notification("interrupt", params)], None)


# What msgpack there is


def test_the_version_of_msgpack_is_told() -> None:
    installed = importlib.metadata.version("msgpack").split(".")
    assert codec.msgpack_version() == tuple(map(int, installed))


def test_the_older_way_is_for_msgpack_before_1_2() -> None:
    is_before_1_2 = codec.msgpack_version() < (1, 2)
    assert is_before_1_2 == codec._LEAKS_INCOMPLETE
    assert decode(whole(QUIET), as_before_1_2=True) == ([Notification("quiet", ())], None)


def test_text_that_is_not_utf8_goes_with_its_bytes_as_numbers() -> None:
    """As Python has what the system gave: a half of a surrogate pair for each byte. The next frame is not touched."""
    for text, sent in (("caf\udce9", "caf\\udce9"), ("\ud800", "\\ud800")):
        frame = encode_request(1, "hello", ({"client": text},))
        assert frame == encode_request(1, "hello", ({"client": sent},))
        assert encode_request(2, "ping", ()) == pack([0, 2, "ping", []])
