"""When a port raises too many interrupts, and for how long it is then masked (docs/protocol.md, semantic 8)."""

from __future__ import annotations

WINDOW_NS = 1_000_000_000
FIRST_PAUSE_NS = 1_000_000_000
LONGEST_PAUSE_NS = 60_000_000_000


class StormGuard:
    """Counts interrupts a second.

    The pause doubles with every storm, from 1 s up to 60 s, and begins anew once the port has behaved for 60 s.
    """

    def __init__(self, max_rate_hz: int) -> None:
        self.max_rate_hz = max_rate_hz
        self.masks = 0
        self._window_start_ns = -WINDOW_NS
        self._in_window = 0
        self._pause_ns = 0
        self._unmasked_ns = 0

    def count(self, interrupts: int, now_ns: int) -> bool:
        """True when these interrupts make more than `max_rate_hz` within a second: mask the port."""
        if now_ns - self._window_start_ns >= WINDOW_NS:
            self._window_start_ns, self._in_window = now_ns, 0
        self._in_window += interrupts
        return self._in_window > self.max_rate_hz

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
        self._window_start_ns, self._in_window = now_ns, 0
