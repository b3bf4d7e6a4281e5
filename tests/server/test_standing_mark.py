"""Who enters the log, by whatever way, learns whether the port is heard: the mark that stands follows the sync."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.port.absent import AbsentPort
from lpt_service.protocol.messages import KIND_EVENT, KIND_MASKED, KIND_STOPPED, KIND_UNHEARD, KIND_UNMASKED
from lpt_service.server.daemon import Daemon
from tests.server.fakes import ROOT, simulated
from tests.server.resuming import GRACE_S, Client, at, back, come, graceful, interrupt
from tests.server.test_session_file import running

RING = 16
PORT = {"interrupt_log_frames": RING, "max_interrupt_rate_hz": 1000}
NOT_HEARD = (KIND_MASKED, KIND_STOPPED)


async def admin(daemon: Daemon, method: str) -> None:
    await trio.sleep(0.1)  # no two marks have the same time
    administrator = await come(daemon, ROOT)
    await administrator.result(administrator.send(method, {}))
    await administrator.lose()


async def heard(daemon: Daemon) -> None:
    await interrupt(daemon)


async def masked(daemon: Daemon) -> None:
    simulated(daemon).raise_interrupt(1001)
    await wait_all_tasks_blocked()


async def paused(daemon: Daemon) -> None:
    await admin(daemon, "pause")


async def paused_while_masked(daemon: Daemon) -> None:
    await masked(daemon)
    await paused(daemon)


async def resumed_while_masked(daemon: Daemon) -> None:
    await paused_while_masked(daemon)
    await admin(daemon, "resume")


async def unmasked_while_paused(daemon: Daemon) -> None:
    await paused_while_masked(daemon)
    await trio.sleep(2)


async def heard_again(daemon: Daemon) -> None:
    await resumed_while_masked(daemon)
    await trio.sleep(2)


async def gate_off(daemon: Daemon) -> None:
    """Who is connected stays so; who is not cannot come."""
    driver = daemon.workers["LPT1"].driver
    driver.reconfigure(replace(driver.settings, enable_connect_interrupt=False))


STATES: dict[str, tuple[Callable[[Daemon], Awaitable[None]], int | None]] = {
    "heard": (heard, None),
    "masked": (masked, KIND_MASKED),
    "paused": (paused, KIND_STOPPED),
    "paused while masked": (paused_while_masked, KIND_STOPPED),
    "resumed while masked": (resumed_while_masked, KIND_MASKED),
    "unmasked while paused": (unmasked_while_paused, KIND_STOPPED),
    "heard again": (heard_again, None),
}


def kinds(messages: list[Any]) -> list[int]:
    return [message[2][5] for message in messages if message[:2] == [2, "interrupt"]]


def synced(messages: list[Any]) -> list[str]:
    return [message[2][0] for message in messages if message[:2] == [2, "interrupt_sync"]]


def stands(messages: list[Any]) -> int | None:
    """What the client takes to be so, from what it was told on this connection: a mark that says "not heard"."""
    latest = next((kind for kind in reversed(kinds(messages)) if kind != KIND_EVENT), None)
    return latest if latest in NOT_HEARD else None


def check_no_mark_twice(messages: list[Any]) -> None:
    marks = [tuple(message[2][1:]) for message in messages if message[:2] == [2, "interrupt"] and message[2][5]]
    assert len(set(marks)) == len(marks)


def next_seq(messages: list[Any], former: int = 0) -> int:
    for message in messages:
        if message[:2] == [2, "interrupt_sync"]:
            former = message[2][1]
        elif message[:2] == [2, "interrupt"]:
            former = message[2][0] + message[2][2]
    return former


async def connected(client: Client, **options: Any) -> list[Any]:
    """Connect, and hear what follows the answer."""
    msgid = client.connect_interrupt(**options)
    answer, *rest = await client.messages()
    assert answer[:3] == [1, msgid, None]
    return rest


# Each is given a daemon, and brings about the state when it is told to; it returns what the client was sent on the
# connection on which it enters, and the reason of that.

Way = Callable[[Daemon, Callable[[], Awaitable[None]]], Awaitable[tuple[list[Any], str]]]


async def fresh(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    """Somebody else listens, too."""
    await connected(await come(daemon))
    await bring_about()
    return await connected(await come(daemon)), "connected"


async def fresh_where_somebody_lingers(
    daemon: Daemon, bring_about: Callable[[], Awaitable[None]]
) -> tuple[list[Any], str]:
    other = await come(daemon)
    await connected(other)
    await bring_about()
    other.stream.feed(b"\x93\x02\xa3bye\x90")
    await other.lose()
    assert daemon.workers["LPT1"].driver.registry.is_lingering
    return await connected(await come(daemon)), "connected"


async def fresh_and_alone(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    """Whoever listened has disconnected."""
    other = await come(daemon)
    await connected(other)
    await bring_about()
    await other.result(other.disconnect_interrupt())
    return await connected(await come(daemon)), "connected"


async def again_in_the_same_session(
    daemon: Daemon, bring_about: Callable[[], Awaitable[None]]
) -> tuple[list[Any], str]:
    client = await come(daemon)
    await connected(client)
    await bring_about()
    await client.result(client.disconnect_interrupt())
    return await connected(client), "connected"


async def from_a_place(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    """Of a session that has gone, where it was when the port was still heard."""
    client = await come(daemon)
    place = next_seq(await connected(client))
    await bring_about()
    await client.lose()
    return await connected(await come(daemon), **at(client.welcome["stream"], place)), "resumed"


async def from_the_end(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    client = await come(daemon)
    first = await connected(client)
    await bring_about()
    place = next_seq(await client.messages(), next_seq(first))
    return await connected(await come(daemon), **at(client.welcome["stream"], place)), "resumed"


async def from_another_log(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    await connected(await come(daemon))
    await bring_about()
    client = await come(daemon)
    return await connected(client, **at(client.welcome["stream"] + 1, 3)), "restarted"


async def goes_on_from_a_place(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    client = await come(daemon)
    place = next_seq(await connected(client))
    await client.lose()
    await bring_about()
    return (await back(daemon, client, **at(client.welcome["stream"], place))).heard, "resumed"


async def goes_on_from_the_end(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    client = await come(daemon)
    first = await connected(client)
    await bring_about()
    place = next_seq(await client.messages(), next_seq(first))
    await client.lose()
    return (await back(daemon, client, **at(client.welcome["stream"], place))).heard, "resumed"


async def goes_on_that_connected_then(
    daemon: Daemon, bring_about: Callable[[], Awaitable[None]]
) -> tuple[list[Any], str]:
    """And has been told nothing yet."""
    await connected(await come(daemon))
    await bring_about()
    client = await come(daemon)
    client.connect_interrupt()
    await wait_all_tasks_blocked()
    await client.lose()
    return (await back(daemon, client)).heard, "resumed"


async def goes_on_that_connected_then_and_says_where(
    daemon: Daemon, bring_about: Callable[[], Awaitable[None]]
) -> tuple[list[Any], str]:
    await connected(await come(daemon))
    await bring_about()
    client = await come(daemon)
    place = next_seq(await connected(client))
    await client.lose()
    return (await back(daemon, client, **at(client.welcome["stream"], place))).heard, "resumed"


async def goes_on_without_a_place(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    client = await come(daemon)
    await connected(client)
    await bring_about()
    await client.lose()
    return (await back(daemon, client)).heard, "resumed"


async def goes_on_in_another_log(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    client = await come(daemon)
    await connected(client)
    await bring_about()
    await client.lose()
    return (await back(daemon, client, **at(client.welcome["stream"] + 1, 0))).heard, "restarted"


async def overrun(daemon: Daemon, bring_about: Callable[[], Awaitable[None]]) -> tuple[list[Any], str]:
    """By so much that no mark of the state itself is kept, where interrupts can still come."""
    client = await come(daemon)
    await connected(client)
    client.stream.room = 0
    await interrupt(daemon, 2 * RING)
    await bring_about()
    if daemon.workers["LPT1"].driver.registry.is_heard:
        await interrupt(daemon, 2 * RING)
    client.stream.room = 1 << 30
    return await client.messages(), "overrun"


WAYS: list[Way] = [
    fresh,
    fresh_where_somebody_lingers,
    fresh_and_alone,
    again_in_the_same_session,
    from_a_place,
    from_the_end,
    from_another_log,
    goes_on_from_a_place,
    goes_on_from_the_end,
    goes_on_that_connected_then,
    goes_on_that_connected_then_and_says_where,
    goes_on_without_a_place,
    goes_on_in_another_log,
    overrun,
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_what_stands_is_told(nursery: trio.Nursery, autojump_clock: MockClock, way: Way, state: str) -> None:
    daemon = await graceful(nursery, port=PORT)
    bring_about, expected = STATES[state]
    messages, reason = await way(daemon, lambda: bring_about(daemon))
    assert reason in synced(messages)
    assert stands(messages) == expected
    if reason == "connected":
        assert kinds(messages) == ([] if expected is None else [expected]), "for it, nothing else is missing"
    check_no_mark_twice(messages)


async def test_the_mark_that_stands_has_its_own_time_and_the_next_number(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await graceful(nursery, port=PORT)
    listener = await come(daemon)
    await connected(listener)
    await masked(daemon)
    told = [message[2] for message in await listener.messages() if message[2][5:] == [KIND_MASKED]]
    await trio.sleep(0.5)
    sync, mark = await connected(await come(daemon))
    assert sync == [2, "interrupt_sync", ["connected", 1001, 0]]
    assert mark == [2, "interrupt", told[0]]
    await trio.sleep(1)
    assert kinds(await listener.messages()) == [KIND_UNMASKED]


async def test_it_is_told_where_syncs_are_not_wanted(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await graceful(nursery, port=PORT)
    await paused(daemon)
    assert kinds(await connected(await come(daemon, notifications=["interrupt"]))) == [KIND_STOPPED]
    assert await connected(await come(daemon, notifications=["interrupt_sync"])) == []


async def test_turning_the_gate_off_silences_nobody(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await graceful(nursery, port=PORT)
    client = await come(daemon)
    await connected(client)
    await gate_off(daemon)
    await client.lose()
    again = await back(daemon, client)
    await interrupt(daemon)
    assert kinds(again.heard + await again.messages()) == [KIND_EVENT]


@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_port_that_was_away_is_back(
    nursery: trio.Nursery, autojump_clock: MockClock, errors_logged: list[str], is_paused: bool
) -> None:
    daemon = await graceful(nursery, port=PORT)
    former = await come(daemon)
    await connected(former)
    simulated(daemon).unplug()
    await wait_all_tasks_blocked()
    if is_paused:
        await paused(daemon)
    await trio.sleep(3)
    assert stands(await connected(await come(daemon))) == (KIND_STOPPED if is_paused else None)
    place = next_seq(await former.messages())
    again = await connected(former, **at(former.welcome["stream"], place))
    assert stands(again) == (KIND_STOPPED if is_paused else None)
    assert KIND_STOPPED in kinds(again)
    errors_logged.clear()


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("is_told_from", [True, False])
async def test_a_session_of_a_former_daemon_goes_on(
    tmp_path: Path, autojump_clock: MockClock, errors_logged: list[str], is_told_from: bool, is_there: bool
) -> None:
    """Also while the device is not there."""
    async with running(tmp_path) as daemon:
        client = await come(daemon)
        place = at(client.welcome["stream"], next_seq(await connected(client)))
    port: dict[str, Any] = {"enable_connect_interrupt": True, "grace_s": GRACE_S}
    keys = {} if is_there else {"port": {**port, "device": str(tmp_path / "parport0")}}
    async with running(tmp_path, **keys) as daemon:
        assert isinstance(daemon.workers["LPT1"].driver.port, AbsentPort) is not is_there
        again = await back(daemon, client, **(place if is_told_from else {}))
        assert again.heard[0] == [2, "interrupt_sync", ["restarted", 0, None]]
        assert kinds(again.heard) == [KIND_UNHEARD if is_there else KIND_STOPPED]
        await again.lose()
        last = await back(daemon, again, **at(again.welcome["stream"], 0))
        assert synced(last.heard) == ["resumed"]
        assert stands(last.heard) == (None if is_there else KIND_STOPPED)
    errors_logged.clear()


async def test_a_restarted_log_that_has_gone_on_past_its_ring(tmp_path: Path, autojump_clock: MockClock) -> None:
    port = {**PORT, "enable_connect_interrupt": True, "grace_s": GRACE_S}
    async with running(tmp_path, port=port) as daemon:
        client = await come(daemon)
        await connected(client)
    async with running(tmp_path, port=port) as daemon:
        await interrupt(daemon, 2 * RING)
        await paused(daemon)
        again = await back(daemon, client)
        assert synced(again.heard) == ["restarted"]
        assert stands(again.heard) == KIND_STOPPED
