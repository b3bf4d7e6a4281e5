"""What outlives the daemon: holdings of sessions that may come back to the next one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from lpt_service.core import effects as fx
from lpt_service.core.requests import ControlRequest, Options, SessionState
from lpt_service.protocol import messages
from lpt_service.protocol.ioctl import CONTROL_CODES, Ioctl

if TYPE_CHECKING:
    from lpt_service.core.function_driver import FunctionDriver

_ALLOCATE: Final = next(row for row in CONTROL_CODES if row.code == Ioctl.PARALLEL_PORT_ALLOCATE)


class KeptRequest(NamedTuple):
    """An allocate request that waits; `timeout_ms` is what is left of its time-out, if it has one."""

    session: SessionState
    msgid: int
    output_length: int
    timeout_ms: int | None = None


class Kept(NamedTuple):
    """What some sessions hold of a port, each list in its order.

    Attributes:
        owner: the one of them that owns it, with its grant; None if it is none of them.
        is_check_owed: some of them are to be told of a deferred port check once the port is idle.
    """

    owner: tuple[SessionState, int] | None = None
    waiters: tuple[KeptRequest, ...] = ()
    registrations: tuple[tuple[SessionState, bytes], ...] = ()
    is_check_owed: bool = False


def holdings(driver: FunctionDriver, sessions: Iterable[SessionState], now_ns: int) -> Kept:
    """What these sessions hold now."""
    chosen, ownership = frozenset(sessions), driver.ownership
    requests = [waiter.request for waiter in ownership.waiters()]
    owner = ownership.owner
    ends = owner is not None and owner not in chosen  # an ownership, without a next owner in this daemon
    return Kept(
        (owner, ownership.grant) if owner is not None and owner in chosen else None,
        tuple(
            KeptRequest(each.session, each.msgid, each.output_length, _left_ms(each, now_ns))
            for each in requests
            if each.session in chosen
        ),
        tuple((each.session, each.key) for each in driver.registry if each.session in chosen),
        (ends or driver.arbiter.is_check_owed) and any(each.session in chosen for each in driver.registry.deferred()),
    )


def _left_ms(request: ControlRequest, now_ns: int) -> int | None:
    return None if request.deadline is None else max(0, -(-(request.deadline.at_ns - now_ns) // 1_000_000))


def restore(driver: FunctionDriver, kept: Kept, now_ns: int) -> None:
    """Give sessions back what they held of this port in a former daemon, before anybody else is served.

    The grant stays in force, and later ones are larger. Time-outs go on with what was left of them. Where the port is
    not there yet, all this takes effect when it is. Registrations enter the log at its end, as after a restart.
    """
    registry, ownership = driver.registry, driver.ownership
    registry.is_suspended = True
    for session, key in kept.registrations:
        was_listening = registry.is_listening(session)
        registry.restore(session, key)
        if registry.is_listening(session) and not was_listening:
            log = registry.log
            driver.effects.append(fx.EnterLog(session, log.end, messages.SYNC_RESTARTED, log.next_seq, None))
    driver.arbiter.is_check_owed = kept.is_check_owed
    if kept.owner is not None:
        ownership.restore(*kept.owner, now_ns)
        driver.arbiter.begin_tenure(now_ns)
    for session, msgid, output_length, timeout_ms in kept.waiters:
        request = ControlRequest(session, msgid, _ALLOCATE, b"", output_length, Options(timeout_ms=timeout_ms))
        driver.arbiter.restore_waiter(request, now_ns)
        driver.wait(request, now_ns)
