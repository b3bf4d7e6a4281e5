"""received + lost = generated between connect and disconnect: for every client, whenever its connection breaks."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from lpt_service.server.daemon import Daemon
from tests.server.fakes import ROOT, simulated
from tests.server.ledger import Ledger, settle_down
from tests.server.resuming import Client, come, graceful, interrupt

RING = 16
_ALL = 1 << 20
_ISR = st.integers(1, 2)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("connect"), _ISR),
        st.tuples(st.just("disconnect"), _ISR),
        st.tuples(st.just("raise"), st.one_of(st.integers(1, 5), st.just(101))),
        st.tuples(st.just("read"), st.one_of(st.integers(0, 300), st.just(_ALL))),
        st.tuples(st.just("room"), st.integers(0, 200)),
        st.tuples(st.just("break"), st.just(0)),
        st.tuples(st.just("hello"), st.just(0)),  # also while the old connection is still there
        st.tuples(st.just("nap"), st.just(0)),
        st.tuples(st.just("pause"), st.just(0)),
        st.tuples(st.just("resume"), st.just(0)),
        st.tuples(st.just("unplug"), st.integers(0, 3)),
    ),
    max_size=60,
)


class _World:
    """A daemon, its administrator, and the client whose account it is about."""

    def __init__(self, daemon: Daemon, admin: Client) -> None:
        self.daemon = daemon
        self.admin = admin
        self.ledger = Ledger(daemon)

    async def step(self, step: str, number: int) -> None:
        ledger = self.ledger
        if ledger.client is None and step in ("connect", "disconnect", "read", "room"):
            await ledger.hello()
        match step:
            case "connect":
                ledger.connect(number)
            case "disconnect":
                ledger.disconnect(number)
            case "raise":
                simulated(self.daemon).raise_interrupt(number)
            case "read":
                ledger.read(number)
            case "room" if ledger.client is not None:
                ledger.client.stream.room = number
            case "break" if ledger.client is not None:
                await ledger.break_off()
            case "hello":
                await ledger.hello()
            case "nap":
                await trio.sleep(1.5)
            case "pause" | "resume":
                await self.admin.result(self.admin.send(step, {}))
            case "unplug":
                await self.unplug(number)
        await wait_all_tasks_blocked()

    async def unplug(self, unread: int) -> None:
        """The port goes away, after so many interrupts that nobody reads, and comes again."""
        ledger = self.ledger
        if ledger.client is not None:
            await ledger.read_all()
        simulated(self.daemon).raise_interrupt(unread)
        await wait_all_tasks_blocked()
        simulated(self.daemon).unplug()
        await trio.sleep(5)
        ledger.end_all(self.daemon.workers["LPT1"].driver.registry.log.next_seq)

    async def check(self) -> None:
        """Who has read everything knows whether the port is heard."""
        await self.ledger.read_all()
        if self.ledger.accounts:
            assert self.ledger.takes_it_for_heard is self.daemon.workers["LPT1"].driver.registry.is_heard


async def _play(steps: list[tuple[str, int]], ring: int) -> None:
    async with trio.open_nursery() as nursery:
        port = {"interrupt_log_frames": ring, "max_interrupt_rate_hz": 100, "interrupt_linger_s": 1.0}
        daemon = await graceful(nursery, grace_s=1000.0, port=port)
        world = _World(daemon, await come(daemon, ROOT))
        for step, number in steps:
            await world.step(step, number)
            if (step, number) == ("read", _ALL):
                await world.check()
        await settle_down(world.ledger)
        nursery.cancel_scope.cancel()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_STEPS, st.sampled_from((RING, 1024)))
def test_the_account_comes_out_whenever_the_connection_breaks(
    errors_logged: list[str], steps: list[tuple[str, int]], ring: int
) -> None:
    trio.run(_play, steps, ring, clock=MockClock(autojump_threshold=0))
    errors_logged.clear()  # of the port that went away


# The same for every frame

SCENES: dict[str, list[tuple[str, int]]] = {
    "one routine": [("connect", 1), ("interrupt", 5), ("disconnect", 1), ("interrupt", 1)],
    "two routines": [
        ("connect", 1), ("interrupt", 1), ("connect", 2), ("interrupt", 2), ("disconnect", 1), ("interrupt", 1),
        ("disconnect", 2),
    ],
    "two after each other": [
        ("connect", 1), ("interrupt", 2), ("disconnect", 1), ("interrupt", 3), ("connect", 2), ("interrupt", 1),
        ("disconnect", 2),
    ],
    "one after itself, at once": [
        ("connect", 1), ("interrupt", 1), ("disconnect", 1), ("connect", 1), ("interrupt", 1), ("disconnect", 1),
    ],
    "more than the ring keeps": [("connect", 1), *[("interrupt", 1)] * (2 * RING), ("disconnect", 1)],
    "a storm": [("connect", 1), ("interrupt", 1), ("storm", 101), ("disconnect", 1), ("connect", 2)],
}  # fmt: skip


async def play_cut(scene: list[tuple[str, int]], frames: int, *, is_twice: bool) -> bool:
    """The client reads so many frames, and half of the next; then its connection breaks. False if there are no more."""
    async with trio.open_nursery() as nursery:
        daemon = await graceful(nursery, port={"interrupt_log_frames": RING, "max_interrupt_rate_hz": 100})
        ledger = Ledger(daemon)
        await ledger.hello()
        client = ledger.client
        assert client is not None
        for step, number in scene:
            if step in ("connect", "disconnect"):
                ledger.ask(step, number)  # without waiting for an answer
            elif step == "storm":
                simulated(daemon).raise_interrupt(number)
            else:
                await interrupt(daemon, number)
            await wait_all_tasks_blocked()
        while frames and (data := client.stream.take(1)):
            frames -= ledger.read_bytes(data)
        is_more = bool(client.stream.take(5))
        await ledger.break_off()
        await interrupt(daemon)
        if is_twice:
            await ledger.hello()
            await ledger.break_off()
        await settle_down(ledger)
        nursery.cancel_scope.cancel()
    return is_more


@pytest.mark.parametrize("is_twice", [False, True], ids=["", "twice"])
@pytest.mark.parametrize("scene", SCENES)
def test_the_connection_breaks_after_any_frame(scene: str, is_twice: bool) -> None:
    frames = 0
    while trio.run(partial(play_cut, SCENES[scene], frames, is_twice=is_twice), clock=MockClock(autojump_threshold=0)):
        frames += 1
    assert frames >= len(SCENES[scene]) - 1
