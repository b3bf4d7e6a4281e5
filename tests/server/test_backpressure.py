"""One session that does not read, floods, or pipelines without end: it delays nobody and grows no memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.config import LimitsConfig
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.server.daemon import Daemon
from lpt_service.server.session import TURN_MESSAGES
from tests.server.fakes import Peer, enter, is_open, request, routine, simulated, start_daemon, status

BACKLOG_MAX_BYTES = LimitsConfig().max_backlog_bytes


class Race:
    """Two clients. The daemon's sends to either are noted; the modest one asks once the greedy one is being served."""

    def __init__(self, greedy: Peer, modest: Peer) -> None:
        self.greedy, self.modest = greedy, modest
        self.sends: list[tuple[Peer, int]] = []
        for peer in (greedy, modest):
            self._note(peer, peer.stream.try_send)

    def _note(self, peer: Peer, try_send: Callable[[bytes | memoryview], int]) -> None:
        def noting(data: bytes | memoryview) -> int:
            if not self.sends:
                self.modest.stream.feed(request(1, "ping"))
            sent = try_send(data)
            self.sends.append((peer, sent))
            return sent

        peer.stream.try_send = noting  # type: ignore[method-assign]

    async def run(self, *chunks: bytes) -> list[int]:
        """The greedy one sends all this; how many bytes each send to it had until the modest one was answered."""
        self.greedy.stream.feed(*chunks)
        await wait_all_tasks_blocked()
        place = [peer for peer, _ in self.sends].index(self.modest)
        return [sent for _, sent in self.sends[:place]]


# Turns


async def test_a_turn_is_sixty_four_requests(daemon: Daemon, autojump_clock: MockClock) -> None:
    """A client that pipelines sends its replies by turns; others have theirs between."""
    greedy, modest = await enter(daemon), await enter(daemon)
    race = Race(greedy, modest)
    sends = await race.run(request(1, "ping", 0) * 2000)
    assert len(sends) <= 2
    answered = [sent for peer, sent in race.sends if peer is greedy]
    assert max(answered) * 2000 == TURN_MESSAGES * sum(answered), "the largest piece is of sixty-four equal replies"
    assert len(await greedy.messages()) == 2000


async def test_reads_count_as_well(daemon: Daemon, autojump_clock: MockClock) -> None:
    """A client whose next bytes are always there must not hold the loop: here, a byte a read."""
    greedy, modest = await enter(daemon), await enter(daemon)
    frame = request(1, "ping")
    sends = await Race(greedy, modest).run(*[bytes((byte,)) for byte in frame] * 500)
    assert len(sends) <= 2 * TURN_MESSAGES // len(frame) + 2
    assert len(await greedy.messages()) == 500


async def test_a_status_is_a_turn_of_its_own(daemon: Daemon, autojump_clock: MockClock) -> None:
    """With a long queue it takes as long as many other requests."""
    greedy, modest = await enter(daemon), await enter(daemon)
    race = Race(greedy, modest)
    assert len(await race.run(request(1, "status") * 50)) <= 2
    assert [peer for peer, _ in race.sends].count(greedy) == 50
    assert len(await greedy.messages()) == 50


