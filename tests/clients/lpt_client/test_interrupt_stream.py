"""InterruptStream: received + buffered + lost = what the port generated."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lpt_client.events import Event, Interrupt, Mark, Reconnected, Sync
from lpt_client.interrupt_stream import InterruptStream
from lpt_client.registrations import Registrations


def event(seq: int, count: int = 1) -> Interrupt:
    return Interrupt(seq, count, 1000 + seq, 0xC0, 0x1C)


def mark(kind: str, seq: int, timestamp_ns: int = 1000) -> Mark:
    return Mark(kind, seq, timestamp_ns, 0xC0, 0x1C)


def connected(first_seq: int = 0, **options: Any) -> InterruptStream:
    stream = InterruptStream(1, None, None, **options)
    stream.begin(first_seq)
    return stream


def take_all(stream: InterruptStream) -> list[Event]:
    found = []
    while (taken := stream.take()) is not None:
        found.append(taken)
    return found


def test_events_are_taken_in_order_and_counted() -> None:
    stream = connected(5)
    stream.feed(event(5))
    stream.feed(event(6, 10))
    assert (stream.received, stream.buffered, stream.next_seq) == (0, 11, 16)
    assert take_all(stream) == [event(5), event(6, 10)]
    assert (stream.received, stream.buffered, stream.lost) == (11, 0, 0)


def test_before_it_is_connected_it_hears_nothing() -> None:
    stream = InterruptStream(1, None, None)
    stream.feed(event(0))
    stream.begin(5)
    stream.feed(event(4))  # of the session's stream, before this registration
    stream.feed(mark("masked", 4))
    assert take_all(stream) == []
    assert stream.unknown_periods == 0


def test_an_event_that_is_only_partly_new() -> None:
    stream = connected(5)
    stream.feed(event(3, 4))
    assert [(each.seq, each.count) for each in take_all(stream) if isinstance(each, Interrupt)] == [(5, 2)]
    assert (stream.received, stream.next_seq) == (2, 7)


def test_a_gap_that_nobody_told_of_is_lost_and_told() -> None:
    stream = connected(0)
    stream.feed(event(3))
    stream.feed(mark("unmasked", 6))
    assert take_all(stream) == [Sync("gap", 3, 3), event(3), Sync("gap", 6, 2), mark("unmasked", 6)]
    assert (stream.received, stream.lost) == (1, 5)


def test_overrun() -> None:
    stream = connected(0)
    stream.feed(event(0))
    stream.feed(Sync("overrun", 100, 99))
    stream.feed(event(100))
    assert take_all(stream) == [event(0), Sync("overrun", 100, 99), event(100)]
    assert (stream.received, stream.lost, stream.next_seq) == (2, 99, 101)


def test_an_overrun_counts_only_what_is_this_registrations() -> None:
    stream = connected(90)
    stream.feed(Sync("overrun", 100, 99))
    assert (stream.lost, take_all(stream)) == (10, [Sync("overrun", 100, 10)])
    late = connected(200)
    late.feed(Sync("overrun", 100, 99))
    assert (late.lost, late.next_seq, take_all(late)) == (0, 200, [])


def test_the_sync_of_a_connect_is_no_news() -> None:
    stream = connected(7)
    stream.feed(Sync("connected", 7, 0))
    assert (take_all(stream), stream.next_seq, stream.lost) == ([], 7, 0)


def test_resumed_without_and_with_loss() -> None:
    stream = connected(0)
    stream.feed(event(0))
    stream.resume(2, 77)
    stream.feed(Sync("resumed", 1, 0))
    stream.resume(3, 77)
    stream.feed(Sync("resumed", 11, 10))
    assert take_all(stream) == [
        event(0),
        Reconnected(2, 77),
        Sync("resumed", 1, 0),
        Reconnected(3, 77),
        Sync("resumed", 11, 10),
    ]
    assert (stream.received, stream.lost, stream.next_seq) == (1, 10, 11)


def test_restarted_is_an_unknown_period() -> None:
    stream = connected(50)
    stream.resume(2, 78)
    stream.feed(Sync("restarted", 3, None))
    stream.feed(event(3))
    assert take_all(stream) == [Reconnected(2, 78), Sync("restarted", 3, None), event(3)]
    assert (stream.unknown_periods, stream.lost, stream.received) == (1, 0, 1)


def test_marks_count_the_periods_not_heard() -> None:
    stream = connected(0)
    for kind in ("unheard", "masked", "unmasked", "stopped"):
        stream.feed(mark(kind, 0))
    assert stream.unknown_periods == 2
    assert stream.is_stopped


def test_marks_that_are_repeated_after_a_resume_are_told_once() -> None:
    stream = connected(0)
    stream.feed(mark("masked", 0, 10))
    stream.feed(mark("unmasked", 0, 20))
    stream.resume(2, 77)
    stream.feed(Sync("resumed", 0, 0))
    stream.feed(mark("masked", 0, 10))
    stream.feed(mark("unmasked", 0, 20))
    stream.feed(mark("masked", 0, 30))
    kinds = [each.kind for each in take_all(stream) if isinstance(each, Mark)]
    assert kinds == ["masked", "unmasked", "masked"]
    assert stream.unknown_periods == 2


def test_ending_accounts_for_what_will_not_come() -> None:
    stream = connected(0)
    stream.feed(event(0))
    stream.end(4)
    assert (stream.buffered, stream.lost, stream.next_seq) == (1, 3, 4)
    stream.end(2)
    assert (stream.lost, stream.next_seq) == (3, 4)


def test_a_full_buffer_drops_the_oldest_and_says_so() -> None:
    stream = connected(0, max_buffered_events=2)
    for seq in range(5):
        stream.feed(event(seq))
    assert (stream.buffered, stream.lost) == (2, 3)
    assert stream.event_count == 3
    assert take_all(stream) == [Sync("dropped", 3, 3), event(3), event(4)]
    assert (stream.received, stream.lost) == (2, 3)


def test_what_is_dropped_includes_the_losses_nobody_saw() -> None:
    stream = connected(0, max_buffered_events=2)
    stream.feed(event(0, 2))
    stream.feed(Sync("overrun", 10, 8))
    stream.feed(mark("masked", 10))
    stream.feed(event(10))
    stream.feed(event(11))
    assert take_all(stream) == [Sync("dropped", 10, 10), mark("masked", 10), event(10), event(11)]
    assert (stream.received, stream.lost, stream.unknown_periods) == (2, 10, 1)


def test_a_mark_that_is_dropped_is_told_behind_what_was() -> None:
    stream = connected(0, max_buffered_events=1)
    stream.feed(mark("unheard", 0))
    stream.feed(event(0))
    assert stream.event_count == 3
    assert take_all(stream) == [Sync("dropped", 0, 0), mark("unheard", 0), event(0)]
    for seq in (1, 2, 3):
        stream.feed(mark("unheard", seq))
        stream.feed(event(seq))
    assert take_all(stream) == [Sync("dropped", 3, 2), mark("unheard", 3), event(3)]


def test_an_unknown_loss_stays_unknown_when_it_is_dropped() -> None:
    stream = connected(0, max_buffered_events=1)
    stream.feed(Sync("restarted", 5, None))
    stream.feed(event(5))
    stream.feed(event(6))
    assert take_all(stream) == [Sync("dropped", 6, None), event(6)]


def test_routines() -> None:
    heard: list[Any] = []
    stream = InterruptStream(
        1,
        lambda interrupt, context: heard.append((interrupt, context)),
        "context",
        deferred=lambda context: heard.append(("deferred", context)),
        on_other=lambda other, context: heard.append((other, context)),
    )
    stream.call_back(event(1))
    stream.call_back(mark("masked", 1))
    stream.call_deferred()
    assert heard == [(event(1), "context"), (mark("masked", 1), "context"), ("deferred", "context")]
    assert stream.structure[:8] == stream.structure[16:24] == (1).to_bytes(8, "little")


def test_without_routines_nothing_is_called() -> None:
    stream = InterruptStream(1, None, None, hears=False)
    stream.call_back(event(1))
    stream.call_back(mark("masked", 1))
    stream.call_deferred()
    stream.begin(7)
    stream.feed(event(7))
    stream.resume(2, 77)
    assert (stream.take(), stream.next_seq) == (None, None)


def test_a_buffer_of_nothing() -> None:
    with pytest.raises(ValueError, match="max_buffered_events"):
        InterruptStream(1, None, None, max_buffered_events=0)


def test_the_account_balances_whatever_comes() -> None:
    """A daemon that loses, repeats, breaks off and resumes, and a program that takes when it likes."""
    rng = random.Random(3)
    for _ in range(200):
        stream = connected(0, max_buffered_events=rng.randint(1, 5))
        generated, sent, told = 0, 0, 0
        for _ in range(rng.randint(1, 60)):
            step = rng.random()
            if step < 0.5:
                count = rng.randint(1, 3)
                generated += count
                stream.feed(event(generated - count, count))
                sent = generated
            elif step < 0.6:
                generated += rng.randint(0, 9)
                stream.feed(Sync("overrun", generated, generated - sent))
                sent = generated
            elif step < 0.7:
                stream.resume(2, 77)
                stream.feed(Sync("resumed", sent, 0))
            elif (taken := stream.take()) is not None and isinstance(taken, Sync):
                assert taken.lost is not None
                told += taken.lost
            assert stream.received + stream.buffered + stream.lost == sent == stream.next_seq
        told += sum(each.lost or 0 for each in take_all(stream) if isinstance(each, Sync))
        assert told == stream.lost


# Its end


@pytest.mark.parametrize("end_seq", range(4, 9))
def test_what_comes_from_its_end_on_is_not_its_own(end_seq: int) -> None:
    """The session goes on hearing for others, or hears again already."""
    stream = connected(2)
    stream.feed(event(2, 2))
    stream.end_at(end_seq)
    for each in (event(4, 2), mark("masked", 6), mark("unmasked", 6), Sync("overrun", 7, 1), event(7), event(8)):
        stream.feed(each)
    stream.feed(Sync("connected", 20, 0))
    stream.feed(event(20))
    stream.end(end_seq)
    assert (stream.next_seq, stream.received + stream.buffered + stream.lost) == (end_seq, end_seq - 2)
    assert stream.lost == (end_seq > 6)
    assert stream.unknown_periods == (end_seq >= 6)


def test_an_end_that_nobody_tells_is_a_period_of_which_nobody_knows() -> None:
    stream = connected()
    stream.end_unknown()
    assert stream.unknown_periods == 1
    stopped = connected()
    stopped.feed(mark("stopped", 0))
    stopped.end_unknown()
    assert stopped.unknown_periods == 0, "it had ended there"
    InterruptStream(1, None, None).end_unknown()


@pytest.mark.parametrize("kind", ["masked", "stopped", "unheard", "unmasked"])
def test_who_joins_while_the_port_is_not_heard_is_told(kind: str) -> None:
    registrations = Registrations[InterruptStream]()
    first, second, check = (InterruptStream(token, None, None, hears=token != 3) for token in (1, 2, 3))
    first.begin(0)
    registrations.add(first, 77)
    registrations.feed(event(0, 5))
    registrations.feed(mark(kind, 5, 1234))
    second.begin(5)
    registrations.add(second, 77)
    check.begin(5)
    registrations.add(check, 77)
    assert take_all(second) == ([mark(kind, 5, 1234)] if kind in ("masked", "stopped") else [])
    assert take_all(check) == []
    registrations.discard(second)
    registrations.discard(first)
    third = InterruptStream(4, None, None)
    third.begin(9)
    registrations.add(third, 77)
    assert take_all(third) == [], "the session has left the log meanwhile, and is told anew when it enters"
