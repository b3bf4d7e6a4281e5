"""The methods of the wire: who may, what they take and answer; administration, also of those who are not there."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
import trio
from trio.testing import MockClock

from lpt_service.core.effects import Granted, Released
from lpt_service.protocol.ioctl import CONTROL_CODES, Ioctl, Role
from lpt_service.server.audit_record import ownership
from lpt_service.server.daemon import Daemon
from lpt_service.server.identity import Identity, Origin
from lpt_service.server.methods import METHODS, REASON_MAX_CHARACTERS
from tests.server.fakes import (
    INTERNAL,
    ROOT,
    Peer,
    VirtualClock,
    closing,
    config,
    is_open,
    routine,
    start_daemon,
    status,
)

ANNA = Origin("uid 1000 pid 1", "user 1000", Identity(uid=1000))
BERTA = Origin("uid 1001 pid 2", "user 1001", Identity(uid=1001))
CARLA = Origin("uid 1002 pid 3", "user 1002", Identity(uid=1002))
ROLES = [
    {"who": ["user:1000"], "role": "observe"},
    {"who": ["user:1001"], "role": "use"},
    {"who": ["user:1002"], "role": "admin"},
]
DEVICE = "device_control"
ADMINISTRATION = ("revoke", "kick", "pause", "resume")
PORT = {"enable_connect_interrupt": True, "safe_data": 0}


class House:
    """A daemon whose port has an administrator, and what the audit was told."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.recorded: list[tuple[str, str | None, dict[str, Any]]] = []
        self.refused: list[tuple[str, str | None, dict[str, Any]]] = []
        daemon.audit.record = self._record  # type: ignore[method-assign]
        daemon.audit.refused = self._refused  # type: ignore[method-assign]
        daemon.audit.record_ownership = self._record_ownership  # type: ignore[method-assign]

    def _record(self, event: str, port: str | None = None, **fields: Any) -> None:
        self.recorded.append((event, port, fields))

    def _record_ownership(self, port: str, effect: Granted | Released) -> None:
        event = "granted" if isinstance(effect, Granted) else "released"
        self.recorded.append((event, port, ownership(effect, VirtualClock())))

    def _refused(self, why: str, port: str | None = None, **fields: Any) -> None:
        self.refused.append((why, port, fields))

    async def enter(self, origin: Origin, **keys: Any) -> Peer:
        peer = Peer(self.daemon, origin=origin)
        await peer.say_hello(**keys)
        return peer

    def events(self, *wanted: str) -> list[tuple[str, str | None, dict[str, Any]]]:
        return [each for each in self.recorded if each[0] in wanted]

    @property
    def paused(self) -> Any:
        return status(self.daemon)["paused"]


async def open_house(nursery: trio.Nursery, **sections: Any) -> House:
    return House(await start_daemon(nursery, **{"port": [PORT], "role": ROLES, **sections}))


async def denied(peer: Peer, msgid: int) -> str:
    error, result = await peer.answer(msgid)
    assert (error[1], result) == ("STATUS_ACCESS_DENIED", None)
    assert is_open(peer)
    detail: str = error[2]
    return detail


async def invalid(peer: Peer, msgid: int) -> str:
    error, result = await peer.answer(msgid)
    assert (error[1], result) == ("STATUS_INVALID_PARAMETER", None)
    assert is_open(peer)
    detail: str = error[2]
    return detail


# Roles


def test_both_classes_are_the_driver_s_and_the_rest_is_named() -> None:
    assert METHODS[INTERNAL] is METHODS[DEVICE]
    assert METHODS.keys() - {INTERNAL, DEVICE} == {"hello", "status", "ping", "queue", "drain", *ADMINISTRATION}


def _input(row: Any, context: int) -> bytes:
    if row.code in (Ioctl.PARALLEL_CONNECT_INTERRUPT, Ioctl.PARALLEL_DISCONNECT_INTERRUPT):
        return routine()
    if row.takes_context:
        return context.to_bytes(8, "little")
    return bytes(row.input_bytes)


