"""Deadlines, compared with a plain list."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from lpt_service.core.deadlines import Deadline, Deadlines


class DeadlinesMachine(RuleBasedStateMachine):
    """`expected` has every deadline that is still to happen, in the order in which it was scheduled."""

    scheduled = Bundle("scheduled")

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.expected: list[Deadline] = []
        self.called: list[Deadline] = []
        self.earlier = 0
        self.deadlines = Deadlines(self._became_earlier)

    def _became_earlier(self) -> None:
        self.earlier += 1

    @rule(target=scheduled, in_ns=st.integers(0, 20))
    def schedule(self, in_ns: int) -> Deadline:
        at_ns, before = self.now_ns + in_ns, self.earlier
        is_earliest = all(each.at_ns > at_ns for each in self.expected)
        deadline = self.deadlines.schedule(at_ns, lambda now_ns: self.called.append(deadline))
        assert self.earlier == before + 1 or not is_earliest, "the timer was not woken"
        self.expected.append(deadline)
        return deadline

    @rule(deadline=scheduled)
    def cancel(self, deadline: Deadline) -> None:
        self.deadlines.cancel(deadline)
        if deadline in self.expected:
            self.expected.remove(deadline)

    @rule()
    def cancel_many(self) -> None:
        """So many that the heap is rebuilt."""
        for deadline in [self.deadlines.schedule(10**9, print) for _ in range(100)]:
            self.deadlines.cancel(deadline)

    @rule(by_ns=st.integers(0, 15))
    def run_due(self, by_ns: int) -> None:
        self.now_ns += by_ns
        due = sorted((each for each in self.expected if each.at_ns <= self.now_ns), key=lambda each: each.at_ns)
        self.called.clear()
        self.deadlines.run_due(self.now_ns)
        assert self.called == due
        self.expected = [each for each in self.expected if each not in due]

    @invariant()
    def agrees(self) -> None:
        assert len(self.deadlines) == len(self.expected)
        assert self.deadlines.next_ns() == min((each.at_ns for each in self.expected), default=None)


TestDeadlinesModel = DeadlinesMachine.TestCase
TestDeadlinesModel.settings = settings(max_examples=50, stateful_step_count=30)


def deadlines() -> Deadlines:
    return Deadlines(lambda: None)


def test_one_that_an_earlier_one_cancels_does_not_happen() -> None:
    calls: list[int] = []
    all_ = deadlines()
    all_.schedule(1, lambda now_ns: all_.cancel(second))
    second = all_.schedule(2, calls.append)
    all_.run_due(5)
    assert calls == []
    assert len(all_) == 0


def test_an_exception_leaves_the_others_in_place() -> None:
    """Else a port that fails in one deadline would take the time-outs of others with it."""

    def fail(now_ns: int) -> None:
        raise RuntimeError

    calls: list[int] = []
    all_ = deadlines()
    all_.schedule(1, fail)
    all_.schedule(1, calls.append)
    with pytest.raises(RuntimeError):
        all_.run_due(5)
    all_.run_due(6)
    assert calls == [6]


def test_cancelled_ones_cost_no_memory() -> None:
    all_ = deadlines()
    for _ in range(10_000):
        all_.cancel(all_.schedule(3600 * 10**9, print))
    assert len(all_._heap) < 200


def test_cancelling_many_in_a_call_keeps_the_count() -> None:
    calls: list[int] = []
    all_ = deadlines()

    def cancel_all(now_ns: int) -> None:
        for each in (*due, *later):
            all_.cancel(each)

    all_.schedule(1, cancel_all)
    due = [all_.schedule(1, calls.append) for _ in range(10)]
    later = [all_.schedule(9, calls.append) for _ in range(100)]
    all_.run_due(5)
    assert calls == []
    assert len(all_) == 0
    all_.schedule(9, calls.append)
    assert len(all_) == 1
