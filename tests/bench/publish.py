"""Writes the run down: docs/performance.md, docs/performance.json, a plot for each curve."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Final

from tests.bench.bench import Bench
from tests.bench.machine import describe
from tests.bench.plots import draw
from tests.bench.processes import PROJECT
from tests.bench.report import Result, Table, as_json, page, table_lines

_DOCS: Final = PROJECT / "docs"
_INTRODUCTION: Final = """\
# Performance

Written by `make bench`, which measures everything in one run on one machine; the raw figures are in
[performance.json](performance.json). Ratios come first: they tell more than times, which are those of this machine.

**Method.** The contenders of a figure take turns, {rounds} rounds, and each round begins with another one. A
percentile is the median of the rounds' percentiles, a ratio the median of the rounds' ratios, a maximum the greatest.
Clients and servers are pinned to one core unless a table says otherwise: between two cores of a small virtual machine
one measures how an idle core is woken. Loopback only. The storm guard is lifted, as it ends the floods that are to be
measured. The measuring process does not collect garbage in the middle of a measurement; the servers run as they are.
No figure fails a test.

**Machine.** {date}.
"""


def write_all(bench: Bench, results: list[Result], docs: Path = _DOCS) -> None:
    """Write page, figures and plots."""
    machine = describe()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    rows = [(name, value) for name, value in machine.items()]
    head = [
        *_INTRODUCTION.format(rounds=bench.rounds, date=date).splitlines(),
        "",
        *table_lines(Table(("", "on which it was measured"), rows)),
    ]
    docs.joinpath("performance.md").write_text(page(head, results, bench.skipped), encoding="utf-8")
    everything = {
        "date": date,
        "machine": machine,
        "skipped": bench.skipped,
        "figures": [as_json(result) for result in results],
    }
    text = json.dumps(everything, indent=1, default=float)
    docs.joinpath("performance.json").write_text(text + "\n", encoding="utf-8")
    for result in results:
        for curve in result.curves:
            draw(curve, docs / f"{curve.name}.png")
