"""Import and start-up: whole processes, from before they are started until they have ended, or are ready."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from tests.bench.bench import Bench
from tests.bench.daemons import LptDaemon, lptd
from tests.bench.processes import PROJECT
from tests.bench.report import Result, Table, number
from tests.bench.stats import Times, over_rounds, ratio, times_of

BARE: Final = "python -c pass"
_IMPORT_BLOCKING: Final = "import lpt_client; lpt_client.blocking"
_IMPORT_TRIO: Final = "import lpt_client; lpt_client.open_port"


def measure(bench: Bench) -> Result:
    """Everything in turn with an interpreter that does nothing."""
    result = Result(
        "Import and start-up",
        "Whole processes on one core, from before the start until the end (`lptd`: until it prints that it listens). "
        "Times in ms.",
    )
    with lptd(bench.core) as daemon:
        runs: dict[str, Callable[[], int]] = {
            BARE: partial(_run, "-c", "pass"),
            "python -c 'import trio'": partial(_run, "-c", "import trio"),
            "import of the blocking client": partial(_run, "-c", _IMPORT_BLOCKING),
            "import of the trio client": partial(_run, "-c", _IMPORT_TRIO),
            "lptctl status": partial(_status, daemon),
            "lptctl --help": partial(_run, "-m", "lptctl", "--help"),
            "lptd until ready": partial(_start, bench),
        }
        rounds: dict[str, list[Times]] = {name: [] for name in runs}
        for _ in range(bench.pick(15, 3)):
            for name, run in runs.items():
                rounds[name].append(times_of([run()]))
    medians = {name: [each.p50 / 1000 for each in samples] for name, samples in rounds.items()}
    rows = []
    for name, samples in rounds.items():
        compared = f"{ratio(medians[name], medians[BARE]):.1f} ×"
        rows.append((f"`{name}`", compared, number(over_rounds(samples).p50 / 1000)))
    result.tables.append(Table(("", "of python -c pass", "median"), rows))
    result.raw = dict(medians)
    return result


def _run(*arguments: str) -> int:
    """From the start of an interpreter until it has ended, in ns."""
    began = time.perf_counter_ns()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=PROJECT)
    return time.perf_counter_ns() - began


def _status(daemon: LptDaemon) -> int:
    return _run("-m", "lptctl", "--url", daemon.url, "status")


def _start(bench: Bench) -> int:
    """From the start of a daemon until it says that it listens, in ns."""
    began = time.perf_counter_ns()
    with lptd(bench.core):
        return time.perf_counter_ns() - began
