"""A thousand idle connections: the memory of each, and what they cost the one that is not idle."""

from __future__ import annotations

import socket
import statistics
from contextlib import ExitStack
from functools import partial
from typing import Final

from tests.bench import frames
from tests.bench.bench import Bench, time_calls
from tests.bench.daemons import lptd
from tests.bench.report import Curve, Result, Table, at_most, number
from tests.bench.stats import Times, over_rounds, ratio, times_of

SIZES: Final = (0, 10, 100, 1000)


def measure(bench: Bench) -> Result:
    """One daemon a size; the round trips in turn."""
    result = Result(
        "Idle connections",
        "Memory: growth of the daemon's resident set while the connections say hello, divided by their number; what "
        "the "
        "kernel keeps for their sockets is not in it. Round trip: READ_PORT_UCHAR by ready-made frames, of the one who "
        "came after them, each size on a daemon of its own. Both ends on one core; times in µs.",
    )
    memory: dict[int, float] = {}
    rounds: dict[int, list[Times]] = {size: [] for size in SIZES}
    with ExitStack() as stack:
        busy = {size: _crowded(stack, bench.core, size, memory) for size in SIZES}
        for _ in range(bench.rounds):
            for size, sock in busy.items():
                durations = time_calls(partial(_exchange, sock), bench.pick(4000, 500))
                rounds[size].append(times_of(durations))
    medians = {size: [each.p50 for each in samples] for size, samples in rounds.items()}
    rows = []
    for size, samples in rounds.items():
        times = over_rounds(samples)
        kib = number(memory[size]) if size else "–"
        compared = f"{ratio(medians[size], medians[0]):.2f} ×"
        rows.append((f"{size} idle", compared, number(times.p50), number(times.p99), kib))
    result.tables.append(Table(("", "of an empty daemon", "p50", "p99", "KiB each"), rows))
    result.goals = [
        at_most("1000 idle connections: ≤ 40 KiB each", memory[1000], 40, "KiB"),
        at_most("the 1001st's round trip: ≤ 1.1 × the first's", ratio(medians[1000], medians[0]), 1.1),
    ]
    line = [(float(max(1, size)), statistics.median(medians[size])) for size in SIZES]
    result.curves = [Curve("idle", "Round trip beside idle connections", "idle connections", "µs", {"lptd": line})]
    result.raw = {
        "KiB each": memory,
        "round trips": {str(size): [vars(each) for each in samples] for size, samples in rounds.items()},
    }
    return result


def _crowded(stack: ExitStack, core: int, size: int, memory: dict[int, float]) -> socket.socket:
    """A daemon with `size` idle connections, and one more."""
    daemon = stack.enter_context(lptd(core))
    with frames.greet(daemon.tcp):  # what is loaded for the first one is not counted
        before = daemon.resident_kib()
        for _ in range(size):
            stack.enter_context(frames.greet(daemon.tcp))
        if size:
            memory[size] = (daemon.resident_kib() - before) / size
    return stack.enter_context(frames.greet(daemon.tcp))


def _exchange(sock: socket.socket) -> None:
    sock.send(frames.READ_STATUS)
    sock.recv(65536)
