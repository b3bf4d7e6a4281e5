"""Who hears an interrupt: one by one what `test_interrupts_stateful` mixes, and ports that fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lpt_service.core import interrupts
from lpt_service.core.interrupts import InterruptRegistry
from lpt_service.protocol.messages import (
    KIND_EVENT,
    KIND_UNHEARD,
    SYNC_CONNECTED,
    SYNC_OVERRUN,
    SYNC_RESTARTED,
    SYNC_RESUMED,
)
from lpt_service.protocol.status import Status
from tests.core.fakes import FakePort
from tests.core.harness import MS, SECOND, STREAM, Client, Harness, routine


def kinds(client: Client) -> list[tuple[int, int]]:
    """What the client heard: (kind, count) of each frame."""
    return [(frame[5], frame[2]) for frame in client.heard()]


def set_gate(harness: Harness, *, is_open: bool) -> None:
    harness.driver.reconfigure(replace(harness.driver.settings, enable_connect_interrupt=is_open))


# Semantic 3


def test_semantic_03_connecting_is_disabled_by_default_and_the_gate_is_read_at_every_request() -> None:
    """Semantic 3: disabled by default; a setting of the port, read at every request."""
    harness = Harness(enable_connect_interrupt=False)
    client = harness.client()
    assert client.connect(routine(isr=1)).status == Status.STATUS_UNSUCCESSFUL
    set_gate(harness, is_open=True)
    assert client.connect(routine(isr=1)).status == 0
    set_gate(harness, is_open=False)
    assert client.connect(routine(isr=2)).status == Status.STATUS_UNSUCCESSFUL
    assert client.disconnect(routine(isr=1)).is_pending


@pytest.mark.parametrize(
    ("structure", "output_length"), [(b"", 32), (routine(isr=1), 0), (routine(), 32), (routine(isr=1 << 63), 32)]
)
def test_semantic_03_the_gate_is_checked_before_anything_else(structure: bytes, output_length: int) -> None:
    """CONNECT: UNSUCCESSFUL while disabled by configuration, checked first, even before sizes."""
    client = Harness(enable_connect_interrupt=False).client()
    assert client.connect(structure, output_length, grant=1).status == Status.STATUS_UNSUCCESSFUL


def test_semantic_03_connecting_needs_no_ownership_and_a_session_hears_an_interrupt_once() -> None:
    """Semantic 3: every connected routine learns of every interrupt; one frame a session."""
    harness = Harness()
    owner, one, two = harness.clients(3)
    owner.allocate()
    for client in (one, two):
        client.connect(routine(isr=1))
        client.connect(routine(isr=2))
    harness.interrupt(3)
    assert kinds(one) == kinds(two) == [(KIND_EVENT, 3)]


def test_semantic_03_a_deferred_check_alone_hears_and_enables_nothing() -> None:
    """Semantic 3: a registration with a deferred check alone gets no interrupts and enables nothing."""
    harness = Harness()
    client = harness.client()
    assert client.connect(routine(deferred=1)).status == 0
    assert not harness.is_listening()
    assert not client.passages
    assert client.disconnect(routine(deferred=1)).status == 0


# Semantic 4


def test_semantic_04_the_device_is_quiet_unless_somebody_listens() -> None:
    """Semantic 4: the first ISR enables the device before its reply; the last disconnect quiets it."""
    harness = Harness()
    one, two = harness.clients(2)
    for client in (one, two):
        client.connect(routine(isr=1))
        assert harness.is_listening()
    assert harness.port.journal == [("enable", True)]
    one.disconnect(routine(isr=1))
    assert harness.is_listening()
    two.disconnect(routine(isr=1))
    assert not harness.is_listening()


def test_semantic_04_the_daemon_quiets_the_device_when_it_starts() -> None:
    """Semantic 4: a daemon that was killed may have left the device's interrupt enabled."""
    harness = Harness()
    harness.port.control |= 0x10
    harness.driver.attach(harness.port, harness.now_ns)
    assert not harness.is_listening()