@pytest.mark.parametrize("origin", [ANNA, BERTA, CARLA, ROOT], ids=["observe", "use", "admin", "root"])
async def test_each_code_asks_for_its_role(nursery: trio.Nursery, autojump_clock: MockClock, origin: Origin) -> None:
    house = await open_house(nursery)
    peer = await house.enter(origin)
    state = peer.session.state
    assert state is not None
    may_use = state.role >= Role.USE
    for row in CONTROL_CODES:
        for each in row.classes:
            error, _ = await peer.answer(peer.send(each.value, row.code, _input(row, state.context), 128))
            needed = f"role: {row.name} needs the role use on port LPT1, this session has observe"
            is_refused = error is not None and error[1:] == ["STATUS_ACCESS_DENIED", needed]
            assert is_refused == (row.role >= Role.USE and not may_use), (row.name, error)


async def test_an_observer_sees_and_hears_all_and_touches_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    house = await open_house(nursery)
    observer, owner = await house.enter(ANNA, client="watch"), await house.enter(BERTA)
    await owner.result(owner.allocate())
    await owner.result(owner.control(Ioctl.WRITE_PORT_UCHAR, b"\x00\x5a"))
    assert (await observer.result(observer.control(Ioctl.READ_PORT_UCHAR, b"\x00", 1)))[1] == b"\x5a"
    for name in ("status", "ping", "queue"):
        assert await observer.result(observer.send(name))
    await observer.result(observer.connect_interrupt(1))
    deferred = observer.connect_interrupt(2, deferred=3)
    assert await denied(observer, deferred) == (
        "role: IOCTL_INTERNAL_PARALLEL_CONNECT_INTERRUPT with a DeferredPortCheckRoutine needs the role use on port "
        "LPT1, this session has observe"
    )
    assert await denied(observer, observer.connect_interrupt(0, deferred=3))
    await observer.result(observer.disconnect_interrupt(1))
    before = status(house.daemon)
    for ask in (observer.allocate, observer.free, lambda: observer.pulse(1, 0, 1)):
        assert await observer.status_of(ask()) == "STATUS_ACCESS_DENIED"
    after = status(house.daemon)
    assert (after["owner"], after["waiting"]) == (before["owner"], 0)
    assert after["registrations"] == []
    why, port, fields = house.refused[0]
    assert (port, fields["identity"], fields["peer"]) == ("LPT1", "user:1000", "uid 1000 pid 1")
    assert "DeferredPortCheckRoutine" in why
    assert len(house.refused) == 5


@pytest.mark.parametrize("origin", [ANNA, BERTA], ids=["observe", "use"])
@pytest.mark.parametrize("method", ADMINISTRATION)
async def test_administration_is_for_administrators(
    nursery: trio.Nursery, autojump_clock: MockClock, method: str, origin: Origin
) -> None:
    house = await open_house(nursery)
    peer, owner = await house.enter(origin), await house.enter(BERTA)
    await owner.result(owner.allocate())
    house.recorded.clear()
    params = {"session": owner.session.number} if method == "kick" else {}
    role = "observe" if origin is ANNA else "use"
    detail = await denied(peer, peer.send(method, params))
    assert detail == f"role: {method} needs the role admin on port LPT1, this session has {role}"
    assert house.recorded == []
    ((why, port, fields),) = house.refused
    assert (why, port, fields["session"]) == (detail, "LPT1", peer.session.number)
    assert status(house.daemon)["owner"]["session"] == owner.session.number
    assert house.paused is None
    assert is_open(owner)


