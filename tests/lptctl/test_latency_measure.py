"""Samples of `lptctl latency`: what counts as one, and what is counted as something else."""

from __future__ import annotations

import pytest

pytest.importorskip("click")
from lpt_client.events import Event, Mark, Sync
from lptctl.latency_measure import MISSING_IN_A_ROW_MAX, Meter, Plan, Run
from tests.lptctl.latency_rig import HIGH, RESPONSE_NS, Rig, interrupt


def measured(rig: Rig, count: int = 4, warm_up: int = 0, data: int = 0) -> Run:
    """A run on the rig."""
    run = Run()
    Meter(rig, rig, Plan(3, count, warm_up, 0.0), data=data).take_all(run)
    return run


def test_every_edge_is_a_sample() -> None:
    rig = Rig()
    run = measured(rig, count=3)
    assert (run.edges, len(run.samples), run.samples.indexes) == (3, 3, [1, 2, 3])
    assert run.samples.line_to_interrupt_ns == [RESPONSE_NS] * 3
    assert all(time_ns > 0 for time_ns in run.samples.round_trip_ns)
    assert (run.missing, run.merged, run.strays, run.cut_short) == (0, 0, 0, None)


def test_only_the_one_line_is_moved() -> None:
    rig = Rig()
    measured(rig, count=2, data=0xA5 | HIGH)
    assert rig.written == [0xA5, 0xAD, 0xA5, 0xAD]


def test_what_warms_up_does_not_count() -> None:
    rig = Rig(lambda edge, line_ns: [] if edge == 2 else [interrupt(line_ns)])
    run = measured(rig, count=2, warm_up=3)
    assert rig.edges == 5
    assert (run.edges, len(run.samples), run.missing) == (2, 2, 0)


def test_a_missing_interrupt_is_counted_and_is_no_sample() -> None:
    run = measured(Rig(lambda edge, line_ns: [] if edge == 2 else [interrupt(line_ns)]))
    assert (run.edges, run.missing, run.samples.indexes) == (4, 1, [1, 3, 4])


def test_an_interrupt_that_comes_after_it_was_given_up_is_a_stray_not_the_next_sample() -> None:
    rig = Rig()

    def respond(edge: int, line_ns: int) -> list[Event]:
        if edge == 2:
            return []
        late = [interrupt(line_ns - 500)] if edge == 3 else []  # arrives with the answer to the next edge
        return [*late, interrupt(line_ns + RESPONSE_NS)]

    rig._respond = respond
    run = measured(rig)
    assert (run.missing, run.strays, run.samples.indexes) == (1, 1, [1, 3, 4])
    assert run.samples.line_to_interrupt_ns == [RESPONSE_NS] * 3


def test_strays_between_edges_are_counted() -> None:
    run = measured(Rig(lambda _edge, line_ns: [interrupt(line_ns), interrupt(line_ns + 40, count=2)]), count=3)
    assert len(run.samples) == 3
    assert run.strays == 2 * 2  # those after the last edge are nobody's


def test_an_entry_of_several_interrupts_has_no_time_of_its_own() -> None:
    run = measured(Rig(lambda edge, line_ns: [interrupt(line_ns, count=3 if edge == 2 else 1)]))
    assert (run.merged, run.strays, run.samples.indexes) == (1, 2, [1, 3, 4])


def test_marks_and_losses_are_told() -> None:
    rig = Rig()

    def respond(edge: int, line_ns: int) -> list[Event]:
        if edge != 3:
            return [interrupt(line_ns)]
        rig.lost += 6
        return [Mark("masked", 0, line_ns, 0, 0), Mark("unmasked", 0, line_ns, 0, 0), Sync("overrun", 9, 6)]

    rig._respond = respond
    run = measured(rig)
    assert (run.missing, run.told_lost, run.marks) == (1, 6, {"masked": 1, "unmasked": 1})


@pytest.mark.parametrize("warm_up", [0, 20])
def test_a_wire_that_is_gone_ends_the_run(warm_up: int) -> None:
    rig = Rig(lambda edge, line_ns: [interrupt(line_ns)] if edge <= 3 else [])
    run = measured(rig, count=1000, warm_up=warm_up)
    assert rig.edges == 3 + MISSING_IN_A_ROW_MAX
    assert run.cut_short == f"{MISSING_IN_A_ROW_MAX} interrupts in a row did not come"
    assert len(run.samples) == (0 if warm_up else 3)


def test_it_ends_between_two_samples() -> None:
    rig, run = Rig(), Run()
    Meter(rig, rig, Plan(3, 1000, 2, 0.0), has_ended=lambda: rig.edges == 5).take_all(run)
    assert (len(run.samples), run.missing) == (3, 0)


def test_an_end_is_noticed_in_a_long_interval() -> None:
    rig, run = Rig(), Run()
    Meter(rig, rig, Plan(3, 1000, 0, 1e6), has_ended=lambda: rig.edges == 1).take_all(run)
    assert len(run.samples) == 1


def test_an_error_leaves_what_came_before() -> None:
    rig, run = Rig(), Run()

    def respond(edge: int, line_ns: int) -> list[Event]:
        if edge == 3:
            raise ConnectionError
        rig.lost = edge
        return [interrupt(line_ns)]

    rig._respond = respond
    with pytest.raises(ConnectionError):
        Meter(rig, rig, Plan(3, 9, 0, 0.0)).take_all(run)
    assert (len(run.samples), run.told_lost) == (2, 2)


def test_a_trial() -> None:
    rig = Rig(lambda edge, line_ns: [interrupt(line_ns)] if edge == 2 else [])
    meter = Meter(rig, rig, Plan(3, 1, 0, 0.0))
    assert [meter.try_one() for _ in range(3)] == [False, True, False]
