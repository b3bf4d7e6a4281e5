"""Leases that a reload changes, for the present owner."""

from __future__ import annotations

from typing import Any

from lpt_service.protocol.messages import LEASE
from tests.core.harness import SECOND, Client, Harness


def idle_lease(**settings: Any) -> Harness:
    return Harness(idle_hold_ns=300 * SECOND, hold_warning_ns=5 * SECOND, safe_data=0xAA, **settings)


def owner_of(harness: Harness) -> Client | None:
    """Asked anew each time, as mypy sees it."""
    return harness.owner


def warnings(harness: Harness) -> list[int]:
    """When somebody was warned."""
    return [now_ns for now_ns, _, key in harness.notified if key[0] == LEASE]


def test_a_reload_takes_effect_for_the_present_owner() -> None:
    harness = Harness(hold_warning_ns=5 * SECOND)
    owner, other = harness.clients(2)
    owner.allocate()
    other.allocate()
    harness.advance(1000 * SECOND)
    harness.reconfigure(max_hold_ns=10 * SECOND)
    assert owner.told(LEASE) == [(LEASE, ("held", 5000))]
    harness.advance(4 * SECOND)
    harness.reconfigure(max_hold_ns=0)
    assert owner.told(LEASE) == []
    harness.advance(1000 * SECOND)
    assert owner_of(harness) is owner
    harness.reconfigure(max_hold_ns=10 * SECOND)
    harness.advance(5 * SECOND)
    assert owner_of(harness) is other


def test_a_reload_of_the_idle_lease_counts_from_then_on() -> None:
    harness = Harness(hold_warning_ns=5 * SECOND)
    owner = harness.client()
    owner.allocate()
    harness.advance(1000 * SECOND)
    harness.reconfigure(idle_hold_ns=20 * SECOND)
    reloaded_ns = harness.now_ns
    assert owner.told(LEASE) == []
    harness.advance(10 * SECOND)
    harness.reconfigure(safe_data=3)  # something else
    harness.advance(10 * SECOND)
    assert [each.until_ns for each in harness.released] == [reloaded_ns + 20 * SECOND]


def test_a_reload_of_something_else_changes_nothing() -> None:
    harness = idle_lease()
    owner = harness.client()
    owner.allocate()
    harness.advance(297 * SECOND)
    harness.reconfigure(safe_data=3)
    harness.advance(3 * SECOND)
    assert owner_of(harness) is None
    assert len(warnings(harness)) == 1


def test_a_reload_that_shortens_the_lease_leaves_time_for_the_warning() -> None:
    harness = idle_lease()
    owner = harness.client()
    owner.allocate()
    harness.advance(100 * SECOND)
    harness.reconfigure(idle_hold_ns=20 * SECOND)
    assert owner.told(LEASE) == [(LEASE, ("idle", 5000))]
    harness.advance(5 * SECOND - 1)
    assert owner_of(harness) is owner
    harness.advance(1)
    assert owner_of(harness) is None


def test_a_reload_that_lengthens_the_lease_averts_its_end() -> None:
    harness = idle_lease()
    owner = harness.client()
    owner.allocate()
    harness.advance(297 * SECOND)
    harness.reconfigure(idle_hold_ns=400 * SECOND)
    assert owner.told(LEASE) == []
    harness.advance(100 * SECOND)
    assert owner_of(harness) is owner
    harness.advance(3 * SECOND)
    assert owner_of(harness) is None
