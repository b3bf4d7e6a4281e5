"""What a session still has to send: replies, notices, and its place in the event log. No I/O here.

Order: the rest of a frame in flight, replies, notices, the log, the last frame. Each part is bounded: replies by the
session (it is not read from while 256 KiB wait), notices by their keys, the log by the ring it lies in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from lpt_service.core.effects import Notice
from lpt_service.core.event_log import EventLog
from lpt_service.protocol import messages
from lpt_service.protocol.codec import INTERRUPT_FRAME_BYTES, encode_notification

_SLICE_BYTES: Final = 64 * 1024
# Then it is others' turn: a reader that is far behind, and fast, would hold them up for the whole ring.
_SLICES_A_PUMP: Final = 8

TrySend = Callable[[bytes | memoryview], int]


class _Passage:
    """One way through the log: from where an ISR was connected to where the last one was disconnected."""

    __slots__ = ("after", "before", "begin", "end", "end_seq", "entry", "next_seq")

    def __init__(self, entry: int, next_seq: int, before: bytes) -> None:
        self.begin = entry
        self.entry = entry  # the next one to send
        self.next_seq = next_seq  # its number, kept here because the ring may overtake it
        self.before = before  # a frame to send first
        self.end: int | None = None  # None while it is open
        self.end_seq = 0
        self.after = b""  # a frame to send last: the answer to the disconnect


class Outbox:
    """The sending side of one session.

    Attributes:
        lost: interrupts that this session was told it has lost because it read too slowly.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._log: EventLog | None = None
        self._wanted = frozenset(messages.NOTIFICATIONS)
        self._in_flight: bytes = b""
        self._is_reply_in_flight = False
        self._replies: list[bytes] = []
        self._reply_bytes = 0
        self._notices: dict[tuple[object, ...], Notice] = {}
        self._passages: deque[_Passage] = deque()
        self._last: bytes = b""

    @property
    def backlog_bytes(self) -> int:
        """What waits for the client to read, the log not counted."""
        return len(self._in_flight) + self._reply_bytes

    @property
    def owes_reply(self) -> bool:
        """True while a reply, or a part of one, waits for the client to read."""
        return self._reply_bytes > 0 or self._is_reply_in_flight

    @property
    def is_in_log(self) -> bool:
        """True while there is, or may come, something of the log to be sent."""
        return bool(self._passages)

    def set_wanted(self, names: frozenset[str]) -> None:
        """The notifications that the client wants; the others are dropped."""
        self._wanted = names

    def add_reply(self, frame: bytes) -> None:
        """Append a reply."""
        self._replies.append(frame)
        self._reply_bytes += len(frame)

    def add_notice(self, notice: Notice) -> None:
        """Send `notice` soon, in the place of an earlier one with its key."""
        if notice.key[0] in self._wanted:
            self._notices[notice.key] = notice

    def enter_log(self, log: EventLog, entry: int, reason: str, next_seq: int, lost: int | None) -> None:
        """Send the log from `entry` on, after an `interrupt_sync`."""
        self._log = log
        if messages.INTERRUPT in self._wanted:
            before = self._sync(reason, next_seq, lost)
            if reason == messages.SYNC_RESUMED:
                before += self._mark_missed_since(log, next_seq - (lost or 0), next_seq)
            self._passages.append(_Passage(entry, next_seq, before))

    def leave_log(self, end: int, answer: bytes) -> None:
        """Send the log up to `end`, then `answer`, and nothing of the log after: the fence."""
        passage = self._passages[-1] if self._passages else None
        if passage is None or passage.end is not None or self._log is None:
            if answer:
                self.add_reply(answer)
            return
        passage.end, passage.end_seq, passage.after = end, self._log.seq_at(end), answer
        self._reply_bytes += len(answer)

    def finish(self, reason: str, *, with_log: bool) -> None:
        """Nothing comes after what is here, but a `closing` notification; `with_log`: the log up to its end first."""
        if not with_log:  # except that the answer to a disconnect is owed, and stands behind its part of the log
            self._passages = deque(passage for passage in self._passages if passage.after)
        self._notices.clear()
        if messages.CLOSING in self._wanted:
            self._last = encode_notification(messages.CLOSING, (reason,))

    def drop_log(self) -> None:
        """Send nothing of the log any more, nor the answers that stand behind it; what is in flight stays."""
        self._reply_bytes -= sum(len(passage.after) for passage in self._passages)
        self._passages.clear()

    # A session without a connection

    def part(self) -> Outbox:
        """Leave the frame in flight to the connection that is ending; what is still to be said goes on in the answer.

        Replies that were not sent are gone, as are those that were sent and not read.
        """
        parted = Outbox()
        parted.lost, self.lost = self.lost, 0
        parted._log, parted._wanted = self._log, self._wanted
        parted._notices, self._notices = self._notices, {}
        parted._passages.extend(passage for passage in self._passages if passage.end is None)
        self._passages.clear()
        self._replies.clear()
        self._reply_bytes = 0
        return parted

    def rewind(self) -> None:
        """Go back in the log to the first entry that may not have reached the client.

        That is as far as the log goes back: what the kernel has handed over may have been lost unread, at the client's
        end or on the way. Only a client that says where it is (`resume`) is spared what it has heard.
        """
        if not self._passages:
            return
        passage = self._passages[-1]
        passage.entry = passage.begin  # `next_seq` stays, for what is lost counts from there

    def resume(self, parted: Outbox, resume_from: tuple[int, int] | None, *, is_restart: bool) -> None:
        """Go on with what a former connection's outbox had: its notices, and the log from where the client says it is.

        `resume_from`: (stream, next_seq) as the client has it. `is_restart`: the log is another one than it was then.
        Without `resume_from`, only what was never sent counts as lost: what else is missing, the numbers tell.
        """
        self.lost += parted.lost
        for notice in parted._notices.values():
            self.add_notice(notice)
        if not parted._passages or parted._log is None or messages.INTERRUPT not in self._wanted:
            return
        passage, log = parted._passages[-1], parted._log
        self._log = log
        self._passages.append(passage)
        is_other_log = is_restart or (resume_from is not None and resume_from[0] != log.stream)
        if resume_from is None or is_other_log:
            entry, expected = max(passage.entry, log.oldest), passage.next_seq
        else:
            entry, expected = log.find(resume_from[1]), resume_from[1]
        if passage.end is not None and passage.end <= entry:  # its part of the log was over before, and is behind it
            passage.entry, passage.next_seq = passage.end, passage.end_seq
        else:
            passage.entry, passage.next_seq = entry, log.seq_at(entry)
        if is_other_log:
            passage.before = self._sync(messages.SYNC_RESTARTED, passage.next_seq, None)
            return
        if resume_from is not None:
            passage.begin = passage.entry  # everything before has reached it
        passage.before = self._sync(messages.SYNC_RESUMED, passage.next_seq, max(0, passage.next_seq - expected))
        passage.before += self._mark_missed_since(log, expected, passage.next_seq)

    # Sending

    def pump(self, try_send: TrySend) -> bool:
        """Send what `try_send` takes, as far as it is one turn's worth; True when nothing is left."""
        slices_left = _SLICES_A_PUMP
        while True:
            if self._in_flight:
                sent = try_send(self._in_flight)
                if sent < len(self._in_flight):
                    self._in_flight = self._in_flight[sent:]
                    return False
                self._in_flight, self._is_reply_in_flight = b"", False
            if self._replies:
                self._in_flight = self._replies[0] if len(self._replies) == 1 else b"".join(self._replies)
                self._reply_bytes -= len(self._in_flight)
                self._replies.clear()
                self._is_reply_in_flight = True
            elif self._notices:
                self._in_flight = self._render_notices()
            elif self._passages and not self._is_up_to_date():
                if not slices_left or not self._pump_log(try_send):
                    return False
                slices_left -= 1
            elif self._last:
                self._in_flight, self._last = self._last, b""
            else:
                return True

    def _render_notices(self) -> bytes:
        rendered = [notice.render() for notice in self._notices.values()]
        self._notices.clear()
        return b"".join(encode_notification(*each) for each in rendered if each is not None)

    def _is_up_to_date(self) -> bool:
        passage, log = self._passages[0], self._log
        return log is not None and not passage.before and passage.end is None and passage.entry == log.end

    def _pump_log(self, try_send: TrySend) -> bool:
        """One slice of the first passage; False when the stream is full."""
        passage, log = self._passages[0], self._log
        assert log is not None
        if passage.before:
            self._in_flight, passage.before = passage.before, b""
            return True
        end = log.end if passage.end is None else passage.end
        if passage.entry < log.oldest and passage.entry < end:
            self._leap(passage, log)
            return True
        if passage.entry == end:
            self._in_flight, self._is_reply_in_flight = passage.after, True
            self._reply_bytes -= len(passage.after)
            self._passages.popleft()
            return True
        frames = log.slice(passage.entry, end, _SLICE_BYTES)
        sent = try_send(frames)
        whole, torn = divmod(sent, INTERRUPT_FRAME_BYTES)
        if torn:
            # The rest of the frame in flight is copied: the ring may overtake it before it can be sent.
            whole += 1
            self._in_flight = bytes(frames[sent : whole * INTERRUPT_FRAME_BYTES])
        passage.entry += whole
        passage.next_seq = log.seq_at(passage.entry)
        return sent == len(frames)

    def _leap(self, passage: _Passage, log: EventLog) -> None:
        """The ring has overtaken this reader: go to the oldest kept entry (or the end), and say what is lost."""
        is_beyond = passage.end is not None and passage.end <= log.oldest
        if is_beyond:
            assert passage.end is not None
            passage.entry, next_seq = passage.end, passage.end_seq
        else:
            passage.entry, next_seq = log.oldest, log.seq_at(log.oldest)
        lost = next_seq - passage.next_seq
        mark = self._mark_missed_since(log, passage.next_seq, next_seq, passage.end)
        passage.next_seq = next_seq
        self.lost += lost
        self._in_flight = self._sync(messages.SYNC_OVERRUN, next_seq, lost) + mark

    def _mark_missed_since(self, log: EventLog, expected_seq: int, next_seq: int, end: int | None = None) -> bytes:
        """The latest mark that the ring has overtaken, for who expected `expected_seq` and goes on at `next_seq`.

        One that stands directly at `expected_seq` it may have seen: it is told twice rather than missed. `end`: the
        entry at which its part of the log ends.
        """
        mark = log.overtaken
        if mark is None or mark.seq < expected_seq or (end is not None and mark.entry >= end):
            return b""
        return mark.at(next_seq)

    def _sync(self, reason: str, next_seq: int, lost: int | None) -> bytes:
        if messages.INTERRUPT_SYNC not in self._wanted:
            return b""
        return encode_notification(messages.INTERRUPT_SYNC, (reason, next_seq, lost))
