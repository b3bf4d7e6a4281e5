"""What becomes of unanswered requests when a session goes on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lpt_client import operations
from lpt_client.events import Resumed, SessionInfo
from lpt_client.operations import Call
from lpt_client.resume import RESUME_WITHIN_S, Settlement, Unanswered, resume_within_s, settle
from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.messages import Response
from lpt_service.protocol.structs import PARALLEL_PORT_INFORMATION, U64

ALLOCATE = operations.allocate(None)
TRY = operations.try_allocate(PARALLEL_PORT_INFORMATION(0, 0, 3, Ioctl.TRY_ALLOCATE_PORT, 0, 0, 1))
STRUCTURE = operations.service_routine(1, has_isr=True, has_deferred=False)
CONNECT, DISCONNECT = operations.connect_interrupt(STRUCTURE), operations.disconnect_interrupt(STRUCTURE)


def decide(
    *calls: Call[Any],
    grant: int | None = None,
    pending: Collection[int] = (),
    registrations: tuple[bytes, ...] = (),
    known: int | None = None,
    is_held: bool = False,
    given_up: Collection[int] = (),
    wanted: Collection[bytes] = (),
) -> Settlement:
    """The calls have the msgids from 1 on."""
    unanswered = {msgid: Unanswered(call, msgid in given_up) for msgid, call in enumerate(calls, 1)}
    return settle(
        unanswered, Resumed(grant, None, tuple(pending), registrations), known, is_held=is_held, wanted=wanted
    )


def undone(settlement: Settlement) -> list[Any]:
    return [call.params for call in settlement.undo]


def test_what_is_pending_is_waited_for_and_what_was_given_up_is_cancelled() -> None:
    found = decide(ALLOCATE, operations.PING, operations.pulse(1, 0, 5, None), pending=[1, 3], given_up=[3])
    assert found == Settlement([1, 3], [3], [], [], [2], [])


def test_an_allocate_is_granted_by_a_grant_that_was_not_known() -> None:
    found = decide(operations.PING, ALLOCATE, grant=9, known=8)
    assert found.answers == [Response(2, None, (8, U64.pack(9)))]
    assert ALLOCATE.finish(found.answers[0]) == 9
    assert found.lost == [1]
    assert decide(ALLOCATE, grant=9, known=9, is_held=True).lost == [1], "it owned by that before"
    assert decide(ALLOCATE, grant=None, known=8).lost == [1]


def test_a_try_allocate_and_a_plain_ioctl_too() -> None:
    assert TRY.finish(decide(TRY, grant=9).answers[0]) == 9
    short = operations.ioctl(Ioctl.PARALLEL_PORT_ALLOCATE, b"", 0, internal=True, options={})
    assert short.finish(decide(short, grant=9).answers[0]) == (0, b"")
    one = operations.ioctl(Ioctl.TRY_ALLOCATE_PORT, bytes(8), 1, internal=False, options={})
    assert one.finish(decide(one, grant=9).answers[0]) == (1, b"\1")


def test_one_grant_answers_one_request() -> None:
    found = decide(ALLOCATE, TRY, grant=9)
    assert [each.msgid for each in found.answers] == [1]
    assert found.lost == [2]


def test_a_grant_that_nobody_waits_for_is_given_back() -> None:
    assert undone(decide(ALLOCATE, grant=9, given_up=[1])) == [operations.FREE.params]
    assert undone(decide(ALLOCATE, given_up=[1])) == []
    assert undone(decide(grant=9, known=9)) == [operations.FREE.params], "its block was left meanwhile"
    assert undone(decide(grant=9, known=9, is_held=True)) == []
    assert undone(decide(grant=9, known=8)) == [], "somebody took it by a plain ioctl: theirs to give back"


def test_a_free_has_been_carried_out_or_is_asked_again() -> None:
    assert decide(operations.FREE, grant=9, known=9, is_held=True).again == [1]
    assert decide(operations.FREE, known=9, is_held=True).is_freed
    found = decide(operations.FREE, ALLOCATE, grant=10, known=9)
    assert [each.msgid for each in found.answers] == [1, 2]
    found = decide(operations.FREE, grant=9, known=9, given_up=[1])
    assert (found.again, found.undo) == ([1], []), "once is enough"
    assert decide(operations.FREE).lost == [1]
    assert not decide(ALLOCATE, grant=9).is_freed


def test_registrations() -> None:
    assert decide(DISCONNECT, registrations=(STRUCTURE,)).again == [1]
    assert decide(DISCONNECT).lost == [1]
    found = decide(CONNECT, registrations=(STRUCTURE,))
    assert found.lost == [1]
    assert undone(found) == [DISCONNECT.params], "its answer is lost, and with it where it begins"
    assert undone(decide(CONNECT)) == []
    assert undone(decide(CONNECT, registrations=(STRUCTURE,), wanted=[STRUCTURE])) == []


def test_everything_else_may_have_run() -> None:
    calls = (operations.PING, operations.write(0, 1, None), operations.RESUME_PORT, operations.drain(is_on=True))
    assert decide(*calls, grant=9, known=9, is_held=True) == Settlement([], [], [], [], [1, 2, 3, 4], [])


def test_how_long_a_session_may_be_away() -> None:
    session = SessionInfo("", "LPT1", 1, 1, 0, 0, {"grace_s": 30, "dead_peer_s": 15.0}, ())
    assert resume_within_s(session) == 45
    assert resume_within_s(session._replace(limits={"dead_peer_s": 15.0})) == RESUME_WITHIN_S
    assert resume_within_s(session._replace(limits={"grace_s": "?"})) == RESUME_WITHIN_S