async def test_a_hello_that_may_be_said_again_is_a_turn_of_its_own(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """With many sessions to count it takes as long as many other requests."""
    daemon = await start_daemon(nursery, limits={"max_sessions": 1})
    modest, greedy = await enter(daemon), Peer(daemon)
    race = Race(greedy, modest)
    await race.run(request(1, "hello", {"protocol": 1}) * 50)
    assert [peer for peer, _ in race.sends].count(greedy) == 50
    assert len(await greedy.messages()) == 50


# A client that does not read


@pytest.mark.parametrize("method", ["ping", "status", "no such method"])
async def test_reading_stops_at_256_kib_of_unread_replies_and_goes_on_after(
    daemon: Daemon, autojump_clock: MockClock, method: str
) -> None:
    peer = await enter(daemon, room=1000)
    frame = request(1, method)
    sent = 60_000 if method != "status" else 1500
    peer.stream.feed(*[frame * 100] * (sent // 100))
    await wait_all_tasks_blocked()
    received, waiting = peer.stream.received, peer.session.outbox.backlog_bytes
    assert BACKLOG_MAX_BYTES <= waiting <= BACKLOG_MAX_BYTES + 4096
    assert received < sent * len(frame)
    assert peer.stream.taken_at_most <= 1000

    await trio.sleep(1)
    assert peer.stream.received == received, "it went on reading"

    peer.stream.room = 1 << 30
    answers = 0
    while messages := await peer.messages():
        answers += len(messages)
    assert answers == sent
    assert peer.session.outbox.backlog_bytes == 0


async def test_a_client_that_does_not_read_delays_nobody(daemon: Daemon, autojump_clock: MockClock) -> None:
    deaf, owner, listener = await enter(daemon, room=100), await enter(daemon), await enter(daemon)
    deaf.connect_interrupt()
    listener.connect_interrupt()
    deaf.stream.feed(request(1, "ping") * 20_000)
    await owner.result(owner.allocate())
    await listener.messages()
    for number in range(50):
        simulated(daemon).raise_interrupt()
        assert [message[2][0] for message in await listener.messages()] == [number]
        assert await owner.result(owner.send("ping"))
    assert is_open(deaf)


async def test_notices_of_a_client_that_does_not_read_are_bounded(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """One that waits in the place of another: the number of waiters changes a thousand times."""
    daemon = await start_daemon(nursery, limits={"dead_peer_s": 3600})
    owner = await enter(daemon)
    await owner.result(owner.allocate())
    owner.stream.room = 0
    ping = owner.send("ping")
    for _ in range(500):
        waiter = await enter(daemon)
        waiter.allocate()
        await trio.sleep(0.2)
        waiter.stream.end()
        await trio.sleep(0.2)
    await enter(daemon)
    waiter = await enter(daemon)
    waiter.allocate()
    await trio.sleep(0.2)
    owner.stream.room = 1 << 30
    messages = await owner.messages()
    assert messages[0][:2] == [1, ping]
    assert messages[1:] == [[2, "waiters", [1]]]


async def test_connecting_and_disconnecting_without_reading_is_bounded(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    peer = await enter(daemon, room=100)
    on = request(1, "internal_device_control", int(Ioctl.PARALLEL_CONNECT_INTERRUPT), routine(1), 40)
    off = request(2, "internal_device_control", int(Ioctl.PARALLEL_DISCONNECT_INTERRUPT), routine(1), 8)
    peer.stream.feed(*[(on + off) * 100] * 200)
    await wait_all_tasks_blocked()
    assert peer.session.outbox.backlog_bytes <= BACKLOG_MAX_BYTES + 4096
    assert peer.stream.received < 200 * 100 * len(on + off) / 2


async def test_received_plus_lost_is_generated_for_a_listener_that_reads_late(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    port = {"enable_connect_interrupt": True, "interrupt_log_frames": 64}
    daemon = await start_daemon(nursery, port=[port])
    slow, fast = await enter(daemon), await enter(daemon)
    for peer in (slow, fast):
        await peer.result(peer.connect_interrupt())
    slow.stream.room = 500
    heard: dict[Peer, list[Any]] = {slow: [], fast: []}
    for _ in range(300):
        simulated(daemon).raise_interrupt()
        heard[fast] += await fast.messages()
    for peer in (slow, fast):
        fence = peer.disconnect_interrupt()
        while not any(message[:2] == [1, fence] for message in heard[peer]):
            heard[peer] += await peer.messages()
    for peer, overrun in ((slow, True), (fast, False)):
        received = sum(message[2][2] for message in heard[peer] if message[1] == "interrupt")
        syncs = [message[2] for message in heard[peer] if message[1] == "interrupt_sync"]
        lost = sum(sync[2] for sync in syncs)
        assert received + lost == 300
        assert ("overrun" in [sync[0] for sync in syncs]) is overrun
        assert heard[peer][-1][:2] == [1, fence]
    assert status(daemon)["interrupts"]["generated"] == 300
    assert status(daemon)["counters"]["lost"] == slow.session.outbox.lost > 0


@pytest.mark.parametrize("failure", [ConnectionResetError("reset"), TimeoutError("timed out")])
async def test_a_peer_that_is_lost_while_it_is_not_read_from_ends(
    daemon: Daemon, autojump_clock: MockClock, failure: Exception
) -> None:
    """Its session waits for room, in the middle of a turn."""
    peer = await enter(daemon, room=100)
    peer.stream.feed(*[request(1, "ping") * 100] * 600)
    await wait_all_tasks_blocked()
    assert peer.session.outbox.backlog_bytes >= BACKLOG_MAX_BYTES
    peer.stream.break_(failure)
    await wait_all_tasks_blocked()
    assert not is_open(peer)
    assert status(daemon)["sessions"] == 0
