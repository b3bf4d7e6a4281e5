"""What the daemon costs on a real kernel's port, beside bare loops over the same port in the same guest.

    python -m tests.vm.inside.measure ROUNDS

The contenders take turns, because each must have /dev/parport1 for itself; all is on one processor. Prints JSON: by
figure and contender a list with a value for each round, of times (`tests.bench.stats.Times`) or of numbers.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from lpt_client import blocking
from lpt_service.protocol.ioctl import Ioctl
from tests.bench import frames
from tests.bench.bench import collector_off, time_calls
from tests.bench.processes import running
from tests.bench.stats import times_of
from tests.vm import ppdev
from tests.vm.inside import bare_ppdev
from tests.vm.peripheral import DEVICE
from tests.vm.ppdev import PpDev

LOOP: Final = "bare loop of ioctls"
BARE_REGISTERS: Final = "bare server"
EVENTS: Final = "bare loop"
COUNTS: Final = "bare loop, no registers"
TRIO: Final = "bare loop under trio"
OURS: Final = "lptd"
SDK: Final = "lptd, blocking client"

ACCESSES: Final = 500
INTERRUPTS: Final = 500
FLOOD: Final = 20_000
_WARM_UP: Final = 50
_CONFIG: Final = """
[server]
listen = ["lpt://127.0.0.1:0"]
log_level = "error"
[[port]]
device = "/dev/parport1"
enable_connect_interrupt = true
max_interrupt_rate_hz = 10_000_000
"""
_READY: Final = r"listening on lpt://127\.0\.0\.1:(\d+)/LPT1\n"

Note = Callable[[str, str, Any], None]  # figure, contender, value


def main() -> None:
    """Measure so many rounds; each begins with another contender."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures: dict[str, dict[str, list[Any]]] = {}

    def note(figure: str, contender: str, value: Any) -> None:
        figures.setdefault(figure, {}).setdefault(contender, []).append(value)

    contenders: list[Callable[[Note], None]] = [
        measure_loop,
        measure_bare_registers,
        *(partial(measure_bare, kind, name) for kind, name in (("events", EVENTS), ("counts", COUNTS), ("trio", TRIO))),
        measure_daemon,
    ]
    for turn in range(int(sys.argv[1])):
        shift = turn % len(contenders)
        for contender in contenders[shift:] + contenders[:shift]:
            contender(note)
    print(json.dumps(figures))


# The contenders


def measure_loop(note: Note) -> None:
    """Registers in this process."""
    with PpDev(1) as port:
        port.claim_exclusively()

        def access() -> None:
            port.ioctl(ppdev.WDATA, 0x55)
            port.ioctl(ppdev.RSTATUS)

        note_times(note, "registers", LOOP, time_calls(access, ACCESSES))


def measure_bare_registers(note: Note) -> None:
    """Registers behind a socket."""
    with bare("registers") as sock:

        def access() -> None:
            sock.sendall(b"w\x55")
            sock.recv(64)
            sock.sendall(b"r")
            sock.recv(64)

        note_times(note, "registers", BARE_REGISTERS, time_calls(access, ACCESSES))


def measure_bare(kind: str, name: str, note: Note) -> None:
    """Interrupts by a bare loop."""
    with bare(kind) as sock:
        measure_interrupts(note, name, sock)


def measure_daemon(note: Note) -> None:
    """Everything, by ready-made frames; registers also by the SDK."""
    write = frames.control(1, Ioctl.WRITE_PORT_UCHAR, b"\x00\x55", 0)
    with daemon() as tcp_port:
        with blocking.open_port(f"lpt://127.0.0.1:{tcp_port}/LPT1") as port, port.allocated():

            def access_by_sdk() -> None:
                port.write_data(0x55)
                port.read_status()

            note_times(note, "registers", SDK, time_calls(access_by_sdk, ACCESSES))
        with closing(frames.greet(("127.0.0.1", tcp_port))) as sock:
            sock.sendall(frames.ALLOCATE)
            sock.recv(65536)

            def access() -> None:
                sock.sendall(write)
                sock.recv(65536)
                sock.sendall(frames.READ_STATUS)
                sock.recv(65536)

            note_times(note, "registers", OURS, time_calls(access, ACCESSES))
        with closing(frames.listen(("127.0.0.1", tcp_port))) as sock:
            measure_interrupts(note, OURS, sock)


@contextmanager
def bare(kind: str) -> Iterator[socket.socket]:
    """A connection to a bare loop."""
    command = [sys.executable, "-m", "tests.vm.inside.bare_ppdev", kind]
    core = max(os.sched_getaffinity(0))
    with (
        running(command, core, r"ready (\d+)\n") as (_, match),
        closing(frames.dial(("127.0.0.1", int(match[1])))) as sock,
    ):
        yield sock


@contextmanager
def daemon() -> Iterator[int]:
    """The TCP port of a daemon."""
    core = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.toml")
        config.write_text(_CONFIG, encoding="utf-8")
        command = [sys.executable, "-m", "lpt_service", "serve", "--config", str(config)]
        with running(command, core, _READY) as (_, match):
            yield int(match[1])


# Interrupts


def measure_interrupts(note: Note, contender: str, sock: socket.socket) -> None:
    """One by one, then as fast as the kernel can raise them."""
    with DEVICE.open("wb", buffering=0) as peripheral, collector_off():
        samples = [time_interrupt(peripheral.fileno(), sock) for _ in range(_WARM_UP + INTERRUPTS)][_WARM_UP:]
        rate_hz, entries = time_flood(peripheral.fileno(), sock)
    note_times(note, "way", contender, [came_ns - raised_ns for raised_ns, _, came_ns in samples])
    note_times(note, "until taken", contender, [taken_ns - raised_ns for raised_ns, taken_ns, _ in samples])
    note_times(note, "after", contender, [came_ns - taken_ns for _, taken_ns, came_ns in samples])
    note("rate_hz", contender, rate_hz)
    note("entries", contender, entries)


def time_interrupt(peripheral: int, sock: socket.socket) -> tuple[int, int, int]:
    """CLOCK_MONOTONIC in ns: before it is raised, when the server took it, when it came."""
    raised_ns = time.monotonic_ns()
    os.write(peripheral, b"ack 1")
    data = sock.recv(65536)
    came_ns = time.monotonic_ns()
    _, _, _, _, _, _, taken_ns, *_ = bare_ppdev.FRAME.unpack(data)
    return raised_ns, taken_ns, came_ns


def time_flood(peripheral: int, sock: socket.socket) -> tuple[float, int]:
    """Interrupts a second, from the first raised to the last received; and in how many entries they came."""
    raiser = threading.Thread(target=os.write, args=(peripheral, b"ack %d" % FLOOD))
    size, data, received, entries = bare_ppdev.FRAME.size, b"", 0, 0
    began_ns = time.monotonic_ns()
    raiser.start()
    while received < FLOOD:
        data += sock.recv(65536)
        whole = len(data) // size * size
        for fields in bare_ppdev.FRAME.iter_unpack(data[:whole]):
            received += fields[8]
            entries += 1
        data = data[whole:]
    ended_ns = time.monotonic_ns()
    raiser.join()
    return FLOOD / ((ended_ns - began_ns) / 1e9), entries


def note_times(note: Note, figure: str, contender: str, durations_ns: list[int]) -> None:
    """Sum up a round's sample."""
    note(figure, contender, vars(times_of(durations_ns)))


if __name__ == "__main__":
    main()
