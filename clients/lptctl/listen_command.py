"""lptctl listen: the port's interrupts as lines."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import math

import click

from lptctl import signals
from lptctl.common import Seconds, url_option

_EPILOG = """\b
Exit codes:
  0      ended by --count, or by --seconds without --count
  1      the daemon refused; its status is shown
  2      wrong usage: an option, a value, a URL
  3      the daemon cannot be reached, the connection was lost, or the port was removed
  4      --seconds have passed, and fewer interrupts came than --count
  5      the output could not be written
  128+n  ended by signal n (130: Ctrl-C)
"""


@click.command(epilog=_EPILOG)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N interrupts.")
@click.option("--seconds", type=Seconds(), metavar="S", help="End after S seconds.")
@click.option("--reconnect", is_flag=True, help="When the connection breaks, connect again and go on from there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one map a line, told apart by its member event.")
@url_option
def listen(count: int | None, seconds: float | None, reconnect: bool, as_json: bool, url: str) -> int:
    """Print the port's interrupts as they come, until Ctrl-C.

    Also what is not known: how many were lost, and marks for times in which the port was not heard. At the end come
    the counts, on standard error, with --json as the last line. An entry that stands for several interrupts at once
    counts as so many. A port that is paused has the mark "stopped", and is heard again when it is resumed.

    In text the time is the daemon's time of day, in your time zone. JSON has timestamp_ns, the daemon's
    CLOCK_MONOTONIC, which nobody sets; the first line ("connected") gives both clocks. Events: connected, interrupt,
    mark, sync, reconnected, end.

    A reader that stops reading (a pager, say) holds up nothing: up to 65536 events wait for it, the oldest beyond are
    counted as lost ("dropped"). An interrupt counts as received once it has been written. When a signal ends this,
    what is left is written within 2 seconds or counted.

    \b
    Examples:
      lptctl listen
      lptctl listen --count 100 --seconds 60
      lptctl listen --json --reconnect >> session.jsonl
    """
    import trio

    from lptctl.listening import Listener

    listener = Listener(
        url,
        as_json=as_json,
        count=math.inf if count is None else count,
        seconds=math.inf if seconds is None else seconds,
        reconnects=reconnect,
    )
    signals.end_in_order()
    return trio.run(listener.run)
