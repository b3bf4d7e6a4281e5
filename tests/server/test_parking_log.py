"""What a session without a connection is told when it comes back: interrupts, marks, notices."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.protocol.codec import INTERRUPT_FRAME_BYTES
from lpt_service.protocol.messages import KIND_EVENT, KIND_MASKED, KIND_STOPPED, KIND_UNHEARD, KIND_UNMASKED
from lpt_service.server.daemon import Daemon
from tests.server.fakes import ROOT, closing, is_open, simulated, status
from tests.server.resuming import Client, Ear, at, back, come, graceful, interrupt, owner_of, parked

RING = 16  # the smallest


@pytest.fixture
async def daemon(nursery: trio.Nursery) -> Daemon:
    """One whose sessions outlive their connections, with a short log: the test asks for `autojump_clock` by itself."""
    return await graceful(nursery, port={"interrupt_log_frames": RING})


async def listener(daemon: Daemon, *, room: int = 1 << 30, **keys: Any) -> tuple[Client, Ear]:
    """A client that listens, and has heard everything."""
    client = await come(daemon, **keys)
    client.connect_interrupt()
    ear = Ear().hear(await client.messages())
    client.stream.room = room
    return client, ear


def place(client: Client, ear: Ear) -> dict[str, Any]:
    """`from`, for hello."""
    return at(client.welcome["stream"], ear.next_seq)


def generated(daemon: Daemon) -> int:
    return daemon.workers["LPT1"].driver.registry.log.next_seq


# Interrupts


@pytest.mark.parametrize("is_told_from", [True, False])
async def test_interrupts_of_the_break_follow_the_answer(
    daemon: Daemon, autojump_clock: MockClock, is_told_from: bool
) -> None:
    client, ear = await listener(daemon)
    await interrupt(daemon, 3)
    ear.hear(await client.messages())
    await client.lose()
    await interrupt(daemon, 5)
    again = await back(daemon, client, **(place(client, ear) if is_told_from else {}))
    assert again.heard[0][1] == "interrupt_sync"
    ear.hear(again.heard)
    assert ear.syncs[1:] == [["resumed", 3 if is_told_from else 0, 0]]
    assert (ear.received, ear.skipped) == (8, 0)
    await interrupt(daemon)
    assert ear.hear(await again.messages()).received == 9


@pytest.mark.parametrize("is_told_from", [True, False])
async def test_what_was_sent_and_not_read_comes_again(
    daemon: Daemon, autojump_clock: MockClock, is_told_from: bool
) -> None:
    """The kernel may say that it has all reached the other end: it may not have reached the client."""
    client, ear = await listener(daemon)
    client.stream.unsent = 0
    await interrupt(daemon, 6)
    ear.hear(client.read(2 * INTERRUPT_FRAME_BYTES + 5))
    assert ear.received == 2
    again = await back(daemon, client, **(place(client, ear) if is_told_from else {}))
    ear.hear(again.heard)
    assert (ear.received, ear.skipped) == (6, 0)


async def test_what_comes_again_is_bounded_by_what_a_client_has_said_to_have(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    client, ear = await listener(daemon)
    await interrupt(daemon, 6)
    ear.hear(await client.messages())
    again = await back(daemon, client, **place(client, ear))
    assert again.heard == [[2, "interrupt_sync", ["resumed", 6, 0]]]
    last = await back(daemon, again)
    assert last.heard == [[2, "interrupt_sync", ["resumed", 6, 0]]]


@pytest.mark.parametrize("is_told_from", [True, False])
async def test_what_the_ring_has_no_more_is_told_as_lost(
    daemon: Daemon, autojump_clock: MockClock, is_told_from: bool
) -> None:
    client, ear = await listener(daemon)
    await interrupt(daemon, 3)
    ear.hear(await client.messages())
    await client.lose()
    await interrupt(daemon, 2 * RING)
    again = await back(daemon, client, **(place(client, ear) if is_told_from else {}))
    ear.hear(again.heard)
    assert ear.received + ear.skipped == generated(daemon) == 3 + 2 * RING
    assert ear.skipped == RING
    if is_told_from:
        assert ear.told_lost == ear.skipped


async def test_what_the_ring_had_no_more_before_the_break_is_told_as_lost(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    """A slow reader, whose connection breaks before it was told that it is overrun."""
    client, ear = await listener(daemon, room=INTERRUPT_FRAME_BYTES)
    await interrupt(daemon, 3 * RING)
    ear.hear(client.read())
    assert ear.received == 1
    await client.lose()
    again = await back(daemon, client)
    ear.hear(again.heard)
    assert ear.received + ear.skipped == generated(daemon) == 3 * RING
    assert ear.skipped > 0


async def test_losing_the_connection_again_and_again_loses_nothing(daemon: Daemon, autojump_clock: MockClock) -> None:
    client, ear = await listener(daemon)
    for turn in range(6):
        await interrupt(daemon, 2)
        if turn % 2:
            ear.hear(client.read((turn * 37) % 100))
        if turn % 3:
            await client.lose()
            await interrupt(daemon, turn)
        client = await back(daemon, client, **(place(client, ear) if turn in (2, 5) else {}))
        ear.hear(client.heard)
    assert ear.hear(await client.messages()).received == generated(daemon)
    assert ear.skipped == 0


@pytest.mark.parametrize("room", [1, 41, INTERRUPT_FRAME_BYTES + 1, 100])
async def test_no_torn_frame_on_either_connection(daemon: Daemon, autojump_clock: MockClock, room: int) -> None:
    """The old one is in the middle of an interrupt when it is closed."""
    client, ear = await listener(daemon, room=room)
    await interrupt(daemon, 5)
    again = await back(daemon, client)
    torn: list[Any] = []
    for _ in range(200):
        torn += await client.messages()
        if not is_open(client):
            break
    torn += client.read()
    assert closing(torn).startswith("resumed on another connection")
    assert client.is_whole
    ear.hear(torn[:-1]).hear(again.heard)
    assert (ear.received, ear.skipped) == (5, 0)


async def test_a_place_in_a_log_of_another_daemon_is_told_as_a_restart(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    client, _ = await listener(daemon)
    await interrupt(daemon, 2)
    await client.lose()
    again = await back(daemon, client, **at(client.welcome["stream"] + 1, 700))
    assert again.heard[0] == [2, "interrupt_sync", ["restarted", 0, None]]
    assert Ear().hear(again.heard).received == 2


@pytest.mark.parametrize("next_seq", [4, 1 << 63])
async def test_a_place_beyond_the_log_is_its_end(daemon: Daemon, autojump_clock: MockClock, next_seq: int) -> None:
    client, _ = await listener(daemon)
    await interrupt(daemon, 3)
    await client.lose()
    again = await back(daemon, client, **at(client.welcome["stream"], next_seq))
    assert again.heard == [[2, "interrupt_sync", ["resumed", 3, 0]]]


async def test_the_source_stays_connected_while_its_only_listener_is_away(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    client, ear = await listener(daemon)
    await client.lose()
    await interrupt(daemon)
    assert daemon.workers["LPT1"].driver.registry.strays == 0
    ear.hear((await back(daemon, client)).heard)
    assert ear.kinds == [KIND_EVENT], "no mark: it was heard all the time"


async def test_marks_are_not_missed(daemon: Daemon, autojump_clock: MockClock) -> None:
    client, ear = await listener(daemon)
    admin = await come(daemon, ROOT)
    await interrupt(daemon)
    ear.hear(await client.messages())
    await client.lose()
    ear.kinds.clear()
    for method in ("pause", "resume"):
        await admin.result(admin.send(method, {}))
    simulated(daemon).raise_interrupt(1_000_000)  # a storm
    await trio.sleep(3)
    again = await back(daemon, client, **place(client, ear))
    ear.hear(again.heard)
    marks = [kind for kind in ear.kinds if kind]
    assert marks == [KIND_STOPPED, KIND_UNHEARD, KIND_MASKED, KIND_UNMASKED]
    assert ear.received == generated(daemon) == 1_000_001


async def test_disconnecting_on_the_new_connection_has_its_fence(daemon: Daemon, autojump_clock: MockClock) -> None:
    client, ear = await listener(daemon)
    await interrupt(daemon)
    await client.lose()
    again = await back(daemon, client)
    ear.hear(again.heard)
    await interrupt(daemon, 2)
    fence = again.disconnect_interrupt()
    await wait_all_tasks_blocked()
    await interrupt(daemon)
    messages = await again.messages()
    assert messages[-1][:3] == [1, fence, None]
    assert ear.hear(messages).received == 3


async def test_disconnected_and_connected_again_behind_a_pulse_while_away_it_hears(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    """Requests that wait behind a job are done without a connection, too: the log is left, and entered again."""
    client, _ = await listener(daemon)
    await client.own()
    await client.messages()
    client.pulse(1, 2, 1_000_000)
    client.disconnect_interrupt()
    client.connect_interrupt()
    await client.lose()
    await trio.sleep(2)
    again = await back(daemon, client)
    assert len(again.resumed["registrations"]) == 1
    await interrupt(daemon, 2)
    ear = Ear().hear(again.heard + await again.messages())
    assert ear.received == 2


# Which notifications are wanted


async def test_only_what_is_wanted_comes(daemon: Daemon, autojump_clock: MockClock) -> None:
    client, _ = await listener(daemon)
    await client.own()
    admin = await come(daemon, ROOT)
    await client.lose()
    await admin.result(admin.send("revoke", {"reason": "x"}))
    await interrupt(daemon)
    again = await back(daemon, client, notifications=["queued"])
    assert again.resumed
    assert again.heard == []
    await interrupt(daemon)
    assert await again.messages() == []


# Notices


@pytest.mark.parametrize("how", ["revoke", "pause", "lease"])
async def test_who_loses_the_port_meanwhile_is_told(nursery: trio.Nursery, autojump_clock: MockClock, how: str) -> None:
    port = {"idle_hold_s": 4, "hold_warning_s": 1} if how == "lease" else {}
    daemon = await graceful(nursery, port=port)
    owner, waiter, admin = await come(daemon), await come(daemon), await come(daemon, ROOT)
    await owner.own()
    waits = await waiter.wait_for_port()
    await owner.lose()
    if how == "lease":
        await trio.sleep(4.1)
    else:
        await admin.result(admin.send(how, {"reason": "lunch"}))
    again = await back(daemon, owner)
    assert again.resumed["grant"] is None
    (told,) = [message[2][0] for message in again.heard if message[1] == "revoked"]
    assert told == {"revoke": "administrator: lunch", "pause": "port paused: lunch"}.get(how, "lease: idle for 4 s")
    if how == "pause":
        assert owner_of(daemon) is None
        await admin.result(admin.send("resume", {}))
    assert (await waiter.result(waits))[0] == 8


async def test_who_lost_the_port_and_has_it_again_is_not_told_that_it_lost_it(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner, admin = await come(daemon), await come(daemon, ROOT)
    first = await owner.own()
    await owner.lose()
    await admin.result(admin.send("revoke", {}))
    again = await back(daemon, owner)
    assert [message[1] for message in again.heard] == ["revoked"]
    assert await again.own() > first


async def test_a_deferred_check_that_fell_due_meanwhile_comes(daemon: Daemon, autojump_clock: MockClock) -> None:
    client, other = await come(daemon), await come(daemon)
    await client.result(client.connect_interrupt(isr=0, deferred=77))
    await client.lose()
    await other.own()
    await other.result(other.free())
    again = await back(daemon, client)
    assert again.heard == [[2, "port_check", [77, 0]]]


async def test_a_deferred_check_that_is_stale_does_not_come(daemon: Daemon, autojump_clock: MockClock) -> None:
    client, other = await come(daemon), await come(daemon)
    await client.result(client.connect_interrupt(isr=0, deferred=77))
    await client.lose()
    await other.own()
    await other.result(other.free())
    await other.own()
    assert (await back(daemon, client)).heard == []


async def test_an_owner_is_told_who_has_come_meanwhile(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, *others = [await come(daemon) for _ in range(3)]
    await owner.own()
    await owner.lose()
    for other in others:
        await other.wait_for_port()
    await trio.sleep(0.2)
    assert [2, "waiters", [2]] in (await back(daemon, owner)).heard


# The port goes away


async def test_the_port_is_removed_meanwhile(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str]
) -> None:
    owner, ear = await listener(daemon)
    await owner.own()
    waiter = await come(daemon)
    await waiter.wait_for_port()
    await interrupt(daemon)
    await owner.lose()
    await waiter.lose()
    simulated(daemon).unplug()
    await wait_all_tasks_blocked()
    again, other = await back(daemon, owner), await back(daemon, waiter)
    assert (again.resumed["grant"], again.resumed["registrations"]) == (None, [])
    assert (other.resumed["pending"], other.resumed["position"]) == ([], None)
    assert [message[2] for message in again.heard if message[1] == "revoked"] == [
        ["port removed: the simulated port was unplugged"]
    ]
    ear.hear(again.heard)
    assert ear.kinds[-1] == KIND_STOPPED
    assert ear.received == 1
    errors_logged.clear()


@pytest.mark.parametrize("is_told_from", [True, False])
async def test_the_port_is_removed_and_comes_again_and_others_have_filled_the_log(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str], is_told_from: bool
) -> None:
    """The part of the log that it may hear is over, and no longer kept."""
    client, ear = await listener(daemon)
    await interrupt(daemon)
    ear.hear(await client.messages())
    await client.lose()
    simulated(daemon).unplug()
    await trio.sleep(3)
    other, _ = await listener(daemon)
    await interrupt(daemon, 2 * RING)
    before = len(daemon.sessions)
    again = await back(daemon, client, **(place(client, ear) if is_told_from else {}))
    ear.hear(again.heard)
    assert (ear.received, ear.next_seq, len(daemon.sessions)) == (1, 1, before + 1)
    msgid = again.connect_interrupt()
    await wait_all_tasks_blocked()
    await interrupt(daemon)
    messages = await again.messages()
    assert messages[0][:3] == [1, msgid, None]
    assert [message[1] for message in messages[1:]] == ["interrupt_sync", "interrupt"]
    assert is_open(other)
    errors_logged.clear()


async def test_grace_runs_out_while_the_port_is_away(
    daemon: Daemon, autojump_clock: MockClock, errors_logged: list[str]
) -> None:
    client, _ = await listener(daemon)
    await client.lose()
    simulated(daemon).unplug(silently=True)
    await trio.sleep(11)
    assert parked(daemon) == len(daemon.tickets) == 0
    errors_logged.clear()


# What is counted


async def test_the_count_of_lost_interrupts_never_falls(daemon: Daemon, autojump_clock: MockClock) -> None:
    client, _ = await listener(daemon, room=INTERRUPT_FRAME_BYTES)
    await interrupt(daemon, 3 * RING)
    client.stream.room = 1 << 30
    await client.messages()
    lost = status(daemon)["counters"]["lost"]
    assert lost > 0
    await client.lose()
    assert status(daemon)["counters"]["lost"] == lost
    again = await back(daemon, client)
    assert status(daemon)["counters"]["lost"] == lost
    await again.result(again.disconnect_interrupt())
    await again.lose()
    assert status(daemon)["counters"]["lost"] == lost
