"""Sessions that come, lose their connection, come back or do not, in any order: against a model of lists."""

from __future__ import annotations

import msgpack
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.server.daemon import Daemon
from tests.server.fakes import ROOT
from tests.server.resuming import GRACE_S, Client, back, come, graceful, owner_of

CLIENTS = 4
NAP_S = 3.0  # no multiple of it is the grace time
ACTIONS = ("hello", "allocate", "free", "connect", "disconnect", "break", "back", "bye", "violate", "kick", "nap")
_STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, CLIENTS - 1)), max_size=50)


class Someone:
    """What the model knows of a session."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.number = client.number
        self.request = 0  # its allocate, while it waits
        self.listens = False
        self.has_disconnected = False  # and what that was answered may be unread
        self.left_at: float | None = None  # when it lost its connection


class Model:
    """A daemon, and what must be true of it."""

    def __init__(self, daemon: Daemon, admin: Client) -> None:
        self.daemon = daemon
        self.admin = admin
        self.places: list[Someone | None] = [None] * CLIENTS
        self.owner: Someone | None = None
        self.queue: list[Someone] = []
        self.grant = daemon.workers["LPT1"].driver.ownership.grant

    @property
    def present(self) -> list[Someone]:
        return [each for each in self.places if each is not None]

    async def step(self, action: str, place: int) -> None:
        someone = self.places[place]
        if action == "nap":
            await trio.sleep(NAP_S)
        elif action == "hello":
            if someone is None:
                self.places[place] = Someone(await come(self.daemon))
        elif someone is None:
            return
        elif action == "back":
            await self.come_back(someone)
        elif action == "kick":
            await self.admin.result(self.admin.send("kick", {"session": someone.number}))
            self.end(someone)
        elif someone.left_at is None:
            await getattr(self, f"{action}_")(someone)
        await wait_all_tasks_blocked()
        self.check()

    # What a client with a connection does

    async def allocate_(self, someone: Someone) -> None:
        if someone is self.owner or someone in self.queue:
            return
        if self.owner is None:
            self.owner = someone
            assert await someone.client.own() == self.grant + 1
        else:
            someone.request = await someone.client.wait_for_port()
            self.queue.append(someone)

    async def free_(self, someone: Someone) -> None:
        msgid = someone.client.free()
        assert ((await someone.client.answer(msgid))[0] is None) == (someone is self.owner)
        if someone is self.owner:
            self.hand_on()

    async def connect_(self, someone: Someone) -> None:
        msgid = someone.client.connect_interrupt()
        assert ((await someone.client.answer(msgid))[0] is None) != someone.listens
        someone.listens = True

    async def disconnect_(self, someone: Someone) -> None:
        msgid = someone.client.disconnect_interrupt()
        assert ((await someone.client.answer(msgid))[0] is None) == someone.listens
        someone.has_disconnected = someone.has_disconnected or someone.listens
        someone.listens = False

    async def break_(self, someone: Someone) -> None:
        await someone.client.lose()
        if someone is self.owner or someone in self.queue or someone.listens or someone.has_disconnected:
            someone.left_at = trio.current_time()
        else:
            self.end(someone)

    async def bye_(self, someone: Someone) -> None:
        someone.client.stream.feed(msgpack.packb([2, "bye", []]))
        await someone.client.lose()
        self.end(someone)

    async def violate_(self, someone: Someone) -> None:
        someone.client.stream.feed(b"\xc1")
        self.end(someone)

    async def come_back(self, someone: Someone) -> None:
        """After a break, or while the old connection is still there."""
        someone.client = again = await back(self.daemon, someone.client)
        someone.left_at, someone.has_disconnected = None, False  # it says not where it is: it hears nothing any more
        assert again.number == someone.number
        is_waiting = someone in self.queue
        assert again.resumed == {
            "grant": self.grant if someone is self.owner else None,
            "position": self.queue.index(someone) + 1 if is_waiting else None,
            "pending": [someone.request] if is_waiting else [],
            "registrations": again.resumed["registrations"],
        }
        assert len(again.resumed["registrations"]) == someone.listens

    # What must follow

    def hand_on(self) -> None:
        self.owner = self.queue.pop(0) if self.queue else None

    def end(self, someone: Someone) -> None:
        """All that it held is released."""
        self.places[self.places.index(someone)] = None
        if someone in self.queue:
            self.queue.remove(someone)
        if someone is self.owner:
            self.hand_on()

    def check(self) -> None:
        now = trio.current_time()
        for someone in self.present:
            if someone.left_at is not None and now >= someone.left_at + GRACE_S:
                self.end(someone)
        worker = self.daemon.workers["LPT1"]
        ownership = worker.driver.ownership
        assert owner_of(self.daemon) == (None if self.owner is None else self.owner.number)
        assert [each.request.session.session for each in ownership.waiters()] == [each.number for each in self.queue]
        assert len(worker.driver.registry) == sum(each.listens for each in self.present)
        assert ownership.grant >= self.grant
        self.grant = ownership.grant
        away = [each for each in self.present if each.left_at is not None]
        assert len(worker.parking) == len(away)
        assert len(worker.sessions) == len(self.daemon.sessions) == len(self.present) - len(away) + 1
        assert len(self.daemon.tickets) == len(self.present) + 1


async def _play(steps: list[tuple[str, int]]) -> None:
    async with trio.open_nursery() as nursery:
        daemon = await graceful(nursery, port={"interrupt_linger_s": 1.0})
        model = Model(daemon, await come(daemon, ROOT))
        for action, place in steps:
            await model.step(action, place)
        for client in [model.admin] + [each.client for each in model.present if each.left_at is None]:
            await client.lose()
        await trio.sleep(GRACE_S + 2)
        worker = daemon.workers["LPT1"]
        leaks = (worker.parking, worker.sessions, daemon.sessions, daemon.tickets, worker.driver.deadlines)
        assert [len(each) for each in leaks] == [0] * len(leaks)
        assert (owner_of(daemon), worker.driver.ownership.waiting, len(worker.driver.registry)) == (None, 0, 0)
        nursery.cancel_scope.cancel()


@settings(deadline=None)
@given(_STEPS)
def test_one_owner_nobody_overtaken_nothing_left(steps: list[tuple[str, int]]) -> None:
    trio.run(_play, steps, clock=MockClock(autojump_threshold=0))
