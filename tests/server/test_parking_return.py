"""Coming back: while the old connection is still there, while requests run, within the limits."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.server.daemon import Daemon
from lpt_service.server.identity import Identity, Origin
from tests.server.fakes import INTERNAL, ROOT, Peer, closing, is_open, request, simulated, start_daemon, status
from tests.server.resuming import GRACE_S, Client, back, come, graceful, owner_of, parked

SAFE = 0x5A
USER = Origin("uid 7 pid 7", "user 7", Identity(uid=7))
HERE, THERE = Origin("10.0.0.1:1", "10.0.0.1"), Origin("10.0.0.2:1", "10.0.0.2")


@pytest.fixture
async def daemon(nursery: trio.Nursery) -> Daemon:
    """One whose sessions outlive their connections: the test has to ask for `autojump_clock` by itself."""
    return await graceful(nursery, port={"safe_data": SAFE})


def write(client: Client, value: int) -> int:
    return client.control(Ioctl.WRITE_PORT_UCHAR, bytes((0, value)), 8)


# The old connection is still there


async def test_the_old_connection_is_closed_and_the_new_one_has_everything(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner, waiter = await come(daemon), await come(daemon)
    grant = await owner.own()
    waits = await waiter.wait_for_port()
    again, waiting = await back(daemon, owner), await back(daemon, waiter)
    assert again.resumed["grant"] == grant
    assert waiting.resumed["pending"] == [waits]
    for old in (owner, waiter):
        messages = await old.messages()
        assert closing(messages).startswith("resumed on another connection")
        assert [message for message in messages if message[0] == 1] == []
        assert not is_open(old)
    assert (status(daemon)["sessions"], parked(daemon)) == (2, 0)
    again.free()
    await waiting.result(waits)


async def test_of_two_that_come_back_the_first_has_it(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner = await come(daemon)
    await owner.own()
    again, late = await back(daemon, owner), await back(daemon, owner)
    assert (bool(again.resumed), late.resumed) == (True, None)
    assert is_open(again)
    assert owner_of(daemon) == again.number


async def test_what_the_old_connection_has_sent_and_was_not_read_is_dropped(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner = await come(daemon)
    await owner.own()
    again = Peer(daemon)
    await wait_all_tasks_blocked()
    again.stream.feed(request(1, "hello", {"protocol": 1, "resume": owner.welcome["resume"]}))
    await again.messages()
    owner.stream.feed(request(99, INTERNAL, int(Ioctl.PARALLEL_PORT_FREE), b"", 0))
    await wait_all_tasks_blocked()
    assert owner_of(daemon) == owner.number


async def test_a_connection_that_takes_nothing_is_given_up_soon(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner = await come(daemon)
    await owner.own()
    owner.stream.room = 3
    owner.send("ping")
    await wait_all_tasks_blocked()
    assert (await back(daemon, owner)).resumed
    await trio.sleep(2.1)
    assert not is_open(owner)
    assert len(daemon.sessions) == 1


# Requests that run, and time-outs


async def test_a_pulse_goes_on_and_is_answered_on_the_new_connection(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner = await come(daemon)
    await owner.own()
    pulse = owner.pulse(0x11, 0x22, 4_000_000)
    await owner.messages()
    await owner.lose()
    again = await back(daemon, owner)
    assert again.resumed["pending"] == [pulse]
    assert simulated(daemon).read_data() == 0x11
    await trio.sleep(4.1)
    assert (await again.result(pulse))[0] == 16
    assert simulated(daemon).read_data() == 0x22


async def test_a_pulse_that_ends_meanwhile_ends_properly_and_so_does_what_waited_behind_it(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner = await come(daemon)
    await owner.own()
    owner.pulse(0x11, 0x22, 4_000_000)
    write(owner, 0x44)
    await owner.messages()
    await owner.lose()
    await trio.sleep(3.9)
    assert simulated(daemon).read_data() == 0x11
    await trio.sleep(0.2)
    assert simulated(daemon).read_data() == 0x44
    assert (await back(daemon, owner)).resumed["pending"] == []


async def test_the_time_out_of_a_request_runs_on(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, early, late = [await come(daemon) for _ in range(3)]
    await owner.own()
    soon = await early.wait_for_port(timeout_ms=3000)
    await late.wait_for_port(timeout_ms=1000)
    await early.lose()
    await late.lose()
    await trio.sleep(2)
    early, late = await back(daemon, early), await back(daemon, late)
    assert early.resumed["pending"] == [soon]
    assert (late.resumed["pending"], late.resumed["position"], late.resumed["grant"]) == ([], None, None)
    await trio.sleep(0.9)
    assert await early.messages() == []
    await trio.sleep(0.2)
    assert await early.status_of(soon) == "STATUS_IO_TIMEOUT"


async def test_a_pending_request_can_be_cancelled_on_the_new_connection(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner, waiter = await come(daemon), await come(daemon)
    await owner.own()
    waits = await waiter.wait_for_port()
    await waiter.lose()
    again = await back(daemon, waiter)
    again.stream.feed(msgpack.packb([2, "cancel", [waits]]))
    assert await again.status_of(waits) == "STATUS_CANCELLED"


# Limits, settings


async def test_the_limit_of_sessions_counts_them(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await graceful(nursery, limits={"max_sessions": 2})
    owner, other = await come(daemon), await come(daemon)
    await owner.own()
    await owner.lose()
    fresh = Client(daemon)
    assert await fresh.status_of(fresh.send("hello", {"protocol": 1})) == "STATUS_INSUFFICIENT_RESOURCES"
    again = await back(daemon, owner)
    assert again.resumed, "who comes back has its place"
    assert is_open(other)


async def test_the_limit_of_an_identity_counts_them(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await graceful(nursery, limits={"max_sessions_per_identity": 1})
    owner = await come(daemon, USER)
    await owner.own()
    await owner.lose()
    fresh = Client(daemon, origin=USER)
    assert await fresh.status_of(fresh.send("hello", {"protocol": 1})) == "STATUS_INSUFFICIENT_RESOURCES"
    await come(daemon, HERE)


async def test_one_address_cannot_fill_the_daemon_with_them(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """They count as connections of their address, but who comes back is let in."""
    daemon = await graceful(nursery, limits={"max_connections_per_address": 3, "max_sessions": 8})
    kept = []
    for isr in range(10):
        client = Client(daemon, origin=HERE)
        msgid = client.send("hello", {"protocol": 1})
        error, welcome = await client.answer(msgid)
        if error is None:
            client.welcome = welcome
            await client.result(client.connect_interrupt(isr + 1))
            kept.append(client)
        else:
            assert error[1] == "STATUS_INSUFFICIENT_RESOURCES"
            assert "10.0.0.1" in error[2]
        await client.lose()
    assert len(kept) == parked(daemon) == 3
    await come(daemon, THERE)
    again = [await back(daemon, client, HERE) for client in kept]
    assert all(client.resumed for client in again)
    assert parked(daemon) == 0


async def test_who_comes_back_from_another_address_counts_there(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await graceful(nursery, limits={"max_connections_per_address": 1})
    client = await come(daemon, HERE)
    await client.result(client.connect_interrupt())
    await client.lose()
    moved = await back(daemon, client, THERE)
    await moved.lose()
    await come(daemon, HERE)
    fresh = Client(daemon, origin=THERE)
    assert await fresh.status_of(fresh.send("hello", {"protocol": 1})) == "STATUS_INSUFFICIENT_RESOURCES"


@pytest.mark.parametrize("owns", [True, False])
async def test_a_drain_goes_on_as_long_as_its_session(
    nursery: trio.Nursery, autojump_clock: MockClock, owns: bool
) -> None:
    """It is held as anything else is, on every port, also if it is all that the session holds."""
    keys = {"enable_connect_interrupt": True, "grace_s": GRACE_S}
    daemon = await start_daemon(nursery, port=[{**keys, "name": "LPT1"}, {"name": "B"}])
    admin, client, other = (
        await come(daemon, ROOT, port="LPT1"),
        await come(daemon, port="LPT1"),
        await come(daemon, port="B"),
    )
    if owns:
        await admin.own()
    await admin.result(admin.send("drain", {"on": True}))
    waiting, elsewhere = await client.wait_for_port(), await other.wait_for_port()
    await admin.lose()
    assert parked(daemon) == 1
    assert [status(daemon, name)["draining"] for name in ("LPT1", "B")] == [True, True]
    again = await back(daemon, admin, ROOT, port="LPT1")
    assert again.resumed["grant"] is not None or not owns
    assert [status(daemon, name)["draining"] for name in ("LPT1", "B")] == [True, True]
    if owns:
        await again.result(again.free())
    await again.result(again.send("drain", {"on": False}))
    await client.result(waiting)
    await other.result(elsewhere)


@pytest.mark.parametrize("how", ["time", "kick", "bye"])
async def test_a_drain_ends_with_its_session_on_every_port(
    nursery: trio.Nursery, autojump_clock: MockClock, how: str
) -> None:
    keys = {"enable_connect_interrupt": True, "grace_s": GRACE_S}
    daemon = await start_daemon(nursery, port=[{**keys, "name": "LPT1"}, {"name": "B"}])
    admin, client = await come(daemon, ROOT, port="LPT1"), await come(daemon, port="B")
    await admin.result(admin.send("drain", {"on": True}))
    waiting = await client.wait_for_port()
    if how == "bye":
        admin.stream.feed(msgpack.packb([2, "bye", []]))
    await admin.lose()
    if how == "time":
        await trio.sleep(GRACE_S - 1)
        assert status(daemon, "B")["draining"]
        await trio.sleep(2)
    elif how == "kick":
        second = await come(daemon, ROOT, port="LPT1")
        await second.result(second.send("kick", {"session": admin.number}))
    await client.result(waiting)
    assert [status(daemon, name)["draining"] for name in ("LPT1", "B")] == [False, False]
    assert parked(daemon) == 0


async def test_who_comes_back_as_no_administrator_ends_its_drain(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await graceful(nursery, role=[{"who": ["anyone"], "role": "admin"}])
    admin, client = await come(daemon), await come(daemon, ROOT)
    await admin.result(admin.send("drain", {"on": True}))
    await admin.result(admin.connect_interrupt())
    waiting = await client.wait_for_port()
    await admin.lose()
    await _observe_from_now_on(daemon)
    assert status(daemon)["draining"]
    again = await back(daemon, admin)
    assert again.resumed is not None
    assert not status(daemon)["draining"]
    await client.result(waiting)


async def test_a_drain_goes_on_where_the_connection_is_exchanged(daemon: Daemon, autojump_clock: MockClock) -> None:
    admin = await come(daemon, ROOT)
    await admin.own()
    await admin.result(admin.send("drain", {"on": True}))
    again = await back(daemon, admin, ROOT)
    await wait_all_tasks_blocked()
    assert status(daemon)["draining"]
    again.stream.feed(msgpack.packb([2, "bye", []]))
    again.stream.end()
    await wait_all_tasks_blocked()
    assert not status(daemon)["draining"]


async def test_those_parked_run_out_their_time_after_a_reload_without_grace(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await graceful(nursery)
    first, second = await come(daemon), await come(daemon)
    await first.own()
    await second.result(second.connect_interrupt())
    await first.lose()
    await second.lose()
    daemon._reread = lambda: daemon._config.model_copy(
        update={"port": tuple(port.model_copy(update={"grace_s": 0.0}) for port in daemon._config.port)}
    )
    await daemon.reload()
    again = await back(daemon, first)
    assert again.resumed["grant"]
    assert "resume" not in again.welcome
    assert (await back(daemon, first)).resumed is None, "the secret is used up all the same"
    await again.lose()
    assert owner_of(daemon) is None, "no grace any more"
    await trio.sleep(GRACE_S - 0.5)
    assert status(daemon)["registered"] == 1
    await trio.sleep(1)
    assert (status(daemon)["registered"], parked(daemon)) == (0, 0)


async def _observe_from_now_on(daemon: Daemon) -> None:
    config = daemon._config
    role: Any = config.role[0].model_copy(update={"role": "observe"})
    daemon._reread = lambda: config.model_copy(update={"role": (role,)})
    await daemon.reload()


@pytest.mark.parametrize("is_lost", [False, True], ids=["on another connection", "after a break"])
@pytest.mark.parametrize("holds", ["the port", "a place in the queue", "a deferred check"])
async def test_what_the_new_role_does_not_allow_is_released(
    nursery: trio.Nursery, autojump_clock: MockClock, holds: str, is_lost: bool
) -> None:
    daemon = await graceful(nursery, role=[{"who": ["anyone"], "role": "use"}])
    other, mine, next_one = await come(daemon), await come(daemon), await come(daemon)
    if holds == "the port":
        await mine.own()
        await next_one.wait_for_port()
    elif holds == "a place in the queue":
        await other.own()
        await mine.wait_for_port()
    else:
        await mine.result(mine.connect_interrupt(0, deferred=5))
    if is_lost:
        await mine.lose()
    await _observe_from_now_on(daemon)
    again = await back(daemon, mine)
    await wait_all_tasks_blocked()
    assert again.resumed is None
    assert again.number != mine.number
    assert owner_of(daemon) == {"the port": next_one.number, "a place in the queue": other.number}.get(holds)
    assert (status(daemon)["waiting"], status(daemon)["registered"], parked(daemon)) == (0, 0, 0)


async def test_what_the_new_role_allows_is_kept(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await graceful(nursery, role=[{"who": ["anyone"], "role": "use"}])
    listener = await come(daemon)
    await listener.result(listener.connect_interrupt())
    await listener.lose()
    await _observe_from_now_on(daemon)
    again = await back(daemon, listener)
    assert len(again.resumed["registrations"]) == 1
    assert await again.status_of(again.allocate()) == "STATUS_ACCESS_DENIED"


async def test_an_owner_that_is_back_is_told_again_how_many_wait(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, waiter = await come(daemon), await come(daemon)
    await owner.own()
    await waiter.wait_for_port()
    await trio.sleep(0.5)
    assert [2, "waiters", [1]] in await owner.messages()
    assert [2, "waiters", [1]] in (await back(daemon, owner)).heard
