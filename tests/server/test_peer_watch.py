"""Peers that cannot be reached, and peers that can and do not read: the first are gone, the second are not."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.config import LimitsConfig
from lpt_service.server.daemon import Daemon
from lpt_service.server.peer_watch import LOOK_INTERVAL_MAX_S
from tests.server.fakes import Peer, closing, enter, is_open, request, simulated, start_daemon, status

DEAD_PEER_S = LimitsConfig().dead_peer_s
UNREAD_REPLY_S = LimitsConfig().unread_reply_s
LATE = 1.21  # how much later than after its time something may be noticed


def vanish(peer: Peer) -> None:
    """From now on its kernel does not answer."""
    peer.stream.silent_since_s = trio.current_time()


async def log_until_full(peer: Peer, daemon: Daemon) -> None:
    """It listens, and its connection is full of the log."""
    await peer.result(peer.connect_interrupt())
    peer.stream.room = 100
    for _ in range(10):
        simulated(daemon).raise_interrupt()
        await wait_all_tasks_blocked()


# Unreachable


@pytest.mark.parametrize("is_full", [False, True])
async def test_semantic_02_a_peer_that_cannot_be_reached_for_dead_peer_s_counts_as_ended(
    daemon: Daemon, autojump_clock: MockClock, is_full: bool
) -> None:
    owner, waiter = await enter(daemon), await enter(daemon)
    await owner.result(owner.allocate())
    waiting = waiter.allocate()
    await owner.messages()
    if is_full:
        owner.stream.room = 0
        owner.send("ping")
    vanish(owner)
    await trio.sleep(DEAD_PEER_S - 0.1)
    assert is_open(owner)
    assert status(daemon)["waiting"] == 1
    await trio.sleep(DEAD_PEER_S * (LATE - 1))
    assert owner.stream.is_closed
    assert await waiter.result(waiting) == [0, b""]
    assert status(daemon)["sessions"] == 1


async def test_semantic_02_dead_peer_s_is_a_setting(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await start_daemon(nursery, limits={"dead_peer_s": 3})
    peer = await enter(daemon)
    vanish(peer)
    await trio.sleep(2.9)
    assert is_open(peer)
    await trio.sleep(3 * (LATE - 1))
    assert not is_open(peer)


async def test_who_answers_again_in_time_is_not_lost(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    for _ in range(5):
        vanish(peer)
        await trio.sleep(DEAD_PEER_S - 0.1)
        peer.stream.silent_since_s = trio.current_time()
    assert is_open(peer)


async def test_a_crowd_is_looked_after(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await start_daemon(nursery)
    peers = [await enter(daemon) for _ in range(150)]
    for peer in peers[::2]:
        vanish(peer)
    await trio.sleep(DEAD_PEER_S * LATE)
    assert [is_open(peer) for peer in peers] == [False, True] * 75


# Reachable, and not reading


async def test_semantic_02_a_listener_that_reads_nothing_keeps_what_it_holds(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Its place in the log is skipped and counted, and when it reads on, it has the port still."""
    daemon = await start_daemon(nursery, port=[{"enable_connect_interrupt": True, "interrupt_log_frames": 64}])
    owner, waiter = await enter(daemon), await enter(daemon)
    await owner.result(owner.allocate())
    waiter.allocate()
    await owner.messages()
    await log_until_full(owner, daemon)
    for _ in range(490):
        simulated(daemon).raise_interrupt()
        await wait_all_tasks_blocked()
    await trio.sleep(10 * UNREAD_REPLY_S)
    assert is_open(owner)
    assert status(daemon)["owner"]["session"] == owner.session.number
    assert owner.session.outbox.backlog_bytes < 1000, "what it does not read is in the log, not in its session"
    owner.stream.room = 1 << 30
    heard = await owner.messages()
    events = [message[2] for message in heard if message[1] == "interrupt"]
    overruns = [message[2] for message in heard if message[1] == "interrupt_sync" and message[2][0] == "overrun"]
    assert sum(event[2] for event in events) + sum(overrun[2] for overrun in overruns) == 500
    assert len(overruns) == 1
    assert await owner.result(owner.free()) == [0, b""]


