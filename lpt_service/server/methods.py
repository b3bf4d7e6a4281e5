"""One function for each method of the wire, and the table that names them.

A method is given the session and the request. It returns the result, or None if the request is pending, or raises
RequestError. It never awaits.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from lpt_service.core.port_report import queue_report
from lpt_service.core.requests import SessionState, invalid, missing_role
from lpt_service.protocol import messages
from lpt_service.protocol.codec import U32_MAX
from lpt_service.protocol.errors import RequestError
from lpt_service.protocol.ioctl import IoctlClass, Role
from lpt_service.protocol.messages import Request
from lpt_service.protocol.status import Status
from lpt_service.server.audit_record import who
from lpt_service.server.hello import parse_hello, welcome

if TYPE_CHECKING:
    from lpt_service.server.port_worker import PortWorker
    from lpt_service.server.session import Session

Method = Callable[["Session", Request], Any]

# A reason that an administrator gives is shown to people.
REASON_MAX_CHARACTERS: Final = 200


def hello(session: Session, request: Request) -> dict[str, Any]:
    """The first request: who is there, and which port is meant."""
    if session.state is not None:
        raise RequestError(Status.STATUS_INVALID_DEVICE_STATE, "hello has been said already")
    session.end_turn()  # with many sessions to count, and it may be said again and again
    said = parse_hello(request.params)
    session.outbox.is_raw = said.raw  # also for what is said of a hello that is refused
    daemon = session.daemon
    try:
        entry = daemon.admission.admit(said, session.origin, session.rules)
        worker, session.identity = entry.worker, entry.identity
        state = worker.parking.claim(session, said, entry.role)
        is_resumed = state is not None
        if state is None:
            daemon.admission.check_room(entry.identity, session.origin.counted_as)
            state = SessionState(session.number, secrets.randbits(63) | 1)
    except RequestError as exc:
        if exc.status != Status.STATUS_INSUFFICIENT_RESOURCES:
            session.end(f"hello refused: {exc}")
            _audit_refusal(session, f"hello: {exc.detail}")
        raise
    state.client, state.peer = said.client, session.origin.peer
    state.identity, state.role, state.is_raw = str(entry.identity), entry.role, said.raw
    if said.notifications is not None:
        session.outbox.set_wanted(said.notifications)
    daemon.admission.hear_hello(session)
    session.enter(worker, state)
    worker.join(session, state)
    session.may_drain = entry.may_drain
    if is_resumed and not entry.may_drain:  # not any more
        daemon.drain(state, is_on=False)
    session.log.info("%s %r for port %s", "back:" if is_resumed else "hello from", said.client, worker.name)
    answer = welcome(worker.driver, state, daemon.limits, daemon.clock, may_drain=entry.may_drain)
    if worker.parking.grace_s > 0:
        answer["limits"]["grace_s"] = worker.parking.grace_s
        session.outbox.keeps_unread = True
        answer["resume"] = worker.parking.tickets.issue(worker, state, entry.identity, session.origin.counted_as)
    if is_resumed:
        answer["resumed"] = worker.parking.describe(state, session.outbox)
    return answer


def control(session: Session, request: Request) -> tuple[int, bytes] | None:
    """A control request, of either class: the function driver's."""
    assert session.worker is not None
    assert session.state is not None
    try:
        output = session.worker.driver.control(session.state, request, session.daemon.clock.monotonic_ns())
    except RequestError as exc:
        if session.state.role < Role.USE and exc.status == Status.STATUS_ACCESS_DENIED:
            _audit_refusal(session, exc.detail)
        raise
    return None if output is None else (len(output), output)


def status(session: Session, request: Request) -> dict[str, Any]:
    """Everything about the port, for people."""
    if request.params not in ((), ({},)):
        raise invalid("status: params are [] or [{}]; no option is known")
    session.end_turn()  # with a long queue
    return session.daemon.status(_worker_of(session))


def ping(session: Session, request: Request) -> tuple[int, int]:
    """Both clocks."""
    if request.params != ():
        raise invalid("ping: params are []")
    return session.daemon.clock.monotonic_ns(), session.daemon.clock.realtime_ns()


def queue(session: Session, request: Request) -> dict[str, Any]:
    """A page of those who wait."""
    given = _options(request, first=int)
    first = given.get("first", 1)
    if not 1 <= first <= U32_MAX:
        raise invalid(f"first: a place in the queue, from 1 to {U32_MAX}, got {first}")
    session.end_turn()
    return queue_report(_worker_of(session).driver, first)


# Administration


