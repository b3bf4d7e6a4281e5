"""lptctl ping: does the daemon answer, how fast, and how far apart are the clocks."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from lptctl import outcome
from lptctl.common import open_port, to_json, url_option

if TYPE_CHECKING:
    from lpt_client import blocking


@click.command(epilog=outcome.HELP)
@click.option("--count", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="How many.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON map: count, min_us, median_us, max_us, clock_offset_us."
)
@url_option
def ping(count: int, as_json: bool, url: str) -> None:
    """Measure the round trip, and the offset of the clocks.

    Pings the daemon, one ping after the other.

    The offset (the daemon's time of day minus ours) is taken from the fastest round trip, and right to half of it.

    \b
    Examples:
      lptctl ping
      lptctl --url lpt://lab-pc/LPT1 ping --count 1000 --json
    """
    with open_port(url, "ping") as port:
        measured = sorted(_ping(port) for _ in range(count))
    fastest_us, offset_us = measured[0]
    median_us, slowest_us = _median([round_trip_us for round_trip_us, _ in measured]), measured[-1][0]
    if as_json:
        result = {"count": count, "min_us": fastest_us, "median_us": median_us, "max_us": slowest_us}
        click.echo(to_json({**result, "clock_offset_us": offset_us}))
        return
    click.echo(f"round trip    min {fastest_us:.1f}, median {median_us:.1f}, max {slowest_us:.1f} us (of {count})")
    click.echo(f"clock offset  {offset_us:+.1f} us (daemon minus here, right to {fastest_us / 2:.1f} us)")


def _ping(port: blocking.Port) -> tuple[float, float]:
    """One round trip: how long it took, and how far the daemon's time of day was ahead; both in microseconds."""
    sent_ns, started_ns = time.time_ns(), time.perf_counter_ns()
    clock = port.ping()
    round_trip_ns = time.perf_counter_ns() - started_ns
    return round_trip_ns / 1000, (clock.realtime_ns - sent_ns - round_trip_ns // 2) / 1000


def _median(values: list[float]) -> float:
    """The middle of sorted values."""
    middle = len(values) // 2  # the statistics module takes longer to load than ten pings
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
