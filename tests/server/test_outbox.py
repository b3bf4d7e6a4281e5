"""What a session still has to send: in which order, with which account of what was lost."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpt_service.core.event_log import EventLog
from lpt_service.protocol.codec import INTERRUPT_FRAME_BYTES, encode_result
from lpt_service.protocol.messages import Notification
from lpt_service.server.outbox import Outbox

PLENTY = 1 << 30


class Pipe:
    """Takes `room` bytes and not one more."""

    def __init__(self, room: int = PLENTY) -> None:
        self.room = room
        self.taken = bytearray()

    def try_send(self, data: bytes | memoryview) -> int:
        sent = min(len(data), self.room)
        self.taken += data[:sent]
        self.room -= sent
        return sent

    def messages(self) -> list[Any]:
        """What has come, read as MessagePack; the last frame must be whole."""
        unpacker = msgpack.Unpacker()
        unpacker.feed(self.taken)
        messages = list(unpacker)
        assert unpacker.tell() == len(self.taken), "a torn frame at the end"
        return messages


class FakeNotice:
    """A notice of a name, a key and a value; None is stale."""

    def __init__(self, name: str, value: int | None, key: object = None) -> None:
        self.key = (name, key)
        self.value = value

    def render(self) -> Notification | None:
        return None if self.value is None else Notification(self.key[0], (self.value,))


def pumped(outbox: Outbox) -> list[Any]:
    """Everything that waits, as the client reads it."""
    pipe = Pipe()
    assert outbox.pump(pipe.try_send)
    return pipe.messages()


def log_of(*counts: int, capacity: int = 16) -> EventLog:
    """A log with entries of so many interrupts."""
    log = EventLog(capacity, stream=1)
    for count in counts:
        log.append(count, 0, 0, 0)
    return log


def listening(log: EventLog) -> Outbox:
    """An outbox that has entered the log, and has sent all that is in it."""
    outbox = Outbox()
    outbox.enter_log(log, log.end, "connected", log.next_seq, 0)
    assert pumped(outbox) == [[2, "interrupt_sync", ["connected", log.next_seq, 0]]]
    return outbox


def seqs(messages: list[Any]) -> list[int]:
    return [message[2][0] for message in messages if message[1] == "interrupt"]


# Order


def test_order_is_frame_in_flight_replies_notices_log_closing() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    outbox.add_reply(encode_result(1, "in flight"))
    pipe = Pipe(room=3)
    assert not outbox.pump(pipe.try_send)

    log.append(1, 0, 0, 0)
    outbox.add_notice(FakeNotice("waiters", 1))
    outbox.add_reply(encode_result(2, "reply"))
    outbox.add_reply(encode_result(3, "reply"))
    pipe.room = PLENTY
    assert outbox.pump(pipe.try_send)
    outbox.finish("bye", with_log=False)
    assert outbox.pump(pipe.try_send)
    kinds = [message[1] for message in pipe.messages()]
    assert kinds == [1, 2, 3, "waiters", "interrupt", "closing"]


def test_what_is_added_while_the_stream_is_full_comes_after_what_is_in_flight() -> None:
    outbox = Outbox()
    outbox.add_reply(encode_result(1, b"x" * 100))
    pipe = Pipe(room=50)
    assert not outbox.pump(pipe.try_send)
    outbox.add_notice(FakeNotice("waiters", 7))
    outbox.add_reply(encode_result(2, None))
    for _ in range(200):  # a byte at a time
        pipe.room = 1
        if outbox.pump(pipe.try_send):
            break
    assert pipe.messages() == [[1, 1, None, b"x" * 100], [1, 2, None, None], [2, "waiters", [7]]]


def test_nothing_to_send_is_nothing_sent() -> None:
    pipe = Pipe()
    assert Outbox().pump(pipe.try_send)
    assert pipe.taken == b""


def test_a_pump_of_a_long_log_ends_so_that_others_have_their_turn() -> None:
    log = EventLog(100_000, stream=1)
    outbox = listening(log)
    for _ in range(100_000):
        log.mark(1, 0, 0, 0)
    pipe = Pipe()
    pumps = 1
    while not outbox.pump(pipe.try_send):
        assert len(pipe.taken) <= pumps * 1024 * 1024, "one pump sent more than a turn's worth"
        pumps += 1
    assert pumps > 4
    assert len(pipe.taken) == 100_000 * INTERRUPT_FRAME_BYTES


# What waits is counted


def test_backlog_counts_replies_and_what_is_in_flight_but_not_the_log() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    log.append(1, 0, 0, 0)
    assert outbox.backlog_bytes == 0
    reply = encode_result(1, b"x" * 100)
    outbox.add_reply(reply)
    assert outbox.backlog_bytes == len(reply)
    outbox.pump(Pipe(room=60).try_send)
    assert outbox.backlog_bytes == len(reply) - 60
    outbox.add_reply(reply)
    assert outbox.backlog_bytes == 2 * len(reply) - 60
    assert outbox.pump(Pipe().try_send)
    assert outbox.backlog_bytes == 0


def test_backlog_counts_the_answer_that_waits_behind_the_log() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    log.append(1, 0, 0, 0)
    answer = encode_result(1, None)
    outbox.leave_log(log.end, answer)
    assert outbox.backlog_bytes == len(answer)
    outbox.pump(Pipe(room=INTERRUPT_FRAME_BYTES).try_send)
    assert outbox.backlog_bytes == len(answer)
    outbox.pump(Pipe().try_send)
    assert outbox.backlog_bytes == 0
    assert not outbox.is_in_log


# Notices


def test_a_notice_takes_the_place_of_an_earlier_one_with_its_key() -> None:
    outbox = Outbox()
    outbox.add_notice(FakeNotice("queued", 5, key=1))
    outbox.add_notice(FakeNotice("queued", 9, key=2))
    outbox.add_notice(FakeNotice("queued", 4, key=1))
    assert pumped(outbox) == [[2, "queued", [4]], [2, "queued", [9]]]


def test_a_notice_says_what_is_true_when_it_is_sent() -> None:
    outbox = Outbox()
    notice, stale = FakeNotice("waiters", 1), FakeNotice("port_check", 1)
    outbox.add_notice(notice)
    outbox.add_notice(stale)
    notice.value, stale.value = 2, None
    assert pumped(outbox) == [[2, "waiters", [2]]]
    assert pumped(outbox) == []


def test_only_stale_notices_send_nothing_and_hold_nothing_up() -> None:
    outbox = Outbox()
    outbox.add_notice(FakeNotice("queued", None))
    outbox.finish("bye", with_log=False)
    assert pumped(outbox) == [[2, "closing", ["bye"]]]


def test_notifications_that_the_client_does_not_want_are_dropped() -> None:
    log = log_of(1)
    outbox = Outbox()
    outbox.set_wanted(frozenset(("queued",)))
    outbox.add_notice(FakeNotice("waiters", 1))
    outbox.add_notice(FakeNotice("queued", 1))
    outbox.enter_log(log, 0, "connected", 0, 0)
    log.append(1, 0, 0, 0)
    assert pumped(outbox) == [[2, "queued", [1]]]
    outbox.leave_log(log.end, encode_result(1, None))
    outbox.finish("bye", with_log=True)
    assert pumped(outbox) == [[1, 1, None, None]]


def test_interrupts_without_interrupt_sync_are_sent_alone() -> None:
    log = log_of(1)
    outbox = Outbox()
    outbox.set_wanted(frozenset(("interrupt",)))
    outbox.enter_log(log, 0, "connected", 0, 0)
    assert seqs(pumped(outbox)) == [0]
    for _ in range(20):  # the ring has room for 16
        log.append(1, 0, 0, 0)
    assert seqs(pumped(outbox)) == list(range(5, 21))
    assert outbox.lost == 4


# The log: torn frames, leaps, fences


@pytest.mark.parametrize("torn_after", [1, 13, 41])
def test_a_torn_frame_is_finished_from_a_copy(torn_after: int) -> None:
    """The ring may have been lapped before the rest of the frame can be sent."""
    log = EventLog(4, stream=1)
    outbox = listening(log)
    log.append(1, 111, 1, 2)
    log.append(1, 222, 3, 4)
    pipe = Pipe(room=torn_after)
    assert not outbox.pump(pipe.try_send)
    for _ in range(10):
        log.append(1, 999, 5, 6)
    pipe.room = PLENTY
    assert outbox.pump(pipe.try_send)
    first, leap, *others = pipe.messages()
    assert first == [2, "interrupt", [0, 111, 1, 1, 2, 0]]
    assert leap == [2, "interrupt_sync", ["overrun", 8, 7]]
    assert seqs(others) == [8, 9, 10, 11]
    assert outbox.lost == 7


def test_a_reply_comes_after_the_rest_of_a_torn_frame() -> None:
    log = EventLog(4, stream=1)
    outbox = listening(log)
    log.append(1, 0, 0, 0)
    log.append(1, 0, 0, 0)
    pipe = Pipe(room=20)
    outbox.pump(pipe.try_send)
    outbox.add_reply(encode_result(1, None))
    pipe.room = PLENTY
    outbox.pump(pipe.try_send)
    assert [message[1] for message in pipe.messages()] == ["interrupt", 1, "interrupt"]


def test_a_lapped_reader_is_moved_to_the_oldest_kept_entry_and_told() -> None:
    log = EventLog(4, stream=1)
    outbox = listening(log)
    for count in (5, 1, 1, 1, 1, 1, 10):  # the first three are no longer kept
        log.append(count, 0, 0, 0)
    sync, *frames = pumped(outbox)
    assert sync == [2, "interrupt_sync", ["overrun", 7, 7]]
    assert [params[:1] + params[2:3] for _, _, params in frames] == [[7, 1], [8, 1], [9, 1], [10, 10]]
    assert outbox.lost == 7


def test_a_mark_that_was_overtaken_is_told_behind_the_sync() -> None:
    """Also where no interrupt was lost: it is the mark that says that the port was not heard."""
    log = EventLog(4, stream=1)
    outbox = listening(log)
    log.mark(1, 55, 0x5F, 0x1C)
    for _ in range(4):
        log.append(1, 0, 0, 0)
    assert pumped(outbox)[:3] == [
        [2, "interrupt_sync", ["overrun", 0, 0]],
        [2, "interrupt", [0, 55, 0, 0x5F, 0x1C, 1]],
        [2, "interrupt", [0, 0, 1, 0, 0, 0]],
    ]
    for _ in range(9):
        log.append(1, 0, 0, 0)
    assert pumped(outbox)[:2] == [
        [2, "interrupt_sync", ["overrun", 9, 5]],
        [2, "interrupt", [9, 0, 1, 0, 0, 0]],
    ], "once"


def test_a_mark_behind_the_fence_is_not_told() -> None:
    log = EventLog(4, stream=1)
    outbox = listening(log)
    log.append(1, 0, 0, 0)
    outbox.leave_log(log.end, b"")
    log.mark(1, 55, 0, 0)
    for _ in range(9):
        log.append(1, 0, 0, 0)
    assert pumped(outbox) == [[2, "interrupt_sync", ["overrun", 1, 1]]]


def test_who_resumes_with_from_hears_of_a_mark_that_is_gone() -> None:
    log = EventLog(4, stream=1)
    log.append(1, 0, 0, 0)
    log.mark(1, 55, 0, 0)
    for _ in range(6):
        log.append(1, 0, 0, 0)
    for first, marks in ((0, [55]), (1, [55]), (2, [])):
        outbox = Outbox()
        entry = log.find(first)
        outbox.enter_log(log, entry, "resumed", log.seq_at(entry), log.seq_at(entry) - first)
        heard = [params for _, name, params in pumped(outbox) if name == "interrupt"]
        assert [params[1] for params in heard if params[5] == 1] == marks, first
        assert heard[0][0] == 3


def test_a_reader_lapped_past_its_fence_gets_the_loss_up_to_the_fence_and_the_answer() -> None:
    """What came after the disconnect is neither sent nor counted as lost."""
    log = EventLog(4, stream=1)
    outbox = listening(log)
    log.append(3, 0, 0, 0)
    outbox.leave_log(log.end, encode_result(9, "fence"))
    for _ in range(10):
        log.append(1, 0, 0, 0)
    assert pumped(outbox) == [[2, "interrupt_sync", ["overrun", 3, 3]], [1, 9, None, "fence"]]
    assert outbox.lost == 3


def test_a_reader_lapped_before_its_fence_gets_what_is_left() -> None:
    log = EventLog(4, stream=1)
    outbox = listening(log)
    for _ in range(3):
        log.append(1, 0, 0, 0)
    outbox.leave_log(log.end, encode_result(9, None))
    log.append(1, 0, 0, 0)
    log.append(1, 0, 0, 0)
    sync, *rest = pumped(outbox)
    assert sync == [2, "interrupt_sync", ["overrun", 1, 1]]
    assert seqs(rest) == [1, 2]
    assert rest[-1] == [1, 9, None, None]


def test_semantic_05_the_fence_follows_every_event_and_none_comes_after() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    log.append(1, 0, 0, 0)
    outbox.leave_log(log.end, encode_result(9, None))
    log.append(1, 0, 0, 0)
    assert [message[1] for message in pumped(outbox)] == ["interrupt", 9]
    log.append(1, 0, 0, 0)
    assert pumped(outbox) == []


def test_a_fence_without_an_answer_only_ends_the_log() -> None:
    """A port that stops ends everybody's log; nobody asked for it."""
    log = EventLog(16, stream=1)
    outbox = listening(log)
    log.mark(4, 0, 0, 0)
    outbox.leave_log(log.end, b"")
    log.append(1, 0, 0, 0)
    assert [message[2][5] for message in pumped(outbox)] == [4]
    assert not outbox.is_in_log