def drain(session: Session, request: Request) -> dict[str, Any]:
    """Grant nobody new on any port while the session wants it so."""
    params = request.params
    if type(params) is not tuple or len(params) != 1 or type(params[0]) is not dict or params[0].keys() != {"on"}:
        raise invalid('drain: params are [{"on": true}] or [{"on": false}]')
    is_on = params[0]["on"]
    if type(is_on) is not bool:
        raise invalid(f"on: must be a bool, got {is_on!r:.40}")
    if not session.may_drain:
        _audit_refusal(session, "drain")
        raise RequestError(Status.STATUS_ACCESS_DENIED, "role: drain needs the role admin on every port of the daemon")
    assert session.state is not None
    session.daemon.audit.record(request.method, None, **who(session.state), on=is_on)
    return session.daemon.drain(session.state, is_on=is_on)


def revoke(session: Session, request: Request) -> dict[str, Any]:
    """Take the port from its owner."""
    given = _options(request, reason=str)
    worker = _administer(session, request)
    reason = _reason(given)
    _note(session, request, reason)
    lost = worker.driver.revoke(_by_administrator(reason), worker.clock.monotonic_ns())
    return {"revoked": lost and lost[0].session, "grant": lost and lost[1]}


def kick(session: Session, request: Request) -> dict[str, Any]:
    """End a session of this port."""
    given = _options(request, session=int, reason=str)
    if "session" not in given:
        raise invalid("session: missing; status and queue show the numbers")
    worker = _administer(session, request)
    reason, number = _reason(given), given["session"]
    kicked = next((each for state, each in worker.sessions.items() if state.session == number), None)
    if kicked is not None:
        kicked.why_released = _by_administrator(reason)
        kicked.end(kicked.why_released)
    elif not worker.parking.evict(number, _by_administrator(reason)):
        raise invalid(f"session: port {worker.name} has no session {number}")
    _note(session, request, reason, target=number)
    return {"kicked": number}


def pause(session: Session, request: Request) -> dict[str, Any]:
    """Let nobody use the port until `resume`."""
    given = _options(request, reason=str)
    worker = _administer(session, request)
    reason = _reason(given)
    _note(session, request, reason)
    return {"paused": True, "was": worker.driver.pause(reason, worker.clock.monotonic_ns())}


def resume(session: Session, request: Request) -> dict[str, Any]:
    """End `pause`."""
    _options(request)
    worker = _administer(session, request)
    was_paused = worker.driver.resume(worker.clock.monotonic_ns())
    _note(session, request, "")
    return {"paused": False, "was": was_paused}


def _administer(session: Session, request: Request) -> PortWorker:
    """The session's port, if it may administer it."""
    worker = _worker_of(session)
    assert session.state is not None
    if session.state.role < Role.ADMIN:
        refusal = missing_role(request.method, Role.ADMIN, worker.name, session.state.role)
        _audit_refusal(session, refusal.detail)
        raise refusal
    return worker


def _note(session: Session, request: Request, reason: str, **fields: Any) -> None:
    """Write down what an administrator has done."""
    assert session.state is not None
    name = _worker_of(session).name
    session.daemon.audit.record(request.method, name, **who(session.state), reason=reason, **fields)


def _audit_refusal(session: Session, what: str) -> None:
    port = None if session.worker is None else session.worker.name
    session.daemon.audit.refused(
        what, port, session=session.number, identity=str(session.identity), peer=session.origin.peer
    )


def _options(request: Request, **types: type) -> dict[str, Any]:
    """The one map of params, its keys and types checked."""
    params = request.params
    if params == ():
        return {}
    if type(params) is not tuple or len(params) != 1 or type(params[0]) is not dict:
        raise invalid(f"{request.method}: params are [] or one map")
    for name, value in params[0].items():
        if name not in types:
            known = ", ".join(types) or "none"
            raise invalid(f"{request.method}: {name!r:.40} is not known; the keys are: {known}")
        if type(value) is not types[name]:
            raise invalid(f"{name}: must be {types[name].__name__}, got {value!r:.40}")
    return dict(params[0])


def _reason(given: dict[str, Any]) -> str:
    reason: str = given.get("reason", "")
    if len(reason) > REASON_MAX_CHARACTERS:
        raise invalid(f"reason: {len(reason)} characters, the limit is {REASON_MAX_CHARACTERS}")
    if not reason.isprintable():
        raise invalid("reason: one line of printable text, for logs and terminals")
    return reason


def _by_administrator(reason: str) -> str:
    return f"administrator: {reason}" if reason else "administrator"


def _worker_of(session: Session) -> PortWorker:
    assert session.worker is not None
    return session.worker


METHODS: Final[Mapping[str, Method]] = {
    messages.HELLO: hello,
    messages.STATUS: status,
    messages.PING: ping,
    messages.QUEUE: queue,
    messages.DRAIN: drain,
    messages.REVOKE: revoke,
    messages.KICK: kick,
    messages.PAUSE: pause,
    messages.RESUME: resume,
    IoctlClass.INTERNAL.value: control,
    IoctlClass.DEVICE.value: control,
}
