"""Frames that are nearly right: values of every type, requests of every kind, and what becomes of bytes on the way."""

from __future__ import annotations

import random
import struct
from typing import Any

import msgpack

from tests.e2e import client as wire

CODES = [value for name, value in vars(wire).items() if name.isupper() and type(value) is int and value > 0x160000]
METHODS: tuple[str, ...] = (
    "hello",
    "internal_device_control",
    "device_control",
    "status",
    "ping",
    "drain",
    "revoke",
    "kick",
    "pause",
)
METHODS += ("resume", "queue", "no such method", "", "größe")
OPTIONS = ("timeout_ms", "grant", "from", "no such option")
_INTEGERS = [0, 1, 2, 3, 7, 8, 16, 32, 40, 56, 64, 127, 128, 255, 256, 65_535, 65_536, (1 << 31) - 1, 1 << 31]
_INTEGERS += [(1 << 32) - 1, 1 << 32, (1 << 53) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1, -32, -33, -(1 << 63)]
_LENGTHS = (0, 1, 2, 6, 7, 8, 16, 31, 32, 33, 56, 112, 1000)
# Just beyond the limits of the daemon, or of a client.
_TOO_MUCH: tuple[Any, ...] = ([0] * 65, dict.fromkeys(range(65), 0), "x" * 1025, [[[[[[[[[]]]]]]]]], [0] * 4097)
_TOO_MUCH += (b"x" * 65_600, "x" * 65_537, dict.fromkeys(range(4097), 0), [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]])
# Headers of every size, as they stand in the middle of something.
_HEADERS = [bytes((first,)) for first in range(0x80, 0xE0)]
_HEADERS += [struct.pack(">BH", first, length) for first in (0xDA, 0xDC, 0xDE, 0xC5) for length in (0, 64, 65, 0xFFFF)]
_HEADERS += [struct.pack(">BI", first, length) for first in (0xDB, 0xDD, 0xDF, 0xC6) for length in (0, 64, 0xFFFFFFFF)]


def value(chance: random.Random, depth: int = 0) -> Any:
    """Anything that MessagePack can say."""
    kind = chance.randrange(10 if depth < 3 else 7)
    if chance.random() < 0.02:
        return chance.choice(_TOO_MUCH)
    if kind < 3:
        return chance.choice(_INTEGERS)
    if kind == 3:
        return chance.randbytes(chance.choice(_LENGTHS))
    if kind == 4:
        return chance.choice(("", "x", "LPT1", "größe", "x" * 1024, "\x00", *OPTIONS))
    if kind == 5:
        return chance.choice((None, True, False))
    if kind == 6:
        return chance.choice((0.0, 1.5, -1.0, float("inf"), float("nan"), 1e300))
    if kind == 7:
        return {chance.choice((*OPTIONS, 1, None)): value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return [value(chance, depth + 1) for _ in range(chance.randrange(5))]


def control(chance: random.Random, handle: bytes) -> tuple[str, list[Any]]:
    """A control request that may well be right: its method and params."""
    code = chance.choice(CODES)
    structure = wire.routine(chance.randrange(3), chance.randrange(3), chance.randrange(2))
    input_ = chance.choice(
        (
            b"",
            handle,
            structure,
            bytes((chance.randrange(4), chance.randrange(256))),
            wire.pulse(chance.randrange(256), 0, chance.randint(0, 3000)),
            bytes((chance.randrange(4),)),
            chance.randbytes(chance.choice(_LENGTHS)),
        )
    )
    if code in (wire.CONNECT_INTERRUPT, wire.DISCONNECT_INTERRUPT) and chance.random() < 0.8:
        input_ = structure
    params: list[Any] = [code, input_, chance.choice((0, 1, 8, 16, 40, 56, 112, 0xFFFFFFFF))]
    if chance.random() < 0.4:
        params.append({chance.choice(OPTIONS[:3]): value(chance) for _ in range(chance.randrange(3))})
    return chance.choice((wire.INTERNAL, wire.INTERNAL, wire.INTERNAL, wire.DEVICE)), params


def request(chance: random.Random, handle: bytes) -> tuple[str, list[Any]]:
    """A request of the right shape with anything in it: its method and params."""
    if chance.random() < 0.75:
        method, params = control(chance, handle)
        if chance.random() < 0.2:
            params[chance.randrange(len(params))] = value(chance)
        return method, params
    method = chance.choice(METHODS)
    return method, [] if chance.random() < 0.4 else [value(chance) for _ in range(chance.randrange(4))]


def frame(chance: random.Random) -> bytes:
    """A whole frame of one of the three kinds, with anything in it."""
    kind = chance.randrange(4)
    if kind < 2:
        method, params = request(chance, chance.randbytes(8))
        return bytes(msgpack.packb([0, chance.choice(_INTEGERS[:24]), method, params]))
    if kind == 2:
        return bytes(msgpack.packb([2, chance.choice(("cancel", "bye", "quiet")), [value(chance)]]))
    return bytes(msgpack.packb([1, chance.choice(_INTEGERS[:20]), value(chance), value(chance)]))


def mutated(chance: random.Random, data: bytes) -> bytes:
    """The same bytes with a few of them changed, cut out, put in, doubled."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(result) + 1)
        end = min(len(result), place + chance.choice((1, 1, 2, 4, 8, 30)))
        match chance.randrange(7):
            case 0 if place < len(result):
                result[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(result):
                result[place] = chance.choice((0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC4, 0xD9, 0xDC, 0xDE, 0xFF))
            case 2:
                del result[place:end]
            case 3:
                result[place:place] = chance.randbytes(end - place)
            case 4:
                result[place:place] = chance.choice(_HEADERS)
            case 5:
                result[place:place] = result[place:end] * chance.choice((1, 2, 100))
            case _:
                del result[place:]
        if len(result) > 100_000:
            break
    return bytes(result)


def chunks(chance: random.Random, data: bytes) -> list[bytes]:
    """The same bytes in pieces."""
    if chance.random() < 0.2:
        return [data[place : place + 1] for place in range(min(len(data), 3000))] + [data[3000:]]
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
