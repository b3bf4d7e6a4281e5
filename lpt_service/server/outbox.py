"""What a session still has to send: replies, notices, and its place in the event log. No I/O here.

Order: the rest of a frame in flight, replies, notices, the log, the last frame. Each part is bounded: replies by the
session (it is not read from while 256 KiB wait), notices by their keys, the log by the ring it lies in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from lpt_service.core.effects import Notice
from lpt_service.core.event_log import EventLog, LoggedMark
from lpt_service.protocol import messages
from lpt_service.protocol.codec import INTERRUPT_FRAME_BYTES, encode_notification, without_bin

_SLICE_BYTES: Final = 64 * 1024
# Then it is others' turn: a reader that is far behind, and fast, would hold them up for the whole ring.
_SLICES_A_PUMP: Final = 8

# Answers to disconnects, of one session, that may not have reached its client, with the parts of the log before them.
# When there are more, the oldest counts as read.
UNREAD_ANSWERS_MAX: Final = 256

TrySend = Callable[[bytes | memoryview], int]


class _Passage:
    """One way through the log: from where an ISR was connected to where the last one was disconnected."""

    __slots__ = (
        "after",
        "before",
        "begin",
        "end",
        "end_seq",
        "entry",
        "first_seq",
        "is_sent",
        "last_mark",
        "msgid",
        "next_seq",
        "opening",
    )

    def __init__(self, entry: int, first_seq: int, next_seq: int) -> None:
        self.begin = entry
        self.entry = entry  # the next one to send
        self.first_seq = first_seq  # where its account begins
        self.next_seq = next_seq  # the number of `entry`, kept here because the ring may overtake it
        self.opening = b""  # how it began: a sync, and a mark that stands
        self.before = b""  # what is to be sent first
        self.end: int | None = None  # None while it is open
        self.end_seq = 0
        self.last_mark: LoggedMark | None = None  # before `end`
        self.msgid: int | None = None  # of the disconnect that ended it
        self.after = b""  # a frame to send last: the answer to that
        self.is_sent = False  # to the end

    def move_to(self, entry: int, log: EventLog) -> None:
        """Go on at `entry`, or at the oldest kept one, or at the end."""
        entry = max(entry, log.oldest)
        if self.end is not None and self.end <= entry:
            self.entry, self.next_seq = self.end, self.end_seq
        else:
            self.entry, self.next_seq = entry, log.seq_at(entry)

    def mark_before(self, log: EventLog) -> LoggedMark | None:
        """The latest mark before `entry`."""
        return self.last_mark if self.entry == self.end else log.mark_before(self.entry)


class _UnreadAnswer(NamedTuple):
    end_seq: int
    frame: bytes
    passage: _Passage | None  # that it ends; None: it was sent at once, for another routine goes on hearing


class Outbox:
    """The sending side of one session.

    Attributes:
        lost: interrupts that this session was told it has lost because it read too slowly.
        is_raw: the client's MessagePack has neither bin nor str8. Frames are turned into that as they are sent.
        keeps_unread: the session may come back: keep what its client may not have read.
        unread: the answers to disconnects that are kept, by their msgids (what the port ended has a negative number).
    """

    def __init__(self) -> None:
        self.lost = 0
        self.is_raw = False
        self.keeps_unread = False
        self.unread: dict[int, _UnreadAnswer] = {}
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

    @property
    def is_hearing(self) -> bool:
        """True while it is sent what is added to the log."""
        return bool(self._passages) and self._passages[-1].end is None

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
        if messages.INTERRUPT not in self._wanted:
            return
        passage = _Passage(entry, next_seq - (lost or 0), next_seq)
        since_entry = 0 if reason == messages.SYNC_RESUMED else entry
        passage.opening = passage.before = self._sync(passage, reason, lost, passage.first_seq, since_entry)
        self._passages.append(passage)

    def leave_log(self, end: int, answer: bytes, msgid: int | None = None) -> None:
        """Send the log up to `end`, then the answer to `msgid`, and nothing of the log after: the fence."""
        passage, log = self._passages[-1] if self._passages else None, self._log
        if passage is None or passage.end is not None or log is None:
            if answer:
                self.add_reply(answer)
            return
        passage.end, passage.end_seq, passage.last_mark = end, log.seq_at(end), log.mark_before(end)
        passage.after, passage.msgid = answer, msgid
        self._reply_bytes += len(answer)
        self._keep_unread(-1 - end if msgid is None else msgid, _UnreadAnswer(passage.end_seq, answer, passage))

    def answer_disconnect(self, msgid: int, answer: bytes, end_seq: int) -> None:
        """Answer at once, for this session goes on hearing by another routine."""
        self.add_reply(answer)
        if self._passages:
            self._keep_unread(msgid, _UnreadAnswer(end_seq, answer, None))

    def _keep_unread(self, msgid: int, answer: _UnreadAnswer) -> None:
        if not self.keeps_unread:
            return
        if len(self.unread) >= UNREAD_ANSWERS_MAX:
            del self.unread[next(iter(self.unread))]
        self.unread[msgid] = answer

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

        Replies that were not sent are gone, as are those that were sent and not read; but for those to disconnects, on
        which a client's account depends.
        """
        parted = Outbox()
        parted.lost, self.lost = self.lost, 0
        parted.keeps_unread = self.keeps_unread
        parted._log, parted._wanted = self._log, self._wanted
        parted._notices, self._notices = self._notices, {}
        parted.unread, self.unread = self.unread, {}
        sent = (each.passage for each in parted.unread.values() if each.passage is not None and each.passage.is_sent)
        parted._passages.extend((*sent, *self._passages))
        self._passages.clear()
        self._replies.clear()
        self._reply_bytes = 0
        return parted

    def resume(self, parted: Outbox, resume_from: tuple[int, int] | None, *, is_restart: bool) -> None:
        """Go on with what a former connection's outbox had: its notices, and the log from where the client says it is.

        What the kernel has handed over may have been lost unread, at the client's end or on the way: only a client that
        says where it is, by `resume_from` (stream, next_seq), is spared what it has heard, and is told again what its
        disconnects were answered. Without that, all that the log has of an ISR that is connected still is sent, and
        only what was never sent counts as lost: what else is missing, the numbers tell.

        `is_restart`: the log is another one than it was then.
        """
        self.lost += parted.lost
        self.keeps_unread = parted.keeps_unread
        for notice in parted._notices.values():
            self.add_notice(notice)
        log = self._log = parted._log
        if log is None or messages.INTERRUPT not in self._wanted:
            return
        is_other_log = is_restart or (resume_from is not None and resume_from[0] != log.stream)
        unsent = [each for each in parted._passages if not each.is_sent]
        if is_other_log:
            self._take_over(unsent[-1:], {})
        elif resume_from is None:
            self._take_over(unsent, parted.unread)
        else:
            unheard = [each for each in parted._passages if not each.is_sent or each.end_seq >= resume_from[1]]
            unread = {msgid: each for msgid, each in parted.unread.items() if each.end_seq >= resume_from[1]}
            self._take_over(unheard, unread)
        if not self._passages:
            return
        passage = self._passages[0]
        since_entry, expected_seq = passage.begin, passage.next_seq
        if resume_from is None or is_other_log:
            passage.move_to(passage.begin, log)
        else:
            expected_seq = max(resume_from[1], passage.first_seq)
            passage.move_to(max(log.find(resume_from[1]), passage.begin), log)
            passage.begin = passage.entry  # everything before has reached it
        if is_other_log:
            passage.before = self._sync(passage, messages.SYNC_RESTARTED, None, passage.next_seq, passage.entry)
            return
        lost = max(0, passage.next_seq - expected_seq)
        unseen_seq = passage.first_seq if resume_from is None else expected_seq
        answers = b"".join(each.frame for each in self.unread.values() if each.passage is None)
        passage.before = answers + self._sync(passage, messages.SYNC_RESUMED, lost, unseen_seq, since_entry)

    def _take_over(self, passages: list[_Passage], unread: dict[int, _UnreadAnswer]) -> None:
        """Send these again, each from its beginning."""
        for passage in passages:
            if passage is not passages[0]:
                passage.entry, passage.next_seq, passage.before = passage.begin, passage.first_seq, passage.opening
            passage.is_sent = False
            self._reply_bytes += len(passage.after)
        self._passages.extend(passages)
        if passages:
            there = set(passages)
            self.unread = {
                msgid: each for msgid, each in unread.items() if each.passage is None or each.passage in there
            }

    def forget_answer(self, msgid: int) -> None:
        """Its client has read the answer: it uses the number again."""
        self.unread.pop(msgid, None)

    @property
    def repeated(self) -> list[int]:
        """The msgids of the disconnects that are about to be answered, perhaps once more."""
        of_passages = [each.msgid for each in self._passages if each.msgid is not None]
        return [*(msgid for msgid, each in self.unread.items() if each.passage is None), *of_passages]

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
                replies = self._replies[0] if len(self._replies) == 1 else b"".join(self._replies)
                self._in_flight = without_bin(replies) if self.is_raw else replies
                self._reply_bytes -= len(replies)
                self._replies.clear()
                self._is_reply_in_flight = True
            elif self._notices:
                self._in_flight = self._said(self._render_notices())
            elif self._passages and not self._is_up_to_date():
                if not slices_left or not self._pump_log(try_send):
                    return False
                slices_left -= 1
            elif self._last:
                self._in_flight, self._last = self._said(self._last), b""
            else:
                return True

    def _said(self, frames: bytes) -> bytes:
        """As the client can read them."""
        return without_bin(frames) if self.is_raw else frames

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
            self._in_flight, passage.before = self._said(passage.before), b""
            return True
        end = log.end if passage.end is None else passage.end
        if passage.entry < log.oldest and passage.entry < end:
            self._leap(passage, log)
            return True
        if passage.entry == end:
            self._in_flight, self._is_reply_in_flight = self._said(passage.after), bool(passage.after)
            self._reply_bytes -= len(passage.after)
            self._passages.popleft().is_sent = True
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
        expected_seq = passage.next_seq
        passage.move_to(log.oldest, log)
        lost = passage.next_seq - expected_seq
        self.lost += lost
        self._in_flight = self._sync(passage, messages.SYNC_OVERRUN, lost, expected_seq, passage.begin)

    def _sync(self, passage: _Passage, reason: str, lost: int | None, unseen_seq: int, since_entry: int) -> bytes:
        """`interrupt_sync` for a client that goes on at `passage.entry`, and the mark that it has to know of there.

        That is the latest mark before, if the port has not been heard since, or if the client may not have seen it:
        one of its own time, from the entry `since_entry` and the number `unseen_seq` on.
        """
        assert self._log is not None
        sync, mark = b"", passage.mark_before(self._log)
        if messages.INTERRUPT_SYNC in self._wanted:
            sync = encode_notification(messages.INTERRUPT_SYNC, (reason, passage.next_seq, lost))
        if mark is None:
            return sync
        is_unseen = mark.entry >= since_entry and mark.seq >= unseen_seq
        return sync + mark.at(passage.next_seq) if is_unseen or mark.is_silence else sync
