"""What is asked for in the wrong state: by a non-owner, twice, or too late."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.client import (
    ALLOCATE,
    CONNECT_INTERRUPT,
    DISCONNECT_INTERRUPT,
    FREE,
    FREE_FROM_INTERRUPT_LEVEL,
    FREE_PORT,
    check_closing,
    routine,
)
from tests.e2e.conftest import Connect, Witness

ROUTINE = routine(1)


# Allocating and freeing, connecting and disconnecting


def test_free_by_a_non_owner(connect: Connect, witness: Witness) -> None:
    """INVALID_DEVICE_STATE; nothing changes."""
    owner, other = connect(), connect()
    assert other.refused(FREE) == "STATUS_INVALID_DEVICE_STATE"
    grant = owner.allocate()
    assert other.refused(FREE) == "STATUS_INVALID_DEVICE_STATE"
    assert other.refused(FREE_PORT, other.handle) == "STATUS_INVALID_DEVICE_STATE"
    assert other.refused(FREE_FROM_INTERRUPT_LEVEL, other.handle) == "STATUS_INVALID_DEVICE_STATE"
    assert owner.call("status")["owner"]["grant"] == grant
    assert owner.heard() == []
    owner.ioctl(FREE)
    assert owner.refused(FREE) == "STATUS_INVALID_DEVICE_STATE"
    witness.client.heard()


def test_allocate_by_the_owner_or_by_one_who_waits(connect: Connect) -> None:
    """INVALID_DEVICE_STATE; the place in the queue stays."""
    owner, waiter = connect(), connect()
    owner.allocate()
    assert owner.refused(ALLOCATE) == "STATUS_INVALID_DEVICE_STATE"
    waiting = waiter.control(ALLOCATE)
    assert waiter.notification("queued") == [waiting, 1]
    assert waiter.refused(ALLOCATE) == "STATUS_INVALID_DEVICE_STATE"
    owner.ioctl(FREE)
    assert waiter.output(waiting) == b""


def test_double_connect(connect: Connect, witness: Witness) -> None:
    """INVALID_PARAMETER for the same structure in the same session; all its 32 bytes count, and no more."""
    client, other = connect(), connect()
    client.ioctl(CONNECT_INTERRUPT, ROUTINE, 32)
    assert client.refused(CONNECT_INTERRUPT, ROUTINE + b"more", 32) == "STATUS_INVALID_PARAMETER"
    other.ioctl(CONNECT_INTERRUPT, ROUTINE, 32)
    for different in (routine(2), routine(1, context=1), routine(1, deferred=1), routine(1, deferred_context=1)):
        client.ioctl(CONNECT_INTERRUPT, different, 32)
        client.ioctl(DISCONNECT_INTERRUPT, different)


def test_double_disconnect(connect: Connect, witness: Witness) -> None:
    """INVALID_PARAMETER if this session has not connected it."""
    client, other = connect(), connect()
    assert client.refused(DISCONNECT_INTERRUPT, ROUTINE) == "STATUS_INVALID_PARAMETER"
    other.ioctl(CONNECT_INTERRUPT, ROUTINE, 32)
    assert client.refused(DISCONNECT_INTERRUPT, ROUTINE) == "STATUS_INVALID_PARAMETER"
    client.ioctl(CONNECT_INTERRUPT, ROUTINE, 32)
    client.ioctl(DISCONNECT_INTERRUPT, ROUTINE)
    assert client.refused(DISCONNECT_INTERRUPT, ROUTINE) == "STATUS_INVALID_PARAMETER"


@pytest.mark.parametrize("structure", [routine(0, 0), routine(0, 0, 5, 6), routine(1 << 63), routine(1, 1 << 63)])
def test_connect_of_no_routine_or_a_reserved_one(connect: Connect, structure: bytes) -> None:
    assert connect().refused(CONNECT_INTERRUPT, structure, 32) == "STATUS_INVALID_PARAMETER"


def test_from_beyond_the_log(connect: Connect) -> None:
    client = connect()
    beyond = [client.welcome["stream"], 2**40]
    assert client.refused(CONNECT_INTERRUPT, ROUTINE, 40, from_=beyond) == "STATUS_INVALID_PARAMETER"
    assert client.call("status")["registered"] == 0


# Conversations that end


def test_row_a_msgid_that_is_still_pending_is_used_again(connect: Connect, witness: Witness) -> None:
    """`closing`; the frames before it are answered, what waited is cancelled."""
    owner, client = connect(), connect()
    owner.allocate()
    waiting = client.control(ALLOCATE)
    client.notification("queued")
    client.send([0, 777, "ping", []], [0, waiting, "ping", []], [0, 778, "ping", []])
    assert "pending" in check_closing(client, answered=[777, waiting])
    assert owner.call("status")["waiting"] == 0
    owner.ioctl(FREE)


@pytest.mark.parametrize("name", ["cancel", "nonsense"])
def test_notifications_that_mean_nothing_are_ignored(connect: Connect, witness: Witness, name: str) -> None:
    """Cancel of an unknown msgid or of the wrong shape; notifications that are not known; responses to nothing."""
    client = connect()
    strange: list[Any] = [[12345], [], [1, 2], ["x"], [None], [-1], [2**64 - 1], [1.5], {}, None]
    for params in strange:
        client.send([2, name, params])
    client.send([1, 5, None, None], [1, 6, [1, 2], {"a": 1}])
    assert client.heard() == []


def test_cancel_of_what_is_answered_already_changes_nothing(connect: Connect) -> None:
    client = connect()
    msgid = client.control(ALLOCATE)
    client.cancel(msgid)
    assert client.output(msgid) == b""
    client.cancel(msgid)
    assert client.call("status")["owner"]["session"] == client.welcome["session"]
