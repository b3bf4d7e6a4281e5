"""Every row of the contract's error table, on the wire: the offender gets what the row says, a witness notices nothing.

Removal of a port cannot be brought about from the wire: tests/server/test_port_worker.py has it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.client import (
    ALLOCATE,
    CONNECT_INTERRUPT,
    DATA,
    DEVICE,
    DISCONNECT_INTERRUPT,
    FREE,
    FREE_FROM_INTERRUPT_LEVEL,
    FREE_PORT,
    FROB_CONTROL,
    GET_MORE_PORT_INFO,
    GET_PNP_INFO,
    GET_PORT_INFO,
    INTERNAL,
    PULSE,
    QUERY_NUM_WAITERS,
    READ_PORT_UCHAR,
    RELEASE_PORT_INFO,
    STATUS,
    TRY_ALLOCATE_AT_INTERRUPT_LEVEL,
    TRY_ALLOCATE_PORT,
    WRITE_PORT_UCHAR,
    RawClient,
    check_closing,
    pulse,
    routine,
)
from tests.e2e.conftest import Connect, Witness
from tests.e2e.daemons import DaemonProcess, serving

ROUTINE = routine(1)
U64 = b"\x00" * 8


# Hello


@pytest.mark.parametrize("method", ["ping", "status", INTERNAL, DEVICE, "nonsense"])
def test_row_a_request_before_hello(daemon: DaemonProcess, connect: Connect, method: str) -> None:
    """INVALID_DEVICE_STATE; goes on."""
    client = RawClient(daemon.address)
    assert client.refusal(client.request(method)) == "STATUS_INVALID_DEVICE_STATE"
    client.hello()
    client.close()


def test_row_a_second_hello(connect: Connect, witness: Witness) -> None:
    """INVALID_DEVICE_STATE; goes on."""
    client = connect()
    assert client.refusal(client.request("hello", {"protocol": 1})) == "STATUS_INVALID_DEVICE_STATE"
    assert client.heard() == []


@pytest.mark.parametrize(
    ("keys", "name"), [({"protocol": 2}, "STATUS_NOT_SUPPORTED"), ({"port": "LPT9"}, "STATUS_NO_SUCH_DEVICE")]
)
def test_row_hello_refused(daemon: DaemonProcess, witness: Witness, keys: dict[str, Any], name: str) -> None:
    """Other protocol, unknown port: ends after the reply. (Bad token: see test_configured.)"""
    client = RawClient(daemon.address)
    hello, ping = client.request("hello", {"protocol": 1, **keys}), client.request("ping")
    assert client.refusal(hello) == name
    check_closing(client, answered=[])
    assert ping
    client.close()


@pytest.mark.parametrize(
    "params",
    [
        [],
        [{}],
        [[]],
        [None],
        [{"protocol": 1}, 1],
        [{"protocol": "1"}],
        [{"protocol": 1, "client": 5}],
        [{"protocol": 1, "port": None}],
        [{"protocol": 1, "token": b"x"}],
        [{"protocol": 1, "notifications": "all"}],
    ],
)
def test_row_params_of_hello_of_the_wrong_shape_or_type(daemon: DaemonProcess, params: list[Any]) -> None:
    """INVALID_PARAMETER; goes on."""
    client = RawClient(daemon.address)
    assert client.refusal(client.request("hello", *params)) == "STATUS_INVALID_PARAMETER"
    client.hello()
    client.close()


# Parameters


@pytest.mark.parametrize(
    "code", [0, 0x160028, 0x160048, 0x16004C, 0x1600A1, 0x162014, 0x16203C, 2**32 - 1, 2**64 - 1, -1]
)
def test_row_unknown_code(connect: Connect, witness: Witness, code: int) -> None:
    assert connect().refused(code, b"\x00" * 32, 64) == "STATUS_INVALID_PARAMETER"


@pytest.mark.parametrize("code", [ALLOCATE, FREE, GET_PORT_INFO, CONNECT_INTERRUPT, DISCONNECT_INTERRUPT])
def test_the_classes_reuse_numbers_so_internal_codes_are_unknown_in_the_other(connect: Connect, code: int) -> None:
    assert connect().refused(code, ROUTINE, 64, method=DEVICE) == "STATUS_INVALID_PARAMETER"


def test_our_own_codes_exist_in_both_classes(connect: Connect) -> None:
    client = connect()
    assert client.ioctl(READ_PORT_UCHAR, STATUS, 1, method=DEVICE) == client.ioctl(READ_PORT_UCHAR, STATUS, 1)


@pytest.mark.parametrize("options", [{"nonsense": 1}, {"timeout": 1}, {"timeout_ms": 1, "Grant": 1}])
def test_row_unknown_option(connect: Connect, options: dict[str, Any]) -> None:
    assert connect().refused(READ_PORT_UCHAR, DATA, 1, **options) == "STATUS_INVALID_PARAMETER"


@pytest.mark.parametrize(
    "params",
    [
        [],
        [ALLOCATE],
        [ALLOCATE, b""],
        [ALLOCATE, b"", 0, {}, 0],
        ["ALLOCATE", b"", 0],
        [None, b"", 0],
        [float(ALLOCATE), b"", 0],
        [ALLOCATE, "é", 0],
        [ALLOCATE, [], 0],
        [WRITE_PORT_UCHAR, [0, 255], 0],
        [WRITE_PORT_UCHAR, "\x00\xff", 0],
        [ALLOCATE, None, 0],
        [ALLOCATE, b"", -1],
        [ALLOCATE, b"", 2**32],
        [ALLOCATE, b"", "8"],
        [ALLOCATE, b"", True],
        [ALLOCATE, b"", 0, None],
        [ALLOCATE, b"", 0, []],
        [ALLOCATE, b"", 0, {"timeout_ms": -1}],
        [ALLOCATE, b"", 0, {"timeout_ms": 2**32}],
        [ALLOCATE, b"", 0, {"timeout_ms": 1.5}],
        [ALLOCATE, b"", 0, {"timeout_ms": None}],
        [ALLOCATE, b"", 0, {"grant": "1"}],
        [ALLOCATE, b"", 0, {"grant": -1}],
        [CONNECT_INTERRUPT, ROUTINE, 40, {"from": 1}],
        [CONNECT_INTERRUPT, ROUTINE, 40, {"from": [1]}],
        [CONNECT_INTERRUPT, ROUTINE, 40, {"from": [1, "2"]}],
        [CONNECT_INTERRUPT, ROUTINE, 40, {"from": [1, -2]}],
    ],
    ids=lambda params: repr(params)[:50],
)
def test_row_params_of_the_wrong_shape_or_type(connect: Connect, witness: Witness, params: list[Any]) -> None:
    """INVALID_PARAMETER; goes on, and nothing was done."""
    client = connect()
    assert client.refusal(client.request(INTERNAL, *params)) == "STATUS_INVALID_PARAMETER"
    report = client.call("status")
    assert (report["owner"], report["waiting"], report["registered"]) == (None, 0, 1)


@pytest.mark.parametrize("params", [{}, None, 5, "text", {"code": ALLOCATE}])
def test_row_params_that_are_no_array(connect: Connect, params: Any) -> None:
    client = connect()
    for method in (INTERNAL, "ping", "status"):
        client.send([0, 1000, method, params])
        assert client.refusal(1000) == "STATUS_INVALID_PARAMETER"


@pytest.mark.parametrize("value", ["\x80", [0], {"0": 0}])
def test_input_that_is_not_bin_is_refused_with_a_hint(connect: Connect, value: Any) -> None:
    client = connect()
    msgid = client.control(READ_PORT_UCHAR, value, 1)
    with pytest.raises(Exception, match="must be bin") as caught:
        client.reply(msgid)
    assert caught.typename == "RefusedError"


@pytest.mark.parametrize(
    ("method", "params"), [("ping", [1]), ("status", [1]), ("status", [{"x": 1}]), ("nonsense", [])]
)
def test_row_unknown_method_or_params_of_the_other_methods(connect: Connect, method: str, params: list[Any]) -> None:
    client = connect()
    assert client.refusal(client.request(method, *params)) == "STATUS_INVALID_PARAMETER"
    assert set(client.call("status", {})) >= {"owner", "waiting"}


# Buffers

SHORT = [
    (GET_PORT_INFO, b"", 55),
    (GET_MORE_PORT_INFO, b"", 31),
    (GET_PNP_INFO, b"", 111),
    (CONNECT_INTERRUPT, ROUTINE[:31], 40),
    (CONNECT_INTERRUPT, ROUTINE, 31),
    (DISCONNECT_INTERRUPT, ROUTINE[:31], 0),
    (TRY_ALLOCATE_PORT, U64[:7], 16),
    (TRY_ALLOCATE_PORT, U64, 0),
    (FREE_PORT, U64[:7], 0),
    (QUERY_NUM_WAITERS, U64[:7], 4),
    (QUERY_NUM_WAITERS, U64, 3),
    (TRY_ALLOCATE_AT_INTERRUPT_LEVEL, b"", 16),
    (FREE_FROM_INTERRUPT_LEVEL, b"", 0),
    (READ_PORT_UCHAR, b"", 1),
    (READ_PORT_UCHAR, b"\x00", 0),
    (WRITE_PORT_UCHAR, b"\x00", 8),
    (FROB_CONTROL, b"\x00", 1),
    (FROB_CONTROL, b"\x00\x00", 0),
    (PULSE, pulse(0, 0, 1)[:5], 16),
    (PULSE, pulse(0, 0, 1), 15),
]


@pytest.mark.parametrize(("code", "input_", "output_length"), SHORT)
def test_row_a_buffer_too_short(connect: Connect, code: int, input_: bytes, output_length: int) -> None:
    """BUFFER_TOO_SMALL; goes on. For the owner too, who is let through every other check."""
    client = connect()
    client.allocate()
    assert client.refused(code, input_, output_length) == "STATUS_BUFFER_TOO_SMALL"
    client.ioctl(FREE)


def test_a_buffer_may_be_longer(connect: Connect) -> None:
    client = connect()
    assert len(client.ioctl(GET_PORT_INFO, b"more", 1000)) == 56
    assert len(client.ioctl(GET_MORE_PORT_INFO, b"", 2**32 - 1)) == 32
    assert len(client.ioctl(GET_PNP_INFO, b"", 113)) == 112
    assert len(client.ioctl(CONNECT_INTERRUPT, ROUTINE + b"more", 39)) == 32
    assert len(client.ioctl(DISCONNECT_INTERRUPT, ROUTINE + b"other", 100)) == 8
    assert client.ioctl(RELEASE_PORT_INFO, b"x" * 60_000, 5) == b""


# Roles, states


@pytest.mark.parametrize(
    ("code", "input_", "output_length"),
    [(WRITE_PORT_UCHAR, b"\x00\xff", 0), (FROB_CONTROL, b"\xff\xff", 1), (PULSE, pulse(1, 2, 3), 16)],
)
def test_row_owner_needed(connect: Connect, witness: Witness, code: int, input_: bytes, output_length: int) -> None:
    """ACCESS_DENIED; goes on; the port is not touched, whoever owns it."""
    owner, client = connect(), connect()
    before = [client.read(bytes((register,))) for register in range(3)]
    assert client.refused(code, input_, output_length) == "STATUS_ACCESS_DENIED"
    owner.allocate()
    assert client.refused(code, input_, output_length) == "STATUS_ACCESS_DENIED"
    assert [client.read(bytes((register,))) for register in range(3)] == before
    owner.ioctl(FREE)


def test_row_grant_not_in_force(connect: Connect) -> None:
    """ACCESS_DENIED; the request touches nothing."""
    client = connect()
    grant = client.allocate()
    client.ioctl(WRITE_PORT_UCHAR, DATA + b"\x01", grant=grant)
    for wrong in (0, grant - 1, grant + 1, 2**64 - 1):
        assert client.refused(WRITE_PORT_UCHAR, DATA + b"\x02", grant=wrong) == "STATUS_ACCESS_DENIED"
        assert client.refused(FREE, grant=wrong) == "STATUS_ACCESS_DENIED"
    assert client.read(DATA) == 1
    client.ioctl(FREE, grant=grant)
    assert client.refused(READ_PORT_UCHAR, DATA, 1, grant=grant) == "STATUS_ACCESS_DENIED"
    assert client.allocate() > grant


def test_row_cancelled(connect: Connect) -> None:
    owner, waiter = connect(), connect()
    owner.allocate()
    waiting = waiter.control(ALLOCATE)
    waiter.notification("queued")
    waiter.cancel(waiting)
    assert waiter.refusal(waiting) == "STATUS_CANCELLED"
    owner.ioctl(FREE)


def test_row_timed_out(connect: Connect) -> None:
    owner, waiter = connect(), connect()
    owner.allocate()
    assert waiter.refused(ALLOCATE, timeout_ms=0) == "STATUS_IO_TIMEOUT"
    assert waiter.refused(ALLOCATE, timeout_ms=20) == "STATUS_IO_TIMEOUT"
    assert waiter.call("status")["waiting"] == 0
    owner.ioctl(FREE)
    waiter.allocate(timeout_ms=0)


@pytest.mark.parametrize("offset", [3, 4, 255])
def test_row_a_register_that_does_not_exist(connect: Connect, offset: int) -> None:
    client = connect()
    client.allocate()
    assert client.refused(READ_PORT_UCHAR, bytes((offset,)), 1) == "STATUS_INVALID_PARAMETER"
    assert client.refused(WRITE_PORT_UCHAR, bytes((offset, 0))) == "STATUS_INVALID_PARAMETER"
    assert client.refused(WRITE_PORT_UCHAR, STATUS + b"\x00") == "STATUS_INVALID_PARAMETER"


@pytest.mark.parametrize(
    ("code", "output_length"),
    [
        (TRY_ALLOCATE_PORT, 16),
        (FREE_PORT, 0),
        (QUERY_NUM_WAITERS, 4),
        (TRY_ALLOCATE_AT_INTERRUPT_LEVEL, 16),
        (FREE_FROM_INTERRUPT_LEVEL, 0),
    ],
)
def test_row_a_bad_context(connect: Connect, code: int, output_length: int) -> None:
    """INVALID_PARAMETER, another session's handle included; nothing is done."""
    client, other = connect(), connect()
    assert client.handle != other.handle
    client.allocate()
    for wrong in (b"\x00" * 8, b"\xff" * 8, other.handle):
        assert client.refused(code, wrong, output_length) == "STATUS_INVALID_PARAMETER"
    assert client.call("status")["owner"]["session"] == client.welcome["session"]


