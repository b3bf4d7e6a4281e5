"""Measure everything, in one run on one machine.

python -m tests.bench.run               docs/performance.md, docs/performance.json and the plots; about six minutes
python -m tests.bench.run --quick       less than a minute, the tables on the terminal
python -m tests.bench.run round_trip    one figure (a file of tests/bench/figures), on the terminal
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import sys
import time
from typing import Final

from tests.bench.bench import make_bench
from tests.bench.publish import write_all
from tests.bench.report import Result, result_lines
from tests.ended import end_in_order

FIGURES: Final = (
    "round_trip",
    "pipelined",
    "fan_out",
    "flood",
    "latency",
    "hand_off",
    "idle",
    "neighbours",
    "deaf",
    "pulse",
    "start_up",
    "real_port",
)


def main() -> int:
    """Run the figures, print each when it is there; exit code 0 whatever they show."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds; nothing is written")
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], help="only these; nothing is written")
    arguments = parser.parse_args()
    end_in_order()
    _raise_descriptor_limit()
    bench = make_bench(is_quick=arguments.quick)
    os.sched_setaffinity(0, {bench.core})
    results: list[Result] = []
    for name in arguments.figures or FIGURES:
        began = time.monotonic()
        result: Result | None = importlib.import_module(f"tests.bench.figures.{name}").measure(bench)
        if result is None:  # it has said why
            continue
        results.append(result)
        print("\n".join(result_lines(result, plots=False)))
        print(f"({name}: {time.monotonic() - began:.1f} s)\n", file=sys.stderr, flush=True)
    for line in bench.skipped:
        print(f"skipped: {line}")
    if not arguments.quick and not arguments.figures:
        write_all(bench, results)
    return 0


def _raise_descriptor_limit() -> None:
    """A thousand listeners of each contender, and the servers that we start have as many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))


if __name__ == "__main__":
    sys.exit(main())