def test_the_answer_of_a_session_that_is_not_in_the_log_is_a_reply() -> None:
    outbox = Outbox()
    outbox.leave_log(0, encode_result(9, None))
    outbox.leave_log(0, b"")
    assert pumped(outbox) == [[1, 9, None, None]]


def test_a_second_passage_begins_when_the_first_is_over() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    log.append(1, 0, 0, 0)
    outbox.leave_log(log.end, encode_result(8, "fence"))
    log.append(1, 0, 0, 0)  # between the two: for nobody
    outbox.add_reply(encode_result(9, "connected again"))
    outbox.enter_log(log, log.end, "connected", log.next_seq, 0)
    log.append(1, 0, 0, 0)
    messages = pumped(outbox)
    assert [message[1] for message in messages] == [9, "interrupt", 8, "interrupt_sync", "interrupt"]
    assert seqs(messages) == [0, 2]


# The end


def test_finish_without_the_log_sends_replies_then_closing() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    log.append(1, 0, 0, 0)
    outbox.add_notice(FakeNotice("waiters", 1))
    outbox.add_reply(encode_result(1, None))
    outbox.finish("bye", with_log=False)
    assert pumped(outbox) == [[1, 1, None, None], [2, "closing", ["bye"]]]
    assert pumped(outbox) == []


