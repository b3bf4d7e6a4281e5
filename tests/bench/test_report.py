"""How figures read."""

from __future__ import annotations

import json

import pytest

from tests.bench.report import (
    Curve,
    Goal,
    Result,
    Table,
    as_json,
    at_least,
    at_most,
    goals_table,
    number,
    page,
    result_lines,
    table_lines,
)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234567.8, "1,234,568")]
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_a_table_is_aligned() -> None:
    table = Table(("", "p50"), [("bare echo", "1.00"), ("lptd", "12.3")], "One core")
    assert table_lines(table) == [
        "One core:",
        "",
        "|           |  p50 |",
        "| --------- | ---: |",
        "| bare echo | 1.00 |",
        "| lptd      | 12.3 |",
    ]


def test_a_row_that_lacks_a_cell_is_a_mistake() -> None:
    with pytest.raises((ValueError, IndexError)):
        table_lines(Table(("", "p50"), [("bare echo",)]))


def test_goals_at_their_limits() -> None:
    assert at_most("≤ 2", 2.0, 2).is_met is True
    assert at_most("≤ 2", 2.01, 2).is_met is False
    assert at_least("≥ 2", 2.0, 2) == Goal("≥ 2", "2.00 ×", True)
    assert at_least("≥ 2", 1.99, 2).is_met is False


def test_a_goal_without_its_rival_is_neither_met_nor_missed() -> None:
    assert at_most("≤ 2", None, 2) == at_least("≤ 2", None, 2) == Goal("≤ 2", "not measured", None)


def test_verdicts() -> None:
    goals = [Goal("a", "1", True), Goal("b", "2", False), Goal("c", "–", None)]
    assert [row[2] for row in goals_table(goals).rows] == ["met", "**missed**", "–"]


def _result() -> Result:
    return Result(
        "Round trip",
        "From here to there.",
        [Table(("", "p50"), [("lptd", "1.00")])],
        [Goal("fast", "1.00 ×", True), Goal("faster", "3.00 ×", False)],
        [Curve("cost", "Cost", "size", "µs", {"lptd": [(1, 2.0)]})],
        {"lptd": [1.0]},
    )


def test_plots_are_on_the_page_and_not_on_the_terminal() -> None:
    assert "![Cost](cost.png)" in result_lines(_result(), plots=True)
    assert not any("png" in line for line in result_lines(_result(), plots=False))


def test_the_page_begins_with_what_was_missed_and_skipped() -> None:
    text = page(["# Performance"], [_result()], ["nats: not installed"])
    assert text.startswith("# Performance\n\n**1 of 2 goals are met.**\n\nMissed:\n\n- Round trip: faster (3.00 ×)\n")
    assert "Skipped:\n\n- nats: not installed\n" in text
    assert text.endswith("![Cost](cost.png)\n")


def test_the_raw_figures_are_json() -> None:
    assert json.loads(json.dumps(as_json(_result())))["raw"] == {"lptd": [1.0]}