@pytest.mark.parametrize("width_us", [0, 10_000_001, 2**32 - 1])
def test_a_pulse_has_a_width_from_one_microsecond_to_ten_seconds(connect: Connect, width_us: int) -> None:
    client = connect()
    client.allocate()
    before = client.read(DATA)
    assert client.refused(PULSE, pulse(before ^ 1, 0, width_us), 16) == "STATUS_INVALID_PARAMETER"
    assert client.read(DATA) == before


def test_row_refused_by_a_limit() -> None:
    """INSUFFICIENT_RESOURCES, for requests of one session that wait; goes on."""
    with serving("--simulate", "--listen", "lpt://127.0.0.1:0") as daemon:
        client = daemon.connect()
        limit = client.welcome["limits"]["max_pending_requests"]
        client.allocate()
        running = client.control(PULSE, pulse(1, 0, 10_000_000), 16)
        writes = [client.control(WRITE_PORT_UCHAR, b"\x00\x01") for _ in range(limit + 5)]
        for msgid in writes[limit - 1 :]:
            assert client.refusal(msgid) == "STATUS_INSUFFICIENT_RESOURCES"
        client.cancel(running)
        assert client.refusal(running) == "STATUS_CANCELLED"
        for msgid in writes[: limit - 1]:
            assert client.output(msgid) == b""
        client.close()


def test_row_refused_by_the_limit_of_registrations(connect: Connect, witness: Witness) -> None:
    client = connect()
    for isr in range(1, 65):
        client.ioctl(CONNECT_INTERRUPT, routine(isr), 32)
    assert client.refused(CONNECT_INTERRUPT, routine(65), 32) == "STATUS_INSUFFICIENT_RESOURCES"
    client.ioctl(DISCONNECT_INTERRUPT, routine(1))
    client.ioctl(CONNECT_INTERRUPT, routine(65), 32)
    assert client.call("status")["registered"] == 65
