"""Interrupts to N listeners, published one by one: from the raising until each listener has read it."""

from __future__ import annotations

import os
import socket
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

from tests.bench import frames
from tests.bench.bench import Bench, collector_off
from tests.bench.crowd import Crowd
from tests.bench.daemons import wired_lptd
from tests.bench.report import Curve, Goal, Result, Table, at_least, number
from tests.bench.rivals import brokers
from tests.bench.stats import Times, over_rounds, ratio, times_of

OURS: Final = "lptd"
MOSQUITTO: Final = "mosquitto"
SIZES: Final = (1, 10, 100, 1000)
_DELIVERIES: Final = (20_000, 2_000)  # a round; in a quick run


def measure(bench: Bench) -> Result:
    """Both ends on one core; then N = 100 across two."""
    result = Result(
        "Interrupts to N listeners, one by one",
        "One interrupt is raised; when all N listeners have read it, the next: nobody can batch. An interrupt of "
        "ours is "
        "raised by writing 1 to the eventfd that the daemon takes for the port's line, as hardware would; a message "
        "of a "
        "broker is published on a connection. The N listeners are sockets in one process, the same for all contenders, "
        f"which counts bytes; every message carries {frames.FRAME_BYTES} bytes. Latency: from the raising until a "
        "listener has read it, over all listeners, in µs.",
    )
    lines: dict[str, list[tuple[float, float]]] = {}
    for size in SIZES:
        rounds = _measure(bench, bench.core, size)
        result.tables.append(_table(rounds, f"N = {size}, one core"))
        result.goals.append(_goal(rounds, size))
        result.raw[f"N = {size}"] = rounds
        for name, samples in rounds.items():
            cost = statistics.median(1e6 / each["deliveries_per_s"] for each in samples)
            lines.setdefault(name, []).append((size, cost))
    if bench.other_core != bench.core and not bench.is_quick:
        rounds = _measure(bench, bench.other_core, 100)
        result.tables.append(_table(rounds, "N = 100, server and listeners on two cores"))
        result.raw["N = 100, two cores"] = rounds
    result.curves.append(
        Curve("fan-out", "Interrupts one by one, both ends on one core", "listeners", "µs a delivery", lines)
    )
    return result


def _measure(bench: Bench, server_core: int, size: int) -> dict[str, list[dict[str, Any]]]:
    count = max(5, bench.pick(*_DELIVERIES) // size)
    with ExitStack() as stack:
        contenders = open_contenders(bench, stack, server_core, size)
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        for order in bench.shuffled(list(contenders)):
            for name in order:
                crowd, publish = contenders[name]
                crowd.one_by_one(publish, max(1, count // 20))
                with collector_off():
                    elapsed_s, latencies = crowd.one_by_one(publish, count)
                times = times_of(latencies)
                rounds[name].append({"deliveries_per_s": size * count / elapsed_s, "latency": vars(times)})
    return rounds


def open_contenders(
    bench: Bench, stack: ExitStack, core: int, size: int
) -> dict[str, tuple[Crowd, Callable[[], object]]]:
    """The daemon and the brokers, each with `size` listeners, and what publishes one message."""
    daemon = stack.enter_context(wired_lptd(core))
    assert daemon.line is not None
    crowd = stack.enter_context(listening([frames.listen(daemon.tcp) for _ in range(size)], frames.FRAME_BYTES))
    contenders: dict[str, tuple[Crowd, Callable[[], object]]] = {
        OURS: (crowd, partial(os.eventfd_write, daemon.line, 1))
    }
    for broker in brokers.BROKERS:
        address = stack.enter_context(broker.serving(core))
        if address is None:
            bench.skip(f"{broker.name}: {broker.program} is not installed")
            continue
        sockets = brokers.subscribers(broker, address, size)
        crowd = stack.enter_context(listening(sockets, broker.delivered_bytes))
        sender = stack.enter_context(brokers.publisher(broker, address))
        contenders[broker.name] = crowd, partial(publish_message, sender, broker.message)
    return contenders


@contextmanager
def listening(sockets: list[socket.socket], message_bytes: int) -> Iterator[Crowd]:
    """A crowd that hangs up at the end."""
    crowd = Crowd(sockets, message_bytes)
    try:
        yield crowd
    finally:
        crowd.close()


def publish_message(sender: socket.socket, message: bytes) -> None:
    """Send to a broker, and throw away what it has answered before, so that it can go on answering."""
    sender.sendall(message)
    frames.drain(sender)


def _table(rounds: dict[str, list[dict[str, Any]]], caption: str) -> Table:
    def rates(name: str) -> list[float]:
        return [each["deliveries_per_s"] for each in rounds[name]]

    rows = []
    for name, samples in rounds.items():
        beside = f"{ratio(rates(OURS), rates(name)):.2f} ×" if name != OURS else "–"
        latency = over_rounds([Times(**each["latency"]) for each in samples])
        rows.append((name, beside, number(statistics.median(rates(name))), number(latency.p50), number(latency.p99)))
    return Table(("", "lptd is", "deliveries/s", "p50", "p99"), rows, caption)


def _goal(rounds: dict[str, list[dict[str, Any]]], size: int) -> Goal:
    compared = None
    if MOSQUITTO in rounds:
        compared = ratio(*([each["deliveries_per_s"] for each in rounds[name]] for name in (OURS, MOSQUITTO)))
    return at_least(f"N = {size}: ≥ 0.9 × mosquitto's deliveries/s", compared, 0.9)
