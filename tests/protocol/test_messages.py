"""Words of the contract, and errors as they arrive."""

from typing import Any

import pytest

from lpt_service.protocol import messages
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.messages import Notification, Request, Response, error_of
from lpt_service.protocol.status import Status


def test_words_are_those_of_the_contract() -> None:
    assert (messages.HELLO, messages.STATUS, messages.PING, messages.CANCEL) == ("hello", "status", "ping", "cancel")
    names = "interrupt interrupt_sync port_check queued waiters lease revoked disconnected closing"
    assert list(messages.NOTIFICATIONS) == names.split()
    assert (messages.SYNC_CONNECTED, messages.SYNC_RESUMED) == ("connected", "resumed")
    assert (messages.SYNC_OVERRUN, messages.SYNC_RESTARTED) == ("overrun", "restarted")


def test_numbers_are_those_of_the_contract() -> None:
    assert (messages.REQUEST, messages.RESPONSE, messages.NOTIFICATION) == (0, 1, 2)
    assert [
        messages.KIND_EVENT,
        messages.KIND_UNHEARD,
        messages.KIND_MASKED,
        messages.KIND_UNMASKED,
        messages.KIND_STOPPED,
    ] == [0, 1, 2, 3, 4]
    assert messages.PROTOCOL_VERSION == 1
    assert messages.DEFAULT_TCP_PORT == 5378
    assert messages.DEFAULT_UNIX_SOCKET == "/run/lptd/lptd.sock"


def test_messages_have_the_order_of_their_frames() -> None:
    assert Request._fields == ("msgid", "method", "params")
    assert Response._fields == ("msgid", "error", "result")
    assert Notification._fields == ("method", "params")


@pytest.mark.parametrize("container", [tuple, list])
def test_an_error_becomes_its_exception(container: Any) -> None:
    error = error_of(container([0xC0000023, "STATUS_BUFFER_TOO_SMALL", "input is 8 bytes"]))
    assert isinstance(error, RequestError)
    assert error.status == Status.STATUS_BUFFER_TOO_SMALL
    assert error.detail == "input is 8 bytes"


@pytest.mark.parametrize(
    ("received", "status", "text"),
    [
        ((0xC00002B6, "STATUS_DEVICE_REMOVED", "gone"), 0xC00002B6, "0xC00002B6: gone"),
        ((0xC0000022, "STATUS_ACCESS_DENIED", "no", "what", "comes", "later"), 0xC0000022, "STATUS_ACCESS_DENIED: no"),
        ((0xC0000022, "STATUS_ACCESS_DENIED"), 0xC0000022, "STATUS_ACCESS_DENIED"),
        ((0xC0000022,), 0xC0000022, "STATUS_ACCESS_DENIED"),
        ((0xC0000022, "STATUS_ACCESS_DENIED", 7), 0xC0000022, "STATUS_ACCESS_DENIED"),
    ],
)
def test_a_newer_daemon_may_say_more_or_less(received: Any, status: int, text: str) -> None:
    error = error_of(received)
    assert error.status == status
    assert str(error) == text


@pytest.mark.parametrize("received", ["no", (), ("no",), {"status": 1}, 7, True, b"no"], ids=repr)
def test_an_error_of_another_shape_is_still_an_error(received: Any) -> None:
    error = error_of(received)
    assert error.status == Status.STATUS_UNSUCCESSFUL
    assert repr(received) in str(error)
