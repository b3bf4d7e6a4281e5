"""What is to happen at a time, in order of time. The server's one timer task a port wakes for the earliest."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

# Cancelled entries stay in the heap until they come up; beyond this many it is rebuilt, so that time-outs of an hour
# on requests of a millisecond cost no memory.
_CANCELLED_MAX = 64


class Deadline:
    """A call to be made at `at_ns`, unless cancelled before."""

    __slots__ = ("action", "at_ns")

    def __init__(self, at_ns: int, action: Callable[[int], None]) -> None:
        self.at_ns = at_ns
        self.action: Callable[[int], None] | None = action


class Deadlines:
    """A heap of deadlines with lazy deletion. `on_earlier` is called when a new one becomes the earliest."""

    def __init__(self, on_earlier: Callable[[], None]) -> None:
        self._heap: list[tuple[int, int, Deadline]] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._on_earlier = on_earlier

    def schedule(self, at_ns: int, action: Callable[[int], None]) -> Deadline:
        """Call `action(now_ns)` at `at_ns` or soon after."""
        deadline = Deadline(at_ns, action)
        heapq.heappush(self._heap, (at_ns, next(self._order), deadline))
        if self._heap[0][2] is deadline:
            self._on_earlier()
        return deadline

    def cancel(self, deadline: Deadline | None) -> None:
        """Make sure that `deadline` does not happen any more; None and one that has happened are fine."""
        if deadline is None or deadline.action is None:
            return
        deadline.action = None
        self._cancelled += 1
        if self._cancelled > _CANCELLED_MAX and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_ns(self) -> int | None:
        """When the earliest is due; None when there is none."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def run_due(self, now_ns: int) -> None:
        """Make every call that is due at `now_ns`; none may schedule itself again for now.

        An exception passes through; what is still due is then left to the next call.
        """
        while (at_ns := self.next_ns()) is not None and at_ns <= now_ns:
            deadline = heapq.heappop(self._heap)[2]
            action, deadline.action = deadline.action, None
            assert action is not None
            action(now_ns)

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled
