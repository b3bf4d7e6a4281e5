"""Every limit of `[limits]`: one at it is served, one beyond is told so, nobody else notices, leaving makes room."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.config import LimitsConfig
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.server.daemon import Daemon
from lpt_service.server.identity import Identity, Origin
from tests.server.fakes import MEMORY, ROOT, Peer, closing, enter, is_open, request, start_daemon, status

INSUFFICIENT = "STATUS_INSUFFICIENT_RESOURCES"


def origin(number: int) -> Origin:
    """A user that no machine has by name."""
    uid = 60_000 + number
    return Origin(f"uid {uid} pid 1", f"user {uid}", Identity(uid=uid))


async def start(nursery: trio.Nursery, **limits: Any) -> tuple[Daemon, Peer]:
    """A daemon, and a witness that owns its port and listens: it must notice nothing."""
    daemon = await start_daemon(nursery, limits=limits)
    witness = await enter(daemon)
    await witness.result(witness.allocate())
    await witness.result(witness.connect_interrupt())
    await witness.messages()
    return daemon, witness


async def check(witness: Peer, *, wanted: tuple[str, ...] = ()) -> None:
    """It was told nothing (but of the queue, if `wanted`), and still owns the port."""
    assert [message for message in await witness.messages() if message[1] not in wanted] == []
    await witness.result(witness.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\x00"))


async def refused(peer: Peer, msgid: int) -> str:
    """What the error says; the conversation goes on."""
    error, result = await peer.answer(msgid)
    assert (error[1], result) == (INSUFFICIENT, None)
    assert is_open(peer)
    detail: str = error[2]
    return detail


async def greet(peer: Peer, **keys: Any) -> str | None:
    """What hello is refused with, if it is."""
    error, _ = await peer.answer(peer.send("hello", {"protocol": 1, **keys}))
    assert error is None or error[1] == INSUFFICIENT
    return None if error is None else error[2]


# Connections. What becomes of those that are refused: test_reception.py


async def test_max_connections(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, witness = await start(nursery, max_connections=3)
    second = Peer(daemon, origin=origin(1))
    assert daemon.admission.refuse(origin(2), None) is None
    third = Peer(daemon, origin=origin(1))
    assert daemon.admission.refuse(origin(2), None) == "there are as many connections as there may be"
    await second.say_hello()
    await check(witness)
    third.stream.end()
    await wait_all_tasks_blocked()
    assert daemon.admission.refuse(origin(2), None) is None


async def test_max_connections_per_address(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, witness = await start(nursery, max_connections_per_address=2)
    first = Peer(daemon, origin=origin(1))
    assert daemon.admission.refuse(origin(1), None) is None
    second = Peer(daemon, origin=origin(1))
    assert daemon.admission.refuse(origin(1), None) == "user 60001 has as many connections as one address may have"
    assert daemon.admission.refuse(origin(2), None) is None
    await second.say_hello()
    await check(witness)
    first.stream.end()
    await wait_all_tasks_blocked()
    assert daemon.admission.refuse(origin(1), None) is None


async def test_max_connections_before_hello(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """The one that is silent longest makes room: it is hardly one that means to say hello."""
    daemon, witness = await start(nursery, max_connections_before_hello=3)
    silent = [Peer(daemon) for _ in range(3)]
    await silent[1].say_hello()
    fourth = Peer(daemon)
    await wait_all_tasks_blocked()
    assert all(is_open(each) for each in (*silent, fourth))
    fifth = Peer(daemon)
    assert closing(await silent[0].messages()) == "no hello yet, and others wait to say theirs"
    assert silent[0].stream.is_closed
    for peer in (silent[2], fourth, fifth):
        await peer.say_hello()
    assert await silent[1].result(silent[1].send("ping"))
    await check(witness)


async def test_who_floods_with_connections_keeps_nobody_out(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, witness = await start(nursery, max_connections_before_hello=16)
    for _ in range(10):
        flood = [Peer(daemon) for _ in range(50)]
        newcomer = Peer(daemon)
        await newcomer.say_hello()
        newcomer.stream.end()
        assert sum(is_open(each) for each in flood) <= 16
        assert len(daemon.admission._before_hello) <= 16
    await check(witness)


async def test_who_comes_with_many_does_not_push_out_somebody_slow(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon, witness = await start(nursery, max_connections_before_hello=4)
    slow = Peer(daemon, origin=origin(1))
    for _ in range(50):
        Peer(daemon, origin=origin(2))
        await wait_all_tasks_blocked()
    await slow.say_hello()
    await check(witness)


async def test_a_hello_that_may_be_said_again_does_not_leave_the_line(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon, witness = await start(nursery, max_connections_before_hello=1)
    first = Peer(daemon)
    assert await first.status_of(first.send("hello")) == "STATUS_INVALID_PARAMETER"
    Peer(daemon)
    assert closing(await first.messages()) == "no hello yet, and others wait to say theirs"
    await check(witness)


# Sessions


async def test_max_sessions(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, witness = await start(nursery, max_sessions=3)
    second = Peer(daemon, origin=origin(1))
    third, fourth = Peer(daemon), Peer(daemon)
    assert await greet(second) is None
    assert await greet(third) is None
    assert await greet(fourth) == "sessions: 3 are open, the limit"
    assert is_open(fourth)
    await check(witness)
    second.stream.end()
    await wait_all_tasks_blocked()
    assert await greet(fourth) is None


async def test_who_could_end_the_daemon_is_let_in_beyond_the_limits(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon, _ = await start(nursery, max_sessions=1, max_connections=1, max_connections_per_address=1)
    assert await greet(Peer(daemon)) == "sessions: 1 are open, the limit"
    assert await greet(Peer(daemon, origin=ROOT)) is None
    assert await greet(Peer(daemon, origin=ROOT)) is None
    assert daemon.admission.refuse(ROOT, None) is None
    assert daemon.admission.refuse(origin(1), None) is not None


async def test_max_sessions_counts_all_ports_and_those_that_are_kept_for_who_comes_back(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ports = [{"name": "A", "grace_s": 60}, {"name": "B"}]
    daemon = await start_daemon(nursery, port=ports, limits={"max_sessions": 2})
    parked, other, late = Peer(daemon), Peer(daemon), Peer(daemon)
    secret = (await parked.say_hello(port="A"))["resume"]
    assert await greet(other, port="B") is None
    await parked.result(parked.allocate())
    parked.stream.end()
    await wait_all_tasks_blocked()
    assert await greet(late, port="B") == "sessions: 2 are open, the limit"
    back = Peer(daemon)
    assert "resumed" in await back.say_hello(port="A", resume=secret)
    back.session.is_leaving = True
    back.stream.end()
    await wait_all_tasks_blocked()
    assert await greet(late, port="B") is None


async def test_max_sessions_per_identity(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, witness = await start(nursery, max_sessions_per_identity=2)
    mine = [Peer(daemon, origin=origin(1)) for _ in range(3)]
    assert [await greet(each) for each in mine] == [
        None,
        None,
        "sessions: user:60001 has 2, the limit for one identity",
    ]
    assert await greet(Peer(daemon, origin=origin(2))) is None
    await check(witness)
    mine[0].stream.end()
    await wait_all_tasks_blocked()
    assert await greet(mine[2]) is None


async def test_the_anonymous_are_not_one_identity(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, witness = await start(nursery, max_sessions_per_identity=1)
    assert [await greet(Peer(daemon)) for _ in range(5)] == [None] * 5
    await check(witness)


async def test_one_identity_on_several_ports_and_without_a_connection(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ports = [{"name": "A", "grace_s": 60}, {"name": "B"}]
    daemon = await start_daemon(nursery, port=ports, limits={"max_sessions_per_identity": 2})
    a, b, late = (Peer(daemon, origin=origin(1)) for _ in range(3))
    assert [await greet(a, port="A"), await greet(b, port="B")] == [None, None]
    await a.result(a.allocate())
    a.stream.end()
    assert await greet(late, port="B") == "sessions: user:60001 has 2, the limit for one identity"
    await trio.sleep(61)
    assert is_open(b)
    late = Peer(daemon, origin=origin(1))
    assert await greet(late, port="B") is None


async def test_those_kept_without_a_connection_count_for_their_address(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await start_daemon(nursery, port=[{"grace_s": 60}], limits={"max_connections_per_address": 2})
    for _ in range(2):
        peer = Peer(daemon, origin=origin(1))
        assert await greet(peer) is None
        peer.allocate()
        await wait_all_tasks_blocked()
        peer.stream.end()
        await wait_all_tasks_blocked()
    late = Peer(daemon, origin=origin(1))
    assert await greet(late) == "sessions: user 60001 has 2 without a connection, and 2 connections are the limit"
    assert await greet(Peer(daemon, origin=origin(2))) is None
    await trio.sleep(61)
    assert await greet(Peer(daemon, origin=origin(1))) is None


# Requests


async def test_max_waiters(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, witness = await start(nursery, max_waiters=2)
    waiters = [await enter(daemon) for _ in range(3)]
    first, second = waiters[0].allocate(), waiters[1].allocate()
    await wait_all_tasks_blocked()
    assert await refused(waiters[2], waiters[2].allocate()) == "queue: 2 requests wait already, the limit"
    await check(witness, wanted=("waiters",))
    waiters[0].stream.feed(b"\x93\x02\xa6cancel\x91" + bytes((first,)))
    assert await waiters[0].status_of(first) == "STATUS_CANCELLED"
    third = waiters[2].allocate()
    await wait_all_tasks_blocked()
    witness.free()
    await waiters[1].result(second)
    waiters[1].free()
    await waiters[2].result(third)


async def test_max_pending_requests(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, witness = await start(nursery, max_pending_requests=2)
    other = await enter(daemon)
    job = witness.pulse(0, 0, 1_000_000)  # those behind it wait
    behind = [witness.pulse(0, 0, 1), witness.pulse(0, 0, 1)]
    await wait_all_tasks_blocked()
    assert status(daemon)["owner"]["session"] == witness.session.number
    answers = {message[1]: message[2] for message in await witness.messages() if message[0] == 1}
    assert answers.keys() == {behind[1]}
    assert answers[behind[1]][1:] == [INSUFFICIENT, "2 requests of this session are pending, the limit"]
    waiting = other.allocate()
    await trio.sleep(1.1)
    done = [message[1] for message in await witness.messages() if message[0] == 1]
    assert done == [job, behind[0]]
    await check(witness)
    witness.free()
    await other.result(waiting)


async def test_max_registrations(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, witness = await start(nursery, max_registrations=2)
    greedy = await enter(daemon)
    await greedy.result(greedy.connect_interrupt(1))
    await greedy.result(greedy.connect_interrupt(2))
    detail = await refused(greedy, greedy.connect_interrupt(3))
    assert detail == "registrations: this session has connected 2, the limit"
    await witness.result(witness.connect_interrupt(2))
    await check(witness)
    await greedy.result(greedy.disconnect_interrupt(1))
    await greedy.result(greedy.connect_interrupt(3))


@pytest.mark.parametrize("limit_bytes", [4096, 65536])
async def test_max_backlog_bytes(nursery: trio.Nursery, autojump_clock: MockClock, limit_bytes: int) -> None:
    """Who does not read its replies is not read from; once it reads, everything is answered."""
    daemon, witness = await start(nursery, max_backlog_bytes=limit_bytes)
    greedy = await enter(daemon, room=1000)
    ping = request(1, "ping", 0)  # refused: about a hundred bytes
    for _ in range(200):
        greedy.stream.feed(ping * 20)
    await wait_all_tasks_blocked()
    backlog = greedy.session.outbox.backlog_bytes
    assert limit_bytes <= backlog < limit_bytes + 64 * 200
    assert greedy.stream.received < 200 * 20 * len(ping)
    await check(witness)
    answered = 0
    while answered < 4000:
        messages = await greedy.messages()
        assert messages, "it stands still"
        answered += len(messages)
    assert greedy.session.outbox.backlog_bytes == 0
    assert await greedy.result(greedy.send("ping"))


async def test_a_reload_changes_a_limit_for_those_who_come(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon, _ = await start(nursery, max_sessions=5)
    settings = daemon._config.model_copy(update={"limits": LimitsConfig(max_sessions=1)})
    daemon._reread = lambda: settings
    await daemon.reload()
    late = Peer(daemon, origin=MEMORY)
    assert await greet(late) == "sessions: 1 are open, the limit"
