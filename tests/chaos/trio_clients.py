"""Owners and listeners under trio, all in one thread; see clients.py."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import trio

import lpt_client
from lpt_client.errors import ConnectionLost, NotConnected, PortStopped
from lpt_client.operations import ANSWER_MARGIN_S, CLEANUP_TIMEOUT_S
from tests.chaos.clients import (
    AGAIN_S,
    COMES_BACK,
    CONNECT_S,
    D3,
    HEARS_TOO,
    REPLY_S,
    WAITS_S,
    Returns,
    network_fails,
    settle,
)
from tests.chaos.ledger import Account
from tests.chaos.world import World

T = TypeVar("T")

# A call that is given up is withdrawn first, and what it had acquired given back.
_CALL_S = REPLY_S + CLEANUP_TIMEOUT_S


def trio_crowd(world: World, name: str, *, owners: int, listeners: int) -> None:
    """Many clients in one thread."""
    trio.run(partial(_crowd, world, name, owners, listeners))


async def _crowd(world: World, name: str, owners: int, listeners: int) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(owners):
            nursery.start_soon(_owner, world, f"{name} owner {number}")
        for number in range(listeners):
            nursery.start_soon(_listener, world, f"{name} listener {number}")


@asynccontextmanager
async def _opened(
    world: World, name: str, chance: random.Random, *, reconnect: bool = False
) -> AsyncIterator[lpt_client.Port]:
    url, tls = world.way(chance, chance.choice(world.terms.port_names()))
    with world.patience.within("trio open_port", CONNECT_S):
        opening = lpt_client.open_port(url, client=name, tls=tls, reconnect=reconnect, connect_timeout_s=CONNECT_S)
        port = await opening.__aenter__()
    try:
        world.done["sessions"] += 1
        yield port
    except BaseException as exc:
        if not await opening.__aexit__(type(exc), exc, exc.__traceback__):
            raise
    else:
        await opening.__aexit__(None, None, None)


class _Owner:
    """One session of an owner."""

    def __init__(self, world: World, name: str, chance: random.Random, port: lpt_client.Port) -> None:
        self._world = world
        self._name = name
        self._chance = chance
        self._port = port
        self._returns = Returns(world, port.session)
        # What the calls of a block have in common.
        self._calls_s = REPLY_S + (AGAIN_S if world.terms.grace_s else 0)

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call, made again if its answer is lost and the session goes on."""
        while True:
            try:
                return await call()
            except ConnectionLost as lost:
                if not lost.goes_on:
                    raise
                self._world.done["asked again"] += 1
            finally:
                self._look()

    def _look(self) -> None:
        if self._port.is_connected:
            self._returns.look(self._port.session)

    async def hold_once(self) -> bool:
        """Own the port for moments; False if it is not known what became of the session."""
        wait_s = self._chance.choice(WAITS_S)
        stated_s = wait_s + ANSWER_MARGIN_S + self._calls_s + 3 * CLEANUP_TIMEOUT_S
        with self._world.patience.within("trio allocated", stated_s):
            # So the port is given up, whatever becomes of the calls.
            with trio.move_on_after(wait_s + ANSWER_MARGIN_S + self._calls_s) as scope:
                async with self._port.allocated(timeout=wait_s) as grant:
                    self._look()
                    scope.deadline = trio.current_time() + self._calls_s
                    await self._use(grant, scope)
        if scope.cancelled_caught:
            self._world.done["trio calls given up"] += 1
        return not scope.cancelled_caught

    async def _use(self, grant: int, scope: trio.CancelScope) -> None:
        world, chance, port = self._world, self._chance, self._port
        session = await self.ask(self._session)
        ledger = world.ledgers[session.port]
        ledger.granted(grant, session.session, self._name)
        world.done["grants"] += 1
        value = chance.randrange(256)
        ledger.wrote(grant, await self.ask(partial(port.write_data, value, grant=grant)))
        if chance.random() < 0.3:
            width_us = chance.randint(1, 3000)
            ledger.wrote(grant, *await self.ask(partial(port.pulse, value ^ D3, value, width_us=width_us, grant=grant)))
        seen = await self.ask(port.read_data)
        is_other = seen not in world.terms.may_be_read(value)
        assert not is_other or world.terms.may_be_revoked, f"grant {grant}: somebody else wrote {seen}"
        if world.terms.long_hold_s and chance.random() < 0.1:
            scope.deadline += world.terms.long_hold_s
            await trio.sleep(world.terms.long_hold_s)
        ledger.wrote(grant, await self.ask(partial(port.write_data, value ^ 0xF0, grant=grant)))
        assert not is_other, f"grant {grant} is in force, and somebody else wrote {seen}"

    async def _session(self) -> lpt_client.SessionInfo:
        await self._port.wait_connected()
        return self._port.session


async def _owner(world: World, name: str) -> None:
    chance = world.chance(name)
    while not world.is_over:
        await trio.lowlevel.checkpoint()
        reconnect = world.terms.grace_s > 0 and chance.random() < COMES_BACK
        with network_fails(world):
            async with _opened(world, name, chance, reconnect=reconnect) as port:
                owner = _Owner(world, name, chance, port)
                if chance.random() < HEARS_TOO:
                    await _own_and_hear(world, chance, port, owner)
                else:
                    await _own(chance, owner)


async def _own(chance: random.Random, owner: _Owner) -> None:
    for _ in range(chance.randint(1, 6)):
        if not await owner.hold_once():
            break


async def _own_and_hear(world: World, chance: random.Random, port: lpt_client.Port, owner: _Owner) -> None:
    """The same, by a session that hears interrupts, too."""
    account: Account | None = None
    interrupts: lpt_client.Interrupts | None = None
    port_name = port.session.port
    try:
        with trio.move_on_after(REPLY_S) as scope:
            async with port.connect_interrupt() as interrupts:
                assert interrupts.first_seq is not None
                account = Account(interrupts.first_seq)
                scope.deadline = math.inf
                await _own(chance, owner)
    finally:
        if account is not None and interrupts is not None:
            settle(world, port_name, account, interrupts)


async def _listener(world: World, name: str) -> None:
    chance = world.chance(name)
    while not world.is_over:
        await trio.lowlevel.checkpoint()
        with network_fails(world):
            async with _opened(world, name, chance, reconnect=chance.random() < COMES_BACK) as port:
                await _listen(world, chance, port)


async def _listen(world: World, chance: random.Random, port: lpt_client.Port) -> None:
    stays_s = chance.uniform(0.1, 3.0)
    session = port.session
    returns = Returns(world, session)
    # To connect has no time-out of its own: as long as the daemon does not answer, it is for the program to give up.
    with world.patience.within("trio listening", REPLY_S + stays_s + 2 * CLEANUP_TIMEOUT_S):
        account = interrupts = None
        with trio.move_on_after(REPLY_S) as scope:
            async with port.connect_interrupt() as interrupts:
                assert interrupts.first_seq is not None
                account = Account(interrupts.first_seq)
                scope.deadline = trio.current_time() + stays_s
                try:
                    async for event in interrupts:
                        account.add(event)
                        if port.is_connected:
                            returns.look(port.session)
                        if world.is_over:
                            break
                except (NotConnected, PortStopped):  # without `reconnect`: the account up to there
                    world.done["listeners cut off"] += 1
    if account is None or interrupts is None:
        world.done["trio calls given up"] += 1
        return
    settle(world, session.port, account, interrupts)
