"""One listener that never reads, beside 99 that do: how many interrupts reach the 99 in a second."""

from __future__ import annotations

import os
import socket
import statistics
from contextlib import ExitStack
from functools import partial
from typing import Final

from tests.bench import frames
from tests.bench.bench import Bench, collector_off
from tests.bench.crowd import Crowd
from tests.bench.daemons import wired_lptd
from tests.bench.figures.fan_out import listening
from tests.bench.report import Result, Table, at_least, number
from tests.bench.stats import ratio

_LISTENERS: Final = 99
_TO_DEAFEN: Final = 20_000  # interrupts: more than any buffer between the daemon and one that does not read


def measure(bench: Bench) -> Result:
    """Two daemons, in turn: with the deaf one, and without."""
    result = Result(
        "A listener that never reads",
        f"{_LISTENERS} listeners as above (one by one), on a daemon where one more is connected that has stopped "
        f"reading "
        f"(after {_TO_DEAFEN:,} interrupts its socket is full), and on one where none is. Both ends on one core.",
    )
    count = bench.pick(300, 60)
    with ExitStack() as stack:
        crowds = {
            "with it": _crowd(stack, bench.core, is_deaf=True),
            "without": _crowd(stack, bench.core, is_deaf=False),
        }
        rates: dict[str, list[float]] = {name: [] for name in crowds}
        for order in bench.shuffled(list(crowds)):
            for name in order:
                crowd, line = crowds[name]
                with collector_off():
                    elapsed_s, _ = crowd.one_by_one(partial(os.eventfd_write, line, 1), count)
                rates[name].append(_LISTENERS * count / elapsed_s)
    compared = ratio(rates["with it"], rates["without"])
    rows = [
        ("with it", f"{compared:.2f} ×", number(statistics.median(rates["with it"]))),
        ("without", "1.00 ×", number(statistics.median(rates["without"]))),
    ]
    result.tables.append(Table(("", "of that without it", "deliveries/s of the 99"), rows))
    result.goals.append(at_least("with it: ≥ 0.95 × the deliveries/s without it", compared, 0.95))
    result.raw = dict(rates)
    return result


def _crowd(stack: ExitStack, core: int, *, is_deaf: bool) -> tuple[Crowd, int]:
    daemon = stack.enter_context(wired_lptd(core, separate=True))
    assert daemon.line is not None
    if is_deaf:
        deaf = stack.enter_context(frames.greet(daemon.tcp))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        frames.connect_interrupt(deaf)
    crowd = stack.enter_context(listening([frames.listen(daemon.tcp) for _ in range(_LISTENERS)], frames.FRAME_BYTES))
    crowd.flood(partial(os.eventfd_write, daemon.line, 100), 100, 1000, _TO_DEAFEN)
    return crowd, daemon.line
