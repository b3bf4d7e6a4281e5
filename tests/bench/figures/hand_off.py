"""Free → the next owner's grant, with W waiting: from before the free is sent until the grant is read."""

from __future__ import annotations

import socket
import statistics
import time
from contextlib import ExitStack
from typing import Any, Final

from tests.bench import frames
from tests.bench.bench import Bench, collector_off, time_calls
from tests.bench.daemons import lptd
from tests.bench.figures.round_trip import echo_server
from tests.bench.report import Curve, Result, Table, at_most, number
from tests.bench.stats import over_rounds, ratio, times_of

WAITING: Final = (1, 10, 100, 1000)


def measure(bench: Bench) -> Result:
    """One daemon a size, all in turn with the bare echo."""
    result = Result(
        "From the free to the next owner's grant",
        "W clients wait in the queue. The owner sends FREE, the longest waiter reads the answer to its ALLOCATE; "
        "then the "
        "former owner waits at the end of the queue, and so on. From before the free is sent until the grant has been "
        "read; one process plays all clients, on the daemon's core. Every client takes the notices of its place in the "
        "queue. Times in µs.",
    )
    count = bench.pick(1000, 150)
    with ExitStack() as stack:
        echo = stack.enter_context(frames.dial(stack.enter_context(echo_server("blocking", bench.core))))
        queues = {waiting: _queue(stack, bench.core, waiting) for waiting in WAITING}
        rounds: dict[int, list[Any]] = {waiting: [] for waiting in (0, *WAITING)}
        for _ in range(bench.rounds):
            rounds[0].append(times_of(time_calls(lambda: _exchange(echo), count)))
            for waiting, clients in queues.items():
                rounds[waiting].append(times_of(_pass_on(clients, count)))
    bare = [each.p50 for each in rounds[0]]
    medians = {waiting: [each.p50 for each in samples] for waiting, samples in rounds.items()}
    rows = []
    for waiting, samples in rounds.items():
        times = over_rounds(samples)
        name = f"{waiting} waiting" if waiting else "bare round trip"
        rows.append((name, f"{ratio(medians[waiting], bare):.2f} ×", number(times.p50), number(times.p99)))
    result.tables.append(Table(("", "of the bare round trip", "p50", "p99"), rows))
    for waiting in WAITING:
        compared = ratio(medians[waiting], bare)
        result.goals.append(at_most(f"{waiting} waiting: p50 ≤ 2 × a bare round trip", compared, 2.0))
    compared = ratio(medians[1000], medians[1])
    result.goals.append(at_most("the same at 1000 as at 1 (p50, taken as ≤ 1.1 ×)", compared, 1.1))
    line = [(float(waiting), statistics.median(medians[waiting])) for waiting in WAITING]
    floor = [(float(waiting), statistics.median(bare)) for waiting in WAITING]
    result.curves.append(
        Curve("hand-off", "Free → the next owner's grant", "waiting", "µs", {"lptd": line, "bare round trip": floor})
    )
    result.raw = {str(waiting): [vars(each) for each in samples] for waiting, samples in rounds.items()}
    return result


def _exchange(sock: socket.socket) -> None:
    sock.send(frames.READ_STATUS)
    sock.recv(65536)


def _queue(stack: ExitStack, core: int, waiting: int) -> list[socket.socket]:
    """Clients in the order of the queue; the first is the owner."""
    daemon = stack.enter_context(lptd(core))
    clients = [stack.enter_context(frames.greet(daemon.tcp)) for _ in range(waiting + 1)]
    for place, sock in enumerate(clients):
        sock.send(frames.ALLOCATE)
        if place:
            frames.settle(sock)
        else:
            _await(sock, frames.GRANTED)
    return clients


def _pass_on(clients: list[socket.socket], count: int) -> list[int]:
    """Let the port go round `count` times; the duration of each hand-over in ns. `clients` keeps the queue's order."""
    durations = []
    with collector_off():
        for _ in range(count):
            owner, following = clients[0], clients[1]
            frames.drain(following)
            frames.drain(owner)
            began = time.perf_counter_ns()
            owner.send(frames.FREE)
            _await(following, frames.GRANTED)
            durations.append(time.perf_counter_ns() - began)
            _await(owner, frames.FREED)
            owner.send(frames.ALLOCATE)
            frames.settle(owner)  # it is in the queue before the next one can be
            clients.append(clients.pop(0))
    return durations


def _await(sock: socket.socket, answer: bytes) -> None:
    """Read until the answer is there, whatever notices come with it."""
    data = b""
    while answer not in data:
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionError("the daemon has closed the connection")
        data += chunk
