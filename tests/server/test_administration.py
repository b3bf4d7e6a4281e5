"""What administrators do to others: revoke, kick (also who is not there), pause, resume; and the queue in pages."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.protocol.ioctl import Ioctl
from tests.server.fakes import ROOT, Peer, closing, is_open, simulated, start_daemon, status
from tests.server.test_methods import BERTA, CARLA, PORT, House, invalid, open_house

NOT_READY = "STATUS_DEVICE_NOT_READY"


def notifications(messages: list[Any], name: str) -> list[Any]:
    return [message[2] for message in messages if message[:2] == [2, name]]


async def own(house: House, **keys: Any) -> Peer:
    """Somebody who owns the port and has written to it."""
    owner = await house.enter(BERTA, **keys)
    await owner.result(owner.allocate())
    await owner.result(owner.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\xff"))
    return owner


# revoke


async def test_revoke_takes_the_port_from_its_owner_and_hands_it_on(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    house = await open_house(nursery)
    owner, waiter, admin = await own(house, client="stuck"), await house.enter(BERTA), await house.enter(CARLA)
    waiting = waiter.allocate()
    await wait_all_tasks_blocked()
    grant = status(house.daemon)["owner"]["grant"]
    answer = await admin.result(admin.send("revoke", {"reason": "went home"}))
    assert answer == {"revoked": owner.session.number, "grant": grant}
    await waiter.result(waiting)
    assert notifications(await owner.messages(), "revoked") == [["administrator: went home"]]
    assert is_open(owner)
    assert await owner.status_of(owner.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\x01")) == "STATUS_ACCESS_DENIED"
    (released,) = house.events("released")
    assert released[2]["why"] == "administrator: went home"
    assert (released[2]["grant"], released[2]["identity"], released[2]["bytes_written"]) == (grant, "user:1001", 1)
    ((_, port, fields),) = house.events("revoke")
    assert (port, fields["identity"], fields["reason"]) == ("LPT1", "user:1002", "went home")


async def test_revoke_cuts_a_pulse_and_makes_the_lines_safe(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = await open_house(nursery)
    owner, admin = await own(house), await house.enter(CARLA)
    pulse = owner.pulse(0xAA, 0x55, 9_000_000)
    await trio.sleep(1)
    await admin.result(admin.send("revoke"))
    answers = [message for message in await owner.messages() if message[:2] == [1, pulse]]
    assert answers[0][2][1] == "STATUS_ACCESS_DENIED"
    assert simulated(house.daemon).read_data() == 0
    assert status(house.daemon)["owner"] is None


async def test_revoke_where_nobody_owns(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    admin = await (await open_house(nursery)).enter(CARLA)
    assert await admin.result(admin.send("revoke")) == {"revoked": None, "grant": None}


async def test_an_administrator_may_revoke_its_own(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    admin = await (await open_house(nursery)).enter(CARLA)
    await admin.result(admin.allocate())
    msgid = admin.send("revoke")
    messages = await admin.messages()
    assert notifications(messages, "revoked") == [["administrator"]]
    assert [message[3]["revoked"] for message in messages if message[:2] == [1, msgid]] == [admin.session.number]


# kick


async def test_kick_ends_a_session_and_releases_what_it_holds(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = await open_house(nursery)
    owner, waiter, admin = await own(house), await house.enter(BERTA), await house.enter(CARLA)
    await owner.result(owner.connect_interrupt())
    waiting = waiter.allocate()
    await wait_all_tasks_blocked()
    number = owner.session.number
    assert await admin.result(admin.send("kick", {"session": number, "reason": "shift over"})) == {"kicked": number}
    await waiter.result(waiting)
    assert closing(await owner.messages()) == "administrator: shift over"
    assert owner.stream.is_closed
    assert (status(house.daemon)["registered"], status(house.daemon)["sessions"]) == (0, 2)
    ((_, port, fields),) = house.events("kick")
    assert (port, fields["identity"], fields["target"], fields["reason"]) == ("LPT1", "user:1002", number, "shift over")
    assert [fields["why"] for _, _, fields in house.events("released")] == ["administrator: shift over"]
    detail = await invalid(admin, admin.send("kick", {"session": number}))
    assert detail == f"session: port LPT1 has no session {number}"
    assert len(house.events("kick")) == 1, "what was not done is not noted"


async def test_kick_reaches_who_is_not_there(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Its connection is gone, its grace time runs; the secret is good no longer."""
    house = await open_house(nursery, port=[{**PORT, "grace_s": 3600}])
    owner = Peer(house.daemon, origin=BERTA)
    secret = (await owner.say_hello())["resume"]
    await owner.result(owner.allocate())
    await owner.result(owner.connect_interrupt())
    number = owner.session.number
    waiter, admin = await house.enter(BERTA), await house.enter(CARLA)
    waiting = waiter.allocate()
    owner.stream.break_(ConnectionResetError("reset"))
    await wait_all_tasks_blocked()
    assert (status(house.daemon)["owner"]["session"], status(house.daemon)["sessions"]) == (number, 3)
    assert await admin.result(admin.send("kick", {"session": number})) == {"kicked": number}
    await waiter.result(waiting)
    assert (status(house.daemon)["registered"], status(house.daemon)["sessions"]) == (0, 2)
    assert [fields["why"] for _, _, fields in house.events("released")] == ["administrator"]
    back = Peer(house.daemon, origin=BERTA)
    assert "resumed" not in await back.say_hello(resume=secret)
    assert back.session.number != number
    await trio.sleep(3600)
    assert status(house.daemon)["owner"]["session"] == waiter.session.number


