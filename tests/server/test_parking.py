"""Sessions without a connection: what they keep, for how long, and who may come back to them."""

from __future__ import annotations

import hashlib

import msgpack
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.server.daemon import Daemon
from lpt_service.server.identity import Identity, Origin
from lpt_service.server.parking import HOLDING_NOTHING_MAX
from lpt_service.server.session import FRAME_TIMEOUT_S
from tests.server.fakes import ROOT, Peer, closing, is_open, request, routine, simulated, start_daemon, status
from tests.server.resuming import GRACE_S, Client, at, back, come, graceful, owner_of, parked

SAFE = 0x5A
USER = Origin("uid 7 pid 7", "user 7", Identity(uid=7))
HERE, THERE = Origin("10.0.0.1:1", "10.0.0.1"), Origin("10.0.0.2:1", "10.0.0.2")


@pytest.fixture
async def daemon(nursery: trio.Nursery) -> Daemon:
    """One whose sessions outlive their connections: the test has to ask for `autojump_clock` by itself."""
    return await graceful(nursery, port={"safe_data": SAFE})


def write(client: Client, value: int) -> int:
    return client.control(Ioctl.WRITE_PORT_UCHAR, bytes((0, value)), 8)


# What is kept


@pytest.mark.parametrize("failure", [None, ConnectionResetError("reset"), TimeoutError("dead")])
async def test_the_owner_keeps_the_port_its_lines_and_its_grant(
    daemon: Daemon, autojump_clock: MockClock, failure: Exception | None
) -> None:
    owner, other = await come(daemon), await come(daemon)
    grant = await owner.own()
    await owner.result(write(owner, 0x33))
    await owner.lose(failure)
    assert await other.status_of(other.allocate(timeout_ms=0)) == "STATUS_IO_TIMEOUT"
    assert (status(daemon)["sessions"], status(daemon)["away"]) == (2, 1)
    again = await back(daemon, owner)
    assert (status(daemon)["sessions"], status(daemon)["away"]) == (2, 0)
    assert again.number == owner.number
    assert again.resumed == {"grant": grant, "position": None, "pending": [], "registrations": []}
    assert simulated(daemon).read_data() == 0x33
    await again.result(again.free())
    assert owner_of(daemon) is None
    assert parked(daemon) == 0


