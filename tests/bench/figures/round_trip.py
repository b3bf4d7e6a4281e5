"""A request's round trip: READ_PORT_UCHAR, from before the call until its answer is in hand."""

from __future__ import annotations

import importlib
import importlib.util
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Final

import trio

import lpt_client
from lpt_client import blocking
from tests.bench import frames
from tests.bench.bench import Address, Bench, time_calls
from tests.bench.daemons import lptd, tls_lptd
from tests.bench.processes import module, running
from tests.bench.report import Goal, Result, Table, at_least, at_most, number
from tests.bench.stats import Times, over_rounds, ratio, times_of

ECHO: Final = "bare blocking echo"
ECHO_UNIX: Final = "bare blocking echo, Unix"
TRIO_SERVER: Final = "bare trio SocketStream echo"
TRIO_CLIENT: Final = "trio raw client, bare echo"
OURS: Final = "lptd, blocking client"
OURS_UNIX: Final = "lptd, blocking client, Unix"
OURS_TLS: Final = "lptd, blocking client, TLS"
OURS_TRIO_TLS: Final = "lptd, trio client, TLS"
OURS_BARE: Final = "lptd, ready-made frames"
OURS_TRIO: Final = "lptd, trio client"
RIVALS: Final = {"RPyC": "rpyc_rival", "websockets": "websockets_rival", "Pyro5": "pyro_rival", "gRPC": "grpc_rival"}
_PACKAGES: Final = {"RPyC": "rpyc", "websockets": "websockets", "Pyro5": "Pyro5", "gRPC": "grpc"}

Contender = Callable[[int], list[int]]  # count → durations in ns


def measure(bench: Bench) -> Result:
    """Both ends on one core; then the headline across two."""
    result = Result(
        "Request round trip",
        "READ_PORT_UCHAR by one client, one request at a time: from before the call until the answer is in hand. The "
        "bare echo is two blocking sockets that exchange the same numbers of bytes and look at none: the limit. "
        "*Ready-made frames* is the daemon without the cost of a client library. Times in µs.",
    )
    rounds = _measure(bench, bench.core, full=True)
    result.tables.append(_table(rounds, ECHO, "Both ends on one core"))
    result.goals += _goals(rounds)
    result.raw["one core"] = {name: [vars(each) for each in samples] for name, samples in rounds.items()}
    if bench.other_core != bench.core:
        across = _measure(bench, bench.other_core, full=False)
        result.tables.append(_table(across, ECHO, "Client and server on two cores"))
        result.raw["two cores"] = {name: [vars(each) for each in samples] for name, samples in across.items()}
    return result


def _measure(bench: Bench, server_core: int, *, full: bool) -> dict[str, list[Times]]:
    count = bench.pick(4000, 500)
    with ExitStack() as stack:
        contenders = _open(bench, stack, server_core, full=full)
        rounds: dict[str, list[Times]] = {name: [] for name in contenders}
        for order in bench.shuffled(list(contenders)):
            for name in order:
                fewer = count // 4 if name in RIVALS else count
                rounds[name].append(times_of(contenders[name](fewer)))
    return rounds


def _open(bench: Bench, stack: ExitStack, core: int, *, full: bool) -> dict[str, Contender]:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    daemon = stack.enter_context(lptd(core))
    echo = stack.enter_context(echo_server("blocking", core))
    port = stack.enter_context(blocking.open_port(daemon.url))
    contenders = {
        ECHO: _exchange(stack, frames.dial(echo)),
        OURS_BARE: _exchange(stack, frames.greet(daemon.tcp)),
        OURS: _calls(port.read_status),
    }
    tls_url, tls = stack.enter_context(tls_lptd(core))
    contenders[OURS_TLS] = _calls(stack.enter_context(blocking.open_port(tls_url, tls=tls)).read_status)
    if not full:
        return contenders
    echo_unix = stack.enter_context(echo_server("blocking", core, f"{folder}/echo.sock"))
    port_unix = stack.enter_context(blocking.open_port(daemon.unix_url))
    contenders[ECHO_UNIX] = _exchange(stack, frames.dial(echo_unix))
    contenders[OURS_UNIX] = _calls(port_unix.read_status)
    contenders[TRIO_SERVER] = _exchange(stack, frames.dial(stack.enter_context(echo_server("trio", core))))
    contenders[TRIO_CLIENT] = lambda count: trio.run(_trio_raw, echo, count)
    contenders[OURS_TRIO] = lambda count: trio.run(_trio_client, daemon.url, None, count)
    contenders[OURS_TRIO_TLS] = lambda count: trio.run(_trio_client, tls_url, tls, count)
    for name, file in RIVALS.items():
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            bench.skip(f"{name}: not in this environment")
            continue
        _, match = stack.enter_context(running(module(f"rivals.{file}"), core, r"ready (\d+)\n"))
        rival = importlib.import_module(f"tests.bench.rivals.{file}")
        contenders[name] = partial(_rival, rival.client, int(match[1]))
    return contenders