def test_finish_without_the_log_still_answers_a_disconnect() -> None:
    """The answer is owed; it stands behind the events up to its fence, so these come, too."""
    log = EventLog(16, stream=1)
    outbox = listening(log)
    log.append(1, 0, 0, 0)
    outbox.leave_log(log.end, encode_result(8, None))
    outbox.enter_log(log, log.end, "connected", log.next_seq, 0)
    outbox.finish("bye", with_log=False)
    log.append(1, 0, 0, 0)
    assert [message[1] for message in pumped(outbox)] == ["interrupt", 8, "closing"]
    assert outbox.backlog_bytes == 0


def test_finish_with_the_log_sends_it_up_to_its_end_then_closing() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    log.append(1, 0, 0, 0)
    log.mark(4, 0, 0, 0)
    outbox.leave_log(log.end, b"")
    outbox.finish("bye", with_log=True)
    assert [message[1] for message in pumped(outbox)] == ["interrupt", "interrupt", "closing"]


# The invariant

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5)),
        st.tuples(st.just("mark"), st.just(0)),
        st.tuples(st.just("pump"), st.integers(0, 3 * INTERRUPT_FRAME_BYTES)),
        st.tuples(st.just("reply"), st.just(0)),
        st.tuples(st.just("reconnect"), st.just(0)),
    ),
    max_size=60,
)


