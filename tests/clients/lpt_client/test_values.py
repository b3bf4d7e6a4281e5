"""What programs hand in: every public function of both clients × every parameter × what it does not take.

A mistake is told before anything is sent, by an error that names the parameter and what it takes.
"""

from __future__ import annotations

import enum
import inspect
import math
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import lpt_client
from lpt_client import TlsOptions, blocking, operations, values
from lpt_service.protocol.codec import U32_MAX
from lpt_service.protocol.url import Url
from tests.clients import blocking_harness, trio_harness
from tests.clients.fake_daemon import FakeDaemon


class Code(enum.IntEnum):
    """As experiments have them."""

    CUE = 5


class Int64:
    """As numpy's: no int, and made one by `operator.index`."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


class Float64(float):
    """As numpy's: a float."""


class Text(str):
    """As numpy's: a text that has a __float__."""

    def __float__(self) -> float:
        return 5.0


class Unshown:
    """As a class of the program's own may be."""

    def __repr__(self) -> str:
        raise RuntimeError


class Kind(NamedTuple):
    """What a parameter takes, and what not; `says` is what every error of it says."""

    says: str
    good: tuple[Any, ...]
    wrong: tuple[Any, ...]
    out_of_range: tuple[Any, ...] = ()


def async_function() -> Any:
    async def function(*_: object) -> None:
        pass

    return function


def whole(least: int, most: int, unit: str = "a whole number", *extra: Any) -> Kind:
    good = (least, most, Int64(least), *extra)
    wrong = (3.0, 3.7, Float64(3), math.nan, "3", b"3", Text("3"), [3], 3j, Decimal(3), object())
    return Kind(f"{unit} from {least:,} to {most:,}", good, wrong, (least - 1, most + 1, -1, 10**30, 10**5000))


BYTE = whole(0, 255, "a whole number", Code.CUE, True)
U32 = whole(0, U32_MAX)
U64 = whole(0, 2**64 - 1)
WRONG_SECONDS = ("3", b"3", Text("3"), [3], 3j, True, False, object())
FAR = (1, 0, 2.5, Fraction(1, 3), Decimal("1.5"), Float64(3), Int64(3), 1e10, 1e300, 10**400, math.inf)
SECONDS = Kind("seconds from 0 on", FAR, (None, *WRONG_SECONDS), (-1, -0.001, math.nan, -math.inf, -(10**400)))
PATIENCE = Kind("seconds from 0 on, or None", (None, *FAR), WRONG_SECONDS, SECONDS.out_of_range)
FLAG = Kind("True or False", (True, False), ("off", 1, 0, None, [], 1.0))
TEXT = Kind(
    "a text|at most 1,024", (None, "", "x" * 1024, "ü" * 512), (5, b"x", ["x"], Path("x")), ("x" * 1025, "ü" * 513)
)
FUNCTION = Kind("a function|a plain one", (None, print), (5, "print", [], async_function()))
FUNCTION_NEEDED = Kind(FUNCTION.says, (print,), (None, *FUNCTION.wrong))
OPENER = Kind("a function", (), (5, "print", []))
DATA = Kind(r"bytes|at most 64,512", (b"", bytearray(b"x"), memoryview(b"x")), ("x", 5, [1], None), (bytes(64513),))
URL = Kind(
    "an address", (Url.parse("lpt://daemon"), "lpt://daemon/LPT1"), (None, 5, b"lpt://x", Path("/run/x"), ["lpt://x"])
)
TLS = Kind(
    "TlsOptions|the path of a file",
    (None, TlsOptions(), TlsOptions("ca.pem", Path("x")), ssl.create_default_context()),
    (True, "ca.pem", {"ca": "x"}, ("ca.pem",), TlsOptions(5), TlsOptions(key=b"x")),  # type: ignore[arg-type]
)
GRANT = Kind(U64.says, (None, *U64.good), U64.wrong, U64.out_of_range)
PAIR = Kind(
    r"\(stream, next_seq\)|a whole number from 0",
    ((1, 2), [Int64(1), 2]),
    (5, "12", b"12", (1,), (1, 2, 3), {1: 2}, (1, 2.0), ("1", 2), (10**5000,), Unshown()),
    ((-1, 2), (1, 2**64)),
)
ANYTHING = Kind("", (), ())