async def test_roles_are_of_one_port(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    roles = [
        {"who": ["user:1000"], "role": "admin", "ports": ["A"]},
        {"who": ["user:1000"], "role": "observe", "ports": ["B"]},
    ]
    house = await open_house(nursery, port=[{"name": "A"}, {"name": "B"}, {"name": "C"}], role=roles)
    a, b = await house.enter(ANNA, port="A"), await house.enter(ANNA, port="B")
    assert await a.result(a.send("pause", {})) == {"paused": True, "was": False}
    assert await denied(b, b.send("pause", {}))
    assert await denied(b, b.allocate())
    assert await denied(a, a.send("drain", {"on": True})) == (
        "role: drain needs the role admin on every port of the daemon"
    )
    c = Peer(house.daemon, origin=ANNA)
    c.send("hello", {"protocol": 1, "port": "C"})
    assert closing(await c.messages()).endswith("role: hello needs the role observe on port C, this session has none")
    assert [status(house.daemon, name)["paused"] for name in "AB"] == ["", None]


@pytest.mark.parametrize(
    ("origin", "features"),
    [(ANNA, []), (BERTA, []), (CARLA, ["administration", "drain"]), (ROOT, ["administration", "drain"])],
)
async def test_features_tell_administrators_what_they_may(
    nursery: trio.Nursery, autojump_clock: MockClock, origin: Origin, features: list[str]
) -> None:
    house = await open_house(nursery)
    assert (await Peer(house.daemon, origin=origin).say_hello())["features"] == ["disconnected", *features]


async def test_a_reload_changes_the_roles_of_those_who_come_after_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    house = await open_house(nursery)
    observer, admin = await house.enter(ANNA), await house.enter(CARLA)
    swapped = [{"who": ["user:1000"], "role": "admin"}, {"who": ["user:1002"], "role": "observe"}]
    house.daemon._reread = lambda: config(port=[PORT], role=swapped)
    await house.daemon.reload()
    assert await denied(observer, observer.send("pause", {}))
    assert await denied(observer, observer.send("drain", {"on": True}))
    assert await admin.result(admin.send("pause", {}))
    assert await admin.result(admin.send("resume", {}))
    assert await admin.result(admin.send("drain", {"on": True}))
    new_admin, new_observer = await house.enter(ANNA), await house.enter(CARLA)
    assert await new_admin.result(new_admin.send("pause", {}))
    assert await new_admin.result(new_admin.send("drain", {"on": True}))
    assert await denied(new_observer, new_observer.send("pause", {}))
    gone = Peer(house.daemon, origin=BERTA)
    assert await gone.status_of(gone.send("hello", {"protocol": 1})) == "STATUS_ACCESS_DENIED"


async def test_a_port_that_stays_until_a_restart_counts_for_drain(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ports = [{"name": "A"}, {"name": "B"}]
    house = await open_house(nursery, port=ports)
    role = [{"who": ["user:1000"], "role": "admin", "ports": ["A"]}]
    house.daemon._reread = lambda: config(port=ports[:1], role=role)
    await house.daemon.reload()
    admin = await house.enter(ANNA, port="A")
    assert await denied(admin, admin.send("drain", {"on": True}))


async def test_drain_ends_when_who_wanted_it_comes_back_with_less(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """On every port; the former connection is still there."""
    ports = [{"name": "A", "grace_s": 60}, {"name": "B"}]
    house = await open_house(nursery, port=ports)
    admin = Peer(house.daemon, origin=CARLA)
    secret = (await admin.say_hello(port="A"))["resume"]
    await admin.result(admin.send("drain", {"on": True}))
    house.daemon._reread = lambda: config(port=ports, role=[{"who": ["user:1002"], "role": "use"}])
    await house.daemon.reload()
    back = Peer(house.daemon, origin=CARLA)
    assert "resumed" in await back.say_hello(port="A", resume=secret)
    assert [status(house.daemon, name)["draining"] for name in "AB"] == [False, False]
    assert await denied(back, back.send("drain", {"on": True}))


# What they take

WRONG = [
    ("revoke", ("now",), "revoke: params are [] or one map"),
    ("revoke", ({}, {}), "revoke: params are [] or one map"),
    ("revoke", ({"why": "x"},), "revoke: 'why' is not known; the keys are: reason"),
    ("revoke", ({"reason": 5},), "reason: must be str, got 5"),
    ("revoke", ({"reason": b"x"},), "reason: must be str, got b'x'"),
    ("revoke", ({"reason": "x" * 201},), "reason: 201 characters, the limit is 200"),
    ("revoke", ({"reason": "a\nb"},), "reason: one line of printable text, for logs and terminals"),
    ("pause", ({"reason": "\x1b[2J"},), "reason: one line of printable text, for logs and terminals"),
    ("pause", ({"reason": "x" * 201},), "reason: 201 characters, the limit is 200"),
    ("pause", ({5: "x"},), "pause: 5 is not known; the keys are: reason"),
    ("resume", ({"reason": "x"},), "resume: 'reason' is not known; the keys are: none"),
    ("kick", (), "session: missing; status and queue show the numbers"),
    ("kick", ({"reason": "x"},), "session: missing; status and queue show the numbers"),
    ("kick", ({"session": "1"},), "session: must be int, got '1'"),
    ("kick", ({"session": True},), "session: must be int, got True"),
    ("kick", ({"session": 2**63},), "session: port LPT1 has no session 9223372036854775808"),
    ("kick", ({"session": -1},), "session: port LPT1 has no session -1"),
    ("queue", ({"first": 0},), "first: a place in the queue, from 1 to 4294967295, got 0"),
    ("queue", ({"first": 2**32},), "first: a place in the queue, from 1 to 4294967295, got 4294967296"),
    ("queue", ({"first": 2**64 - 1},), "first: a place in the queue, from 1 to 4294967295, got 18446744073709551615"),
    ("queue", ({"first": None},), "first: must be int, got None"),
    ("queue", ({"last": 1},), "queue: 'last' is not known; the keys are: first"),
    ("status", ({"x": 1},), "status: params are [] or [{}]; no option is known"),
    ("ping", ({},), "ping: params are []"),
]


@pytest.mark.parametrize(("method", "params", "said"), WRONG)
async def test_wrong_params_are_named_and_change_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock, method: str, params: tuple[Any, ...], said: str
) -> None:
    house = await open_house(nursery)
    admin, owner = await house.enter(CARLA), await house.enter(BERTA)
    await owner.result(owner.allocate())
    assert await invalid(admin, admin.send(method, *params)) == said
    assert status(house.daemon)["owner"]["session"] == owner.session.number
    assert house.paused is None


ABOUT_VALUES = ("characters", "printable", "no session")


@pytest.mark.parametrize("origin", [ANNA, BERTA], ids=["observe", "use"])
@pytest.mark.parametrize(("method", "params", "said"), [row for row in WRONG if row[0] in ADMINISTRATION])
async def test_the_role_comes_after_shape_and_types_and_before_values(
    nursery: trio.Nursery, autojump_clock: MockClock, origin: Origin, method: str, params: tuple[Any, ...], said: str
) -> None:
    """The order of checks, as for control requests."""
    house = await open_house(nursery)
    peer = await house.enter(origin)
    msgid = peer.send(method, *params)
    if any(words in said for words in ABOUT_VALUES):
        assert (await denied(peer, msgid)).startswith(f"role: {method} needs the role admin")
        assert len(house.refused) == 1
    else:
        assert await invalid(peer, msgid) == said


@pytest.mark.parametrize("params", [5, None, "x", {0: {}}])
@pytest.mark.parametrize("method", [each for each in METHODS if each != "hello"])
async def test_params_that_are_no_array(
    nursery: trio.Nursery, autojump_clock: MockClock, method: str, params: Any
) -> None:
    admin = await (await open_house(nursery)).enter(CARLA)
    admin.stream.feed(msgpack.packb([0, 77, method, params]))
    await invalid(admin, 77)
    assert is_open(admin)


@pytest.mark.parametrize("method", ["revoke", "pause", "resume", "queue", "status"])
async def test_the_map_may_be_empty_or_left_out(nursery: trio.Nursery, autojump_clock: MockClock, method: str) -> None:
    admin = await (await open_house(nursery)).enter(CARLA)
    assert await admin.result(admin.send(method))
    assert await admin.result(admin.send(method, {}))


async def test_a_reason_at_the_limit(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = await open_house(nursery)
    admin = await house.enter(CARLA)
    reason = "ü" * REASON_MAX_CHARACTERS
    await admin.result(admin.send("pause", {"reason": reason}))
    assert house.paused == reason
