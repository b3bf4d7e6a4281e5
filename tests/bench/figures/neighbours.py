"""What one client's load does to another's ping: from before it is sent until its answer is read."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from tests.bench import frames
from tests.bench.bench import Bench, time_calls
from tests.bench.daemons import LptDaemon, wired_lptd
from tests.bench.processes import module, running
from tests.bench.report import Result, Table, at_most, number
from tests.bench.stats import Times, over_rounds, ratio, times_of

_RATE_HZ: Final = 200
_LOADS: Final = {
    "one client pipelines": ("pipeline",),
    "200 interrupts/s to 100 listeners": ("listen", "100"),
    "200 interrupts/s to 900 listeners": ("listen", "900"),
}


def measure(bench: Bench) -> Result:
    """Each load on the daemon that is pinged, and on another one."""
    result = Result(
        "A ping beside another client's load",
        "The ping's client and both daemons are on one core; what makes the load is on the other, so that it does not "
        "take the core's time by itself. *On another daemon*: the same load, on the daemon that is not pinged: what "
        "the "
        "machine's own share is. Times in µs.",
    )
    count = bench.pick(3000, 200)
    with ExitStack() as stack:
        daemon = stack.enter_context(wired_lptd(bench.core))
        other = stack.enter_context(wired_lptd(bench.core))
        sock = stack.enter_context(frames.greet(daemon.tcp))
        idle: list[Times] = []
        beside: dict[str, dict[str, list[Times]]] = {name: {"here": [], "other": []} for name in _LOADS}
        for _ in range(bench.pick(5, 1)):
            idle.append(_ping(sock, count))
            for name, load in _LOADS.items():
                for where, loaded in (("here", daemon), ("other", other)):
                    with _loading(bench, loaded, load):
                        beside[name][where].append(_ping(sock, count))
    rows = [("idle", "–", *_cells(idle))]
    for name, samples in beside.items():
        compared = ratio([each.p99 for each in samples["here"]], [each.p99 for each in samples["other"]])
        rows += [
            (name, f"{compared:.2f} ×", *_cells(samples["here"])),
            (f"{name}, on another daemon", "1.00 ×", *_cells(samples["other"])),
        ]
        p99 = over_rounds(samples["here"]).p99
        result.goals.append(at_most(f"{name}: p99 ≤ 1 ms", p99, 1000, "µs"))
        result.goals.append(at_most(f"{name}: p99 ≤ 3 × that on another daemon", compared, 3))
    result.tables.append(Table(("", "p99, of the other daemon's", "p50", "p99", "p99.9"), rows))
    raw: dict[str, Any] = {"idle": [vars(each) for each in idle]}
    for name, samples in beside.items():
        raw[name] = {where: [vars(each) for each in times] for where, times in samples.items()}
    result.raw = raw
    return result


def _cells(samples: list[Times]) -> tuple[str, str, str]:
    times = over_rounds(samples)
    return number(times.p50), number(times.p99), number(times.p999)


def _ping(sock: socket.socket, count: int) -> Times:
    def ping() -> None:
        sock.send(frames.PING)
        sock.recv(65536)

    return times_of(time_calls(ping, count))


@contextmanager
def _loading(bench: Bench, daemon: LptDaemon, load: tuple[str, ...]) -> Iterator[None]:
    assert not isinstance(daemon.tcp, str)
    kind, *size = load
    command = module("load", kind, str(daemon.tcp[1]), *size)
    with running(command, bench.other_core, "ready\n"):
        if kind == "pipeline":
            yield
        else:
            with _raising(bench, daemon):
                yield


@contextmanager
def _raising(bench: Bench, daemon: LptDaemon) -> Iterator[None]:
    """Interrupts at a steady rate, from a process on the other core."""
    line = daemon.line
    assert line is not None
    command = module("raiser", str(line), str(_RATE_HZ), str(_RATE_HZ * 60), "now")
    with running(command, bench.other_core, "ready\n", pass_fds=[line]):
        yield
