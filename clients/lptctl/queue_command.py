"""lptctl queue: everybody who waits for the port, in order."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lpt_service.protocol.codec import U32_MAX
from lptctl import outcome
from lptctl.common import Number, open_port, to_json, url_option
from lptctl.describe import name_of, session_number, since, whole
from lptctl.outcome import escape

_HEADINGS = ("place", "client", "session", "identity", "from", "for")
_PIPE_COLUMNS = 10_000  # a line for each, however long


@click.command(epilog=outcome.HELP)
@click.option(
    "--first",
    type=Number(1, U32_MAX),
    default=1,
    show_default=True,
    metavar="N",
    help="Begin with place N; 1 is next. The daemon tells up to 1000 at a time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer as JSON.")
@url_option
def queue(first: int, as_json: bool, url: str) -> None:
    """List who waits for the port, in order, below its owner.

    The session's number is what `lptctl kick` takes.

    \b
    Examples:
      lptctl queue
      lptctl queue --first 1001
      lptctl queue --json | jq -r '.waiters[].client'
    """
    with open_port(url, "queue") as port:
        report = port.queue(first)
        now_ns = port.ping().monotonic_ns
    click.echo(to_json(report, indent=2) if as_json else render(report, first, now_ns))


def render(report: Mapping[str, Any], first: int, now_ns: int) -> str:
    """The queue as a table; what a daemon of another version leaves out is empty."""
    owner, listed = report.get("owner"), report.get("waiters")
    waiters = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, (tuple, list)) else []
    rows = [_row("owner", owner, now_ns)] if isinstance(owner, Mapping) else []
    rows += [_row(str(each.get("position", "?")), each, now_ns) for each in waiters]
    waiting = whole(report.get("waiting"))
    lines = [] if isinstance(owner, Mapping) else ["nobody owns the port"]
    lines += _table(rows) if rows else []
    behind = waiting - (first - 1) - len(waiters)
    if not waiting:
        lines.append("nobody waits")
    elif not waiters:
        lines.append(f"nobody waits at place {first} or behind; waiting: {waiting}")
    elif behind > 0:
        lines.append(f"and {behind} more: lptctl queue --first {first + len(waiters)}")
    return "\n".join(lines)


def _row(place: str, session: Mapping[str, Any], now_ns: int) -> tuple[str, ...]:
    told = (str(session.get(key) or "") for key in ("identity", "peer"))
    cells = (place, name_of(session), session_number(session), *told, since(session, now_ns))
    return tuple(escape(cell) for cell in cells)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    from rich.console import Console  # takes longer to load than all the rest
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]
