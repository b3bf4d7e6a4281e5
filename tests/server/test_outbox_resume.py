"""The outbox of a session whose connection broke, and of the one that goes on with it."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpt_service.core.event_log import EventLog
from lpt_service.protocol.codec import INTERRUPT_FRAME_BYTES, encode_result
from lpt_service.server.outbox import Outbox
from tests.server.resuming import Ear
from tests.server.test_outbox import PLENTY, FakeNotice, Pipe, listening, pumped, seqs


def broken(outbox: Outbox) -> Outbox:
    """What is left when the connection is."""
    return outbox.part()


def resumed(
    outbox: Outbox, resume_from: tuple[int, int] | None = None, *, is_restart: bool = False, wanted: Any = None
) -> Outbox:
    """The outbox of the next connection."""
    new = Outbox()
    if wanted is not None:
        new.set_wanted(frozenset(wanted))
    new.resume(outbox, resume_from, is_restart=is_restart)
    return new


def sync(messages: list[Any]) -> Any:
    """The params of the first message, which tells where the log goes on."""
    assert messages[0][:2] == [2, "interrupt_sync"]
    return messages[0][2]


def logged(log: EventLog, count: int) -> None:
    for _ in range(count):
        log.append(1, 0, 0, 0)


def test_the_frame_in_flight_stays_and_nothing_else() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    outbox.add_reply(encode_result(1, "in flight"))
    pipe = Pipe(room=3)
    outbox.pump(pipe.try_send)
    outbox.add_reply(encode_result(2, "never sent"))
    outbox.add_notice(FakeNotice("waiters", 7))
    logged(log, 1)
    parted = broken(outbox)
    outbox.finish("bye", with_log=False)
    pipe.room = PLENTY
    assert outbox.pump(pipe.try_send)
    assert [message[1] for message in pipe.messages()] == [1, "closing"]
    assert (outbox.backlog_bytes, outbox.is_in_log) == (0, False)
    messages = pumped(resumed(parted))
    assert [message[1] for message in messages] == ["waiters", "interrupt_sync", "interrupt"]


@pytest.mark.parametrize("torn_after", [1, 41, INTERRUPT_FRAME_BYTES + 1])
def test_a_torn_entry_is_finished_there_and_comes_again_here(torn_after: int) -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    logged(log, 3)
    pipe = Pipe(room=torn_after)
    assert not outbox.pump(pipe.try_send)
    parted = broken(outbox)
    pipe.room = PLENTY
    assert outbox.pump(pipe.try_send)
    assert seqs(pipe.messages()) == list(range(torn_after // INTERRUPT_FRAME_BYTES + 1))
    assert seqs(pumped(resumed(parted))) == [0, 1, 2]


@pytest.mark.parametrize("next_seq", range(5))
def test_it_goes_on_where_the_client_is(next_seq: int) -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    logged(log, 4)
    pumped(outbox)
    messages = pumped(resumed(broken(outbox), (1, next_seq)))
    assert sync(messages) == ["resumed", next_seq, 0]
    assert seqs(messages) == list(range(next_seq, 4))


def test_marks_at_the_place_where_the_client_is_come() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    logged(log, 1)
    log.mark(4, 0, 0, 0)
    log.mark(1, 0, 0, 0)
    messages = pumped(resumed(broken(outbox), (1, 1)))
    assert [message[2][5] for message in messages[1:]] == [4, 1]


def test_what_is_lost_counts_from_where_the_client_is() -> None:
    log = EventLog(4, stream=1)
    outbox = listening(log)
    parted = broken(outbox)
    logged(log, 10)
    messages = pumped(resumed(parted, (1, 2)))
    assert sync(messages) == ["resumed", 6, 4]
    assert seqs(messages) == [6, 7, 8, 9]


def test_without_a_place_what_is_lost_counts_from_what_was_sent() -> None:
    log = EventLog(4, stream=1)
    outbox = listening(log)
    logged(log, 3)
    pumped(outbox)
    parted = broken(outbox)
    logged(log, 3)
    assert sync(pumped(resumed(parted))) == ["resumed", 2, 0]
    outbox = listening(log)
    parted = broken(outbox)
    logged(log, 5)
    assert sync(pumped(resumed(parted))) == ["resumed", 7, 1]


def test_a_reader_that_was_overtaken_before_the_break_is_told() -> None:
    log = EventLog(4, stream=1)
    outbox = listening(log)
    logged(log, 10)
    assert sync(pumped(resumed(broken(outbox)))) == ["resumed", 6, 6]


def test_where_the_client_is_once_told_it_is_not_sent_again() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    logged(log, 4)
    second = resumed(broken(outbox), (1, 3))
    third = pumped(resumed(broken(second)))
    assert sync(third) == ["resumed", 3, 0]
    assert seqs(third) == [3]


@pytest.mark.parametrize(("is_restart", "resume_from"), [(True, None), (True, (1, 0)), (False, (2, 99))])
def test_another_log_is_told_as_such(is_restart: bool, resume_from: tuple[int, int] | None) -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    logged(log, 2)
    messages = pumped(resumed(broken(outbox), resume_from, is_restart=is_restart))
    assert sync(messages) == ["restarted", 0, None]
    assert seqs(messages) == [0, 1]


@pytest.mark.parametrize("resume_from", [None, (1, 0), (1, 1), (1, 99), (2, 0)])
@pytest.mark.parametrize("later", [0, 3, 4, 50])
def test_a_log_that_was_left_meanwhile_is_sent_to_its_end_only(resume_from: tuple[int, int] | None, later: int) -> None:
    """Nobody's place in the log may be behind that end, however far the ring has come since."""
    log = EventLog(4, stream=1)
    outbox = listening(log)
    logged(log, 1)
    parted = broken(outbox)
    parted.leave_log(log.end, b"")
    logged(log, later)
    new = resumed(parted, resume_from)
    messages = pumped(new)
    assert not new.is_in_log
    assert all(seq == 0 for seq in seqs(messages))
    assert sync(messages)[1] + len(seqs(messages)) == 1, "the end, or the one before it"


