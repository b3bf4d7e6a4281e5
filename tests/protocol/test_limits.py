"""Every limit of the codec, at it and one beyond, however the bytes arrive; and the memory that hostile bytes cost."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from lpt_service.protocol.codec import BEFORE_HELLO_LIMITS, CLIENT_LIMITS, DAEMON_LIMITS, Decoder
from lpt_service.protocol.errors import ConversationError
from lpt_service.protocol.frame_scanner import Limits
from lpt_service.protocol.messages import Notification, Request
from tests.protocol.wire import WAYS, bytewise, decode, pack, whole

KIB = 1024
QUIET = pack((2, "quiet", ()))
ALL_LIMITS = pytest.mark.parametrize("limits", [BEFORE_HELLO_LIMITS, DAEMON_LIMITS, CLIENT_LIMITS])
ALL_WAYS = pytest.mark.parametrize("way", WAYS)
Way = Callable[[bytes], list[bytes]]


def request(params: Any) -> bytes:
    return pack((0, 1, "m", params))


def frame_of(size: int) -> bytes:
    """A request whose frame has exactly `size` bytes."""
    content = size - 11
    return b"\x94\x00\x01\xa1m\x91\xc6" + content.to_bytes(4, "big") + bytes(content)


def nested_arrays(levels: int) -> Any:
    """`levels` arrays, one in the other."""
    return (nested_arrays(levels - 1),) if levels > 1 else ()


def nested_maps(levels: int) -> Any:
    return {"k": nested_maps(levels - 1)} if levels > 1 else {}


def nested_in_a_key(levels: int) -> Any:
    """A map, in whose key the others are."""
    return {nested_arrays(levels - 1): 0}


def assert_accepted(frame: bytes, limits: Limits, way: Way) -> None:
    messages, fault = decode(way(QUIET + frame + QUIET), limits)
    assert fault is None
    assert len(messages) == 3
    assert len(decode(way(frame), limits)[0]) == 1


def assert_refused(frame: bytes, limits: Limits, way: Way, fault: str) -> None:
    for data in (QUIET + frame + QUIET, QUIET + frame):
        messages, text = decode(way(data), limits)
        assert messages == [Notification("quiet", ())], "the frames before it are not lost"
        assert text is not None
        assert fault in text
    assert fault in (decode(way(frame), limits)[1] or "")


# The limits of the contract


def test_the_limits_are_those_of_the_contract() -> None:
    assert Limits(max_frame_bytes=64 * KIB, max_items=64, max_string_bytes=KIB, max_nesting=8) == DAEMON_LIMITS
    assert Limits(max_frame_bytes=4 * KIB, max_items=64, max_string_bytes=KIB, max_nesting=8) == BEFORE_HELLO_LIMITS
    assert CLIENT_LIMITS.max_frame_bytes == KIB * KIB


@ALL_LIMITS
@pytest.mark.parametrize("way", [whole, bytewise])
def test_frame_bytes(way: Way, limits: Limits) -> None:
    if way is bytewise and limits is CLIENT_LIMITS:
        pytest.skip("a mebibyte byte by byte takes seconds and shows nothing new")
    limit = limits.max_frame_bytes
    assert_accepted(frame_of(limit), limits, way)
    assert_refused(
        frame_of(limit + 1), limits, way, f"frame too large: {limit + 1} bytes or more, the limit is {limit}"
    )


@ALL_LIMITS
@ALL_WAYS
def test_items(way: Way, limits: Limits) -> None:
    limit = limits.max_items
    assert_accepted(request((0,) * limit), limits, way)
    assert_refused(
        request((0,) * (limit + 1)), limits, way, f"array too large: {limit + 1} items, the limit is {limit}"
    )
    if limits is not BEFORE_HELLO_LIMITS:
        assert_accepted(request((dict.fromkeys(range(limit), 0),)), limits, way)
    assert_refused(
        request((dict.fromkeys(range(limit + 1), 0),)),
        limits,
        way,
        f"map too large: {limit + 1} items, the limit is {limit}",
    )


@ALL_WAYS
@pytest.mark.parametrize("letter", ["a", "é", "€", "😀"])
def test_string_bytes(way: Way, letter: str) -> None:
    limits, count = DAEMON_LIMITS, KIB // len(letter.encode())
    text = letter * count + "a" * (KIB - count * len(letter.encode()))
    assert_accepted(request((text,)), limits, way)
    assert_refused(request((text + "a",)), limits, way, "string too long: 1025 bytes, the limit is 1024")
    assert_accepted(pack((2, text, ())), limits, way)
    assert_refused(pack((2, text + "a", ())), limits, way, "string too long: 1025 bytes, the limit is 1024")
    assert_refused(request(({text + "a": 0},)), limits, way, "string too long: 1025 bytes, the limit is 1024")


@ALL_WAYS
def test_the_limit_of_strings_is_not_that_of_bin(way: Way) -> None:
    assert_accepted(request((bytes(KIB + 1),)), DAEMON_LIMITS, way)
    assert_accepted(pack((2, b"a" * (KIB + 1), ())), DAEMON_LIMITS, way)


@ALL_LIMITS
@ALL_WAYS
@pytest.mark.parametrize("nested", [nested_arrays, nested_maps, nested_in_a_key])
def test_nesting(way: Way, limits: Limits, nested: Callable[[int], Any]) -> None:
    limit = limits.max_nesting
    fault = f"nested too deeply: the limit is {limit} levels of arrays and maps"
    frames: list[Callable[[Any], tuple[Any, ...]]] = [
        lambda value: (0, 1, "m", value),
        lambda value: (2, "m", value),
        lambda value: (1, 1, value, None),
        lambda value: (1, 1, None, value),
    ]
    for frame in frames:  # which is a level itself
        assert_accepted(pack(frame(nested(limit - 1))), limits, way)
        assert_refused(pack(frame(nested(limit))), limits, way, fault)


def test_many_small_frames_in_one_read_are_fine() -> None:
    count = 20_000  # 180,000 bytes, more than two frames of the largest size
    messages, fault = decode([QUIET * count], DAEMON_LIMITS)
    assert (len(messages), fault) == (count, None)
    messages, fault = decode([QUIET * 1000], BEFORE_HELLO_LIMITS)
    assert (len(messages), fault) == (1000, None)
    messages, fault = decode([QUIET[:4], QUIET[4:] + QUIET * 1000 + QUIET[:2], QUIET[2:]], BEFORE_HELLO_LIMITS)
    assert (len(messages), fault) == (1002, None)


# The header alone is refused


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (b"\xc6\xff\xff\xff\xff", "frame too large: 4294967305 bytes"),
        (b"\xc6\x00\x01\x00\x00", "frame too large: 65546 bytes"),
        (b"\xc5\xff\xff", "frame too large: 65543 bytes"),
        (b"\xdb\xff\xff\xff\xff", "string too long: 4294967295 bytes"),
        (b"\xda\x04\x01", "string too long: 1025 bytes"),
        (b"\xdd\xff\xff\xff\xff", "array too large: 4294967295 items"),
        (b"\xdc\x00\x41", "array too large: 65 items"),
        (b"\xdf\xff\xff\xff\xff", "map too large: 4294967295 items"),
        (b"\xde\x00\x41", "map too large: 65 items"),
        (b"\x91" * 8, "nested too deeply"),
        (b"\x81\x00" * 7 + b"\x81", "nested too deeply"),
        (b"\xc7", "extension types"),
        (b"\xc9", "extension types"),
        (b"\xd8", "extension types"),
        (b"\xc1", "byte 0xc1"),
    ],
)
@ALL_WAYS
def test_a_header_beyond_a_limit_is_refused_before_its_content_comes(way: Way, header: bytes, fault: str) -> None:
    start = b"\x94\x00\x01\xa1m"
    messages, text = decode(way(start + header))
    assert messages == []
    assert text is not None
    assert fault in text
    assert decode(way(start + header[:-1])) == ([], None), "not before it is known"


def test_what_is_still_to_come_counts_with_what_has_come() -> None:
    """Two items that fit one by one, and not together."""
    half = pack(bytes(33 * KIB))
    frame = b"\x94\x00\x01\xa1m\x92" + half + half
    assert decode([frame[:-1]])[1] is not None
    assert decode([frame[: 5 + 1 + len(half) + 3]])[1] is not None, "the second one's header is enough"
    assert decode([frame[: 5 + 1 + len(half) + 2]]) == ([], None)


# Limits that change


def test_a_larger_frame_is_allowed_after_hello_even_if_it_is_here_already() -> None:
    hello, block = request(()), frame_of(5000)
    for chunks in ([hello + block], [hello, block], [hello + block[:3000], block[3000:]], bytewise(hello + block)):
        messages = []
        decoder = Decoder(BEFORE_HELLO_LIMITS)
        for chunk in chunks:
            decoder.receive(chunk)
            while (message := decoder.next_message()) is not None:
                messages.append(message)
                decoder.limits = DAEMON_LIMITS
        assert [type(message) for message in messages] == [Request, Request]
        assert decode(chunks, BEFORE_HELLO_LIMITS)[1] == "frame too large: 5000 bytes or more, the limit is 4096"


# Memory: what hostile bytes make the daemon hold, and what they cost for a moment

NESTED_ARRAYS = b"\xdc\x00\x40" * 1000
NESTED_LARGE_ARRAYS = b"\xdc\xff\xff" * 500
NESTED_HUGE_ARRAYS = b"\xdd\x00\x01\x00\x00" * 1000
HOSTILE = {
    "nested arrays": NESTED_ARRAYS,
    "nested arrays in a request": b"\x94\x00\x01\xa1m" + NESTED_ARRAYS,
    "nested large arrays": NESTED_LARGE_ARRAYS,
    "nested huge arrays": NESTED_HUGE_ARRAYS,
    "nested maps": b"\xde\x00\x40" * 1000,
    "deep nesting": b"\x91" * 60_000,
    "deep nesting of maps": b"\x81" * 60_000,
    "deep nesting, closed": b"\x94\x00\x01\xa1m" + b"\x91" * 2000 + b"\x90",
    "4 GiB of bin": b"\x94\x00\x01\xa1m\xc6\xff\xff\xff\xff",
    "4 GiB of text": b"\x94\x00\x01\xa1m\xdb\xff\xff\xff\xff",
    "the headers of a frame that may come": b"\x94\x00\x01\xa1m" + b"\xdc\x00\x40" * 7,
}
HELD_MAX_BYTES = 8 * KIB  # a decoder, and (msgpack in pure Python) exceptions that are not collected yet
# msgpack makes the slots of every array that it has seen the header of: 512 levels of it, 64 slots, 8 bytes each.
MOMENT_MAX_BYTES = 600 * KIB
MOMENT_MAX_BYTES_CLIENT = 20 * KIB * KIB  # the same with 4096 slots


def measure(data: bytes, limits: Limits, way: Way) -> tuple[int, int]:
    """(bytes held afterwards by one connection, bytes at the worst moment)."""
    chunks = way(data)
    figures = []
    for _ in range(3):  # what the interpreter and other threads make meanwhile is not there each time
        tracemalloc.start()
        try:
            decoder = Decoder(limits)
            try:
                for chunk in chunks:
                    decoder.receive(chunk)
                    while decoder.next_message() is not None:
                        pass
            except ConversationError:
                pass
            figures.append(tracemalloc.get_traced_memory())
        finally:
            tracemalloc.stop()
        del decoder
    return min(held for held, _ in figures), min(worst for _, worst in figures)


@pytest.mark.parametrize("name", HOSTILE)
@ALL_WAYS
def test_hostile_headers_cost_little_for_a_moment_and_nothing_afterwards(way: Way, name: str) -> None:
    held, worst = measure(HOSTILE[name], DAEMON_LIMITS, way)
    assert held < HELD_MAX_BYTES
    assert worst < MOMENT_MAX_BYTES + 2 * len(HOSTILE[name])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_bounded_for_a_client_too(name: str) -> None:
    held, worst = measure(HOSTILE[name], CLIENT_LIMITS, whole)
    assert held < HELD_MAX_BYTES
    assert worst < MOMENT_MAX_BYTES_CLIENT


@pytest.mark.parametrize("way", [bytewise, lambda data: [data[i : i + 1000] for i in range(0, len(data), 1000)]])
def test_an_unfinished_frame_costs_its_own_bytes(way: Way) -> None:
    frame = frame_of(64 * KIB)[:-1]
    held, worst = measure(frame, DAEMON_LIMITS, way)
    assert held < 80 * KIB
    assert worst < 160 * KIB  # a bytearray that grows is copied


def test_many_unfinished_frames_cost_nothing_each() -> None:
    """The frame before is forgotten when the next begins (an msgpack before 1.2 would not, left to itself)."""
    cut = [QUIET[:5], QUIET[5:] + QUIET[:3], QUIET[3:]]
    held, _ = measure(b"".join(cut * 500), DAEMON_LIMITS, lambda _: cut * 500)
    assert held < HELD_MAX_BYTES


def test_what_a_failed_decoder_received_is_let_go() -> None:
    frame = frame_of(60 * KIB)[:-1]
    held, _ = measure(frame + b"\xc1" + b"\xc1", DAEMON_LIMITS, lambda data: [data[:-2], data[-2:]])
    assert held < HELD_MAX_BYTES
