"""What a port tells about itself: the three information structures, and the map that `status` answers."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from lpt_service.protocol.ioctl import Ioctl
from lpt_service.protocol.structs import (
    INTERFACE_TYPE_ISA,
    LATCHED,
    MORE_PARALLEL_PORT_INFORMATION,
    PARALLEL_PNP_INFORMATION,
    PARALLEL_PORT_INFORMATION,
    PPT_BYTE_PRESENT,
)

if TYPE_CHECKING:
    from lpt_service.core.function_driver import FunctionDriver
    from lpt_service.core.requests import SessionState

_REGISTERS = 3  # data, status, control
# A status answer stays far below a frame's limit, however many wait.
_LISTED_MAX = 64
# A page of the queue: so many of those who wait, but no more than fit, with names as long as hello takes them.
_PAGE_MAX = 1000
_PAGE_MAX_BYTES = 512 * 1024
_WAITER_BYTES = 96  # of one, without its texts


def port_information(context: int) -> bytes:
    """PARALLEL_PORT_INFORMATION: callbacks are the control codes that stand for them, addresses are not there."""
    return PARALLEL_PORT_INFORMATION(
        OriginalController=0,
        Controller=0,
        SpanOfController=_REGISTERS,
        TryAllocatePort=Ioctl.TRY_ALLOCATE_PORT,
        FreePort=Ioctl.FREE_PORT,
        QueryNumWaiters=Ioctl.QUERY_NUM_WAITERS,
        Context=context,
    ).pack()


def more_port_information() -> bytes:
    """MORE_PARALLEL_PORT_INFORMATION: a latched (edge) interrupt on an ISA port; which line is not known here."""
    return MORE_PARALLEL_PORT_INFORMATION(
        InterfaceType=INTERFACE_TYPE_ISA,
        BusNumber=0,
        InterruptLevel=0,
        InterruptVector=0,
        InterruptAffinity=0,
        InterruptMode=LATCHED,
    ).pack()


def pnp_information(context: int, *, is_bidirectional: bool) -> bytes:
    """PARALLEL_PNP_INFORMATION: no ECP, no EPP, no chip modes, no daisy chain."""
    return PARALLEL_PNP_INFORMATION(
        HardwareCapabilities=PPT_BYTE_PRESENT if is_bidirectional else 0, Context=context
    ).pack()


def status_report(driver: FunctionDriver, now_ns: int) -> dict[str, Any]:
    """The answer to `status`; times are CLOCK_MONOTONIC in ns."""
    ownership, registry, log = driver.ownership, driver.registry, driver.registry.log
    return {
        "kind": driver.port.kind,
        "state": driver.state.value,
        "why_absent": driver.why_absent or None,
        "monotonic_ns": now_ns,
        "owner": _owner(driver),
        "draining": bool(ownership.drainers),
        "paused": driver.paused,
        "lease": _lease(driver, now_ns),
        "waiting": ownership.waiting,
        "waiters": [
            {**_who(waiter.request.session), "position": waiter.position, "since_ns": waiter.since_ns}
            for waiter in ownership.number_waiters()[:_LISTED_MAX]
        ],
        "registered": len(registry),
        "registrations": [
            {**_who(each.session), "interrupt": each.has_isr, "deferred": each.has_deferred_check}
            for each in islice(registry, _LISTED_MAX)
        ],
        "interrupts": {
            "enabled": driver.settings.enable_connect_interrupt,
            "connected": registry.is_heard,
            "masked": registry.is_masked,
            "lingering": registry.is_lingering,
            "stream": log.stream,
            "next_seq": log.next_seq,
            "generated": log.next_seq,
            "stray": registry.strays,
            "masks": registry.guard.masks,
            "log_entries": log.end - log.oldest,
            "log_capacity": log.capacity,
        },
        "counters": {
            "grants": ownership.grants,
            "frees": ownership.frees,
            "forced_releases": ownership.forced_releases,
            "requests": driver.requests,
            "errors": driver.errors,
        },
    }


def queue_report(driver: FunctionDriver, first: int) -> dict[str, Any]:
    """The answer to `queue`: who owns, and those who wait, from position `first` (1 or more) on, as many as fit."""
    waiters: list[dict[str, Any]] = []
    size = 0
    for position, waiter in enumerate(islice(driver.ownership.waiters(), first - 1, first - 1 + _PAGE_MAX), first):
        who = _who(waiter.request.session)
        size += _WAITER_BYTES + sum(len(text.encode()) for text in who.values() if isinstance(text, str))
        if size > _PAGE_MAX_BYTES and waiters:
            break
        waiters.append({**who, "position": position, "since_ns": waiter.since_ns})
    return {"owner": _owner(driver), "waiting": driver.ownership.waiting, "waiters": waiters}


def _owner(driver: FunctionDriver) -> dict[str, Any] | None:
    ownership = driver.ownership
    if ownership.owner is None:
        return None
    return {**_who(ownership.owner), "grant": ownership.grant, "since_ns": ownership.since_ns}


def _lease(driver: FunctionDriver, now_ns: int) -> dict[str, Any] | None:
    settings = driver.settings
    if not settings.has_lease:
        return None
    return {
        "max_hold_s": settings.max_hold_ns / 1e9,
        "idle_hold_s": settings.idle_hold_ns / 1e9,
        "warning_s": settings.hold_warning_ns / 1e9,
        "expires_ns": driver.leases.expires_ns(now_ns),
    }


def _who(session: SessionState) -> dict[str, Any]:
    return {
        "session": session.session,
        "client": session.client,
        "peer": session.peer,
        "identity": session.identity,
    }
