"""Owners and listeners under trio, all in one thread; see clients.py."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

import lpt_client
from lpt_client.errors import NotConnected
from lpt_client.operations import ANSWER_MARGIN_S, CLEANUP_TIMEOUT_S
from tests.chaos.clients import CONNECT_S, D3, REPLY_S, WAITS_S, network_fails, settle
from tests.chaos.ledger import Account
from tests.chaos.world import World

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
    world: World, name: str, port_name: str, *, reconnect: bool = False
) -> AsyncIterator[lpt_client.Port]:
    host, tcp_port = world.proxy.address
    url = f"lpt://{host}:{tcp_port}/{port_name}"
    with world.patience.within("trio open_port", CONNECT_S):
        opening = lpt_client.open_port(url, client=name, reconnect=reconnect, connect_timeout_s=CONNECT_S)
        port = await opening.__aenter__()
    try:
        world.done["sessions"] += 1
        yield port
    except BaseException as exc:
        if not await opening.__aexit__(type(exc), exc, exc.__traceback__):
            raise
    else:
        await opening.__aexit__(None, None, None)


async def _owner(world: World, name: str) -> None:
    chance = world.chance(name)
    names = world.terms.port_names()
    while not world.is_over:
        await trio.lowlevel.checkpoint()
        with network_fails(world):
            async with _opened(world, name, chance.choice(names)) as port:
                for _ in range(chance.randint(1, 6)):
                    await _hold_once(world, name, chance, port)


async def _hold_once(world: World, name: str, chance: random.Random, port: lpt_client.Port) -> None:
    wait_s = chance.choice(WAITS_S)
    session = port.session
    ledger = world.ledgers[session.port]
    value = chance.randrange(256)
    with world.patience.within("trio allocated", wait_s + ANSWER_MARGIN_S + _CALL_S + 2 * CLEANUP_TIMEOUT_S):
        # What the calls of the block have in common: so the port is given up, whatever becomes of them.
        with trio.move_on_after(wait_s + ANSWER_MARGIN_S + REPLY_S) as scope:
            async with port.allocated(timeout=wait_s) as grant:
                scope.deadline = trio.current_time() + REPLY_S
                ledger.granted(grant, session.session, name)
                world.done["grants"] += 1
                ledger.wrote(grant, await port.write_data(value, grant=grant))
                if chance.random() < 0.3:
                    width_us = chance.randint(1, 3000)
                    ledger.wrote(grant, *await port.pulse(value ^ D3, value, width_us=width_us, grant=grant))
                seen = await port.read_data()
                is_other = seen != value
                assert not is_other or world.terms.may_be_revoked, f"grant {grant}: somebody else wrote {seen}"
                if world.terms.long_hold_s and chance.random() < 0.1:
                    scope.deadline += world.terms.long_hold_s
                    await trio.sleep(world.terms.long_hold_s)
                ledger.wrote(grant, await port.write_data(value ^ 0xF0, grant=grant))
                assert not is_other, f"grant {grant} is in force, and somebody else wrote {seen}"
    if scope.cancelled_caught:
        world.done["trio calls given up"] += 1


async def _listener(world: World, name: str) -> None:
    chance = world.chance(name)
    names = world.terms.port_names()
    while not world.is_over:
        await trio.lowlevel.checkpoint()
        with network_fails(world):
            port_name = chance.choice(names)
            async with _opened(world, name, port_name, reconnect=chance.random() < 0.7) as port:
                await _listen(world, chance, port, port_name)


async def _listen(world: World, chance: random.Random, port: lpt_client.Port, port_name: str) -> None:
    stays_s = chance.uniform(0.1, 3.0)
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
                        if world.is_over:
                            break
                except NotConnected:  # without `reconnect`: the account up to there
                    world.done["listeners cut off"] += 1
    if account is None or interrupts is None:
        world.done["trio calls given up"] += 1
        return
    while (rest := interrupts.take()) is not None:
        account.add(rest)
    settle(world, port_name, account, interrupts)
