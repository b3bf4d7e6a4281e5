"""lptctl drain: have nobody new granted, wait until every port is idle, then run a command."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from lptctl import outcome
from lptctl.common import Seconds, open_port, url_option
from lptctl.outcome import TIMED_OUT, Failure

if TYPE_CHECKING:
    from lpt_client import blocking

_LOOK_INTERVAL_S: Final = 0.2
_EPILOG = """\b
Exit codes: the command's own (if signal n ended it, this dies of n, too: 128+n in a shell), or
  1    the daemon refused; its status is shown
  2    wrong usage: an option, a value, a URL
  3    the daemon cannot be reached, or the connection was lost
  4    a port was still owned when --timeout was over
  126  the command cannot be executed
  127  there is no such command
  130  Ctrl-C, of which this dies
"""


@click.command(epilog=_EPILOG, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--timeout", type=Seconds(), metavar="S", help="Wait at most S seconds.  [default: without end]")
@url_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def drain(timeout: float | None, url: str, command: tuple[str, ...]) -> int:
    """Let the daemon run idle, and wait until it does.

    Nobody new is granted, on any port, until no port is owned. Owners go on until they are done; those who wait keep
    their places, and newcomers queue behind them. It lasts as long as this command: when it ends, however it ends, the
    ports are granted again.

    With COMMAND, that is run once every port is idle; without, this stays until Ctrl-C. COMMAND gets the signals and
    streams, and ends with this, as with `lptctl run`.

    Needs the role admin on every port; root and the daemon's user have it on the daemon's Unix socket.

    \b
    Examples:
      lptctl drain -- systemctl restart lptd             nobody's work is cut off
      lptctl drain --timeout 0 -- systemctl restart lptd now, or not at all
    """
    from lptctl.command import run_alone  # before there is anything that a signal is to end in order

    with open_port(url, "drain") as port:
        _wait_until_idle(port, timeout)
        if command:
            return run_alone(command)
        outcome.say("every port is idle; nobody is granted one until this ends (Ctrl-C)")
        while True:
            time.sleep(_LOOK_INTERVAL_S)
            port.drain()  # a lost connection is noticed


def _wait_until_idle(port: blocking.Port, timeout_s: float | None) -> None:
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    told: list[str] = []
    while not (report := port.drain())["idle"]:
        owners = _owners(report)
        if deadline_s is not None and time.monotonic() >= deadline_s:
            raise Failure(f"still owned: {', '.join(owners)}; wait longer with --timeout", TIMED_OUT)
        if owners != told:
            outcome.say(f"waiting for {', '.join(owners)}")
            told = owners
        time.sleep(_LOOK_INTERVAL_S)


def _owners(report: Mapping[str, Any]) -> list[str]:
    return [f"{each.get('port')} ({each['owner']})" for each in report.get("ports", ()) if each.get("owner")]