async def test_notices_that_nobody_reads_end_nobody(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, waiter = await enter(daemon), await enter(daemon)
    await owner.result(owner.allocate())
    owner.stream.room = 0
    waiter.allocate()
    await trio.sleep(3 * UNREAD_REPLY_S)
    assert is_open(owner)


async def test_a_reply_that_nobody_reads_ends_its_session(daemon: Daemon, autojump_clock: MockClock) -> None:
    """And what ends it is told to it, when it reads on."""
    owner, waiter = await enter(daemon), await enter(daemon)
    await owner.result(owner.allocate())
    waiting = waiter.allocate()
    await owner.messages()
    await log_until_full(owner, daemon)
    ping = owner.send("ping")
    await trio.sleep(UNREAD_REPLY_S - 0.1)
    assert is_open(owner)
    assert status(daemon)["waiting"] == 1
    await trio.sleep(2 * LOOK_INTERVAL_MAX_S)
    assert await waiter.result(waiting) == [0, b""]
    heard = await owner.messages()
    assert [1, ping] in [message[:2] for message in heard]
    assert closing(heard) == f"its replies were not read for {UNREAD_REPLY_S:.0f} s"
    assert owner.stream.is_closed


async def test_unread_reply_s_is_a_setting(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await start_daemon(nursery, limits={"unread_reply_s": 3})
    peer = await enter(daemon, room=0)
    peer.send("ping")
    await trio.sleep(2.9)
    assert not peer.session.is_leaving
    await trio.sleep(1.5)
    assert peer.session.is_leaving


async def test_a_slow_reader_lives_as_long_as_it_takes_something(daemon: Daemon, autojump_clock: MockClock) -> None:
    """A byte now and then, seen by what is unsent, though the stream never becomes writable."""
    peer = await enter(daemon, room=0)
    peer.stream.unsent = 100
    peer.send("ping")
    for _ in range(20):
        await trio.sleep(UNREAD_REPLY_S - 2 * LOOK_INTERVAL_MAX_S)
        peer.stream.unsent -= 1
    assert is_open(peer)
    await trio.sleep(UNREAD_REPLY_S + 2 * LOOK_INTERVAL_MAX_S)
    assert not is_open(peer)


async def test_a_slow_reader_lives_though_the_kernel_holds_as_much_as_before(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    """What it takes is made up for at once: what is unsent is the same at each look."""
    peer = await enter(daemon, room=100)
    peer.stream.feed(request(1, "ping") * 1000)
    for _ in range(10):
        await trio.sleep(UNREAD_REPLY_S / 2)
        peer.read(at_most=50)
    assert is_open(peer)


async def test_replies_that_wait_are_bounded_while_their_reader_is_waited_for(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    limit = LimitsConfig().max_backlog_bytes
    peer = await enter(daemon, room=0)
    peer.stream.feed(*[request(1, "ping") * 100] * 600)
    await trio.sleep(UNREAD_REPLY_S - 1)
    assert limit <= peer.session.outbox.backlog_bytes < limit + 4096
    received = peer.stream.received
    await trio.sleep(2 * LOOK_INTERVAL_MAX_S)
    assert peer.stream.received == received, "it is not read from, either"
    assert closing(await peer.messages()) == f"its replies were not read for {UNREAD_REPLY_S:.0f} s"


# The end of who does not read


async def end(daemon: Daemon, peer: Peer) -> None:
    """An administrator's kick comes down to this; what it holds is released at once."""
    peer.session.end("kicked: for the test")
    await wait_all_tasks_blocked()
    assert peer.session.worker is None


async def test_the_reason_waits_for_who_does_not_read(daemon: Daemon, autojump_clock: MockClock) -> None:
    """Its window is closed: the kernel would give up what it has not taken."""
    peer = await enter(daemon)
    await log_until_full(peer, daemon)
    peer.stream.is_window_closed = True
    await end(daemon, peer)
    await trio.sleep(UNREAD_REPLY_S / 2)
    assert is_open(peer)
    assert closing(await peer.messages()) == "kicked: for the test"
    await wait_all_tasks_blocked()
    assert not is_open(peer)


@pytest.mark.parametrize("last_room", [1 << 20, 0])
async def test_the_reason_does_not_wait_for_ever(daemon: Daemon, autojump_clock: MockClock, last_room: int) -> None:
    peer = await enter(daemon)
    await log_until_full(peer, daemon)
    peer.stream.is_window_closed, peer.stream.last_room = True, last_room
    await end(daemon, peer)
    await trio.sleep(UNREAD_REPLY_S + 3)
    assert not is_open(peer)


async def test_the_reason_comes_behind_what_the_kernel_had_no_room_for(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    peer = await enter(daemon, room=100)
    peer.stream.last_room = 150
    peer.stream.feed(request(1, "ping") * 50)
    await wait_all_tasks_blocked()
    await end(daemon, peer)
    await trio.sleep(UNREAD_REPLY_S / 2)
    heard: list[Any] = []
    while is_open(peer):
        heard += await peer.messages()
    heard += peer.read()
    assert sum(message[0] == 1 for message in heard) == 50
    assert closing(heard) == "kicked: for the test"


async def test_who_vanishes_meanwhile_is_not_waited_for(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    await log_until_full(peer, daemon)
    peer.stream.is_window_closed = True
    await end(daemon, peer)
    vanish(peer)
    await trio.sleep(DEAD_PEER_S * LATE)
    assert not is_open(peer)


async def test_a_second_end_waits_no_longer(daemon: Daemon, autojump_clock: MockClock) -> None:
    peer = await enter(daemon)
    await log_until_full(peer, daemon)
    peer.stream.is_window_closed = True
    await end(daemon, peer)
    await trio.sleep(UNREAD_REPLY_S / 2)
    peer.session.end("again")
    await wait_all_tasks_blocked()
    assert not is_open(peer)


async def test_a_stop_waits_for_nobody_who_does_not_read(autojump_clock: MockClock) -> None:
    """Neither for one who was being waited for, nor for one that is ended by it."""
    async with trio.open_nursery() as nursery:
        daemon = await start_daemon(nursery, server={"stop_timeout_s": 300})
        kicked, deaf = await enter(daemon), await enter(daemon)
        for peer in (kicked, deaf):
            await log_until_full(peer, daemon)
            peer.stream.is_window_closed = True
        await end(daemon, kicked)
        await trio.sleep(10)
        daemon.stop()
        began_s = trio.current_time()
    assert trio.current_time() - began_s < 5
    assert closing(deaf.read()) == "the daemon is stopping"
