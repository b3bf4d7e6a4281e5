"""From the descriptor to the listeners: a few at once, a crowd in rounds that leave time for others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.server.interrupt_pump import DIRECT_LISTENERS, SLICES_A_TURN, InterruptPump


class FakeSession:
    """Only what the pump needs of one."""

    def __init__(self, on_flush: Callable[[], None] = lambda: None) -> None:
        self.flushes = 0
        self._on_flush = on_flush

    def flush(self) -> None:
        self.flushes += 1
        self._on_flush()


@pytest.fixture
def event() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def crowd(pump: InterruptPump, number: int, on_flush: Callable[[], None] = lambda: None) -> list[FakeSession]:
    """So many listeners of a pump."""
    sessions = [FakeSession(on_flush) for _ in range(number)]
    for session in sessions:
        pump.add(cast(Any, session))
    return sessions


def tasks_waiting_to_read() -> int:
    """How many descriptors the event loop is asked to watch."""
    statistics: Any = trio.lowlevel.current_statistics().io_statistics
    waiting: int = statistics.tasks_waiting_read - 1  # one is the loop's own
    return waiting


# Watching the descriptor


async def test_interrupts_are_taken_while_listening(event: int, nursery: trio.Nursery) -> None:
    taken: list[int] = []
    pump = InterruptPump(lambda: taken.append(os.eventfd_read(event)))
    pump.attach(event)
    nursery.start_soon(pump.watch)
    os.eventfd_write(event, 5)
    await wait_all_tasks_blocked(0.01)
    assert taken == []
    pump.listen(True)
    await wait_all_tasks_blocked(0.01)
    assert taken == [5]
    os.eventfd_write(event, 1)
    await wait_all_tasks_blocked(0.01)
    assert taken == [5, 1]
    pump.listen(False)
    assert tasks_waiting_to_read() == 0, "the descriptor may be closed now"
    os.eventfd_write(event, 7)
    await wait_all_tasks_blocked(0.01)
    assert taken == [5, 1]
    pump.listen(True)
    await wait_all_tasks_blocked(0.01)
    assert taken == [5, 1, 7]


async def test_listening_may_stop_in_the_step_that_takes_interrupts(event: int, nursery: trio.Nursery) -> None:
    """The storm guard does that."""
    taken: list[int] = []

    def take() -> None:
        taken.append(os.eventfd_read(event))
        pump.listen(False)

    pump = InterruptPump(take)
    pump.attach(event)
    nursery.start_soon(pump.watch)
    for round_ in (1, 2, 3):
        pump.listen(True)
        os.eventfd_write(event, 1)
        await wait_all_tasks_blocked(0.01)
        os.eventfd_write(event, 1)
        await wait_all_tasks_blocked(0.01)
        assert len(taken) == round_
    assert taken == [1, 2, 2]


async def test_stopping_and_listening_again_at_once_goes_on(event: int, nursery: trio.Nursery) -> None:
    taken: list[int] = []
    pump = InterruptPump(lambda: taken.append(os.eventfd_read(event)))
    pump.attach(event)
    nursery.start_soon(pump.watch)
    pump.listen(True)
    await wait_all_tasks_blocked(0.01)
    pump.listen(False)
    pump.listen(True)
    pump.listen(True)
    os.eventfd_write(event, 3)
    await wait_all_tasks_blocked(0.01)
    assert taken == [3]


# Publishing


def test_a_few_listeners_are_sent_to_in_the_same_step() -> None:
    pump = InterruptPump(lambda: None)
    sessions = crowd(pump, DIRECT_LISTENERS)
    pump.publish()
    assert [session.flushes for session in sessions] == [1] * DIRECT_LISTENERS
    pump.discard(cast(Any, sessions[0]))
    pump.discard(cast(Any, sessions[0]))
    pump.publish()
    assert [session.flushes for session in sessions] == [1] + [2] * (DIRECT_LISTENERS - 1)


async def test_a_crowd_is_served_by_a_task_of_its_own(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    pump = InterruptPump(lambda: None)
    sessions = crowd(pump, DIRECT_LISTENERS + 1)
    nursery.start_soon(pump.fan_out)
    pump.publish()
    assert sum(session.flushes for session in sessions) == 0
    await wait_all_tasks_blocked()
    assert [session.flushes for session in sessions] == [1] * len(sessions)
    pump.publish()
    pump.publish()
    await wait_all_tasks_blocked()
    assert [session.flushes for session in sessions] == [2] * len(sessions)


async def test_a_round_through_a_crowd_lets_others_run(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    journal: list[str] = []
    pump = InterruptPump(lambda: None)
    crowd(pump, SLICES_A_TURN * 4, lambda: journal.append("flush"))
    is_over = False

    async def other() -> None:
        while not is_over:
            journal.append("other")
            await trio.lowlevel.checkpoint()

    nursery.start_soon(pump.fan_out)
    nursery.start_soon(other)
    await trio.lowlevel.checkpoint()
    pump.publish()
    while journal.count("flush") < SLICES_A_TURN * 4:
        await trio.lowlevel.checkpoint()
    is_over = True
    runs = "".join("F" if each == "flush" else " " for each in journal).split()
    assert len(runs) >= 2
    assert max(len(run) for run in runs) <= 2 * SLICES_A_TURN  # last in one batch of the scheduler, first in the next


async def test_rounds_follow_each_other_without_a_rest(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A rest would be a millisecond at least: a timer is no finer."""
    times: list[float] = []

    def flush() -> None:
        times.append(trio.current_time())
        autojump_clock.jump(0.001)

    pump = InterruptPump(lambda: None)
    crowd(pump, 100, flush)
    nursery.start_soon(pump.fan_out)
    pump.publish()
    await wait_all_tasks_blocked()
    pump.publish()
    await trio.sleep(0.5)
    assert times == pytest.approx([count / 1000 for count in range(200)])


async def test_news_in_the_middle_of_a_round_begin_another(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    pump = InterruptPump(lambda: None)
    has_more = True

    def flush() -> None:
        nonlocal has_more
        if has_more:
            has_more = False
            pump.publish()

    sessions = crowd(pump, 50, flush)
    nursery.start_soon(pump.fan_out)
    pump.publish()
    await trio.sleep(1)
    assert [session.flushes for session in sessions] == [2] * 50