WRITE = {"value": BYTE, "grant": GRANT}
REGISTRATION = {
    "isr": FUNCTION,
    "context": ANYTHING,
    "deferred": FUNCTION,
    "on_other": FUNCTION,
    "max_buffered_events": whole(1, 2**63 - 1),
}
OPEN = {
    "url": URL,
    "client": TEXT,
    "token": TEXT,
    "tls": TLS,
    "reconnect": FLAG,
    "resume": FLAG,
    "connect_timeout_s": SECONDS,
}
# Function → parameter → kind.
PORT: dict[str, dict[str, Kind]] = {
    "ioctl": {
        "code": U32._replace(good=(0x162040, Int64(0x162040))),
        "input": DATA,
        "output_length": U32,
        "internal": FLAG,
        "timeout_ms": whole(0, U32_MAX, "whole milliseconds"),
        "grant": U64,
        "from": PAIR,
    },
    "allocate": {"timeout": PATIENCE, "on_queued": FUNCTION},
    "allocated": {"timeout": PATIENCE, "on_queued": FUNCTION},
    "read": {"offset": BYTE},
    "write": {"offset": BYTE, **WRITE},
    "write_data": WRITE,
    "write_control": WRITE,
    "frob_control": {"mask": BYTE, **WRITE},
    "pulse": {"after": BYTE, "width_us": whole(1, 10_000_000, "whole microseconds"), **WRITE},
    "connect_interrupt": REGISTRATION,
    "connect_port_check": {"deferred": FUNCTION_NEEDED, "context": ANYTHING},
    "drain": {"on": FLAG},
    "revoke": {"reason": TEXT},
    "kick": {"session": U64, "reason": TEXT},
    "pause": {"reason": TEXT},
    "queue": {"first": whole(1, U32_MAX, "a place in the queue")},
}
OWNER = {"on_waiters": FUNCTION, "on_lease": FUNCTION}
BLOCKING: dict[str, dict[str, Kind]] = {
    **PORT,
    "open_port": {**OPEN, "reply_timeout_s": SECONDS, "open_socket": OPENER},
    "poll": {"timeout": PATIENCE},
    "wait_connected": {"timeout": PATIENCE},
    "next": {"timeout": PATIENCE},
}
TRIO: dict[str, dict[str, Kind]] = {
    **PORT,
    "open_port": {**OPEN, "open_stream": OPENER},
    "allocate": {**PORT["allocate"], **OWNER},
    "allocated": {**PORT["allocated"], **OWNER},
}
# What else a call needs.
NEEDED: dict[str, dict[str, Any]] = {
    "ioctl": {"code": 0x162040},
    "read": {"offset": 0},
    "write": {"offset": 0, "value": 1},
    "write_data": {"value": 1},
    "write_control": {"value": 1},
    "frob_control": {"mask": 1, "value": 1},
    "pulse": {"value": 1, "width_us": 10},
    "connect_port_check": {"deferred": print},
    "kick": {"session": 1},
}
NAMED = {"tls": r"tls(\.\w+)?", "from": r"from(\[\d\])?"}

CLIENTS = {"blocking": (blocking.Port, BLOCKING), "trio": (lpt_client.Port, TRIO)}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_tables_have_every_parameter(client: str) -> None:
    port, table = CLIENTS[client]
    functions: dict[str, Any] = {
        name: function for name, function in inspect.getmembers(port, callable) if not name.startswith("_")
    }
    if client == "blocking":
        functions |= {"open_port": blocking.open_port, "next": blocking.Interrupts.next}
    else:
        functions["open_port"] = lpt_client.open_port
    for name, function in functions.items():
        parameters = set(inspect.signature(function).parameters) - {"self", "options"}
        options = {"timeout_ms", "grant", "from"} if name == "ioctl" else set()
        assert set(table.get(name, {})) == parameters | options, name
    assert set(table) <= set(functions)


def cases(table: dict[str, dict[str, Kind]]) -> Iterator[tuple[str, str, Kind]]:
    for function, parameters in table.items():
        for parameter, kind in parameters.items():
            yield function, parameter, kind


def expected(parameter: str, kind: Kind) -> str:
    return rf"^{NAMED.get(parameter, parameter)} (is|has) .{{1,120}}, (which )?(it )?must (be|have) .*({kind.says})"


def check(error: BaseException | None, parameter: str, kind: Kind, value: Any) -> None:
    is_type = any(value is each for each in kind.wrong)
    assert type(error) is (TypeError if is_type else ValueError), (parameter, value if value != 10**5000 else 0, error)
    assert re.search(expected(parameter, kind), str(error)), str(error)


def is_kept_from(function: str, parameter: str, value: Any) -> bool:
    """It would wait for as long, or have no time to connect."""
    return (function in ("poll", "next", "wait_connected") and value != 0) or (
        parameter == "connect_timeout_s" and value == 0
    )


# The blocking client


