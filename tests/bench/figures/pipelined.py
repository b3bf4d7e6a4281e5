"""Pipelined requests, 64 under way: from the first request sent until the last answer read."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

from tests.bench import frames
from tests.bench.bench import Bench, collector_off
from tests.bench.daemons import lptd
from tests.bench.figures.round_trip import echo_server
from tests.bench.report import Result, Table, at_least, number
from tests.bench.stats import ratio

WINDOW: Final = 64
OURS: Final = "lptd"
ECHO: Final = "bare blocking echo"


def measure(bench: Bench) -> Result:
    """Requests sent one by one, and 64 in one piece."""
    result = Result(
        "Pipelined requests",
        f"READ_PORT_UCHAR with {WINDOW} under way: from the first one sent until the last answer is read, both ends on "
        "one core. *Sent one by one*: each answer that is read lets another request be sent, in a send of its own, "
        "as a "
        f"client with many tasks does. *In one piece*: {WINDOW} requests in one send, then their answers; the echo "
        f"takes "
        "them as one, so this shows what the daemon needs for a request when no system call is left to pay.",
    )
    count = bench.pick(50_000, 5_000) // WINDOW * WINDOW
    with ExitStack() as stack:
        daemon = stack.enter_context(lptd(bench.core))
        sockets = {
            OURS: stack.enter_context(frames.greet(daemon.tcp)),
            ECHO: stack.enter_context(frames.dial(stack.enter_context(echo_server("blocking", bench.core)))),
        }
        ways: dict[str, Callable[[socket.socket, int], float]] = {"sent one by one": _slide, "in one piece": _burst}
        for way, run in ways.items():
            rates: dict[str, list[float]] = {name: [] for name in sockets}
            for order in bench.shuffled(list(sockets)):
                for name in order:
                    with collector_off():
                        rates[name].append(count / run(sockets[name], count))
            compared = ratio(rates[OURS], rates[ECHO])
            rows = [
                (OURS, f"{compared:.2f} ×", number(statistics.median(rates[OURS]))),
                (ECHO, "1.00 ×", number(statistics.median(rates[ECHO]))),
            ]
            result.tables.append(Table(("", "of the bare echo", "requests/s"), rows, way.capitalize()))
            result.raw[way] = rates
            if run is _slide:
                result.goals.append(at_least("sent one by one: ≥ 0.4 × the bare echo", compared, 0.4))
    return result


def _slide(sock: socket.socket, count: int) -> float:
    """Seconds for `count` requests, each in a send of its own, `WINDOW` under way."""
    send, receive, request, size = sock.send, partial(sock.recv, 65536), frames.READ_STATUS, frames.READ_REPLY_BYTES
    began = time.perf_counter()
    for _ in range(WINDOW):
        send(request)
    sent, received_bytes = WINDOW, 0
    while received_bytes < count * size:
        received_bytes += len(receive())
        for _ in range(min(count, received_bytes // size + WINDOW) - sent):
            send(request)
            sent += 1
    return time.perf_counter() - began


def _burst(sock: socket.socket, count: int) -> float:
    """Seconds for `count` requests, `WINDOW` in one send."""
    requests, size = frames.READ_STATUS * WINDOW, frames.READ_REPLY_BYTES * WINDOW
    began = time.perf_counter()
    for _ in range(count // WINDOW):
        sock.sendall(requests)
        missing = size
        while missing:
            missing -= len(sock.recv(65536))
    return time.perf_counter() - began