async def test_who_is_kicked_is_not_kept_for_its_grace_time(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = await open_house(nursery, port=[{**PORT, "grace_s": 3600}])
    owner = Peer(house.daemon, origin=BERTA)
    secret = (await owner.say_hello())["resume"]
    await owner.result(owner.allocate())
    admin = await house.enter(CARLA)
    await admin.result(admin.send("kick", {"session": owner.session.number}))
    assert (status(house.daemon)["owner"], status(house.daemon)["sessions"]) == (None, 1)
    back = Peer(house.daemon, origin=BERTA)
    assert "resumed" not in await back.say_hello(resume=secret)


async def test_kick_reaches_who_reads_nothing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = await open_house(nursery)
    owner, admin = await own(house), await house.enter(CARLA)
    owner.stream.room = 0
    for _ in range(5000):
        owner.send("status")
    await wait_all_tasks_blocked()
    await admin.result(admin.send("kick", {"session": owner.session.number}))
    assert status(house.daemon)["owner"] is None
    await trio.sleep(5)
    assert owner.stream.is_closed


async def test_an_administrator_may_kick_itself(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    admin = await (await open_house(nursery)).enter(CARLA)
    msgid = admin.send("kick", {"session": admin.session.number})
    answer, _ = messages = await admin.messages()
    assert answer == [1, msgid, None, {"kicked": admin.session.number}]
    assert closing(messages) == "administrator"


async def test_a_session_of_another_port_is_not_there(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = House(await start_daemon(nursery, port=[{"name": "A"}, {"name": "B"}]))
    other, admin = await house.enter(BERTA, port="A"), await house.enter(ROOT, port="B")
    assert "port B has no session" in await invalid(admin, admin.send("kick", {"session": other.session.number}))
    assert is_open(other)


# pause and resume


async def test_pause_and_resume(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = await open_house(nursery)
    owner, waiter, late, admin = await own(house), await house.enter(BERTA), await house.enter(BERTA), None
    admin = await house.enter(CARLA)
    waiting = waiter.allocate()
    await wait_all_tasks_blocked()
    assert await admin.result(admin.send("pause", {"reason": "new cable"})) == {"paused": True, "was": False}
    assert notifications(await owner.messages(), "revoked") == [["port paused: new cable"]]
    assert house.paused == "new cable"
    assert (status(house.daemon)["owner"], status(house.daemon)["waiting"]) == (None, 1)
    for peer, code, input_ in ((late, Ioctl.READ_PORT_UCHAR, b"\x00"), (owner, Ioctl.READ_PORT_UCHAR, b"\x01")):
        error, _ = await peer.answer(peer.control(code, input_, 1))
        assert error[1:] == [NOT_READY, "port LPT1 is paused: new cable"]
    queued = late.allocate()
    assert [message[1] for message in await late.messages()] == ["queued"]
    assert await admin.result(admin.send("pause", {"reason": "again"})) == {"paused": True, "was": True}
    assert await admin.result(admin.send("resume")) == {"paused": False, "was": True}
    await waiter.result(waiting)
    assert simulated(house.daemon).read_data() == 0, "safe before the next grant"
    waiter.free()
    await late.result(queued)
    assert await admin.result(admin.send("resume")) == {"paused": False, "was": False}
    assert [event for event, *_ in house.events("pause", "resume")] == ["pause", "pause", "resume", "resume"]
    assert {fields["identity"] for _, _, fields in house.events("pause", "resume")} == {"user:1002"}


async def test_a_pause_outlasts_who_asked_for_it(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = await open_house(nursery)
    admin = await house.enter(CARLA)
    await admin.result(admin.send("pause", {"reason": "lent"}))
    admin.stream.end()
    await trio.sleep(1000)
    assert house.paused == "lent"
    other = await house.enter(ROOT)
    assert await other.result(other.send("resume")) == {"paused": False, "was": True}


# queue


async def test_the_queue_comes_in_pages_with_who_everybody_is(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = await open_house(nursery)
    owner = await own(house, client="first")
    waiters = [await house.enter(CARLA, client=f"w{number}") for number in range(1, 4)]
    for waiter in waiters:
        waiter.allocate()
        await wait_all_tasks_blocked()
    whole = await owner.result(owner.send("queue"))
    assert whole["owner"] == status(house.daemon)["owner"]
    who = {"session": owner.session.number, "client": "first", "peer": "uid 1001 pid 2", "identity": "user:1001"}
    assert {name: whole["owner"][name] for name in who} == who
    assert whole["waiting"] == 3
    assert [(each["position"], each["client"], each["identity"]) for each in whole["waiters"]] == [
        (1, "w1", "user:1002"),
        (2, "w2", "user:1002"),
        (3, "w3", "user:1002"),
    ]
    page = await owner.result(owner.send("queue", {"first": 3}))
    assert (page["waiting"], page["waiters"]) == (3, whole["waiters"][2:])
    for first in (4, 2**32 - 1):
        assert (await owner.result(owner.send("queue", {"first": first})))["waiters"] == []


async def test_status_tells_who_everybody_is(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = await open_house(nursery)
    owner, waiter, admin = await own(house), await house.enter(CARLA), await house.enter(ROOT)
    waiter.allocate()
    await admin.result(admin.connect_interrupt())
    report = await admin.result(admin.send("status"))
    assert report["owner"]["identity"] == "user:1001"
    assert [each["identity"] for each in report["waiters"]] == ["user:1002"]
    assert [each["identity"] for each in report["registrations"]] == ["user:root"]
    assert owner.session.identity == BERTA.identity


@pytest.mark.parametrize("method", ["revoke", "pause"])
async def test_what_an_administrator_ends_is_in_the_audit_once(
    nursery: trio.Nursery, autojump_clock: MockClock, method: str
) -> None:
    house = await open_house(nursery)
    await own(house)
    admin = await house.enter(CARLA)
    await admin.result(admin.send(method, {"reason": "r"}))
    assert [event for event, *_ in house.recorded] == ["granted", method, "released"]