@contextmanager
def blocking_calls() -> Iterator[tuple[Callable[..., Any], FakeDaemon]]:
    """Calls a function by its name, and enters what is a context manager."""
    with blocking_harness.serving() as server, server.open_port() as port, port.connect_interrupt() as interrupts:

        def call(name: str, **arguments: Any) -> None:
            if name == "open_port":
                opened = blocking.open_port(**{"url": "lpt://daemon", "open_socket": server.open_socket, **arguments})
                opened.close()
                return
            result = getattr(interrupts if name == "next" else port, name)(**arguments)
            if isinstance(result, AbstractContextManager):
                with result:
                    pass

        server.peers[0].daemon.answers["READ_PORT_UCHAR"] = b"x"
        yield call, server.peers[0].daemon


def test_no_way_to_open_a_socket_stands_for_the_ordinary_one() -> None:
    with pytest.raises(lpt_client.ConnectFailed, match="timed out"):
        blocking.open_port("lpt://127.0.0.1:1", connect_timeout_s=0, open_socket=None)


def test_what_the_blocking_client_does_not_take() -> None:
    with blocking_calls() as (call, daemon):
        sent = len(daemon.names)
        for function, parameter, kind in cases(BLOCKING):
            for value in (*kind.wrong, *kind.out_of_range):
                error: Exception | None = None
                try:
                    call(function, **{**NEEDED.get(function, {}), parameter: value})
                except Exception as exc:
                    error = exc
                check(error, parameter, kind, value)
        assert len(daemon.names) == sent, "nothing was sent"


def test_what_the_blocking_client_takes() -> None:
    with blocking_calls() as (call, _daemon):
        for function, parameter, kind in cases(BLOCKING):
            for value in kind.good:
                if is_kept_from(function, parameter, value):
                    continue
                call(function, **{**NEEDED.get(function, {}), parameter: value})


# The trio client


@asynccontextmanager
async def trio_calls() -> AsyncIterator[tuple[Callable[..., Any], FakeDaemon]]:
    """The same."""
    async with trio_harness.serving() as server, server.open_port() as port:

        async def call(name: str, **arguments: Any) -> None:
            if name == "open_port":
                result: Any = lpt_client.open_port(
                    **{"url": "lpt://daemon", "open_stream": server.open_stream, **arguments}
                )
            else:
                result = getattr(port, name)(**arguments)
            if isinstance(result, AbstractAsyncContextManager):
                async with result:
                    pass
            else:
                await result

        daemon = (await server.connection(1)).daemon
        daemon.answers["READ_PORT_UCHAR"] = b"x"
        yield call, daemon


async def test_what_the_trio_client_does_not_take() -> None:
    async with trio_calls() as (call, daemon):
        sent = len(daemon.names)
        for function, parameter, kind in cases(TRIO):
            for value in (*kind.wrong, *kind.out_of_range):
                error: Exception | None = None
                try:
                    await call(function, **{**NEEDED.get(function, {}), parameter: value})
                except Exception as exc:
                    error = exc
                check(error, parameter, kind, value)
        assert len(daemon.names) == sent, "nothing was sent"


async def test_what_the_trio_client_takes() -> None:
    async with trio_calls() as (call, _daemon):
        for function, parameter, kind in cases(TRIO):
            for value in kind.good:
                if is_kept_from(function, parameter, value):
                    continue
                await call(function, **{**NEEDED.get(function, {}), parameter: value})


# Details


def test_what_is_sent_is_a_plain_number() -> None:
    assert operations.pulse(Code.CUE, Int64(3), Int64(10), Int64(7)).params == (  # type: ignore[arg-type]
        *operations.pulse(5, 3, 10, 7).params,
    )
    assert type(operations.write(0, 1, Int64(7)).params[3]["grant"]) is int  # type: ignore[arg-type]


def test_an_option_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="no option 'timeout'; there are timeout_ms, grant and from"):
        operations.ioctl(0x162040, b"", 1, internal=True, options={"timeout": 5})


def test_a_variable_that_is_not_set() -> None:
    with pytest.raises(TypeError, match=r"url is None, it must be an address .*variable"):
        blocking.open_port(os.environ.get("LPT_URL_THAT_NOBODY_HAS_SET"))  # type: ignore[arg-type]


def test_a_time_out_beyond_the_wires() -> None:
    assert operations.timeout_options(1e10) == operations.timeout_options(1e308) == {"timeout_ms": U32_MAX}
    assert operations.timeout_options(values.TIMEOUT_MAX_S) == {"timeout_ms": U32_MAX}


def test_a_value_that_cannot_be_shown() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(TypeError, match=r"value is a Odd \(Odd\), it must be a whole number from 0 to 255"):
        operations.write(0, Odd(), None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"value is a int, it must be"):
        operations.write(0, 10**5000, None)
