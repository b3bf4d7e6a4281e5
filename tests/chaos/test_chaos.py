"""A network that does all that networks do, between the SDK's clients and a daemon: what must always be true stays so.

- each grant has one owner, nobody writes between an owner's writes, and grants come in the order of the queue
- for each listener, received + lost = what the log had between its connect and its disconnect, and what it received is
  what the log said, as a listener that nobody disturbs heard it
- no call of a client takes longer than it says
- with a time of grace: the same of clients that come back to their sessions, and they do: owning, waiting, listening;
  with leases: of those who lose the port although their connection stands; of all that, across restarts
- the daemon goes on, says nothing of an error, and has forgotten everybody at the end

CHAOS_SEED and CHAOS_FAULTS (how many) may be set.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.chaos import settings
from tests.chaos.clients import blocking_listener, blocking_owner
from tests.chaos.terms import Terms
from tests.chaos.trio_clients import trio_crowd
from tests.chaos.world import World


def restart_again_and_again(world: World, name: str, *, every_s: float) -> None:
    """The daemon is stopped in order and started anew."""
    while not world.is_over:
        world.sleep(every_s)
        world.restart()


def free_port() -> int:
    """A number that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def hold_out(terms: Terms, seed: int, faults: int, at_most_s: float, restart_s: float = 0) -> World:
    """Clients of every kind, until so many faults have happened."""
    with World(terms, seed) as world:
        try:
            for number in range(6):
                world.add(blocking_owner, f"owner {number}")
            for number in range(4):
                world.add(blocking_listener, f"listener {number}")
            world.add(partial(trio_crowd, owners=10, listeners=6), "trio")
            if restart_s:
                world.add(partial(restart_again_and_again, every_s=restart_s), "restarter")
            world.wait_until(lambda: world.tally()["faults"] >= faults and has_come_back(world), at_most_s)
            world.stop()
            world.check()
        finally:
            print(world.report())
    return world


# Short, so that sessions also end while their clients are away, and that leases do.
GRACE = Terms(grace_s=1.5, long_hold_s=0.5)
LEASES = Terms(grace_s=1.5, max_hold_s=0.5, idle_hold_s=0.3, long_hold_s=0.8)


def has_come_back(world: World) -> bool:
    """Somebody has, where that is possible."""
    return world.terms.grace_s == 0 or world.done["came back"] > 0


def check_returns(world: World, at_least: int) -> None:
    """Clients came back to what they had."""
    for had in ("owning", "waiting", "listening"):
        assert world.done[f"came back: {had}"] >= at_least, f"{had}: {world.done}"


def test_some_faults() -> None:
    world = hold_out(Terms(), settings.seed(1), 60, 30)
    assert world.done["grants"] > 0


def test_as_many_with_grace_and_leases() -> None:
    world = hold_out(replace(LEASES, grace_s=0.6, long_hold_s=0.4), settings.seed(1), 60, 30)
    assert world.done["grants"] > 0


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "terms", [pytest.param(Terms(), id="plain"), pytest.param(GRACE, id="grace"), pytest.param(LEASES, id="leases")]
)
def test_ten_thousand_faults(terms: Terms, certificates: Path) -> None:
    faults = int(settings.number("CHAOS_FAULTS", 10_000))
    world = hold_out(replace(terms, certificates=certificates), settings.seed(settings.LONG), faults, 600)
    assert world.done["grants"] > 100
    assert world.done["accounts"] > 100
    if terms.grace_s:
        check_returns(world, faults // 1000)
    if terms.may_be_revoked:
        assert sum(count for what, count in world.done.items() if what.startswith("revoked")) > 10


@pytest.mark.system
@pytest.mark.timeout(900)
def test_restarts(tmp_path: Path) -> None:
    """No witness here: it would have to hear a new log from its first entry on."""
    terms = Terms(ports=2, silent_ports=2, short_logs=1, grace_s=3, tcp_port=free_port(), folder=str(tmp_path))
    world = hold_out(
        terms, settings.seed(settings.LONG), int(settings.number("CHAOS_FAULTS", 10_000)) // 5, 600, restart_s=8
    )
    assert world.done["restarts"] > 2
    assert world.done["daemons outlived"] > 2
    check_returns(world, 5)
