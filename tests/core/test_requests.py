"""The params of a control request: what is taken, and what an error says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpt_service.core.requests import Options, SessionState, parse_request
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import CONTROL_CODES, Ioctl, IoctlClass
from lpt_service.protocol.messages import Raw, Request
from lpt_service.protocol.status import Status

READ = int(Ioctl.READ_PORT_UCHAR)
SESSION = SessionState(7, context=1, client="lptctl", peer="10.0.0.1:40000")


def parse(*params: Any, io_class: IoctlClass = IoctlClass.INTERNAL) -> Any:
    return parse_request(SESSION, Request(3, io_class.value, params))


def test_three_params() -> None:
    request = parse(READ, b"\x01", 4)
    assert (request.session, request.msgid) == (SESSION, 3)
    assert (request.row.code, request.input, request.output_length) == (READ, b"\x01", 4)
    assert request.options == Options()


def test_every_option() -> None:
    options = {"timeout_ms": 0, "grant": 2**53, "from": (2**52, 2**53)}
    assert parse(READ, b"", 0, options).options == Options(0, 2**53, (2**52, 2**53))


@pytest.mark.parametrize(
    ("params", "hint"),
    [
        (None, "params are"),
        ([READ, b"", 0], "params are"),
        ((), "params are"),
        ((READ, b""), "params are"),
        ((READ, b"", 0, {}, 0), "params are"),
        (({}, b"", 0), "code: dict"),
        ((True, b"", 0), "code: bool"),
        ((float(READ), b"", 0), "code: float"),
        ((0x16FFFC, b"", 0), "code: 0x16fffc"),
        ((-1, b"", 0), "code: -0x1"),
        ((READ, "t\u00e9xt", 0), "input: must be bin, got str"),
        ((READ, "\x80", 0), "say raw: true in hello"),
        ((READ, Raw(b"\xff"), 0), "say raw: true in hello"),
        ((READ, (1, 2, 3), 0), "input: must be bin, got tuple"),
        ((READ, None, 0), "input: must be bin"),
        ((READ, b"", -1), "output_length"),
        ((READ, b"", 2**32), "output_length"),
        ((READ, b"", 1.0), "output_length"),
        ((READ, b"", True), "output_length"),
        ((READ, b"", 0, None), "options: must be a map"),
        ((READ, b"", 0, ()), "options: must be a map"),
        ((READ, b"", 0, {"timeout": 1}), "options: 'timeout'"),
        ((READ, b"", 0, {7: 1}), "options: 7"),
        ((READ, b"", 0, {"timeout_ms": -1}), "timeout_ms"),
        ((READ, b"", 0, {"timeout_ms": 2**32}), "timeout_ms"),
        ((READ, b"", 0, {"timeout_ms": None}), "timeout_ms"),
        ((READ, b"", 0, {"grant": "1"}), "grant"),
        ((READ, b"", 0, {"grant": None}), "grant"),
        ((READ, b"", 0, {"from": 1}), "from"),
        ((READ, b"", 0, {"from": (1,)}), "from"),
        ((READ, b"", 0, {"from": (1, -1)}), "from"),
        ((READ, b"", 0, {"from": (1, None)}), "from"),
    ],
)
def test_error_row_wrong_shape_or_type(params: Any, hint: str) -> None:
    """Error table: unknown code or option; params of the wrong shape or type: STATUS_INVALID_PARAMETER."""
    with pytest.raises(RequestError) as caught:
        parse_request(SESSION, Request(3, IoctlClass.INTERNAL.value, params))
    assert caught.value.status == Status.STATUS_INVALID_PARAMETER
    assert hint in caught.value.detail


@given(st.binary())
def test_text_is_taken_for_its_bytes_where_that_is_certain(buffer: bytes) -> None:
    """Characters below 0x80 are one byte each in every encoding; others only for who has said that it has no bin."""
    try:
        text: str | Raw = buffer.decode()
    except UnicodeDecodeError:
        text = Raw(buffer)
    raw = SessionState(8, context=1)
    raw.is_raw = True
    for session in (SESSION, raw):
        message = Request(3, IoctlClass.INTERNAL.value, (READ, text, 0))
        if session is raw or max(buffer, default=0) < 0x80:
            taken = parse_request(session, message).input
            assert (type(taken), taken) == (bytes, buffer)
        else:
            with pytest.raises(RequestError, match="must be bin, got str with characters beyond 0x7f"):
                parse_request(session, message)


def test_who_has_no_bin_may_still_send_one_and_nothing_else() -> None:
    raw = SessionState(8, context=1)
    raw.is_raw = True
    assert parse_request(raw, Request(3, IoctlClass.INTERNAL.value, (READ, b"\x01", 4))).input == b"\x01"
    wrongs: tuple[Any, ...] = ((1,), None, 5, {})
    for wrong in wrongs:
        with pytest.raises(RequestError, match="input: must be bin, got"):
            parse_request(raw, Request(3, IoctlClass.INTERNAL.value, (READ, wrong, 4)))


@pytest.mark.parametrize("row", CONTROL_CODES, ids=lambda row: row.name)
def test_a_code_exists_in_its_classes_only(row: Any) -> None:
    for io_class in IoctlClass:
        if io_class in row.classes:
            assert parse(int(row.code), b"", 0, io_class=io_class).row is row
        else:
            with pytest.raises(RequestError) as caught:
                parse(int(row.code), b"", 0, io_class=io_class)
            assert caught.value.status == Status.STATUS_INVALID_PARAMETER


def test_connect_and_disconnect_are_not_in_the_device_class() -> None:
    """13 and 14 exist in the internal class only."""
    for code in (0x160034, 0x160038):
        with pytest.raises(RequestError, match="no control code of device_control"):
            parse(code, bytes(32), 32, io_class=IoctlClass.DEVICE)


def test_an_error_shows_no_more_than_a_little_of_what_was_sent() -> None:
    for options in ({"x" * 1000: 1}, {"grant": "x" * 1000}, {"from": ("x" * 1000,)}):
        with pytest.raises(RequestError) as caught:
            parse(READ, b"", 0, options)
        assert len(caught.value.detail) < 150


def test_a_session_shows_who_it_is() -> None:
    assert repr(SESSION) == "<session 7 'lptctl' from 10.0.0.1:40000>"
