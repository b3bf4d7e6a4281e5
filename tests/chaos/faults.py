"""What goes wrong on a network: the faults that the proxy of `proxy.py` puts into a connection, drawn from a seed.

The plan of a connection depends on the seed and on its number alone, the proxy's first connection being number 0: the
same seed gives the same faults at the same bytes. When they happen in time is the machine's.
"""

from __future__ import annotations

import enum
import random
from typing import NamedTuple

UP, DOWN = 0, 1  # from the client to the daemon, and back


class Kind(enum.StrEnum):
    """What a fault does once its byte has come."""

    DRIP = "drip"  # the next bytes go on one at a time, each in a send of its own
    DELAY = "delay"  # what follows in this direction waits
    STALL = "stall"  # nothing is read or sent in either direction for a time; then it goes on
    RESET = "reset"  # both ends get a reset
    LATER = "reset later"  # both ends get a reset after a time in which it goes on
    ONE_SIDED = "one-sided reset"  # the client gets a reset, the daemon hears of it later; or the other way round
    MUTE = "one-way"  # what comes in this direction is thrown away for a time; then both ends get a reset
    SWALLOW = "end swallowed"  # the end of the stream in this direction is passed on late
    BLACK_HOLE = "black hole"  # nothing comes through any more; the daemon gets a reset, the client nothing, ever
    HALF_CLOSE = "half-close"  # the receiver is told that the stream has ended; the sender goes on


class Fault(NamedTuple):
    """One fault: in which direction, after how many bytes of it, and how much (bytes of a drip, else seconds)."""

    kind: Kind
    direction: int
    at: int
    amount: float


# Faults with which a connection goes on may come several times, and one that ends it at the end.
_PASSING = (Kind.DRIP, Kind.DRIP, Kind.DELAY, Kind.DELAY, Kind.STALL)
_ENDING: tuple[Kind, ...] = (Kind.RESET, Kind.RESET, Kind.RESET, Kind.ONE_SIDED, Kind.ONE_SIDED, Kind.ONE_SIDED)
_ENDING += (Kind.LATER, Kind.LATER, Kind.LATER)
_ENDING += (Kind.MUTE, Kind.MUTE, Kind.HALF_CLOSE, Kind.HALF_CLOSE, Kind.SWALLOW, Kind.SWALLOW, Kind.BLACK_HOLE)


# Clients sit out their time-outs in them, which the short form has no time for.
_FIRST_BLACK_HOLE = 300


def plan(seed: int, number: int) -> list[Fault]:
    """The faults of the proxy's connection of that number, in the order of their bytes."""
    chance = random.Random(f"{seed}:{number}")
    kinds = [chance.choice(_PASSING) for _ in range(chance.randint(1, 4))]
    kinds += [chance.choice(_ENDING)] if chance.random() < 0.7 else []
    if number < _FIRST_BLACK_HOLE:
        kinds = [Kind.RESET if kind is Kind.BLACK_HOLE else kind for kind in kinds]
    faults = [Fault(kind, chance.choice((UP, DOWN)), _place(chance), _amount(chance, kind)) for kind in kinds]
    return sorted(faults, key=lambda fault: fault.at)


def _place(chance: random.Random) -> int:
    """After how many bytes: within hello, soon after it, or later."""
    return chance.randrange(chance.choice((40, 600, 1500, 1500, 5000)))


def _amount(chance: random.Random, kind: Kind) -> float:
    if kind is Kind.DRIP:
        return chance.randint(1, 300)
    if kind is Kind.DELAY:
        return chance.uniform(0, 0.05)
    if kind is Kind.STALL:
        return chance.uniform(0.02, 0.3)
    # Mostly short, so that others have their turn; sometimes longer than any deadline of the clients.
    return chance.choices((chance.uniform(0.02, 0.3), chance.uniform(0.3, 1.5), chance.uniform(2.5, 4)), (85, 12, 3))[0]
