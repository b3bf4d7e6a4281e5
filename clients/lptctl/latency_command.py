"""lptctl latency: what a lab must state in a paper, measured on its own rig."""

# ruff: noqa: D301 - \b is click's mark for "leave these lines as they are"

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from lptctl import outcome
from lptctl.common import (
    MOMENT_TIMEOUT_S,
    Seconds,
    owned_port,
    patience_s,
    to_json,
    url_option,
    waiting_options,
)

if TYPE_CHECKING:
    from lptctl.latency_measure import Plan
    from lptctl.latency_report import Report

# Memory grows with it, by about 200 bytes a sample.
SAMPLES_MAX: Final = 1_000_000
_ENDING_SIGNALS: Final = ("SIGINT", "SIGTERM")

_EPILOG = """\b
Exit codes:
  0      measured; interrupts that were missing are counted in the result
  1      the daemon refused; its status is shown
  2      wrong usage: an option, a value, a URL, a file that cannot be written
  3      the daemon cannot be reached, or the connection was lost
  4      the port was not got in time, or no interrupt comes: the wire is missing
  5      the output, or FILE after all, could not be written
  128+n  signal n came (130: Ctrl-C); what was measured up to then is shown
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--count",
    type=click.IntRange(1, SAMPLES_MAX),
    default=10_000,
    show_default=True,
    metavar="N",
    help="How many samples.",
)
@click.option(
    "--warm-up",
    type=click.IntRange(0, SAMPLES_MAX),
    default=100,
    show_default=True,
    metavar="N",
    help="How many before them that do not count.",
)
@click.option(
    "--interval",
    type=Seconds(),
    default=0.0,
    show_default=True,
    metavar="S",
    help="Seconds from one sample to the next; 0: as fast as they return.",
)
@click.option(
    "--line",
    type=click.Choice([f"D{bit}" for bit in range(8)], case_sensitive=False),
    default="D3",
    show_default=True,
    metavar="D0|…|D7",
    help="The data line that is wired to nAck.",
)
@click.option("--csv", "csv_path", metavar="FILE", help="Write every sample to FILE, a row each.")
@click.option("--html", "html_path", metavar="FILE", help="Write a report of one page to FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON map: the times in us, the counts, the machine.")
@waiting_options(MOMENT_TIMEOUT_S)
@url_option
def latency(
    count: int,
    warm_up: int,
    interval: float,
    line: str,
    csv_path: str | None,
    html_path: str | None,
    as_json: bool,
    timeout: float | None,
    no_wait: bool,
    url: str,
) -> int:
    """Measure client -> line -> interrupt -> client.

    Wants a wire from D3 (pin 5) to nAck (pin 10), or a simulated port with its loop-back plug. Owns the port meanwhile,
    drives the line high again and again, and takes the time until the interrupt of it is here. The data lines are
    afterwards what they were before.

    A sample ends when a program that uses lpt_client has the interrupt in its hands. Its parts are shown as far as they
    are known: those that begin or end at the client only if the daemon's clock is the client's, which is checked. A
    percentile that so few samples do not have is left out. Ctrl-C ends it with what there is.

    \b
    Examples:
      lptctl latency
      lptctl latency --html report.html --csv samples.csv
      lptctl latency --count 1000 --interval 0.05        a trigger now and then
      chrt --fifo 50 lptctl latency                      with real-time priority
    """
    from lptctl.latency_measure import Plan

    if csv_path is not None and html_path is not None and os.path.realpath(csv_path) == os.path.realpath(html_path):
        raise click.UsageError("--csv and --html name the same file")
    plan = Plan(int(line[1]), count, warm_up, interval)
    return _measure_and_report(url, plan, patience_s(timeout, no_wait), csv_path, html_path, as_json)


def _measure_and_report(
    url: str, plan: Plan, timeout_s: float | None, csv_path: str | None, html_path: str | None, as_json: bool
) -> int:
    from lptctl.latency_files import result_file
    from lptctl.latency_page import page
    from lptctl.latency_report import as_map, show, write_csv

    if not as_json:
        import rich.console  # noqa: F401 - if `show` must do without, it is said before the work begins

    failures = []
    with result_file(csv_path) as csv_file, result_file(html_path) as html_file:
        report, ended_by = _measure(url, plan, timeout_s)
        if report is not None:
            failures += csv_file.fill(lambda file: write_csv(report.run, file)) if csv_file else []
            failures += html_file.fill(lambda file: file.write(page(report))) if html_file else []
            click.echo(to_json(as_map(report), indent=2) if as_json else show(report))
    if ended_by is None and failures:
        raise failures.pop()
    for failure in failures:
        outcome.say(str(failure))
    if isinstance(ended_by, Exception):
        raise ended_by
    return outcome.OK if ended_by is None else -ended_by


def _measure(url: str, plan: Plan, timeout_s: float | None) -> tuple[Report | None, Exception | int | None]:
    """The report, if there is a sample, and what ended the run early: an error, or a signal's number."""
    from lpt_client.errors import LptError
    from lptctl import latency_machine
    from lptctl.latency_measure import Meter, Run, check_wire, has_our_clock, line_kept
    from lptctl.latency_report import Report

    run = Run()
    ended_by: Exception | int | None = None
    server = port_name = ""
    facts, date = latency_machine.facts(), latency_machine.now()
    try:
        with owned_port(url, "latency", timeout_s) as port:
            server, port_name = port.session.server, port.session.port
            run.status = port.status()
            with port.connect_interrupt() as interrupts, line_kept(port) as data, _signals_noted() as signals:
                meter = Meter(port, interrupts, plan, data=data, has_ended=lambda: bool(signals))
                check_wire(port, meter, plan.bit, data)
                run.has_one_clock = has_our_clock(port)
                _announce(plan)
                meter.take_all(run)
            if run.cut_short is not None:
                ended_by = outcome.Failure(f"ended early: {run.cut_short}; is the wire still there?", outcome.TIMED_OUT)
            elif signals and run.edges < plan.count:
                ended_by = signals[0]
                run.cut_short = f"ended by {signal.Signals(ended_by).name}"
    except (LptError, outcome.Failure) as exc:
        ended_by = exc
        if run.edges < plan.count:
            run.cut_short = run.cut_short or str(exc)
    if not run.samples:
        if not isinstance(ended_by, Exception):
            outcome.say("no sample was taken")
        return None, ended_by
    return Report(run, plan, url, server, port_name, date, facts), ended_by


def _announce(plan: Plan) -> None:
    """For whoever waits in front of it."""
    if sys.stderr.isatty():
        outcome.say(f"measuring {plan.count} round trips; Ctrl-C ends it with what there is")


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Signals that end a run are noted in the list this gives, so that a sample is never torn; a second one interrupts.

    Those that this process was started to ignore stay ignored.
    """
    noted: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    numbers = [getattr(signal, name) for name in _ENDING_SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, note)
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
