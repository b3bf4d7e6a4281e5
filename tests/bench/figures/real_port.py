"""A port of a real kernel, by way of ppdev: what the daemon adds to it. Measured inside the guest of tests/vm."""

from __future__ import annotations

import json
import os
import statistics
from typing import Any, Final

from tests.bench.bench import Bench
from tests.bench.report import Result, Table, at_most, number
from tests.bench.stats import Times, over_rounds, ratio
from tests.vm.guest import Guest, GuestError
from tests.vm.host import CannotBuildError
from tests.vm.inside import measure as inside

_TIMEOUT_S: Final = 600.0
_WAYS: Final = (inside.EVENTS, inside.COUNTS, inside.TRIO, inside.OURS)

Rounds = dict[str, dict[str, list[Any]]]  # by figure and contender, as `inside.measure` prints them


def measure(bench: Bench) -> Result | None:
    """Boot the guest, measure in there. None, with a line that says why, where that cannot be done."""
    if bench.is_quick:
        bench.skip("a real port: a virtual machine has to boot for it, too long for a quick run")
        return None
    try:
        rounds = _measure_inside(bench)
    except (CannotBuildError, GuestError) as exc:
        bench.skip(f"a real port: {str(exc).splitlines()[0]}")
        return None
    result = Result(
        "A port of a real kernel",
        "Debian's kernel, its ppdev, a port of a module of our own whose interrupts are real ones: in a virtual "
        "machine that is emulated in software, so that only the ratios mean anything. Each contender in turn has the "
        "port for itself; all is on one processor of the guest. *Taken* is when the server has been woken and looks "
        "at its clock. The bare loop waits for ppdev, takes the count, reads two registers, sends the same bytes as "
        "the daemon; the one under trio does so in trio's event loop, which is what the daemon is built on. Times in "
        "µs.",
        tables=[_registers(rounds), _way(rounds), _shares(rounds), _flood(rounds)],
        raw=rounds,
    )
    ours, bare = (_p50s(rounds, "way", name) for name in (inside.OURS, inside.EVENTS))
    result.goals.append(at_most("interrupt → event on the socket: p50 ≤ 1.5 × the bare loop", ratio(ours, bare), 1.5))
    return result


def _measure_inside(bench: Bench) -> Rounds:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {bench.core, bench.other_core})  # QEMU has two processors to run
    try:
        with Guest() as guest:
            command = f"python -m tests.vm.inside.measure {bench.rounds}"
            rounds: Rounds = json.loads(guest.check(command, _TIMEOUT_S))
            return rounds
    finally:
        os.sched_setaffinity(0, before)


def _registers(rounds: Rounds) -> Table:
    rows = []
    for name in (inside.LOOP, inside.BARE_REGISTERS, inside.OURS, inside.SDK):
        times = _times(rounds, "registers", name)
        rows.append((name, *_ratios(rounds, "registers", name, inside.LOOP, inside.BARE_REGISTERS), *_cells(times)))
    head = ("", f"of the {inside.LOOP}", f"of the {inside.BARE_REGISTERS}", "p50", "p99")
    return Table(head, rows, "A write to data, then a read of status")


def _way(rounds: Rounds) -> Table:
    rows = []
    for name in _WAYS:
        parts = (number(_times(rounds, part, name).p50) for part in ("until taken", "after"))
        times = _times(rounds, "way", name)
        rows.append((name, *_ratios(rounds, "way", name, inside.EVENTS), *_cells(times), *parts))
    head = ("", f"of the {inside.EVENTS}", "p50", "p99", "p50 until taken", "p50 from there")
    return Table(head, rows, "From right before an interrupt is raised until its event has been received")


def _shares(rounds: Rounds) -> Table:
    """Of what the daemon takes longer than the bare loop: which part is trio's."""
    bare, under_trio, ours = (_p50s(rounds, "way", name) for name in (inside.EVENTS, inside.TRIO, inside.OURS))
    parts = {
        "kernel, two wake-ups, the least of Python: the bare loop": bare,
        "trio's event loop": _differences(under_trio, bare),
        "the daemon: account, log, storm guard, who listens": _differences(ours, under_trio),
    }
    rows = [(name, number(statistics.median(each)), f"{ratio(each, ours):.0%}") for name, each in parts.items()]
    return Table(("", "p50", "of the daemon's way"), rows, "Where the daemon's time goes")


def _differences(longer: list[float], shorter: list[float]) -> list[float]:
    return [one - other for one, other in zip(longer, shorter, strict=True)]


def _flood(rounds: Rounds) -> Table:
    rows = []
    for name in _WAYS:
        rates = rounds["rate_hz"][name]
        compared = ratio(rates, rounds["rate_hz"][inside.EVENTS])
        entries = statistics.median(rounds["entries"][name])
        rows.append((name, f"{compared:.2f} ×", number(statistics.median(rates)), number(entries)))
    head = ("", f"of the {inside.EVENTS}", "interrupts/s", "entries")
    return Table(head, rows, f"{inside.FLOOD:,} interrupts as fast as the kernel raises them, none lost")


def _times(rounds: Rounds, figure: str, name: str) -> Times:
    return over_rounds([Times(**each) for each in rounds[figure][name]])


def _p50s(rounds: Rounds, figure: str, name: str) -> list[float]:
    return [each["p50"] for each in rounds[figure][name]]


def _ratios(rounds: Rounds, figure: str, name: str, *references: str) -> list[str]:
    ours = _p50s(rounds, figure, name)
    return [f"{ratio(ours, _p50s(rounds, figure, reference)):.2f} ×" for reference in references]


def _cells(times: Times) -> tuple[str, str]:
    return number(times.p50), number(times.p99)
