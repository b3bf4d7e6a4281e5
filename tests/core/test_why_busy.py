"""STATUS_IO_TIMEOUT says who or what was in the way, and where in the queue the request was."""

from __future__ import annotations

import pytest

from lpt_service.core.why_busy import SHOWN_CHARACTERS_MAX
from lpt_service.protocol.status import Status
from tests.core.harness import MS, Call, Client, Harness

OWNER = 'session 1 ("client 1", anonymous, test) owns port LPT1'


def told(call: Call) -> str:
    assert call.status == Status.STATUS_IO_TIMEOUT
    assert call.error is not None
    return call.error.detail


def timed_out(client: Client, timeout_ms: int = 20) -> str:
    call = client.allocate(timeout_ms=timeout_ms)
    client.harness.advance(timeout_ms * MS)
    return told(call)


def test_the_owner_is_named_and_the_place_told() -> None:
    harness = Harness()
    owner, one, two = harness.clients(3)
    owner.allocate()
    first = one.allocate()
    said = timed_out(two)
    assert said == f"{OWNER}; this request was number 2 of 2 in the queue; not begun within 20 ms"
    assert timed_out(two, 0) == f"{OWNER}; timeout_ms is 0"
    call = two.allocate(timeout_ms=20)
    one.cancel(first)
    harness.advance(20 * MS)
    assert told(call) == f"{OWNER}; this request was number 1 of 1 in the queue; not begun within 20 ms"


def test_a_job_of_the_same_session_is_what_it_waited_for() -> None:
    harness = Harness()
    owner = harness.client()
    owner.allocate()
    owner.pulse(1, 0, 1_000_000)
    late = owner.write(0, 1, timeout_ms=20)
    harness.advance(20 * MS)
    assert told(late) == "IOCTL_LPT_PULSE of this session is still running; not begun within 20 ms"
    assert told(owner.free(timeout_ms=0)) == "IOCTL_LPT_PULSE of this session is still running; timeout_ms is 0"


@pytest.mark.parametrize("timeout_ms", [0, 20])
def test_what_else_keeps_it_from_the_port(timeout_ms: int) -> None:
    """Drained, paused with a reason or without, and several of these at once."""
    drained, place = "port LPT1 is being drained: nobody new is granted", "this request was number 1 of 1 in the queue"
    end = [place, "not begun within 20 ms"] if timeout_ms else ["timeout_ms is 0"]
    harness = Harness()
    owner, other, admin = harness.clients(3)
    owner.allocate()
    harness.drain(admin)
    assert timed_out(other, timeout_ms) == "; ".join((OWNER, drained, *end))
    owner.free()
    assert timed_out(other, timeout_ms) == "; ".join((drained, *end))
    harness.pause("a new cable")
    assert timed_out(other, timeout_ms) == "; ".join(("port LPT1 is paused: a new cable", drained, *end))
    harness.resume()
    harness.drain(admin, is_on=False)
    harness.pause("")
    assert timed_out(other, timeout_ms) == "; ".join(("port LPT1 is paused", *end))


def test_what_clients_call_themselves_is_shown_briefly_and_without_power() -> None:
    harness = Harness()
    owner, other = harness.clients(2)
    owner.state.client = "\x1b[2J\n\u202e" + "x" * 1000
    owner.state.identity = "token:\x07" + "y" * 1000
    owner.allocate()
    said = timed_out(other)
    assert said.isprintable()
    assert said.startswith('session 1 ("\\x1b[2J\\n\\u202exxx')
    assert len(said) < 5 * SHOWN_CHARACTERS_MAX
    owner.state.client = ""
    assert timed_out(other).startswith("session 1 (token:")
