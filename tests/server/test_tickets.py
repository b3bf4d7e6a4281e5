"""The secrets by which clients come back: good once, for one identity and one port; only hashes are kept."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest

from lpt_service.core.requests import SessionState
from lpt_service.server.identity import ANONYMOUS, Identity
from lpt_service.server.tickets import Ticket, Tickets

ANNA, BERTA = Identity(uid=1000), Identity(uid=1001)
A: Any = "port A"  # they are told apart, and not asked for anything
B: Any = "port B"
HOST = "user 1000"


@pytest.fixture
def tickets() -> Tickets:
    return Tickets()


def test_a_secret_has_128_random_bits_in_lower_case(tickets: Tickets) -> None:
    found = {tickets.issue(A, SessionState(number, 1), ANNA, HOST) for number in range(100)}
    assert len(found) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", secret) for secret in found)


def test_it_is_good_once(tickets: Tickets) -> None:
    state = SessionState(1, 1)
    secret = tickets.issue(A, state, ANNA, HOST)
    assert tickets.claim(secret, A, ANNA) is state
    assert tickets.claim(secret, A, ANNA) is None
    assert tickets.find(state) is None


def test_a_fresh_one_ends_the_one_before(tickets: Tickets) -> None:
    state = SessionState(1, 1)
    old, new = tickets.issue(A, state, ANNA, HOST), tickets.issue(A, state, ANNA, HOST)
    assert tickets.claim(old, A, ANNA) is None
    assert tickets.claim(new, A, ANNA) is state


def test_somebody_else_s_attempt_neither_succeeds_nor_uses_it_up(tickets: Tickets) -> None:
    state = SessionState(1, 1)
    secret = tickets.issue(A, state, ANNA, HOST)
    for worker, identity in ((A, BERTA), (A, ANONYMOUS), (A, ANNA._replace(token="t")), (B, ANNA)):
        assert tickets.claim(secret, worker, identity) is None
    for wrong in ("", secret.upper(), secret + "0", hashlib.sha256(secret.encode()).hexdigest()):
        assert wrong == secret or tickets.claim(wrong, A, ANNA) is None
    assert tickets.claim(secret, A, ANNA) is state


def test_new_groups_make_nobody_another_one(tickets: Tickets) -> None:
    state = SessionState(1, 1)
    secret = tickets.issue(A, state, ANNA, HOST)
    assert tickets.claim(secret, A, ANNA._replace(gids=frozenset({5}))) is state


def test_a_session_that_has_ended_takes_its_secret_with_it(tickets: Tickets) -> None:
    state, other = SessionState(1, 1), SessionState(2, 1)
    secret, others = tickets.issue(A, state, ANNA, HOST), tickets.issue(A, other, ANNA, HOST)
    tickets.cancel(state)
    tickets.cancel(state)
    assert tickets.claim(secret, A, ANNA) is None
    assert tickets.claim(others, A, ANNA) is other
    assert len(tickets) == 0
    assert tickets._of == {}


def test_only_the_hash_is_kept_and_it_does_for_the_next_daemon(tickets: Tickets) -> None:
    state = SessionState(1, 1)
    secret = tickets.issue(A, state, ANNA, HOST)
    ticket = tickets.find(state)
    assert ticket == Ticket(hashlib.sha256(secret.encode()).hexdigest(), A, state, ANNA, HOST)
    assert secret not in repr(vars(tickets))
    after = Tickets()
    after.restore(ticket)
    assert after.claim(secret, A, ANNA) is state