async def test_the_session_is_the_same_for_callbacks(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner = await come(daemon)
    await owner.own()
    info = await owner.result(owner.control(Ioctl.GET_PARALLEL_PORT_INFO, b"", 56))
    await owner.lose()
    again = await back(daemon, owner)
    assert await again.result(again.control(Ioctl.GET_PARALLEL_PORT_INFO, b"", 56)) == info


async def test_a_place_in_the_queue_is_kept_and_nobody_overtakes(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, first, second = [await come(daemon) for _ in range(3)]
    await owner.own()
    waits = await first.wait_for_port()
    await second.wait_for_port()
    await first.lose()
    third = await come(daemon)
    await third.wait_for_port()
    again = await back(daemon, first)
    assert again.resumed == {"grant": None, "position": 1, "pending": [waits], "registrations": []}
    owner.free()
    grant = await again.result(waits)
    assert grant[0] == 8, "the answer comes on the new connection, under the number of the request"
    order = [owner_of(daemon)]
    for client in (again, second):
        client.free()
        await wait_all_tasks_blocked()
        order.append(owner_of(daemon))
    assert order == [first.number, second.number, third.number]


async def test_a_request_that_is_granted_meanwhile_shows_as_the_grant(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner, waiter, last = [await come(daemon) for _ in range(3)]
    before = await owner.own()
    await waiter.wait_for_port()
    await last.wait_for_port()
    await waiter.lose()
    owner.free()
    await wait_all_tasks_blocked()
    assert owner_of(daemon) == waiter.number
    again = await back(daemon, waiter)
    assert again.resumed["grant"] == before + 1
    assert (again.resumed["pending"], again.resumed["position"]) == ([], None)
    assert [message[:2] for message in again.heard if message[0] == 1] == [], "its answer does not come any more"


async def test_registrations_are_kept_in_the_order_of_connection(daemon: Daemon, autojump_clock: MockClock) -> None:
    client = await come(daemon)
    keys = [routine(5), routine(3, 9), routine(0, 4)]
    for key in keys:
        await client.result(client.control(Ioctl.PARALLEL_CONNECT_INTERRUPT, key, 32))
    await client.lose()
    assert status(daemon)["registered"] == 3
    again = await back(daemon, client)
    assert again.resumed["registrations"] == keys
    await again.result(again.control(Ioctl.PARALLEL_DISCONNECT_INTERRUPT, keys[1]))
    await again.lose()
    assert (await back(daemon, again)).resumed["registrations"] == [keys[0], keys[2]]


async def test_who_holds_nothing_is_not_kept(daemon: Daemon, autojump_clock: MockClock) -> None:
    """Or connections that come and go would fill the daemon."""
    client = await come(daemon)
    await client.own()
    await client.result(client.free())
    await client.lose()
    assert status(daemon)["sessions"] == parked(daemon) == len(daemon.tickets) == 0
    assert (await back(daemon, client)).resumed is None


async def test_who_holds_nothing_but_has_disconnected_is_kept_as_long_as_there_are_few(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    """The answer may not have reached it. Whoever comes and goes without a goodbye does not use up the sessions."""
    clients = []
    for _ in range(HOLDING_NOTHING_MAX + 2):
        client = await come(daemon)
        client.connect_interrupt()
        client.disconnect_interrupt()
        await client.lose()
        clients.append(client)
    assert parked(daemon) == len(daemon.tickets) == HOLDING_NOTHING_MAX
    assert (await back(daemon, clients[1])).resumed is None
    again = await back(daemon, clients[2], **at(clients[2].welcome["stream"], 0))
    assert again.resumed["pending"] == [message[1] for message in again.heard if message[0] == 1]
    assert len(again.resumed["pending"]) == 1
    assert parked(daemon) == HOLDING_NOTHING_MAX - 1
    await come(daemon)
    await trio.sleep(GRACE_S + 1)
    assert parked(daemon) == 0


async def test_without_grace_nothing_is_kept_and_no_secret_is_given(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await graceful(nursery, grace_s=0)
    owner = await come(daemon)
    assert "resume" not in owner.welcome
    await owner.own()
    await owner.lose()
    assert owner_of(daemon) is None
    assert (await come(daemon, resume="0" * 32)).resumed is None


async def test_a_session_may_lose_its_connection_again_and_again(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner = await come(daemon)
    grant = await owner.own()
    for _ in range(3):
        await owner.lose()
        await trio.sleep(GRACE_S * 0.9)
        owner = await back(daemon, owner)
        assert owner.resumed["grant"] == grant
    await owner.lose()
    await trio.sleep(GRACE_S + 0.1)
    assert owner_of(daemon) is None


# The end of it


@pytest.mark.parametrize("grace_s", [0.3, 7.25])
async def test_when_the_time_is_over_the_lines_are_made_safe_and_the_next_one_has_the_port(
    nursery: trio.Nursery, autojump_clock: MockClock, grace_s: float
) -> None:
    """In time: also where nothing else has the daemon look at its deadlines."""
    daemon = await graceful(nursery, grace_s=grace_s, port={"safe_data": SAFE})
    owner, waiter = await come(daemon), await come(daemon)
    await owner.own()
    await owner.result(write(owner, 0xFF))
    waits = await waiter.wait_for_port()
    await owner.lose()
    await trio.sleep(grace_s - 0.01)
    assert owner_of(daemon) == owner.number
    assert simulated(daemon).read_data() == 0xFF
    await trio.sleep(0.02)
    assert (await waiter.result(waits))[0] == 8
    assert simulated(daemon).read_data() == SAFE
    assert parked(daemon) == 0
    assert (await back(daemon, owner)).resumed is None


async def test_everything_else_that_it_held_ends_then_too(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, client = await come(daemon), await come(daemon)
    await owner.own()
    await client.wait_for_port()
    await client.result(client.connect_interrupt())
    await client.lose()
    await trio.sleep(GRACE_S + 0.1)
    report = status(daemon)
    assert (report["waiting"], report["registered"], report["sessions"]) == (0, 0, 1)
    assert len(daemon.tickets) == 1


async def test_who_says_goodbye_is_released_at_once(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner, waiter = await come(daemon), await come(daemon)
    await owner.own()
    waits = await waiter.wait_for_port()
    owner.stream.feed(msgpack.packb([2, "bye", []]))
    await wait_all_tasks_blocked()
    assert owner_of(daemon) == owner.number, "the connection is still there"
    owner.stream.end()
    await waiter.result(waits)
    assert parked(daemon) == 0
    assert (await back(daemon, owner)).resumed is None


async def test_who_has_said_goodbye_does_not_come_back_before_it_is_gone(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner = await come(daemon)
    await owner.own()
    owner.stream.feed(msgpack.packb([2, "bye", []]))
    await wait_all_tasks_blocked()
    again = await back(daemon, owner)
    assert again.resumed is None
    assert is_open(owner)


@pytest.mark.parametrize("what", ["violation", "half a frame", "pending msgid used again"])
async def test_who_breaks_the_rules_is_not_kept(daemon: Daemon, autojump_clock: MockClock, what: str) -> None:
    owner, offender = await come(daemon), await come(daemon)
    await owner.own()
    waits = await offender.wait_for_port()
    if what == "violation":
        offender.stream.feed(b"\xc1")
    elif what == "half a frame":
        offender.stream.feed(b"\x94")
        await trio.sleep(FRAME_TIMEOUT_S + 0.1)
    else:
        offender.send("ping", msgid=waits)
    messages = await offender.messages()
    assert closing(messages)
    assert [message[2][1] for message in messages if message[:2] == [1, waits]] == ["STATUS_CANCELLED"]
    assert (status(daemon)["waiting"], parked(daemon)) == (0, 0)
    assert (await back(daemon, offender)).resumed is None


async def test_who_breaks_the_rules_and_the_connection_is_not_kept_either(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner = await come(daemon)
    await owner.own()
    owner.stream.feed(b"\xc1")
    owner.stream.end()
    await wait_all_tasks_blocked()
    assert (owner_of(daemon), parked(daemon)) == (None, 0)


@pytest.mark.parametrize("is_connected", [True, False])
async def test_who_is_kicked_is_gone_at_once(daemon: Daemon, autojump_clock: MockClock, is_connected: bool) -> None:
    owner, waiter, admin = await come(daemon), await come(daemon), await come(daemon, ROOT)
    await owner.own()
    waits = await waiter.wait_for_port()
    if not is_connected:
        await owner.lose()
    assert await admin.result(admin.send("kick", {"session": owner.number})) == {"kicked": owner.number}
    await waiter.result(waits)
    assert parked(daemon) == 0
    assert (await back(daemon, owner)).resumed is None
    assert await admin.status_of(admin.send("kick", {"session": owner.number})) == "STATUS_INVALID_PARAMETER"


async def test_who_is_being_kicked_does_not_escape_by_coming_back(daemon: Daemon, autojump_clock: MockClock) -> None:
    """The kick and the hello are dealt with before the kicked session's own task has its turn."""
    owner, admin = await come(daemon), await come(daemon, ROOT)
    await owner.own()
    again = Peer(daemon)
    await wait_all_tasks_blocked()
    owner.session.end("administrator: kick")
    again.stream.feed(request(1, "hello", {"protocol": 1, "resume": owner.welcome["resume"]}))
    (answer,) = await again.messages()
    assert "resumed" not in answer[3]
    assert owner_of(daemon) is None
    assert await admin.own()


async def test_a_refused_hello_neither_parks_nor_uses_up(daemon: Daemon, autojump_clock: MockClock) -> None:
    owner = await come(daemon)
    await owner.own()
    await owner.lose()
    refused = Peer(daemon)
    refused.send("hello", {"protocol": 9, "resume": owner.welcome["resume"]})
    assert closing(await refused.messages())
    assert parked(daemon) == 1
    assert (await back(daemon, owner)).resumed


# Secrets


async def test_a_secret_is_good_for_one_use_and_each_hello_gives_a_fresh_one(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner = await come(daemon)
    await owner.own()
    await owner.lose()
    again = await back(daemon, owner)
    await again.lose()
    assert (await back(daemon, owner)).resumed is None
    last = await back(daemon, again)
    assert last.number == owner.number
    secrets = [client.welcome["resume"] for client in (owner, again, last)]
    assert len(set(secrets)) == 3
    assert all(len(secret) == 32 and not set(secret) - set("0123456789abcdef") for secret in secrets)


@pytest.mark.parametrize("secret", ["", "0" * 32, "\N{SNOWMAN}" * 32])
async def test_an_unknown_secret_begins_a_fresh_session(daemon: Daemon, autojump_clock: MockClock, secret: str) -> None:
    client = await come(daemon, resume=secret)
    assert client.resumed is None
    assert client.welcome["resume"] != secret


async def test_another_identity_gets_a_fresh_session_and_does_not_use_the_secret_up(
    daemon: Daemon, autojump_clock: MockClock
) -> None:
    owner = await come(daemon, USER)
    await owner.own()
    await owner.lose()
    for origin in (ROOT, HERE):
        stranger = await back(daemon, owner, origin)
        assert (stranger.resumed, stranger.number == owner.number) == (None, False)
    again = await back(daemon, owner, Origin("elsewhere", "user 7", Identity(uid=7, gids=frozenset((1, 2)))))
    assert again.resumed, "groups and processes may change"


async def test_a_token_is_part_of_the_identity(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    tokens = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in "ab"]
    daemon = await graceful(nursery, token=tokens)
    owner = await come(daemon, token="a")
    await owner.own()
    await owner.lose()
    assert (await back(daemon, owner, token="b")).resumed is None
    assert (await back(daemon, owner, token="a")).resumed


async def test_a_secret_is_for_its_port(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ports = [{"name": name, "grace_s": GRACE_S} for name in "AB"]
    daemon = await start_daemon(nursery, port=ports)
    owner = await come(daemon, port="A")
    await owner.own()
    await owner.lose()
    assert (await back(daemon, owner, port="B")).resumed is None
    assert (await back(daemon, owner, port="A")).resumed
