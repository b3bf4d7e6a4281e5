"""How many records of a kind the audit trail takes in a minute; of the others it knows the number."""

from __future__ import annotations

from typing import Final, NamedTuple

from lpt_service.server.clock import Clock

WINDOW_S: Final = 60.0
# Of those whose records were only counted: how many are named.
NAMED_MAX: Final = 8
_SUM_NAME_CHARACTERS: Final = 32


class Sum(NamedTuple):
    """How many were only counted, since when, and of whom."""

    number: int
    since_ns: int
    by: dict[str, int]


class Budget:
    """Admits so many in WINDOW_S, and counts the others.

    A window begins with the first in it, so that a span of WINDOW_S across two of them may take twice as many.
    """

    def __init__(self, count: int) -> None:
        self._whole = count
        self._left = count
        self._end_ns: int | None = None
        self._more = 0
        self._more_since_ns = 0
        self._by: dict[str, int] = {}

    def take(self, clock: Clock, who: object) -> bool:
        """Whether there is one left; otherwise it is counted."""
        if self._end_ns is None:
            self._end_ns = clock.monotonic_ns() + int(WINDOW_S * 1e9)
        if self._left:
            self._left -= 1
            return True
        if not self._more:
            self._more_since_ns = clock.realtime_ns()
        self._more += 1
        if isinstance(who, str):
            name = who[:_SUM_NAME_CHARACTERS]
            if name in self._by or len(self._by) < NAMED_MAX:
                self._by[name] = self._by.get(name, 0) + 1
        return False

    def end_window(self, clock: Clock) -> Sum | None:
        """If the window is over: what was only counted in it, if anything."""
        if self._end_ns is None or clock.monotonic_ns() < self._end_ns:
            return None
        sum_ = Sum(self._more, self._more_since_ns, self._by)
        self._left, self._end_ns, self._more, self._by = self._whole, None, 0, {}
        return sum_ if sum_.number else None

    def cut_short(self) -> None:
        """The window is over."""
        if self._end_ns is not None:
            self._end_ns = 0

    def due_in_s(self, now_ns: int) -> float:
        """When there will be something to sum up."""
        return (self._end_ns - now_ns) / 1e9 if self._end_ns is not None and self._more else float("inf")
