"""When a port raises too many interrupts, and for how long it is then masked (docs/protocol.md, semantic 8)."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_NS: Final = 1_000_000_000
FIRST_PAUSE_NS: Final = 1_000_000_000
LONGEST_PAUSE_NS: Final = 60_000_000_000
# Times of interrupts that are remembered, about 100 bytes each. There are never more of them than `max_rate_hz`, so a
# limit up to this is kept exactly.
ENTRIES_MAX: Final = 65_536
# Above it, interrupts within 15 µs of each other count as coming with the last of them: the port is never masked too
# late, and too early only if there would be too many within 15 µs more than a second.
_GRAIN_NS: Final = WINDOW_NS // ENTRIES_MAX + 1


class StormGuard:
    """Counts the interrupts of the last second, at any time: no span of a second has more than `max_rate_hz`.

    The pause doubles with every storm, from 1 s up to 60 s, and begins anew once the port has behaved for 60 s.
    """

    def __init__(self, max_rate_hz: int) -> None:
        self.max_rate_hz = max_rate_hz
        self.masks = 0
        self._recent: deque[tuple[int, int]] = deque()  # when, and how many: within the last second
        self._total = 0  # of them
        self._joins_until_ns = 0  # what comes before this joins the latest entry
        self._pause_ns = 0
        self._unmasked_ns = 0

    @property
    def entries(self) -> int:
        """How many times are remembered."""
        return len(self._recent)

    def count(self, interrupts: int, now_ns: int) -> bool:
        """True when these interrupts make more than `max_rate_hz` within a second: mask the port."""
        recent = self._recent
        total = self._total + interrupts
        if now_ns < self._joins_until_ns and recent:
            interrupts += recent.pop()[1]
        elif self.max_rate_hz > ENTRIES_MAX:
            self._joins_until_ns = now_ns + _GRAIN_NS
        recent.append((now_ns, interrupts))
        over_ns = now_ns - WINDOW_NS
        while recent[0][0] <= over_ns:
            total -= recent.popleft()[1]
        self._total = total
        return total > self.max_rate_hz

    def mask(self, now_ns: int) -> int:
        """The port has been masked; returns when to unmask it."""
        if now_ns - self._unmasked_ns >= LONGEST_PAUSE_NS:
            self._pause_ns = 0
        self._pause_ns = min(max(self._pause_ns * 2, FIRST_PAUSE_NS), LONGEST_PAUSE_NS)
        self.masks += 1
        return now_ns + self._pause_ns

    def unmask(self, now_ns: int) -> None:
        """The port has been unmasked: count anew."""
        self._unmasked_ns = now_ns
        self._recent.clear()
        self._total = 0