def test_semantic_04_what_comes_while_nobody_listens_is_stray() -> None:
    """Semantic 4: counted as stray, delivered to nobody."""
    harness = Harness(FakePort(can_disable_interrupt=False))
    client = harness.client()
    harness.interrupt(5)
    client.connect(routine(isr=1))
    harness.interrupt(2)
    client.disconnect(routine(isr=1))
    harness.interrupt(4)
    client.connect(routine(isr=1))

    assert harness.driver.registry.strays == 9
    assert harness.log.next_seq == 2
    assert kinds(client) == []
    assert client.passages[0].received == 2


def test_semantic_04_the_source_lingers_for_a_listener_that_vanished() -> None:
    """Semantic 4: a client that comes back within `interrupt_linger_s` misses nothing."""
    harness = Harness(interrupt_linger_ns=30 * SECOND)
    lost, back = harness.clients(2)
    lost.connect(routine(isr=1))
    harness.interrupt(2)
    lost.hear()
    resume_from = lost.passages[0].next_seq
    lost.die()
    harness.advance(29 * SECOND)
    harness.interrupt(3)

    back.connect(routine(isr=1), from_=(STREAM, resume_from))
    harness.interrupt(4)

    assert back.passages[0].syncs == [(SYNC_RESUMED, 2, 0)]
    assert kinds(back) == [(KIND_EVENT, 3), (KIND_EVENT, 4)]
    harness.advance(60 * SECOND)
    assert harness.is_listening()


def test_semantic_04_after_lingering_it_is_quiet_and_the_silence_is_marked() -> None:
    """Semantic 4: listening again after a silence writes the mark *unheard*."""
    harness = Harness(interrupt_linger_ns=30 * SECOND)
    lost, back = harness.clients(2)
    lost.connect(routine(isr=1))
    harness.interrupt(2)
    lost.die()
    harness.advance(30 * SECOND)
    assert not harness.is_listening()
    harness.interrupt(3)

    back.connect(routine(isr=1), from_=(STREAM, 1))

    assert back.passages[0].syncs == [(SYNC_RESUMED, 2, 1)]
    assert kinds(back) == [(KIND_UNHEARD, 0)]


def test_semantic_04_a_disconnect_ends_it_at_once() -> None:
    """Semantic 4: only a session that vanishes leaves the source connected; a disconnect ends it at once."""
    harness = Harness()
    gone, stays = harness.clients(2)
    gone.connect(routine(isr=1))
    stays.connect(routine(isr=1))
    gone.die()
    assert not harness.driver.registry.is_lingering
    stays.disconnect(routine(isr=1))
    assert not harness.is_listening()


# Semantic 5


def test_semantic_05_nothing_comes_after_the_fence() -> None:
    """Semantic 5: connect's reply precedes every event; the last disconnect's follows each, and none comes after."""
    harness = Harness()
    client, other = harness.clients(2)
    other.connect(routine(isr=1))
    harness.interrupt(7)
    connected = client.connect(routine(isr=1))
    assert connected.value >> 256 == 7
    assert client.heard() == []
    harness.interrupt(2)
    harness.port.raise_interrupts(3)  # and not collected yet

    fence = client.disconnect(routine(isr=1))
    harness.interrupt(10)

    assert fence.is_pending
    client.hear(1)
    assert fence.is_pending
    assert kinds(client) == [(KIND_EVENT, 2), (KIND_EVENT, 3)]
    assert fence.value == 12


def test_semantic_05_the_fence_holds_for_a_client_that_was_lapped() -> None:
    harness = Harness(interrupt_log_frames=4)
    client, other = harness.clients(2)
    for each in (client, other):
        each.connect(routine(isr=1))
    for _ in range(3):
        harness.interrupt(2)
    fence = client.disconnect(routine(isr=1))
    for _ in range(9):
        harness.interrupt(1)
    client.hear()
    assert fence.value == 6
    assert client.passages[0].syncs[1:] == [(SYNC_OVERRUN, 6, 6)]


def test_only_the_last_disconnect_of_a_session_waits() -> None:
    harness = Harness()
    client = harness.client()
    client.connect(routine(isr=1))
    client.connect(routine(isr=2))
    harness.interrupt(3)
    assert client.disconnect(routine(isr=1)).value == 3
    assert client.disconnect(routine(isr=2)).is_pending


