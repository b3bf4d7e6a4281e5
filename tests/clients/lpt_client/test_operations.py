"""The vocabulary: what is sent, how answers are read."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lpt_client import errors, operations
from lpt_client.operations import Call
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.messages import Response
from lpt_service.protocol.status import Status
from lpt_service.protocol.structs import PARALLEL_PORT_INFORMATION, PULSE_EDGES, U64
from tests.clients.fake_daemon import connected

INFO = PARALLEL_PORT_INFORMATION(0, 0, 3, 0x162000, 0x162004, 0x162008, 4711)
INTERNAL = "internal_device_control"


def answered(call: Call[Any], output: bytes) -> Any:
    return call.finish(Response(1, None, (len(output), output)))


@pytest.mark.parametrize(
    ("call", "params", "output", "value"),
    [
        (operations.allocate(None), (0x16002C, b"", 8), U64.pack(7), 7),
        (operations.allocate(1.5), (0x16002C, b"", 8, {"timeout_ms": 1500}), U64.pack(7), 7),
        (operations.FREE, (0x1600A0, b"", 0), b"", None),
        (operations.try_allocate(INFO), (0x162000, U64.pack(4711), 16), b"\1" + bytes(7) + U64.pack(7), 7),
        (operations.try_allocate(INFO), (0x162000, U64.pack(4711), 16), bytes(16), None),
        (operations.waiters(INFO), (0x162008, U64.pack(4711), 4), b"\2\0\0\0", 2),
        (operations.PORT_INFO, (0x160030, b"", 56), INFO.pack(), INFO),
        (operations.READ_DATA, (0x162040, b"\0", 1), b"\x55", 0x55),
        (operations.READ_STATUS, (0x162040, b"\1", 1), b"\x80", 0x80),
        (operations.READ_CONTROL, (0x162040, b"\2", 1), b"\x0c", 0x0C),
        (operations.read(1), (0x162040, b"\1", 1), b"\x80", 0x80),
        (operations.write(0, 0x55, None), (0x162044, b"\0\x55", 8), U64.pack(9), 9),
        (operations.write(2, 1, 500), (0x162044, b"\2\1", 8, {"grant": 500}), U64.pack(9), 9),
        (operations.frob_control(4, 4, None), (0x162048, b"\4\4", 1), b"\x0c", 0x0C),
        (operations.pulse(1, 2, 1000, None), (0x16204C, b"\1\2\xe8\3\0\0", 16), PULSE_EDGES.pack(5, 6), (5, 6)),
        (operations.disconnect_interrupt(bytes(32)), (0x160038, bytes(32), 8), U64.pack(3), 3),
    ],
)
def test_what_is_sent_and_how_the_answer_is_read(call: Call[Any], params: Any, output: bytes, value: Any) -> None:
    assert (call.method, call.params) == (INTERNAL, params)
    assert answered(call, output) == value
    if output:
        with pytest.raises(errors.ConversationError, match=call.what):
            answered(call, output[:-1])


def test_connect_interrupt() -> None:
    structure = operations.service_routine(3, has_isr=True, has_deferred=False)
    assert structure == U64.pack(3) + bytes(24)
    call = operations.connect_interrupt(structure, (77, 5))
    assert call.params == (Ioctl.PARALLEL_CONNECT_INTERRUPT, structure, 40, {"from": (77, 5)})
    assert answered(call, connected(9)).first_seq == 9
    assert operations.service_routine(3, has_isr=False, has_deferred=True) == bytes(16) + U64.pack(3) + bytes(8)


def test_undoing() -> None:
    for call, result, undo in (
        (operations.allocate(None), 7, operations.FREE),
        (operations.try_allocate(INFO), 7, operations.FREE),
        (operations.try_allocate(INFO), None, None),
        (operations.READ_DATA, 7, None),
    ):
        assert (call.undo and call.undo(result)) is undo  # type: ignore[arg-type]  # each its own result
    undo_connect = operations.connect_interrupt(bytes(32)).undo
    assert undo_connect is not None
    undone = undo_connect(answered(operations.connect_interrupt(bytes(32)), connected()))
    assert undone is not None
    assert undone.params == operations.disconnect_interrupt(bytes(32)).params


@pytest.mark.parametrize(
    ("timeout", "options"),
    [
        (None, None),
        (math.inf, None),
        (0, {"timeout_ms": 0}),
        (0.0001, {"timeout_ms": 1}),
        (2, {"timeout_ms": 2000}),
        (1e9, {"timeout_ms": 0xFFFFFFFF}),
    ],
)
def test_timeouts_are_the_daemons_to_keep(timeout: float | None, options: Any) -> None:
    assert operations.timeout_options(timeout) == options
    if timeout is not None and timeout != math.inf:
        assert operations.answer_within_s(timeout) > timeout, "the daemon answers first"
    else:
        assert operations.answer_within_s(timeout) == math.inf


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan])
def test_a_timeout_that_is_none(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        operations.allocate(timeout)


@pytest.mark.parametrize(
    "make",
    [
        lambda: operations.write(0, 256, None),
        lambda: operations.write(0, -1, None),
        lambda: operations.read(256),
        lambda: operations.pulse(1, 300, 10, None),
        lambda: operations.pulse(1, 0, -1, None),
        lambda: operations.frob_control(256, 0, None),
    ],
)
def test_values_that_fit_no_register_are_not_sent(make: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


def test_ioctl() -> None:
    call = operations.ioctl(0x162040, b"\0", 1, internal=False, options={"grant": 3})
    assert (call.method, call.params) == ("device_control", (0x162040, b"\0", 1, {"grant": 3}))
    assert answered(call, b"\x12") == (1, b"\x12")
    unknown = operations.ioctl(0x16FFFC, b"", 0, internal=True, options={})
    assert (unknown.what, unknown.params) == ("0x16FFFC", (0x16FFFC, b"", 0))
    with pytest.raises(errors.ConversationError):
        unknown.finish(Response(1, None, (1, "text")))


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (operations.PING, None),
        (operations.PING, (1,)),
        (operations.PORT_STATUS, (1,)),
        (operations.FREE, None),
        (operations.READ_DATA, None),
        (operations.READ_DATA, (1, "A")),
    ],
)
def test_answers_of_another_shape(call: Call[Any], result: Any) -> None:
    with pytest.raises(errors.ConversationError, match="another shape"):
        call.finish(Response(1, None, result))


def test_a_callback_that_is_not_there() -> None:
    with pytest.raises(errors.NotSupported):
        operations.try_allocate(PARALLEL_PORT_INFORMATION(0, 0, 3, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.STATUS_ACCESS_DENIED, errors.AccessDenied),
        (Status.STATUS_IO_TIMEOUT, errors.TimedOut),
        (Status.STATUS_CANCELLED, errors.RequestCancelled),
        (Status.STATUS_INVALID_DEVICE_STATE, errors.InvalidDeviceState),
        (Status.STATUS_INVALID_PARAMETER, errors.InvalidParameter),
        (Status.STATUS_BUFFER_TOO_SMALL, errors.BufferTooSmall),
        (Status.STATUS_UNSUCCESSFUL, errors.Unsuccessful),
        (Status.STATUS_NOT_SUPPORTED, errors.NotSupported),
        (Status.STATUS_INSUFFICIENT_RESOURCES, errors.LimitReached),
        (Status.STATUS_DELETE_PENDING, errors.PortRemoved),
        (Status.STATUS_DEVICE_NOT_CONNECTED, errors.PortRemoved),
        (Status.STATUS_IO_DEVICE_ERROR, errors.DeviceFailed),
        (0xC0001234, errors.RequestError),
    ],
)
def test_every_status_has_its_exception(status: int, kind: type[errors.RequestError]) -> None:
    with pytest.raises(errors.RequestError) as caught:
        operations.PING.finish(Response(1, (status, "NAME", "why"), None))
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.detail) == (status, "why")


def test_an_error_of_another_shape_is_still_an_error() -> None:
    with pytest.raises(errors.RequestError):
        operations.PING.finish(Response(1, "no", None))
