"""A network that does all that networks do, between the SDK's clients and a daemon: what must always be true stays so.

- each grant has one owner, nobody writes between an owner's writes, and grants come in the order of the queue
- for each listener, received + lost = what the log had between its connect and its disconnect, and what it received is
  what the log said, as a listener that nobody disturbs heard it
- no call of a client takes longer than it says
- the daemon goes on, says nothing of an error, and has forgotten everybody at the end

CHAOS_SEED and CHAOS_FAULTS (how many) may be set.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.chaos import settings
from tests.chaos.clients import blocking_listener, blocking_owner
from tests.chaos.terms import Terms
from tests.chaos.trio_clients import trio_crowd
from tests.chaos.world import World


def hold_out(terms: Terms, seed: int, faults: int, at_most_s: float) -> World:
    """Clients of every kind, until so many faults have happened."""
    with World(terms, seed) as world:
        try:
            for number in range(6):
                world.add(blocking_owner, f"owner {number}")
            for number in range(4):
                world.add(blocking_listener, f"listener {number}")
            world.add(partial(trio_crowd, owners=10, listeners=6), "trio")
            world.wait_until(lambda: world.proxy.tally()["faults"] >= faults, at_most_s)
            world.stop()
            world.check()
        finally:
            print(world.report())
    return world


def test_two_hundred_faults() -> None:
    world = hold_out(Terms(), settings.seed(1), 200, 30)
    assert world.done["grants"] > 0


@pytest.mark.system
@pytest.mark.timeout(900)
def test_ten_thousand_faults() -> None:
    world = hold_out(Terms(), settings.seed(), int(settings.number("CHAOS_FAULTS", 10_000)), 600)
    assert world.done["grants"] > 100
    assert world.done["accounts"] > 100