def test_left_and_entered_again_both_parts_come() -> None:
    log = EventLog(16, stream=1)
    parted = broken(listening(log))
    logged(log, 1)
    parted.leave_log(log.end, b"")
    logged(log, 2)
    parted.enter_log(log, log.end, "connected", log.next_seq, 0)
    logged(log, 2)
    messages = pumped(resumed(parted))
    assert sync(messages) == ["resumed", 0, 0]
    assert messages[2] == [2, "interrupt_sync", ["connected", 3, 0]]
    assert seqs(messages) == [0, 3, 4]


def test_only_what_the_new_connection_wants_comes() -> None:
    log = EventLog(16, stream=1)
    outbox = listening(log)
    outbox.add_notice(FakeNotice("waiters", 1))
    outbox.add_notice(FakeNotice("queued", 1))
    logged(log, 1)
    new = resumed(broken(outbox), wanted=("queued",))
    assert pumped(new) == [[2, "queued", [1]]]
    assert not new.is_in_log


def test_what_was_lost_on_the_way_is_counted_once() -> None:
    log = EventLog(4, stream=1)
    outbox = listening(log)
    logged(log, 10)
    pumped(outbox)
    parted = broken(outbox)
    assert (outbox.lost, parted.lost) == (0, 6)
    assert resumed(parted).lost == 6


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5)),
        st.tuples(st.just("mark"), st.just(0)),
        st.tuples(st.just("pump"), st.integers(0, 4 * INTERRUPT_FRAME_BYTES)),
        st.tuples(st.just("read"), st.integers(0, 200)),
        st.tuples(st.just("resume"), st.booleans()),
    ),
    max_size=60,
)


@given(_STEPS, st.integers(2, 6))
def test_nothing_is_missing_without_a_word_however_often_the_connection_breaks(
    steps: list[tuple[str, int]], capacity: int
) -> None:
    """What was sent and not read when it breaks is gone; the client drops what comes twice."""
    log, ear, outbox = EventLog(capacity, stream=1), Ear(), Outbox()
    outbox.enter_log(log, 0, "connected", 0, 0)
    wire = _Wire()
    for step, number in steps:
        match step:
            case "append":
                log.append(number, 0, 0, 0)
            case "mark":
                log.mark(2, 0, 0, 0)
            case "pump":
                wire.room = number
                outbox.pump(wire.try_send)
            case "read":
                ear.hear(wire.read(number))
            case "resume":
                parted, wire = broken(outbox), _Wire()
                lost_before = ear.skipped
                outbox = resumed(parted, (1, ear.next_seq) if number else None)
                wire.room = PLENTY if number else 0
                told = ear.told_lost
                if number:  # to the end, so that what it was told can be compared
                    while not outbox.pump(wire.try_send):
                        pass
                    ear.hear(wire.read(PLENTY))
                    assert ear.told_lost - told == ear.skipped - lost_before
    wire.room = PLENTY
    while not outbox.pump(wire.try_send):
        pass
    ear.hear(wire.read(PLENTY))
    assert ear.received + ear.skipped == log.next_seq == ear.next_seq


class _Wire(Pipe):
    """A connection whose client reads so many bytes."""

    def __init__(self) -> None:
        super().__init__(room=0)
        self._given = 0
        self._unpacker = msgpack.Unpacker()

    def read(self, at_most: int) -> list[Any]:
        data = self.taken[self._given : self._given + at_most]
        self._given += len(data)
        self._unpacker.feed(data)
        return list(self._unpacker)