@given(_STEPS, st.integers(2, 6))
def test_received_plus_lost_is_generated_however_slow_the_reader(steps: list[tuple[str, int]], capacity: int) -> None:
    log = EventLog(capacity, stream=1)
    outbox, pipe = Outbox(), Pipe(room=0)
    outbox.enter_log(log, 0, "connected", 0, 0)
    generated = replies = 0
    for step, number in steps:
        match step:
            case "append":
                log.append(number, 0, 0, 0)
                generated += number
            case "mark":
                log.mark(2, 0, 0, 0)
            case "pump":
                pipe.room = number
                outbox.pump(pipe.try_send)
            case "reply":
                outbox.add_reply(encode_result(replies, "reply"))
                replies += 1
            case "reconnect":
                outbox.leave_log(log.end, encode_result(replies, "fence"))
                replies += 1
                log.append(3, 0, 0, 0)  # for nobody
                outbox.enter_log(log, log.end, "connected", log.next_seq, 0)
    outbox.leave_log(log.end, encode_result(replies, "fence"))
    pipe.room = PLENTY
    while not outbox.pump(pipe.try_send):
        pass
    messages = pipe.messages()

    received = sum(message[2][2] for message in messages if message[1] == "interrupt")
    lost = sum(message[2][2] for message in messages if message[1] == "interrupt_sync")
    assert received + lost == generated
    assert outbox.lost == lost
    assert sorted(message[1] for message in messages if message[0] == 1) == list(range(replies + 1))
    _check_continuity(messages)


