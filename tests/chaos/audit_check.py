"""The daemon's audit trail, read when all is over: who owned a port when, by its own account."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any


def read(folder: Path) -> list[dict[str, Any]]:
    """Every record, from the oldest file on."""
    older = sorted(folder.glob("audit.jsonl.*"), key=lambda path: -int(path.suffix[1:]))
    return [json.loads(line) for path in (*older, folder / "audit.jsonl") for line in path.read_text().splitlines()]


def check(records: list[dict[str, Any]]) -> str:
    """Each `granted` has its `released`, and no two ownerships of a port overlap; a line about it.

    What the budgets leave out is in the sums, and counted.
    """
    events = Counter(record["event"] for record in records)
    more = {event: sum(each["count"] for each in records if each["event"] == f"{event}_more") for event in _OWNERSHIP}
    granted, released = ({_key(each): each for each in records if each["event"] == event} for event in _OWNERSHIP)
    assert len(granted) == events["granted"], "a grant is there twice"
    assert len(released) == events["released"], "an end is there twice"
    assert events["granted"] + more["granted"] == events["released"] + more["released"], (events, more)
    ends_alone, begins_alone = released.keys() - granted.keys(), granted.keys() - released.keys()
    assert len(ends_alone) <= more["granted"], f"never granted: {sorted(ends_alone)[:5]}"
    assert len(begins_alone) <= more["released"], f"never released: {sorted(begins_alone)[:5]}"
    for key in granted.keys() & released.keys():
        assert granted[key]["session"] == released[key]["session"], (granted[key], released[key])
    _check_order(records, released)
    _check_apart(released.values())
    sums = ", ".join(f"{count} {event}" for event, count in sorted(events.items()))
    return f"audit: {sums}; besides, in sums: {more}"


_OWNERSHIP = ("granted", "released")


def _key(record: dict[str, Any]) -> tuple[str, int]:
    return record["port"], record["grant"]


def _check_order(records: Iterable[dict[str, Any]], released: Iterable[tuple[str, int]]) -> None:
    """Records are in the order of what they tell: nobody is granted a port before its last owner's end is there."""
    to_end, owned = set(released), dict[str, int]()
    for record in records:
        if record["event"] not in _OWNERSHIP:
            continue
        port, grant = _key(record)
        if record["event"] == "granted":
            assert (port, owned.get(port)) not in to_end, f"granted before {owned[port]} had ended: {record}"
            owned[port] = grant
        else:
            to_end.discard((port, grant))


def _check_apart(released: Iterable[dict[str, Any]]) -> None:
    """Texts of one form, in UTC: their order is that of the times."""
    for earlier, later in pairwise(sorted(released, key=_key)):
        if earlier["port"] == later["port"]:
            assert earlier["since"] <= earlier["until"] <= later["since"] or _is_near(earlier, later), (earlier, later)


def _is_near(earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    """Times of day are made of monotonic ones when they are recorded: they differ by what lies between two readings.

    A bound as wide as a machine may stand still: the order of the records is the check that is exact.
    """
    return _microseconds(earlier["until"]) - _microseconds(later["since"]) < _READING_US


_READING_US = 10_000_000


def _microseconds(text: str) -> int:
    hours, minutes, seconds = text.rpartition("T")[2].rstrip("Z").split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000_000 + round(float(seconds) * 1e6)
