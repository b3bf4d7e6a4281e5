"""An interrupt's way to one client: from right before it is raised until the client's routine is called."""

from __future__ import annotations

import array
import os
import socket
import struct
import subprocess
import time
from contextlib import ExitStack
from typing import Any, Final

from lpt_client import blocking
from lpt_client.events import Event, Interrupt, Sync
from tests.bench import frames
from tests.bench.bench import Bench, collector_off
from tests.bench.daemons import wired_lptd
from tests.bench.processes import PROJECT, end, module, running
from tests.bench.report import Result, Table, at_most, number
from tests.bench.stats import Times, over_rounds, ratio, times_of

RATES_HZ: Final = (100, 1_000, 10_000)
OURS: Final = "lptd, blocking client's isr"
BARE: Final = "bare eventfd → socket → client"


def measure(bench: Bench) -> Result:
    """The daemon and the bare path in turn, at three rates."""
    result = Result(
        "An interrupt's way to a client",
        "A process raises interrupts at a steady rate by writing to an eventfd; from right before each until the "
        "client's "
        "routine is called with it, by the clock of the machine. Everything on one core. The bare path is a process "
        "that "
        "waits for the eventfd and sends as many bytes, and a client that receives them. Interrupts that were read "
        "together count each by itself. Times in µs.",
    )
    seconds = bench.pick(2.0, 0.2)
    for rate_hz in RATES_HZ:
        count = int(rate_hz * seconds)
        rounds: dict[str, list[Times]] = {OURS: [], BARE: []}
        accounts = []
        with ExitStack() as stack:
            contenders: dict[str, _Ours | _Bare] = {OURS: _Ours(bench, stack), BARE: _Bare(bench, stack)}
            for order in bench.shuffled(list(contenders)):
                for name in order:
                    durations, lost = contenders[name].run(rate_hz, count)
                    rounds[name].append(times_of(durations))
                    if name == OURS:
                        accounts.append((count, len(durations), lost))
        rows = []
        for name, samples in rounds.items():
            times = over_rounds(samples)
            compared = ratio([each.p50 for each in samples], [each.p50 for each in rounds[BARE]])
            rows.append((name, f"{compared:.2f} ×", *map(number, (times.p50, times.p99, times.max))))
        result.tables.append(Table(("", "of the bare path", "p50", "p99", "max"), rows, f"{rate_hz:,} Hz"))
        _add_goals(result, rate_hz, rounds, accounts)
        result.raw[f"{rate_hz} Hz"] = {name: [vars(each) for each in samples] for name, samples in rounds.items()}
    return result


def _add_goals(
    result: Result, rate_hz: int, rounds: dict[str, list[Times]], accounts: list[tuple[int, int, int]]
) -> None:
    compared = ratio([each.p50 for each in rounds[OURS]], [each.p50 for each in rounds[BARE]])
    result.goals.append(at_most(f"{rate_hz:,} Hz: p50 ≤ 1.5 × the bare path", compared, 1.5))
    if rate_hz == 1000:
        p99 = over_rounds(rounds[OURS]).p99
        result.goals.append(at_most("1,000 Hz: p99 < 1 ms", p99, 999.9, "µs"))
    unaccounted = sum(abs(generated - received - lost) for generated, received, lost in accounts)
    result.goals.append(at_most(f"{rate_hz:,} Hz: received + lost = generated", float(unaccounted), 0, "unaccounted"))


class _Line:
    """An eventfd, and what raises interrupts on it."""

    def __init__(self, line: int) -> None:
        self._line = line

    def start(self, rate_hz: int, count: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            module("raiser", str(self._line), str(rate_hz), str(count)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=PROJECT,
            pass_fds=[self._line],
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.write(b"\n")
        process.stdin.close()
        return process

    @staticmethod
    def finish(process: subprocess.Popen[bytes]) -> array.array[int]:
        assert process.stdout is not None
        raised_ns = array.array("Q", bytes.fromhex(process.stdout.readline().decode()))
        end(process)
        return raised_ns


class _Ours:
    """The daemon and its blocking client."""

    def __init__(self, bench: Bench, stack: ExitStack) -> None:
        daemon = stack.enter_context(wired_lptd(bench.core))
        assert daemon.line is not None
        self._line = _Line(daemon.line)
        self._url = daemon.url

    def run(self, rate_hz: int, count: int) -> tuple[list[int], int]:
        """The durations in ns, and how many were reported lost."""
        heard: list[tuple[int, int]] = []  # how many at once, when
        state = {"left": count, "lost": 0}
        clock = time.monotonic_ns

        def on_interrupt(interrupt: Interrupt, context: Any) -> None:
            heard.append((interrupt.count, clock()))
            state["left"] -= interrupt.count

        def on_other(event: Event, context: Any) -> None:
            if isinstance(event, Sync):
                state["lost"] += event.lost or 0
                state["left"] -= event.lost or 0

        with (
            blocking.open_port(self._url) as port,
            port.connect_interrupt(on_interrupt, on_other=on_other),
        ):
            with collector_off():
                process = self._line.start(rate_hz, count)
                while state["left"] > 0:
                    if not port.poll(timeout=5.0):
                        break
            raised_ns = self._line.finish(process)
        return _durations(heard, raised_ns), state["lost"]


class _Bare:
    """The process that only passes bytes on."""

    def __init__(self, bench: Bench, stack: ExitStack) -> None:
        line = os.eventfd(0)
        stack.callback(os.close, line)
        command = module("rivals.bare_line", str(line), str(frames.FRAME_BYTES))
        _, match = stack.enter_context(running(command, bench.core, r"ready (\d+)\n", pass_fds=[line]))
        self._sock = stack.enter_context(socket.create_connection(("127.0.0.1", int(match[1]))))
        self._line = _Line(line)

    def run(self, rate_hz: int, count: int) -> tuple[list[int], int]:
        """The durations in ns; nothing is ever lost."""
        heard, left, clock, size = [], count, time.monotonic_ns, frames.FRAME_BYTES
        data = b""
        with collector_off():
            process = self._line.start(rate_hz, count)
            while left > 0:
                data += self._sock.recv(65536)
                now = clock()
                for at in range(0, len(data) // size * size, size):
                    together = struct.unpack_from("<Q", data, at)[0]
                    heard.append((together, now))
                    left -= together
                data = data[len(data) // size * size :]
        return _durations(heard, self._line.finish(process)), 0


def _durations(heard: list[tuple[int, int]], raised_ns: array.array[int]) -> list[int]:
    """Join what was heard, in order, with when it was raised."""
    times = iter(raised_ns)
    return [now - next(times) for together, now in heard for _ in range(together)]