@contextmanager
def echo_server(kind: str, core: int, where: str = "tcp") -> Iterator[Address]:
    """The bare echo of READ_PORT_UCHAR's bytes."""
    reply = frames.control_reply(1, b"\x00").hex()
    command = module("rivals.echo", kind, where, str(len(frames.READ_STATUS)), reply)
    with running(command, core, r"ready (\d+)\n") as (_, match):
        yield ("127.0.0.1", int(match[1])) if where == "tcp" else where


def _rival(client: Callable[[int], AbstractContextManager[Callable[[], object]]], port: int, count: int) -> list[int]:
    """Connected for the time of its turn: some clients keep threads, which must not disturb the others."""
    with client(port) as call:
        return time_calls(call, count)


def _calls(call: Callable[[], object]) -> Contender:
    return lambda count: time_calls(call, count)


def _exchange(stack: ExitStack, sock: socket.socket) -> Contender:
    stack.enter_context(sock)
    send, receive, request = sock.send, sock.recv, frames.READ_STATUS

    def exchange() -> None:
        send(request)
        receive(65536)

    return _calls(exchange)


async def _trio_raw(address: Address, count: int) -> list[int]:
    assert not isinstance(address, str)
    stream = await trio.open_tcp_stream(*address)
    durations = []
    async with stream:
        for _ in range(count):
            began = time.perf_counter_ns()
            await stream.send_all(frames.READ_STATUS)
            await stream.receive_some()
            durations.append(time.perf_counter_ns() - began)
    return durations


async def _trio_client(url: str, tls: lpt_client.TlsOptions | None, count: int) -> list[int]:
    durations = []
    async with lpt_client.open_port(url, tls=tls) as port:
        for _ in range(count):
            began = time.perf_counter_ns()
            await port.read_status()
            durations.append(time.perf_counter_ns() - began)
    return durations


def _table(rounds: dict[str, list[Times]], reference: str, caption: str) -> Table:
    base = [each.p50 for each in rounds[reference]]
    rows = []
    for name, samples in sorted(rounds.items(), key=lambda item: over_rounds(item[1]).p50):
        times = over_rounds(samples)
        times_echo = ratio([each.p50 for each in samples], base)
        rows.append((name, f"{times_echo:.2f} ×", *map(number, (times.p50, times.p99, times.p999))))
    return Table(("", "of the bare echo", "p50", "p99", "p99.9"), rows, caption)


def _goals(rounds: dict[str, list[Times]]) -> list[Goal]:
    def compare(ours: str, theirs: str) -> float:
        return ratio([each.p50 for each in rounds[ours]], [each.p50 for each in rounds[theirs]])

    goals = [
        at_most("blocking client, TCP: p50 ≤ 1.15 × the bare echo", compare(OURS, ECHO), 1.15),
        at_most("blocking client, Unix: p50 ≤ 1.15 × the bare echo", compare(OURS_UNIX, ECHO_UNIX), 1.15),
    ]
    for name in RIVALS:
        faster = compare(name, OURS) if name in rounds else None
        goals.append(at_least(f"blocking client: ≥ 3 × faster than {name}", faster, 3.0))
    goals.append(at_most("trio client: p50 ≤ 1.3 × the trio raw client", compare(OURS_TRIO, TRIO_CLIENT), 1.3))
    return goals
