"""What a figure gives back, and how it reads as text: tables, goals, curves. Needs the standard library alone."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

_WIDTH: Final = 120


@dataclass(frozen=True)
class Table:
    """Rows of cells, ready to print. The first column is text, the others are numbers."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""


@dataclass(frozen=True)
class Goal:
    """One goal and what was measured. `is_met` is None where what it is compared with was not there."""

    text: str
    measured: str
    is_met: bool | None


@dataclass(frozen=True)
class Curve:
    """Cost against size: lines by name, each a list of (size, cost)."""

    name: str  # of the file
    title: str
    x_label: str
    y_label: str
    lines: dict[str, list[tuple[float, float]]]


@dataclass
class Result:
    """One figure, measured. `raw` is what goes into the JSON file."""

    title: str
    what: str  # measured between which two moments, how
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)


def number(value: float) -> str:
    """Three digits that count, thousands set apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def at_most(text: str, measured: float | None, limit: float, unit: str = "×") -> Goal:
    """A goal that is met when `measured` is not above `limit`."""
    if measured is None:
        return Goal(text, "not measured", None)
    return Goal(text, f"{number(measured)} {unit}", measured <= limit)


def at_least(text: str, measured: float | None, limit: float, unit: str = "×") -> Goal:
    """A goal that is met when `measured` is not below `limit`."""
    if measured is None:
        return Goal(text, "not measured", None)
    return Goal(text, f"{number(measured)} {unit}", measured >= limit)


def table_lines(table: Table) -> list[str]:
    """A table as Markdown that also reads well unrendered."""
    rows = [table.head, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.head))]

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width if column == 0 else "-" * (width - 1) + ":") for column, width in enumerate(widths)]
    lines = [line(table.head), line(rule), *(line(row) for row in table.rows)]
    return [f"{table.caption}:", "", *lines] if table.caption else lines


def goals_table(goals: Iterable[Goal]) -> Table:
    """The goals and whether each is met."""
    verdict = {True: "met", False: "**missed**", None: "–"}
    return Table(("goal", "measured", "verdict"), [(goal.text, goal.measured, verdict[goal.is_met]) for goal in goals])


def result_lines(result: Result, *, plots: bool) -> list[str]:
    """One figure as Markdown."""
    lines = [f"## {result.title}", "", *textwrap.wrap(result.what, _WIDTH), ""]
    for table in result.tables:
        lines += [*table_lines(table), ""]
    if result.goals:
        lines += [*table_lines(goals_table(result.goals)), ""]
    if plots:
        for curve in result.curves:
            lines += [f"![{curve.title}]({curve.name}.png)", ""]
    return lines


def page(head: list[str], results: list[Result], skipped: list[str]) -> str:
    """The whole page: docs/performance.md."""
    goals = [goal for result in results for goal in result.goals]
    met = sum(goal.is_met is True for goal in goals)
    missed = [f"- {result.title}: {goal.text} ({goal.measured})" for result in results for goal in result.goals
              if goal.is_met is False]  # fmt: skip
    lines = [*head, "", f"**{met} of {len(goals)} goals are met.**", ""]
    if missed:
        lines += ["Missed:", "", *missed, ""]
    if skipped:
        lines += ["Skipped:", "", *(f"- {line}" for line in skipped), ""]
    for result in results:
        lines += result_lines(result, plots=True)
    return "\n".join(lines).rstrip() + "\n"


def as_json(result: Result) -> dict[str, Any]:
    """One figure for the JSON file."""
    return {"title": result.title, "goals": [asdict(goal) for goal in result.goals], "raw": result.raw}
