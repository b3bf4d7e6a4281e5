"""The codec under mutated frames: messages or ConversationError, the same however the bytes come, and little memory.

So many frames, the same in each run, however fast the machine is. CHAOS_SEED may be set, and CHAOS_FUZZ_S (seconds), to
go on for half of that at least. What it once found stands below as tests of its own.
"""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from typing import Any

import pytest

from lpt_service.protocol.codec import BEFORE_HELLO_LIMITS, CLIENT_LIMITS, DAEMON_LIMITS, Decoder
from lpt_service.protocol.errors import ConversationError
from lpt_service.protocol.frame_scanner import Limits
from tests.chaos import mutations, settings
from tests.e2e.daemons import PROJECT

# The dearest byte is an array header of three that announces 64 items: the decoder makes room for all of them at once.
# (An empty map is one byte, and takes 64.) What does not depend on the bytes is the machinery.
_BYTES_A_BYTE = 256
_MACHINERY_BYTES = 64 * 1024


def vectors() -> list[bytes]:
    """Every whole frame of docs/vectors.json."""
    found: list[bytes] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, str):
            try:
                data = bytes.fromhex(value)
            except ValueError:
                return
            if len(data) > 4:
                found.append(data)

    walk(json.loads((PROJECT / "docs/vectors.json").read_text()))
    return found


def check_limits(value: Any, limits: Limits, level: int) -> None:
    """A message that was let through is within the limits."""
    if isinstance(value, (tuple, dict)):
        assert level <= limits.max_nesting
        assert len(value) <= limits.max_items
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            check_limits(item, limits, level + 1)
    elif isinstance(value, str):
        assert len(value.encode()) <= limits.max_string_bytes
    elif isinstance(value, bytes):
        assert len(value) <= limits.max_frame_bytes
    else:
        assert value is None or type(value) in (int, bool, float), f"not of the protocol: {value!r}"


def decode(chunks: list[bytes], limits: Limits) -> tuple[str, str | None]:
    """The messages (as text: there may be a NaN in them), and the fault, if any."""
    decoder = Decoder(limits)
    messages = []
    for chunk in chunks:
        decoder.receive(chunk)
        try:
            while (message := decoder.next_message()) is not None:
                check_limits(tuple(message), limits, 1)
                messages.append(message)
        except ConversationError as exc:
            return repr(messages), str(exc)
    return repr(messages), None


def peak_bytes(chunks: list[bytes], limits: Limits) -> int:
    """The most memory that decoding takes, beside the bytes themselves.

    The less of two times: the interpreter's table of interned strings, into which keys of maps go, is copied now and
    then (2 MB under pytest), whatever the bytes are. What depends on them comes again.
    """
    peaks = []
    for _ in range(2):
        tracemalloc.start()
        decode(chunks, limits)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return min(peaks)


def fuzz(seed: int, frames: int, seconds: float = 0) -> int:
    """So many mutated frames, and for so long at least; how many there were."""
    chance = random.Random(seed)
    corpus = vectors()
    count, until = 0, time.monotonic() + seconds
    while count < frames or time.monotonic() < until:
        limits = chance.choice((BEFORE_HELLO_LIMITS, DAEMON_LIMITS, CLIENT_LIMITS))
        parts = [
            chance.choice(corpus) if chance.random() < 0.3 else mutations.frame(chance)
            for _ in range(chance.randint(1, 3))
        ]
        data = b"".join(parts)
        if chance.random() < 0.8:
            data = mutations.mutated(chance, data)
        pieces = mutations.chunks(chance, data)
        messages, fault = decode([data], limits)
        assert fault is None or 10 < len(fault) < 300, data.hex()
        again, fault_again = decode(pieces, limits)
        assert messages == again, f"{data.hex()} in {[len(piece) for piece in pieces]}"
        assert (fault is None) == (fault_again is None), f"{data.hex()} in {[len(piece) for piece in pieces]}"
        if count % 20 == 0:
            chunks, bound = chance.choice(([data], pieces)), _BYTES_A_BYTE * len(data) + _MACHINERY_BYTES
            assert peak_bytes(chunks, limits) < bound, data.hex()
        count += 1
    return count


def test_mutated_frames() -> None:
    fuzz(settings.seed(1), 2_000)


@pytest.mark.system
@pytest.mark.timeout(settings.number("CHAOS_FUZZ_S", 0) + 900)
def test_mutated_frames_for_long() -> None:
    count = fuzz(settings.seed(settings.LONG), 150_000, settings.number("CHAOS_FUZZ_S", 0) / 2)
    print(f"{count} mutated frames")


@pytest.mark.parametrize(
    "dear",
    [
        b"\xdc\x00\x40" * 20_000,
        b"\x94\x00\x01\xa4ping" + (b"\xdc\x00\x40" * 6) + b"\x80" * 60_000,
        b"\x94\x00\x01\xa4ping\x91" + b"\x81\x00" * 10_000,
        b"\x94\x00\x01\xa4ping\x91\xc6\xff\xff\xff\xff" + b"x" * 60_000,
    ],
)
def test_the_dearest_frames(dear: bytes) -> None:
    """Whole, and in halves."""
    for pieces in ([dear], [dear[: len(dear) // 2], dear[len(dear) // 2 :]]):
        assert peak_bytes(pieces, DAEMON_LIMITS) < min(_BYTES_A_BYTE * len(dear), 8 << 20) + _MACHINERY_BYTES


# What it has found


def test_a_frame_whose_text_is_not_utf8_takes_no_packer_of_its_own() -> None:
    """Each of them did, 256 KiB: to see whether its other texts are UTF-8."""
    data = bytes.fromhex("940001b7 696e7465726e616c5f6465766963655f636f6e74726f6c 93 ce00162044 a2ffff 00")
    assert peak_bytes([data], DAEMON_LIMITS) < _BYTES_A_BYTE * len(data) + _MACHINERY_BYTES
    assert decode([data], DAEMON_LIMITS)[1] is None


@pytest.mark.parametrize("limits", [BEFORE_HELLO_LIMITS, DAEMON_LIMITS, CLIENT_LIMITS])
@pytest.mark.parametrize("twice", ["82 00 80 00 00", "82 a1 61 01 a1 61 02", "82 00 01 00 01"])
def test_a_map_with_a_key_twice_is_refused_however_it_comes(limits: Limits, twice: str) -> None:
    """The later value hid the earlier one from the check of the nesting, but only where the frame came in one piece."""
    data = bytes.fromhex(f"94 00 01 a1 6d 91 {twice}")
    for chunks in ([data], [data[at : at + 1] for at in range(len(data))], [data + data]):
        assert decode(chunks, limits) == ("[]", "not MessagePack: a map has a key twice")


def test_nesting_is_checked_in_values_that_others_hide() -> None:
    data = bytes.fromhex("940001a16d81008100810081008100810089008000000000000000000c2016000000007f1020160000000000")
    whole, pieces = decode([data], DAEMON_LIMITS), decode([data[at : at + 1] for at in range(len(data))], DAEMON_LIMITS)
    assert whole == pieces
    assert whole[0] == "[]"