@pytest.mark.parametrize(("output_length", "expected"), [(0, b""), (7, b""), (8, bytes(8)), (9, bytes(8))])
def test_end_seq_is_told_where_there_is_room(output_length: int, expected: bytes) -> None:
    client = Harness().client()
    client.connect(routine(isr=1))
    fence = client.disconnect(routine(isr=1), output_length)
    client.hear()
    assert fence.output == expected


# Connect and disconnect


@pytest.mark.parametrize(
    "structure", [routine(), routine(context=1), routine(isr=1 << 63), routine(isr=1, deferred=(1 << 64) - 1)]
)
def test_a_routine_is_a_token_below_two_to_the_63(structure: bytes) -> None:
    """Both routines 0: INVALID_PARAMETER; from 2^63 they are reserved."""
    harness = Harness()
    client = harness.client()
    assert client.connect(structure).status == Status.STATUS_INVALID_PARAMETER
    assert not harness.is_listening()
    assert len(harness.driver.registry) == 0


def test_the_largest_token_is_fine() -> None:
    assert Harness().client().connect(routine(isr=(1 << 63) - 1, context=(1 << 64) - 1)).status == 0


def test_a_registration_is_identified_by_all_of_its_structure() -> None:
    harness = Harness()
    client, other = harness.clients(2)
    structure = routine(isr=1, context=2, deferred=3, deferred_context=4)
    assert client.connect(structure).status == 0
    assert client.connect(structure).status == Status.STATUS_INVALID_PARAMETER
    assert client.connect(structure + b"longer").status == Status.STATUS_INVALID_PARAMETER
    assert other.connect(structure).status == 0
    assert client.connect(routine(isr=1, context=2, deferred=3, deferred_context=5)).status == 0
    assert len(harness.driver.registry) == 3


def test_disconnecting_what_is_not_connected_changes_nothing() -> None:
    harness = Harness()
    client, other = harness.clients(2)
    client.connect(routine(isr=1))
    assert client.disconnect(routine(isr=2)).status == Status.STATUS_INVALID_PARAMETER
    assert other.disconnect(routine(isr=1)).status == Status.STATUS_INVALID_PARAMETER
    fence = client.disconnect(routine(isr=1))
    client.hear()
    assert fence.status == 0
    assert client.disconnect(routine(isr=1)).status == Status.STATUS_INVALID_PARAMETER


# Resuming


def test_from_another_stream_begins_now_and_the_loss_is_unknown() -> None:
    harness = Harness()
    listening, client = harness.clients(2)
    listening.connect(routine(isr=1))
    harness.interrupt(5)
    call = client.connect(routine(isr=1), from_=(STREAM + 1, 1_000_000))
    assert call.value >> 256 == 5
    assert client.passages[0].syncs == [(SYNC_RESTARTED, 5, None)]
    assert client.heard() == []


def test_from_something_older_than_the_log_tells_what_is_lost() -> None:
    harness = Harness(interrupt_log_frames=3)
    listening, client = harness.clients(2)
    listening.connect(routine(isr=1))
    for _ in range(10):
        harness.interrupt(2)
    call = client.connect(routine(isr=1), from_=(STREAM, 3))
    assert call.value >> 256 == 14
    assert client.passages[0].syncs == [(SYNC_RESUMED, 14, 11)]
    client.hear()
    assert client.passages[0].received + client.passages[0].lost == 20 - 3


def test_from_beyond_the_log_is_refused_and_changes_nothing() -> None:
    harness = Harness()
    client = harness.client()
    assert client.connect(routine(isr=1), from_=(STREAM, 1)).status == Status.STATUS_INVALID_PARAMETER
    assert not harness.is_listening()
    assert client.connect(routine(isr=1), from_=(STREAM, 0)).status == 0


