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

import random
import socket
from collections.abc import Callable
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
    """A number that nobody listens on; below those that the kernel gives to connections, or to who asks for any."""
    while True:
        number = random.randrange(10_000, 32_000)
        try:
            with socket.create_server(("127.0.0.1", number)):
                return number
        except OSError:
            continue


def hold_out(
    terms: Terms, seed: int, faults: int, has_enough: Callable[[World], bool], at_most_s: float, restart_s: float = 0
) -> World:
    """Clients of every kind, until so many faults have happened, and enough besides: how fast that is, is chance."""
    with World(terms, seed) as world:
        try:
            for number in range(6):
                world.add(blocking_owner, f"owner {number}")
            for number in range(4):
                world.add(blocking_listener, f"listener {number}")
            world.add(partial(trio_crowd, owners=10, listeners=6), "trio")
            if restart_s:
                world.add(partial(restart_again_and_again, every_s=restart_s), "restarter")
            world.wait_until(lambda: world.tally()["faults"] >= faults and has_enough(world), at_most_s)
            world.stop()
            world.check()
        finally:
            print(world.report())
    return world


# Short, so that sessions also end while their clients are away, and that leases do.
GRACE = Terms(grace_s=1.5, long_hold_s=0.5)
LEASES = Terms(grace_s=1.5, max_hold_s=0.5, idle_hold_s=0.3, long_hold_s=0.8)


def has_served(world: World) -> bool:
    """Somebody has owned a port, and somebody has come back, where that is possible."""
    return world.done["grants"] > 0 and (world.terms.grace_s == 0 or world.done["came back"] > 0)


def have_come_back(world: World, at_least: int) -> bool:
    """So many clients came back to what they had, of each kind."""
    return all(world.done[f"came back: {had}"] >= at_least for had in ("owning", "waiting", "listening"))


@pytest.mark.timeout(400)
def test_some_faults() -> None:
    hold_out(Terms(), settings.seed(1), 60, has_served, 240)


@pytest.mark.timeout(400)
def test_as_many_with_grace_and_leases() -> None:
    hold_out(replace(LEASES, grace_s=0.6, long_hold_s=0.4), settings.seed(1), 60, has_served, 240)


@pytest.mark.system
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "terms", [pytest.param(Terms(), id="plain"), pytest.param(GRACE, id="grace"), pytest.param(LEASES, id="leases")]
)
def test_ten_thousand_faults(terms: Terms, certificates: Path) -> None:
    faults = int(settings.number("CHAOS_FAULTS", 10_000))

    def has_enough(world: World) -> bool:
        done = world.done
        is_enough = min(done["grants"], done["accounts"]) > 100
        if terms.grace_s:
            is_enough = is_enough and have_come_back(world, faults // 1000)
        if terms.may_be_revoked:
            revoked = sum(count for what, count in tuple(done.items()) if what.startswith("revoked"))
            is_enough = is_enough and revoked > 10
        return is_enough

    hold_out(replace(terms, certificates=certificates), settings.seed(settings.LONG), faults, has_enough, 1200)


@pytest.mark.system
@pytest.mark.timeout(1500)
def test_restarts(tmp_path: Path) -> None:
    """No witness here: it would have to hear a new log from its first entry on."""
    terms = Terms(ports=2, silent_ports=2, short_logs=1, grace_s=3, tcp_port=free_port(), folder=str(tmp_path))
    faults = int(settings.number("CHAOS_FAULTS", 10_000)) // 5

    def has_enough(world: World) -> bool:
        return min(world.done["restarts"], world.done["daemons outlived"]) > 2 and have_come_back(world, 5)

    hold_out(terms, settings.seed(settings.LONG), faults, has_enough, 1200, restart_s=8)
