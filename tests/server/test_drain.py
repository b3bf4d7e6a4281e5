"""The request drain: who may, what it answers, and that it ends with its session."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.server.daemon import Daemon
from tests.server.fakes import MEMORY, ROOT, Peer, enter, start_daemon, status

TWO_PORTS = [{"name": "A"}, {"name": "B"}]


async def administrator(daemon: Daemon, **keys: Any) -> Peer:
    peer = Peer(daemon, origin=ROOT)
    await peer.say_hello(**keys)
    return peer


async def test_every_port_is_drained_until_the_session_ends(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await start_daemon(nursery, port=TWO_PORTS)
    admin = await administrator(daemon, port="A")
    owner, waiter = await enter(daemon, port="B", client="me"), await enter(daemon, port="B")
    await owner.result(owner.allocate())
    assert await admin.result(admin.send("drain", {"on": True})) == {
        "idle": False,
        "ports": [{"port": "A", "owner": None, "waiting": 0}, {"port": "B", "owner": "me", "waiting": 0}],
    }
    waiting = waiter.allocate()
    await wait_all_tasks_blocked()
    owner.free()
    await wait_all_tasks_blocked()
    assert (await admin.result(admin.send("drain", {"on": True})))["idle"]
    assert (status(daemon, "B")["owner"], status(daemon, "B")["waiting"]) == (None, 1)
    admin.stream.end()
    await waiter.result(waiting)
    assert not status(daemon, "A")["draining"]


async def test_it_can_be_called_off(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    daemon = await start_daemon(nursery)
    admin, client = await administrator(daemon), await enter(daemon)
    await admin.result(admin.send("drain", {"on": True}))
    waiting = client.allocate()
    await wait_all_tasks_blocked()
    await admin.result(admin.send("drain", {"on": False}))
    await client.result(waiting)


@pytest.mark.parametrize("params", [(), ({},), ({"on": 1},), ({"on": True, "x": 1},), (True,), ({"on": True}, 1)])
async def test_wrong_params_are_named(daemon: Daemon, autojump_clock: MockClock, params: tuple[Any, ...]) -> None:
    admin = await administrator(daemon)
    assert await admin.status_of(admin.send("drain", *params)) == "STATUS_INVALID_PARAMETER"


async def test_others_are_refused(daemon: Daemon, autojump_clock: MockClock) -> None:
    client = await enter(daemon)
    assert await client.status_of(client.send("drain", {"on": True})) == "STATUS_ACCESS_DENIED"
    assert not status(daemon)["draining"]


async def test_an_administrator_needs_no_token_but_gives_no_wrong_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = await start_daemon(nursery, port=TWO_PORTS, token=[{"name": "a", "sha256": "0" * 64}])
    for origin, keys, is_let_in in ((ROOT, {}, True), (ROOT, {"token": "x"}, False), (MEMORY, {}, False)):
        peer = Peer(daemon, origin=origin)
        peer.send("hello", {"protocol": 1, "port": "A", **keys})
        reply = (await peer.messages())[0]
        assert (reply[2] is None) == is_let_in, reply
