"""The event log, compared with a list that forgets nothing."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lpt_service.core.event_log import EventLog
from lpt_service.protocol.codec import INTERRUPT_COUNT_MAX, INTERRUPT_FRAME_BYTES, Decoder, encode_interrupt
from lpt_service.protocol.messages import (
    INTERRUPT,
    KIND_EVENT,
    KIND_MASKED,
    KIND_STOPPED,
    KIND_UNHEARD,
    KIND_UNMASKED,
    Notification,
)

CAPACITY = 5


Entry = tuple[int, int, int, int, int, int]  # the params of its notification; the first is seq


class EventLogMachine(RuleBasedStateMachine):
    """Every entry ever written is in `entries`; the log has to agree about the last `CAPACITY` of them."""

    def __init__(self) -> None:
        super().__init__()
        self.log = EventLog(CAPACITY, stream=1)
        self.entries: list[Entry] = []
        self.next_seq = 0

    def _write(self, timestamp_ns: int, count: int, kind: int) -> None:
        self.entries.append((self.next_seq, timestamp_ns, count, 0x78, 0x1C, kind))
        self.next_seq += count

    @rule(count=st.integers(1, 9), timestamp_ns=st.integers(0, 2**64 - 1))
    def append(self, count: int, timestamp_ns: int) -> None:
        self.log.append(count, timestamp_ns, 0x78, 0x1C)
        self._write(timestamp_ns, count, KIND_EVENT)

    @rule(
        kind=st.sampled_from((KIND_UNHEARD, KIND_MASKED, KIND_UNMASKED, KIND_STOPPED)),
        timestamp_ns=st.integers(0, 2**64 - 1),
    )
    def mark(self, kind: int, timestamp_ns: int) -> None:
        self.log.mark(kind, timestamp_ns, 0x78, 0x1C)
        self._write(timestamp_ns, 0, kind)

    @rule(ahead=st.integers(0, 3), back=st.integers(0, 60))
    def find(self, ahead: int, back: int) -> None:
        seq = max(0, self.next_seq + ahead - back)
        kept = range(self.log.oldest, self.log.end)
        expected = next((entry for entry in kept if self.entries[entry][0] >= seq), self.log.end)
        assert self.log.find(seq) == expected

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), max_bytes=st.integers(0, (CAPACITY + 1) * INTERRUPT_FRAME_BYTES))
    def read(self, data: st.DataObject, max_bytes: int) -> None:
        entry = data.draw(st.integers(self.log.oldest, self.log.end), "entry")
        end = data.draw(st.integers(entry, self.log.end), "end")
        frames = bytes(self.log.slice(entry, end, max_bytes))
        expected = b"".join(encode_interrupt(*each) for each in self.entries[entry:end])
        assert expected.startswith(frames)
        assert len(frames) % INTERRUPT_FRAME_BYTES == 0
        assert len(frames) <= max(max_bytes, INTERRUPT_FRAME_BYTES)
        assert bool(frames) is (entry < end)

    @rule()
    def read_all_in_slices(self) -> None:
        entry, read = self.log.oldest, b""
        while entry < self.log.end:
            frames = bytes(self.log.slice(entry, self.log.end, 3 * INTERRUPT_FRAME_BYTES))
            read += frames
            entry += len(frames) // INTERRUPT_FRAME_BYTES
        assert read == b"".join(encode_interrupt(*each) for each in self.entries[self.log.oldest :])

    @invariant()
    def counts_agree(self) -> None:
        assert self.log.end == len(self.entries)
        assert self.log.oldest == max(0, len(self.entries) - CAPACITY)
        assert self.log.next_seq == self.next_seq
        numbers = [*(each[0] for each in self.entries), self.next_seq]
        assert [self.log.seq_at(entry) for entry in range(self.log.oldest, self.log.end + 1)] == numbers[
            self.log.oldest :
        ]

    @invariant()
    def the_latest_mark_that_is_overtaken_is_known(self) -> None:
        marks = [entry for entry in range(self.log.oldest) if self.entries[entry][5] != KIND_EVENT]
        overtaken = self.log.overtaken
        if not marks:
            assert overtaken is None
            return
        assert overtaken is not None
        seq, *rest = self.entries[marks[-1]]
        assert (overtaken.entry, overtaken.seq) == (marks[-1], seq)
        assert overtaken.at(seq + 7) == encode_interrupt(seq + 7, *rest)


TestEventLogModel = EventLogMachine.TestCase
TestEventLogModel.settings = settings(max_examples=60, stateful_step_count=30)


def test_an_entry_is_the_interrupt_notification() -> None:
    log = EventLog(4, stream=1)
    log.append(3, 123456789, 0x5F, 0x1C)
    log.mark(KIND_MASKED, 123456790, 0, 0)

    decoder = Decoder()
    decoder.receive(bytes(log.slice(0, 2, 1000)))

    assert decoder.next_message() == Notification(INTERRUPT, (0, 123456789, 3, 0x5F, 0x1C, KIND_EVENT))
    assert decoder.next_message() == Notification(INTERRUPT, (3, 123456790, 0, 0, 0, KIND_MASKED))


def test_more_interrupts_than_a_u32_holds_become_several_entries() -> None:
    log = EventLog(4, stream=1)
    log.append(2 * INTERRUPT_COUNT_MAX + 5, 1, 0, 0)

    assert log.end == 3
    assert [log.seq_at(entry) for entry in range(4)] == [
        0,
        INTERRUPT_COUNT_MAX,
        2 * INTERRUPT_COUNT_MAX,
        2 * INTERRUPT_COUNT_MAX + 5,
    ]


def test_find_takes_the_first_of_entries_with_one_number() -> None:
    log = EventLog(8, stream=1)
    log.append(5, 1, 0, 0)
    log.mark(KIND_MASKED, 2, 0, 0)
    log.mark(KIND_UNMASKED, 3, 0, 0)
    log.append(1, 4, 0, 0)

    assert log.find(5) == 1


@pytest.mark.parametrize("capacity", [1, 2, 7])
def test_a_full_ring_keeps_the_last_ones(capacity: int) -> None:
    log = EventLog(capacity, stream=1)
    for number in range(20):
        log.append(1, number, 0, 0)

    assert (log.oldest, log.end) == (20 - capacity, 20)
    assert log.seq_at(log.oldest) == 20 - capacity
    assert log.find(0) == log.oldest
