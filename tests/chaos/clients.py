"""Those who use the daemon through the chaos: owners and listeners, with the blocking client and under trio.

Each goes on until it is over, with short sessions. They are ready for what a network may do (a connection that was not
made, or that broke, and a wait that ended), for what the terms have (a lease, an administrator), and for nothing else:
any other error is a finding.

Where there is a time of grace, most of them come back to their sessions: an owner asks again what was not answered, and
goes on as if nothing had been. A session of which it is not known what became of an allocate is left, so that of each
session the grants follow its waits one to one (`Ledger` counts on that).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lpt_client import blocking
from lpt_client.errors import (
    AccessDenied,
    ConnectionLost,
    InvalidDeviceState,
    NotConnected,
    PortPaused,
    PortStopped,
    RequestCancelled,
    TimedOut,
)
from lpt_client.events import SessionInfo
from lpt_client.interrupt_stream import InterruptStream
from lpt_client.operations import ANSWER_MARGIN_S, CLEANUP_TIMEOUT_S
from tests.chaos.ledger import Account
from tests.chaos.world import World

T = TypeVar("T")

# What the clients state.
CONNECT_S = 2.0
REPLY_S = 2.0
WAITS_S = (0.05, 0.5, 2.0)
# An attempt to connect again, once begun, may pass the time-out of the call, and what is asked then has its own.
AGAIN_S = CONNECT_S + REPLY_S
COMES_BACK = 0.7  # which part of the clients, where there is a time of grace
HEARS_TOO = 0.2  # which part of the owners
D3 = 0x08  # joined to nAck by the plug: its rising edge is an interrupt


@contextmanager
def network_fails(world: World) -> Iterator[None]:
    """What a client of a bad network must be ready for."""
    try:
        yield
    except TimedOut:
        world.done["waits timed out"] += 1
    except (AccessDenied, InvalidDeviceState, PortPaused) as exc:  # revoked, or a free of what had been taken away
        is_paused = isinstance(exc, PortPaused)
        if not (world.terms.is_administered if is_paused else world.terms.may_be_revoked):
            raise
        world.done[f"revoked: {type(exc).__name__}"] += 1
    except PortStopped:
        if not (world.terms.is_administered or world.terms.is_restarted):
            raise
        world.done["ports stopped"] += 1
    except RequestCancelled:  # the daemon was told that the client's stream had ended, or it stops
        world.done["cancelled"] += 1
    except NotConnected as exc:
        world.done[type(exc).__name__] += 1


class Returns:
    """Counts how often a client's session went on over a new connection, and what it had then."""

    def __init__(self, world: World, session: SessionInfo) -> None:
        self._world = world
        self._session = session

    def look(self, session: SessionInfo) -> None:
        """The client's session, as it is now."""
        if session is self._session:
            return
        self._session, resumed, done = session, session.resumed, self._world.done
        if resumed is None:
            done["came back in vain"] += 1
            return
        done["came back"] += 1
        done["came back: owning"] += resumed.grant is not None
        done["came back: waiting"] += resumed.position is not None
        done["came back: listening"] += bool(resumed.registrations)


@contextmanager
def opened(world: World, name: str, chance: random.Random, *, reconnect: bool = False) -> Iterator[blocking.Port]:
    """One of the ports, mostly through the proxy."""
    url, tls = world.way(chance, chance.choice(world.terms.port_names()))
    with world.patience.within("blocking.open_port", CONNECT_S):
        port = blocking.open_port(
            url,
            client=name,
            tls=tls,
            reconnect=reconnect,
            connect_timeout_s=CONNECT_S,
            reply_timeout_s=REPLY_S,
        )
    with port:
        world.done["sessions"] += 1
        yield port