def _check_continuity(messages: list[Any]) -> None:
    """Every entry follows on the one before, or an interrupt_sync says where it goes on."""
    next_seq = None
    for message in messages:
        if message[0] == 1:
            continue
        _, name, params = message
        if name == "interrupt_sync":
            next_seq = params[1]
        else:
            assert params[0] == next_seq
            next_seq += params[2]


@given(st.lists(st.sampled_from(("append", "mark", "pump", "come back")), max_size=60), st.integers(1, 5), st.data())
def test_no_silence_is_without_a_mark_however_slow_the_reader(
    steps: list[str], capacity: int, data: st.DataObject
) -> None:
    """Between two events that it received with a mark between them in the log, it received one."""
    log, outbox = EventLog(capacity, stream=1), Outbox()
    outbox.enter_log(log, 0, "connected", 0, 0)
    marks: list[int] = []
    messages: list[Any] = []
    pipe = Pipe(room=0)
    for time_ns, step in enumerate((*steps, "append", "come back"), 1):
        if step == "append":
            log.append(1, time_ns, 0, 0)
        elif step == "mark":
            log.mark(1, time_ns, 0, 0)
            marks.append(time_ns)
        elif step == "pump":
            pipe.room = data.draw(st.integers(0, 200))
            outbox.pump(pipe.try_send)
        else:
            whole = msgpack.Unpacker()
            whole.feed(pipe.taken)
            messages += list(whole)
            seen = [params[0] + params[2] for _, name, params in messages if name == "interrupt"]
            synced = [params[1] for _, name, params in messages if name == "interrupt_sync"]
            parted, outbox, pipe = outbox.part(), Outbox(), Pipe(room=0)
            outbox.resume(parted, (1, max(seen + synced, default=0)), is_restart=False)
    pipe.room = PLENTY
    while not outbox.pump(pipe.try_send):
        pass
    messages += pipe.messages()
    heard = sorted({(params[1], params[2] == 0) for _, name, params in messages if name == "interrupt"})
    events = [time_ns for time_ns, is_mark in heard if not is_mark]
    for before, after in pairwise(events):
        between = [time_ns for time_ns, is_mark in heard if is_mark and before < time_ns < after]
        assert between or not any(before < time_ns < after for time_ns in marks)
