"""Those who use the daemon through the chaos: owners and listeners, with the blocking client and under trio.

Each goes on until it is over, with short sessions. They are ready for what a network may do (a connection that was not
made, or that broke, and a wait that ended) and for nothing else: any other error is a finding.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lpt_client import blocking
from lpt_client.errors import AccessDenied, InvalidDeviceState, NotConnected, RequestCancelled, TimedOut
from lpt_client.operations import ANSWER_MARGIN_S, CLEANUP_TIMEOUT_S
from tests.chaos.ledger import Account
from tests.chaos.world import World

# What the clients state.
CONNECT_S = 2.0
REPLY_S = 2.0
WAITS_S = (0.05, 0.5, 2.0)
D3 = 0x08  # joined to nAck by the plug: its rising edge is an interrupt


@contextmanager
def network_fails(world: World) -> Iterator[None]:
    """What a client of a bad network must be ready for."""
    try:
        yield
    except TimedOut:
        world.done["waits timed out"] += 1
    except (AccessDenied, InvalidDeviceState) as exc:  # Revoked, or a free of what had been taken away
        if not world.terms.may_be_revoked:
            raise
        world.done[f"revoked: {type(exc).__name__}"] += 1
    except RequestCancelled:  # the daemon was told that the client's stream had ended
        world.done["cancelled"] += 1
    except NotConnected as exc:
        world.done[type(exc).__name__] += 1


@contextmanager
def opened(world: World, name: str, port_name: str, *, reconnect: bool = False) -> Iterator[blocking.Port]:
    """A port through the proxy."""
    host, tcp_port = world.proxy.address
    with world.patience.within("blocking.open_port", CONNECT_S):
        port = blocking.open_port(
            f"lpt://{host}:{tcp_port}/{port_name}",
            client=name,
            reconnect=reconnect,
            connect_timeout_s=CONNECT_S,
            reply_timeout_s=REPLY_S,
        )
    with port:
        world.done["sessions"] += 1
        yield port


def blocking_owner(world: World, name: str) -> None:
    """Comes and goes, and holds a port for moments."""
    chance = world.chance(name)
    names = world.terms.port_names()
    while not world.is_over:
        port_name = chance.choice(names)
        with network_fails(world), opened(world, name, port_name) as port:
            for _ in range(chance.randint(1, 6)):
                _hold_once(world, name, chance, port)


def _hold_once(world: World, name: str, chance: random.Random, port: blocking.Port) -> None:
    grant = _acquire(world, chance, port)
    if grant is None:
        return
    ledger = world.ledgers[port.session.port]
    ledger.granted(grant, port.session.session, name)
    world.done["grants"] += 1
    value = chance.randrange(256)
    with world.patience.within("blocking call", REPLY_S):
        ledger.wrote(grant, port.write_data(value, grant=grant))
    if chance.random() < 0.3:
        with world.patience.within("blocking call", REPLY_S):
            ledger.wrote(grant, *port.pulse(value ^ D3, value, width_us=chance.randint(1, 3000), grant=grant))
    with world.patience.within("blocking call", REPLY_S):
        seen = port.read_data()
    is_other = seen != value
    assert not is_other or world.terms.may_be_revoked, f"grant {grant}: wrote {value}, somebody else wrote {seen}"
    if world.terms.long_hold_s and chance.random() < 0.1:
        time.sleep(world.terms.long_hold_s)
    with world.patience.within("blocking call", REPLY_S):
        ledger.wrote(grant, port.write_data(value ^ 0xF0, grant=grant))
    assert not is_other, f"grant {grant} is in force, and somebody else wrote {seen}"
    with world.patience.within("blocking call", REPLY_S):
        port.free()
    if chance.random() < 0.5:
        with world.patience.within("blocking call", REPLY_S):
            _write_too_late(port, grant)
        world.done["late writes refused"] += 1


def _acquire(world: World, chance: random.Random, port: blocking.Port) -> int | None:
    if chance.random() < 0.2:
        with world.patience.within("blocking call", 2 * REPLY_S):  # it asks for the callbacks first
            return port.try_allocate()
    wait_s = chance.choice(WAITS_S)
    with world.patience.within("blocking allocate", wait_s + ANSWER_MARGIN_S + CLEANUP_TIMEOUT_S):
        return port.allocate(timeout=wait_s)


def _write_too_late(port: blocking.Port, grant: int) -> None:
    """What has been freed cannot be written under its grant."""
    try:
        port.write_data(0xFF, grant=grant)
    except AccessDenied:
        return
    raise AssertionError(f"grant {grant} was freed, and a write under it was carried out")


def blocking_listener(world: World, name: str) -> None:
    """Hears a port for a while, through connections that break and are made anew; keeps its account."""
    chance = world.chance(name)
    names = world.terms.port_names()
    while not world.is_over:
        port_name = chance.choice(names)
        with network_fails(world), opened(world, name, port_name, reconnect=chance.random() < 0.7) as port:
            _listen(world, chance, port)


def _listen(world: World, chance: random.Random, port: blocking.Port) -> None:
    with port.connect_interrupt() as interrupts:
        assert interrupts.first_seq is not None
        account = Account(interrupts.first_seq)
        try:
            for _ in range(chance.randint(3, 60)):
                if world.is_over:
                    break
                # An attempt to connect again, and to register again, may pass the time-out by their own.
                with world.patience.within("blocking next", 0.2 + CONNECT_S + REPLY_S):
                    event = interrupts.next(timeout=0.2)
                if event is not None:
                    account.add(event)
        except NotConnected:  # without `reconnect`: the account up to there
            world.done["listeners cut off"] += 1
    while (event := interrupts.take()) is not None:
        account.add(event)
    settle(world, port.session.port, account, interrupts)


def settle(world: World, port_name: str, account: Account, interrupts: object) -> None:
    """A listener is done: its account is checked now, and once more when the witness has heard all."""
    account.check(interrupts)
    world.settle(port_name, account)
    world.done["accounts"] += 1
    world.done["interrupts received"] += account.received
    world.done["interrupts lost, and told"] += account.lost
    world.done["reconnects"] += account.reconnects
    world.done["marks: unheard"] += account.unheard_marks
