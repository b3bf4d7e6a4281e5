"""How a conversation ends: a violation, a failure, a bug; in memory, on a virtual clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.core.function_driver import FunctionDriver
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.server import session as module
from lpt_service.server.daemon import Daemon
from tests.server.fakes import closing, enter, is_open, request, routine, simulated, status

# Violations


VIOLATIONS = {
    "not MessagePack": b"\xc1",
    "not a frame: no array": b"\x01",
    "not a frame: five items": b"\x95\x00\x01\xa4ping\x90\x90",
    "not a frame: kind": b"\x94\x03\x01\xa4ping\x90",
    "not a frame: msgid": b"\x94\x00\xff\xa4ping\x90",
    "extension type": b"\xd4\x01\x00",
    "string too long": b"\x94\x00\x01\xda\x04\x01",
    "array too large": b"\x94\x00\x01\xa4ping\xdc\x00\x41",
    "nested too deeply": b"\x91" * 20,
    "frame too large": b"\x94\x00\x01\xa4ping\x91\xc6\x00\x01\x00\x01",
}


@pytest.mark.parametrize("bad", VIOLATIONS.values(), ids=VIOLATIONS)
async def test_error_row_not_a_frame_or_over_a_limit(daemon: Daemon, autojump_clock: MockClock, bad: bytes) -> None:
    """The frames before it are answered, pending ones cancelled, one `closing` is sent, the connection closed."""
    owner, offender = await enter(daemon), await enter(daemon)
    owner.allocate()
    await wait_all_tasks_blocked()
    offender.stream.feed(
        request(1, "internal_device_control", int(Ioctl.PARALLEL_PORT_ALLOCATE), b"", 0)
        + request(2, "ping")
        + request(3, "internal_device_control", int(Ioctl.PARALLEL_CONNECT_INTERRUPT), routine(1), 32)
        + bad
        + request(4, "ping")
    )
    messages = await offender.messages()
    answers = {message[1]: message[2] for message in messages if message[0] == 1}
    assert set(answers) == {1, 2, 3}
    assert answers[1][1] == "STATUS_CANCELLED"
    assert answers[2] is None
    assert answers[3] is None
    assert closing(messages)
    assert offender.stream.is_finished
    assert offender.stream.is_closed
    after = status(daemon)
    assert (after["waiting"], after["registered"], after["sessions"]) == (0, 0, 1)
    assert await owner.result(owner.send("ping"))


async def test_a_violation_still_answers_a_disconnect_whose_answer_waits_behind_the_log(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    peer = await enter(daemon, room=200)
    await peer.result(peer.connect_interrupt())
    for _ in range(20):
        simulated(daemon).raise_interrupt()
        await wait_all_tasks_blocked()
    fence = peer.disconnect_interrupt()
    peer.stream.feed(b"\xc1")
    messages: list[Any] = []
    while is_open(peer):
        messages += await peer.messages()
    messages += await peer.messages()
    assert [message[1] for message in messages[-2:]] == [fence, "closing"]
    assert sum(message[2][2] for message in messages if message[1] == "interrupt") == 20


async def test_a_client_that_does_not_read_its_closing_is_closed_all_the_same(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    """What is left is put into its socket, where it finds it."""
    peer = await enter(daemon, room=100)
    for _ in range(50):
        peer.send("ping")
    peer.stream.feed(b"\xc1")
    await trio.sleep(module.CLOSE_TIMEOUT_S + 0.1)
    assert peer.stream.is_closed
    assert peer.stream.is_finished
    assert closing(peer.read()) == "not MessagePack: byte 0xc1"


# Failures


@pytest.mark.parametrize("failure", [ConnectionResetError("reset"), BrokenPipeError(), TimeoutError("timed out")])
async def test_a_connection_that_fails_while_read_releases_what_it_held(
    daemon: Daemon, autojump_clock: MockClock, failure: Exception
) -> None:
    owner, waiter = await enter(daemon), await enter(daemon)
    owner.allocate()
    await wait_all_tasks_blocked()
    waiting = waiter.allocate()
    await wait_all_tasks_blocked()
    owner.stream.break_(failure)
    assert await waiter.result(waiting) == [0, b""]
    assert owner.stream.is_closed
    assert status(daemon)["sessions"] == 1


async def test_a_connection_that_fails_while_written_releases_what_it_held(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    """It fails in the task of another session, whose waiters notice has to be told."""
    owner, waiter = await enter(daemon), await enter(daemon)
    owner.allocate()
    await owner.messages()

    def fail(data: bytes | memoryview) -> int:
        raise BrokenPipeError("gone")

    owner.stream.try_send = fail  # type: ignore[method-assign]
    waiting = waiter.allocate()
    assert await waiter.result(waiting) == [0, b""]
    assert owner.stream.is_closed


async def test_a_connection_that_fails_with_much_to_send_ends(daemon: Daemon, autojump_clock: MockClock) -> None:
    """A turn that has produced more than may wait must not wait for a connection that is lost."""
    peer = await enter(daemon)

    def fail(data: bytes | memoryview) -> int:
        raise BrokenPipeError("gone")

    peer.stream.try_send = fail  # type: ignore[method-assign]
    peer.stream.feed(request(1, "ping") * 20_000)
    await wait_all_tasks_blocked()
    assert not is_open(peer)


async def test_the_end_of_the_stream_releases_what_it_held(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, waiter = await enter(daemon), await enter(daemon)
    owner.allocate()
    await wait_all_tasks_blocked()
    waiting = waiter.allocate()
    owner.stream.feed(b"\x94\x00")  # half a frame
    owner.stream.end()
    assert await waiter.result(waiting) == [0, b""]
    assert await owner.messages() != []
    assert owner.stream.is_closed


async def test_a_session_that_ends_before_its_drain_task_began_leaves_no_error(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    peer = await enter(daemon, room=10)
    peer.send("ping")
    peer.stream.end()
    await wait_all_tasks_blocked()
    assert peer.stream.is_closed


async def test_an_exception_in_a_handler_ends_its_session_and_no_other(
    daemon: Daemon, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, errors_logged: list[str]
) -> None:
    bystander, victim = await enter(daemon), await enter(daemon)
    victim.allocate()
    await wait_all_tasks_blocked()
    waiting = bystander.allocate()
    await wait_all_tasks_blocked()

    def fail(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(FunctionDriver, "control", fail)
        before = victim.send("ping")
        victim.control(Ioctl.PARALLEL_PORT_FREE)
        messages = await victim.messages()
    assert [message[1] for message in messages if message[0] == 1][-1] == before
    assert closing(messages) == "internal error"
    assert victim.stream.is_closed
    assert await bystander.result(waiting) == [0, b""]
    assert await bystander.result(bystander.send("ping"))
    assert errors_logged == [
        f"session {victim.session.number} (anonymous): internal error: this session is closed, the others go on"
    ]
    errors_logged.clear()


@pytest.mark.parametrize("sends_before", [0, 1], ids=["at once", "when the stream has room again"])
async def test_an_exception_while_sending_ends_its_session_and_no_other(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str], sends_before: int
) -> None:
    bystander, victim = await enter(daemon), await enter(daemon)
    sends = [0] * sends_before  # the stream is full

    def fail(data: bytes | memoryview) -> int:
        if sends:
            return sends.pop()
        raise ZeroDivisionError("a bug")

    victim.stream.try_send = fail  # type: ignore[method-assign]
    victim.send("ping")
    await wait_all_tasks_blocked()
    assert victim.stream.is_closed
    assert await bystander.result(bystander.send("ping"))
    assert errors_logged == [f"session {victim.session.number} (anonymous): internal error while sending"]
    errors_logged.clear()


async def test_an_exception_while_closing_ends_its_session_and_no_other(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str]
) -> None:
    bystander, victim = await enter(daemon), await enter(daemon)

    async def fail() -> None:
        raise ZeroDivisionError("a bug")

    victim.stream.finish = fail  # type: ignore[method-assign]
    victim.stream.feed(b"\xc1")
    await wait_all_tasks_blocked()
    assert victim.stream.is_closed
    assert await bystander.result(bystander.send("ping"))
    assert errors_logged == [f"session {victim.session.number} (anonymous): internal error while closing"]
    errors_logged.clear()