def test_from_the_very_end_is_seen_with_what_has_just_been_raised() -> None:
    harness = Harness()
    listening, client = harness.clients(2)
    listening.connect(routine(isr=1))
    harness.port.raise_interrupts(4)
    assert client.connect(routine(isr=1), from_=(STREAM, 4)).status == 0
    assert client.passages[0].syncs == [(SYNC_RESUMED, 4, 0)]


def test_from_counts_for_the_first_isr_alone() -> None:
    """`from` means something at the connect of a session's first ISR; elsewhere it has no effect."""
    harness = Harness()
    client = harness.client()
    assert client.connect(routine(deferred=1), from_=(STREAM, 99)).status == 0
    assert client.connect(routine(isr=1), from_=(STREAM, 0)).status == 0
    assert client.connect(routine(isr=2), from_=(STREAM, 99)).status == 0
    assert [passage.syncs for passage in client.passages] == [[(SYNC_RESUMED, 0, 0)]]


def test_a_session_that_comes_back_after_its_disconnect_begins_anew() -> None:
    harness = Harness()
    client = harness.client()
    client.connect(routine(isr=1))
    harness.interrupt()
    fence = client.disconnect(routine(isr=1))
    client.connect(routine(isr=1))
    harness.interrupt(2)
    client.hear()
    assert fence.value == 1
    assert [(each.received, each.syncs[0][0]) for each in client.passages] == [(1, SYNC_CONNECTED), (2, SYNC_CONNECTED)]


def test_the_end_of_a_session_does_not_look_at_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of sessions may end together, and there may be a hundred thousand structures."""

    def refuse(registry: InterruptRegistry) -> None:
        raise AssertionError("it looked at all of them")

    harness = Harness()
    one, other = harness.clients(2)
    for number in (1, 2):
        one.connect(routine(isr=number))
        other.connect(routine(isr=number))
    with monkeypatch.context() as patch:
        patch.setattr(InterruptRegistry, "__iter__", refuse)
        one.die()
        other.disconnect(routine(isr=1))
    assert [(each.session, each.key) for each in harness.driver.registry] == [(other.state, routine(isr=2))]


def test_a_port_has_so_many_deferred_checks_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "DEFERRED_MAX", 2)
    harness = Harness()
    one, other = harness.clients(2)
    assert one.connect(routine(isr=0, deferred=1)).status == 0
    assert other.connect(routine(isr=1, deferred=1)).status == 0
    refused = other.connect(routine(isr=0, deferred=2))
    assert refused.status == Status.STATUS_INSUFFICIENT_RESOURCES
    assert other.connect(routine(isr=2)).status == 0, "one that only listens is none"
    one.die()
    assert other.connect(routine(isr=0, deferred=2)).status == 0
    harness.settle()


def test_a_session_has_connected_so_many_structures_at_most() -> None:
    harness = Harness(max_registrations=2)
    one, other = harness.clients(2)
    assert [one.connect(routine(isr=number)).status for number in (1, 2)] == [0, 0]
    refused = one.connect(routine(isr=3))
    assert refused.status == Status.STATUS_INSUFFICIENT_RESOURCES
    assert other.connect(routine(isr=1)).status == 0, "the limit is a session's"
    assert one.connect(routine(isr=1)).status == Status.STATUS_INVALID_PARAMETER, "what is wrong goes before the limit"
    one.disconnect(routine(isr=1))
    assert one.connect(routine(isr=3)).status == 0
    harness.driver.reconfigure(replace(harness.driver.settings, max_registrations=3))
    assert one.connect(routine(isr=4)).status == 0
    one.die()
    harness.settle()


def test_semantic_08_a_second_is_any_second() -> None:
    """Semantic 8: where two seconds of anybody's meet, no more than the limit comes through either; for each port."""
    first, second = Harness(max_interrupt_rate_hz=100), Harness(max_interrupt_rate_hz=100)
    for harness in (first, second):
        harness.client().connect(routine(isr=1))
        harness.interrupt(1)
    first.advance(850 * MS)
    first.interrupt(95)
    first.advance(170 * MS)
    first.interrupt(95)
    assert first.driver.registry.is_masked
    assert first.log.next_seq == 191, "what was taken up to then is in the log"
    assert not second.driver.registry.is_masked
