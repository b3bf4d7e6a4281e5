"""The log of a port's interrupts: a ring of encoded entries, and cursors into it.

Each entry is the `interrupt` notification itself, 42 bytes, encoded once and sent to every subscriber from here. So
publishing costs the same for one and for a thousand, a slow reader costs nobody else anything, memory is bounded, and a
reader that was lapped knows exactly how many interrupts it lost.

Two counts run through it. *Entries* number the slots (`end` is the next one); *seq* numbers interrupts (an entry may
stand for several, a mark for none), and is what clients see.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final, NamedTuple

from lpt_service.protocol.codec import INTERRUPT_COUNT_MAX, INTERRUPT_FRAME_BYTES, encode_interrupt
from lpt_service.protocol.messages import KIND_EVENT, KIND_MASKED, KIND_STOPPED

_SEQ = struct.Struct(">Q")
_SEQ_OFFSET = 14  # of the number within an entry
_SEQ_END = _SEQ_OFFSET + _SEQ.size
_SILENCES: Final = (KIND_MASKED, KIND_STOPPED)


class LoggedMark(NamedTuple):
    """A mark in the log: a session that goes on behind it may still have to be told of it."""

    entry: int
    seq: int
    frame: bytes

    @property
    def kind(self) -> int:
        """What it says."""
        return self.frame[-1]

    @property
    def is_silence(self) -> bool:
        """True when the port is not heard from here on, until another mark says that it is."""
        return self.kind in _SILENCES

    def at(self, seq: int) -> bytes:
        """The mark as a frame, at the place where its reader goes on."""
        return self.frame[:_SEQ_OFFSET] + _SEQ.pack(seq) + self.frame[_SEQ_END:]


class EventLog:
    """The last `capacity` entries of one port, for as long as the daemon runs.

    Attributes:
        stream: the identity of this log, new at each start, below 2^53.
        end: the number of the entry that will be written next; the oldest kept one is `oldest`.
        next_seq: the number of the next interrupt.
        overtaken: the latest mark that is older than `oldest`.
    """

    def __init__(self, capacity: int, stream: int) -> None:
        self.capacity = capacity
        self.stream = stream
        self.end = 0
        self.next_seq = 0
        self.overtaken: LoggedMark | None = None
        self._marks: deque[int] = deque()  # those that are kept, by their entries
        self._ring = bytearray(capacity * INTERRUPT_FRAME_BYTES)
        self._view = memoryview(self._ring)

    @property
    def oldest(self) -> int:
        """The number of the oldest entry that is still kept (`end` when there is none)."""
        return max(0, self.end - self.capacity)

    def append(self, count: int, timestamp_ns: int, status: int, control: int) -> None:
        """Write down `count` interrupts (more than a u32 holds become several entries)."""
        while count > 0:
            part = min(count, INTERRUPT_COUNT_MAX)
            self._write(timestamp_ns, part, status, control, KIND_EVENT)
            count -= part

    def mark(self, kind: int, timestamp_ns: int, status: int, control: int) -> None:
        """Write down that from here on, or until here, interrupts are not known."""
        self._write(timestamp_ns, 0, status, control, kind)
        self._marks.append(self.end - 1)

    def _write(self, timestamp_ns: int, count: int, status: int, control: int, kind: int) -> None:
        at = self.end % self.capacity * INTERRUPT_FRAME_BYTES
        if self._marks and self._marks[0] == self.end - self.capacity:
            self.overtaken = self._mark_at(self._marks.popleft())
        self._view[at : at + INTERRUPT_FRAME_BYTES] = encode_interrupt(
            self.next_seq, timestamp_ns, count, status, control, kind
        )
        self.next_seq += count
        self.end += 1

    def _mark_at(self, entry: int) -> LoggedMark:
        at = entry % self.capacity * INTERRUPT_FRAME_BYTES
        frame = bytes(self._view[at : at + INTERRUPT_FRAME_BYTES])
        return LoggedMark(entry, int(_SEQ.unpack_from(frame, _SEQ_OFFSET)[0]), frame)

    def mark_before(self, entry: int) -> LoggedMark | None:
        """The latest mark before `entry` (which is kept, or is `end`); None if there has been none."""
        kept = next((mark for mark in reversed(self._marks) if mark < entry), None)
        return self.overtaken if kept is None else self._mark_at(kept)

    def seq_at(self, entry: int) -> int:
        """The number of the first interrupt at or after `entry` (which is kept, or is `end`)."""
        if entry == self.end:
            return self.next_seq
        return int(_SEQ.unpack_from(self._ring, entry % self.capacity * INTERRUPT_FRAME_BYTES + _SEQ_OFFSET)[0])

    def find(self, seq: int) -> int:
        """The first kept entry whose number is at least `seq`, or `end`.

        Of several entries with one number (marks before an event) it is the first: a reader that comes back may see a
        mark twice, and misses none.
        """
        low, high = self.oldest, self.end
        while low < high:
            middle = (low + high) // 2
            if self.seq_at(middle) < seq:
                low = middle + 1
            else:
                high = middle
        return low

    def slice(self, entry: int, end: int, max_bytes: int) -> memoryview:
        """The frames from `entry` up to `end`, as far as they lie in one piece and fit in `max_bytes` (at least one).

        A view of the ring: valid until the next `append`.
        """
        slot = entry % self.capacity
        slots = min(end - entry, self.capacity - slot, max(1, max_bytes // INTERRUPT_FRAME_BYTES))
        return self._view[slot * INTERRUPT_FRAME_BYTES : (slot + slots) * INTERRUPT_FRAME_BYTES]
