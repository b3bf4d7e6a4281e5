"""What one registration hears, and the account of it. No I/O.

    received + buffered + lost = interrupts that the port generated from `first_seq` up to `next_seq`

holds at any moment, whatever happened to the connection, except across a "restarted" (a new log: nobody knows how many
came between), which is counted in `unknown_periods`, as are the periods in which the port was not heard.

A registration is a cursor of its own: it counts from its own `next_seq`, because registrations of one session share
one stream and may have joined it at different places.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from lpt_client.events import (
    SYNC_CONNECTED,
    SYNC_DROPPED,
    SYNC_GAP,
    SYNC_OVERRUN,
    Event,
    Interrupt,
    Mark,
    Reconnected,
    Sync,
)
from lpt_client.operations import service_routine
from lpt_client.processes import StaysHere
from lpt_client.values import function, whole

# As many as the daemon's log keeps by default, about 10 MB: a program that is slow for a moment loses nothing that the
# daemon would have kept. When it is full the oldest events go, are counted as lost, and a Sync stands for them. The
# other way, to stop reading from the socket, would hold up the answers to this program's own requests.
MAX_BUFFERED_EVENTS: Final = 65_536

Isr = Callable[[Interrupt, Any], object]
OnOther = Callable[[Mark | Sync | Reconnected, Any], object]
Deferred = Callable[[Any], object]

_UNKNOWN_AFTER: Final = ("unheard", "masked")
STOPPED: Final = "stopped"


class InterruptStream(StaysHere):
    """One registration: its routines, its events, its counters. The front ends derive from it.

    Attributes:
        received: interrupts handed to the program (to its ISR, or taken from the buffer).
        buffered: interrupts that wait in the buffer.
        lost: interrupts that are reported lost, by the daemon or by this buffer.
        unknown_periods: times in which nobody knows how many interrupts came.
        first_seq, next_seq: the numbers of the first interrupt heard and of the one expected next; None before the
            registration is connected.
        is_stopped: the daemon has ended the registration, or it is paused (the mark "stopped").
        is_leaving: the program is about to disconnect it; it is not connected again.
    """

    def __init__(
        self,
        token: int,
        isr: Isr | None,
        context: Any,
        *,
        hears: bool = True,
        deferred: Deferred | None = None,
        on_other: OnOther | None = None,
        max_buffered_events: int = MAX_BUFFERED_EVENTS,
    ) -> None:
        max_buffered_events = whole(max_buffered_events, "max_buffered_events", 1, sys.maxsize)
        self.token = token
        self.structure = service_routine(token, has_isr=hears, has_deferred=deferred is not None)
        self.hears = hears
        self.context = context
        self.received = 0
        self.buffered = 0
        self.lost = 0
        self.unknown_periods = 0
        self.first_seq: int | None = None
        self.next_seq: int | None = None
        self.is_stopped = False
        self.is_leaving = False
        self._isr = function(isr, "isr")
        self._deferred = function(deferred, "deferred")
        self._on_other = function(on_other, "on_other")
        self._max_buffered_events = max_buffered_events
        self._buffer: deque[Event] = deque()
        self._dropped: Sync | None = None
        self._dropped_mark: Mark | None = None  # the latest of those
        self._last_mark_ns = 0
        self._replay: tuple[int, int] | None = None
        self._end_seq: int | None = None

    # The cursor

    def begin(self, first_seq: int) -> None:
        """The daemon has connected it: it hears interrupts (if it is to hear any) from `first_seq` on."""
        if self.hears and self.next_seq is None:
            self.first_seq = self.next_seq = first_seq
        self.is_stopped = False

    def resume(self, session: int, stream: int) -> None:
        """The daemon has connected it again, on a new connection, from `next_seq` on."""
        self.is_stopped = False
        if self.next_seq is not None:
            self._replay = self.next_seq, self._last_mark_ns
        if self.hears:
            self._emit(Reconnected(session, stream))

    def end_at(self, end_seq: int) -> None:
        """Its disconnect has been answered: of what comes from now on, only interrupts before `end_seq` are its own."""
        self._end_seq = end_seq

    def end(self, end_seq: int) -> None:
        """It is disconnected; interrupts before `end_seq` that have not come will not come."""
        if self.next_seq is not None and end_seq > self.next_seq:
            self.lost += end_seq - self.next_seq
            self.next_seq = end_seq

    def end_unknown(self) -> None:
        """It is disconnected, and will never know from which interrupt on."""
        if self.next_seq is not None and not self.is_stopped:
            self.unknown_periods += 1

    def feed(self, event: Event) -> None:
        """Account for an event of the session's stream, and pass it on as far as it belongs to this registration."""
        next_seq = self.next_seq
        if next_seq is None:
            return
        if self._end_seq is not None:
            own = self._cut(event, self._end_seq)
            if own is None:
                return
            event = own
        if type(event) is Interrupt:
            if event.seq != next_seq:
                if event.seq + event.count <= next_seq:
                    return  # came before this registration
                event = self._align(event, next_seq)
            self.next_seq = event.seq + event.count
            self._emit(event)
        elif type(event) is Mark:
            self._mark(event, next_seq)
        elif type(event) is Sync:
            self._sync(event, next_seq)

    def _cut(self, event: Event, end_seq: int) -> Event | None:
        """The part of an event that comes before the end, if there is any."""
        if type(event) is Interrupt:
            if event.seq >= end_seq:
                self.end(end_seq)
                return None
            return event._replace(count=min(event.count, end_seq - event.seq))
        if type(event) is Mark:
            return event if event.seq <= end_seq else None
        if type(event) is Sync and event.lost is not None:
            return event._replace(next_seq=min(event.next_seq, end_seq))
        return None

    def _align(self, event: Interrupt, next_seq: int) -> Interrupt:
        """The part of an event that has not been accounted for, after what is missing before it."""
        if event.seq < next_seq:
            return event._replace(seq=next_seq, count=event.seq + event.count - next_seq)
        self._lose(SYNC_GAP, event.seq, event.seq - next_seq)
        return event

    def _mark(self, mark: Mark, next_seq: int) -> None:
        if mark.seq < next_seq:
            return
        if self._replay is not None:
            replayed_seq, replayed_ns = self._replay
            if mark.seq == replayed_seq and mark.timestamp_ns <= replayed_ns:
                return  # the daemon repeats the marks at the place where it goes on
            self._replay = None
        if mark.seq > next_seq:
            self._lose(SYNC_GAP, mark.seq, mark.seq - next_seq)
            self.next_seq = mark.seq
        self._last_mark_ns = mark.timestamp_ns
        self.unknown_periods += mark.kind in _UNKNOWN_AFTER
        self.is_stopped = mark.kind == STOPPED
        self._emit(mark)

    def _sync(self, sync: Sync, next_seq: int) -> None:
        if sync.lost is None:
            self.unknown_periods += 1
            self._replay = None  # another log; its marks are new
            self.next_seq = sync.next_seq
            self._emit(sync)
            return
        if sync.reason == SYNC_CONNECTED:
            self.next_seq = max(next_seq, sync.next_seq)
            return  # the answer to the connect has said so already
        lost = max(0, sync.next_seq - next_seq)
        if lost or sync.reason != SYNC_OVERRUN:  # an overrun before this registration's time is not its own
            self._lose(sync.reason, max(next_seq, sync.next_seq), lost)

    def _lose(self, reason: str, next_seq: int, lost: int) -> None:
        self.lost += lost
        self.next_seq = next_seq
        self._emit(Sync(reason, next_seq, lost))

    # The way to the program

    def _emit(self, event: Event) -> None:
        """Pass an event on; here: keep it until it is taken."""
        if len(self._buffer) >= self._max_buffered_events:
            self._drop_oldest()
        self._buffer.append(event)
        if type(event) is Interrupt:
            self.buffered += event.count

    def call_back(self, event: Event) -> None:
        """Call the routine that is for this event. The caller has counted it as received."""
        if isinstance(event, Interrupt):
            if self._isr is not None:
                self._isr(event, self.context)
        elif self._on_other is not None:
            self._on_other(event, self.context)

    def call_deferred(self) -> None:
        """Run the deferred port check."""
        if self._deferred is not None:
            self._deferred(self.context)

    @property
    def has_isr(self) -> bool:
        """True when events go to a function; else they are taken one by one."""
        return self._isr is not None

    @property
    def event_count(self) -> int:
        """How many events `take` will give."""
        return len(self._buffer) + (self._dropped is not None) + (self._dropped_mark is not None)

    def take(self) -> Event | None:
        """The oldest event in the buffer, or None. An interrupt counts as received from now on."""
        if self._dropped is not None:
            event: Event = self._dropped
            if self._dropped_mark is not None:
                self._dropped_mark = self._dropped_mark._replace(seq=self._dropped.next_seq)
            self._dropped = None
            return event
        if self._dropped_mark is not None:
            event, self._dropped_mark = self._dropped_mark, None
            return event
        if not self._buffer:
            return None
        event = self._buffer.popleft()
        if type(event) is Interrupt:
            self.buffered -= event.count
            self.received += event.count
        return event

    def forget(self) -> None:
        """Empty the buffer: in a forked child it is a copy of the parent's, which hands it out."""
        self._buffer.clear()
        self._dropped = self._dropped_mark = None
        self.buffered = 0

    def _drop_oldest(self) -> None:
        """Make room. All that was dropped in a row is told by one Sync, and its latest mark, ahead of the rest."""
        event = self._buffer.popleft()
        before = self._dropped or Sync(SYNC_DROPPED, 0, 0)
        next_seq, lost = before.next_seq, 0  # type: int, int | None
        if type(event) is Interrupt:
            next_seq, lost = event.seq + event.count, event.count
            self.buffered -= event.count
            self.lost += event.count
        elif type(event) is Mark:
            next_seq, self._dropped_mark = event.seq, event
        elif type(event) is Sync:  # counted when it came; told again, for nobody has seen it
            next_seq, lost = event.next_seq, event.lost
        total = None if lost is None or before.lost is None else before.lost + lost
        self._dropped = Sync(SYNC_DROPPED, next_seq, total)