class Owner:
    """One session of an owner."""

    def __init__(self, world: World, name: str, chance: random.Random, port: blocking.Port) -> None:
        self._world = world
        self._name = name
        self._chance = chance
        self._port = port
        self._returns = Returns(world, port.session)
        self._again_s = AGAIN_S if world.terms.grace_s else 0.0

    def ask(self, call: Callable[[], T]) -> T:
        """A call, made again if its answer is lost and the session goes on."""
        while True:
            try:
                with self._world.patience.within("blocking call", REPLY_S + self._again_s):
                    return call()
            except ConnectionLost as lost:
                if not lost.goes_on:
                    raise
                self._world.done["asked again"] += 1
            finally:
                self._returns.look(self._port.session)

    def hold_once(self) -> None:
        """Own the port for moments."""
        world, chance, port = self._world, self._chance, self._port
        grant = self._acquire()
        if grant is None:
            return
        ledger = world.ledgers[port.session.port]
        ledger.granted(grant, port.session.session, self._name)
        world.done["grants"] += 1
        value = chance.randrange(256)
        ledger.wrote(grant, self.ask(lambda: port.write_data(value, grant=grant)))
        if chance.random() < 0.3:
            width_us = chance.randint(1, 3000)
            ledger.wrote(grant, *self.ask(lambda: port.pulse(value ^ D3, value, width_us=width_us, grant=grant)))
        seen = self.ask(port.read_data)
        is_other = seen not in world.terms.may_be_read(value)
        assert not is_other or world.terms.may_be_revoked, f"grant {grant}: wrote {value}, somebody else wrote {seen}"
        if world.terms.long_hold_s and chance.random() < 0.1:
            time.sleep(world.terms.long_hold_s)
        ledger.wrote(grant, self.ask(lambda: port.write_data(value ^ 0xF0, grant=grant)))
        assert not is_other, f"grant {grant} is in force, and somebody else wrote {seen}"
        self.ask(port.free)
        if chance.random() < 0.5:
            self._write_too_late(grant)
            world.done["late writes refused"] += 1

    def _acquire(self) -> int | None:
        chance, port, patience = self._chance, self._port, self._world.patience
        try:
            if chance.random() < 0.2:
                stated_s = 2 * (REPLY_S + self._again_s)  # it asks for the callbacks first
                with patience.within("blocking try_allocate", stated_s):
                    return port.try_allocate()
            wait_s = chance.choice(WAITS_S)
            with patience.within("blocking allocate", wait_s + ANSWER_MARGIN_S + CLEANUP_TIMEOUT_S + self._again_s):
                return port.allocate(timeout=wait_s)
        finally:
            self._returns.look(port.session)

    def _write_too_late(self, grant: int) -> None:
        """What has been freed cannot be written under its grant."""
        try:
            self.ask(lambda: self._port.write_data(0xFF, grant=grant))
        except AccessDenied:
            return
        raise AssertionError(f"grant {grant} was freed, and a write under it was carried out")


def blocking_owner(world: World, name: str) -> None:
    """Comes and goes, and holds a port for moments."""
    chance = world.chance(name)
    while not world.is_over:
        reconnect = world.terms.grace_s > 0 and chance.random() < COMES_BACK
        with network_fails(world), opened(world, name, chance, reconnect=reconnect) as port:
            owner = Owner(world, name, chance, port)
            if chance.random() < HEARS_TOO:
                _own_and_hear(world, chance, port, owner)
            else:
                _own(chance, owner)


def _own(chance: random.Random, owner: Owner) -> None:
    for _ in range(chance.randint(1, 6)):
        owner.hold_once()


def _own_and_hear(world: World, chance: random.Random, port: blocking.Port, owner: Owner) -> None:
    """The same, by a session that hears interrupts, too."""
    account: Account | None = None
    interrupts: blocking.Interrupts | None = None
    try:
        with port.connect_interrupt() as interrupts:
            assert interrupts.first_seq is not None
            account = Account(interrupts.first_seq)
            _own(chance, owner)
    finally:
        if account is not None and interrupts is not None:
            settle(world, port.session.port, account, interrupts)


def blocking_listener(world: World, name: str) -> None:
    """Hears a port for a while, through connections that break and are made anew; keeps its account."""
    chance = world.chance(name)
    while not world.is_over:
        with network_fails(world), opened(world, name, chance, reconnect=chance.random() < COMES_BACK) as port:
            _listen(world, chance, port)


def _listen(world: World, chance: random.Random, port: blocking.Port) -> None:
    returns = Returns(world, port.session)
    with port.connect_interrupt() as interrupts:
        assert interrupts.first_seq is not None
        account = Account(interrupts.first_seq)
        try:
            for _ in range(chance.randint(3, 60)):
                if world.is_over:
                    break
                # An attempt to connect again, and to register again, may pass the time-out by their own.
                with world.patience.within("blocking next", 0.2 + AGAIN_S):
                    event = interrupts.next(timeout=0.2)
                returns.look(port.session)
                if event is not None:
                    account.add(event)
        except (NotConnected, PortStopped):  # without `reconnect`: the account up to there
            world.done["listeners cut off"] += 1
    settle(world, port.session.port, account, interrupts)


def settle(world: World, port_name: str, account: Account, interrupts: InterruptStream) -> None:
    """A listener is done: its account is checked now, and once more when the witness has heard all."""
    while (event := interrupts.take()) is not None:
        account.add(event)
    account.check(interrupts)
    world.settle(port_name, account)
    world.done["accounts"] += 1
    world.done["interrupts received"] += account.received
    world.done["interrupts lost, and told"] += account.lost
    world.done["reconnects"] += account.reconnects
    world.done["marks: unheard"] += account.unheard_marks
    world.done["daemons outlived"] += account.restarts
