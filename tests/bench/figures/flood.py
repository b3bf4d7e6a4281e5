"""A flood of interrupts to N listeners: how many reach everybody in a second."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

from tests.bench import frames
from tests.bench.bench import Bench, collector_off
from tests.bench.crowd import Crowd
from tests.bench.daemons import wired_lptd
from tests.bench.figures.fan_out import listening, publish_message
from tests.bench.report import Curve, Result, Table, at_least, number
from tests.bench.rivals import brokers
from tests.bench.stats import ratio

OURS: Final = "lptd"
RIVALS: Final = ("redis pub/sub", "nats")
SIZES: Final = (1, 10, 100, 1000)
BATCH: Final = 100
WINDOW: Final = 1000
_DELIVERIES: Final = (3_000_000, 300_000)  # a round; in a quick run
_MESSAGES_MAX: Final = (300_000, 30_000)


def measure(bench: Bench) -> Result:
    """The daemon with an entry of the log for each interrupt, beside the brokers."""
    result = Result(
        "A flood of interrupts to N listeners",
        f"Interrupts are raised {BATCH} at a time, brokers are sent {BATCH} messages in one piece, at most {WINDOW} "
        f"ahead "
        "of the listeners, both ends on one core; until every listener has every message. For this figure the daemon "
        f"writes a frame of its own ({frames.FRAME_BYTES} bytes) for each interrupt that it finds. As it is, it "
        f"writes one "
        "for all that it finds together, with their number: then a batch costs what a single one does above.",
    )
    lines: dict[str, list[tuple[float, float]]] = {}
    for size in SIZES:
        rates = _measure(bench, size)
        rows = []
        for name, each in rates.items():
            beside = f"{ratio(rates[OURS], each):.2f} ×" if name != OURS else "–"
            rows.append((name, beside, number(statistics.median(each))))
            lines.setdefault(name, []).append((size, 1e6 / statistics.median(each)))
        result.tables.append(Table(("", "lptd is", "deliveries/s"), rows, f"N = {size}"))
        result.raw[f"N = {size}"] = rates
        if size >= 10:
            for name in RIVALS:
                compared = ratio(rates[OURS], rates[name]) if name in rates else None
                result.goals.append(at_least(f"N = {size}: ≥ {name}", compared, 1.0))
    result.curves.append(Curve("flood", "A flood of interrupts, one core", "listeners", "µs a delivery", lines))
    return result


def _measure(bench: Bench, size: int) -> dict[str, list[float]]:
    count = min(bench.pick(*_MESSAGES_MAX), bench.pick(*_DELIVERIES) // size) // BATCH * BATCH
    with ExitStack() as stack:
        contenders: dict[str, tuple[Crowd, Callable[[], object]]] = {}
        daemon = stack.enter_context(wired_lptd(bench.core, separate=True))
        assert daemon.line is not None
        crowd = stack.enter_context(listening([frames.listen(daemon.tcp) for _ in range(size)], frames.FRAME_BYTES))
        contenders[OURS] = crowd, partial(os.eventfd_write, daemon.line, BATCH)
        for broker in (each for each in brokers.BROKERS if each.name in RIVALS):
            address = stack.enter_context(broker.serving(bench.core))
            if address is None:
                bench.skip(f"{broker.name}: {broker.program} is not installed")
                continue
            sockets = brokers.subscribers(broker, address, size)
            crowd = stack.enter_context(listening(sockets, broker.delivered_bytes))
            sender = stack.enter_context(brokers.publisher(broker, address))
            contenders[broker.name] = crowd, partial(publish_message, sender, broker.message * BATCH)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for order in bench.shuffled(list(contenders)):
            for name in order:
                crowd, publish = contenders[name]
                with collector_off():
                    elapsed_s = crowd.flood(publish, BATCH, WINDOW, count)
                rates[name].append(size * count / elapsed_s)
    return rates
