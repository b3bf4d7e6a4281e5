"""Taking a port from its owner, and pausing it: what administrators and leases do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lpt_service.core import effects as fx
from lpt_service.core.notices import RevokedNotice
from lpt_service.core.requests import SessionState
from lpt_service.protocol.errors import PortError, PortGoneError, RequestError
from lpt_service.protocol.status import Status

if TYPE_CHECKING:
    from lpt_service.core.function_driver import FunctionDriver


def revoke(driver: FunctionDriver, why: str, now_ns: int) -> tuple[SessionState, int] | None:
    """Take the port from its owner: job cut, what waited behind it ended, safe state, next owner."""
    ownership = driver.ownership
    owner, grant = ownership.owner, ownership.grant
    if owner is None:
        return None
    error = RequestError(Status.STATUS_ACCESS_DENIED, f"the port was taken from this session: {why}")
    try:
        driver.end_requests(owner, error, now_ns)
        if ownership.owner is owner:  # the cut may have found that the port is gone
            driver.effects.append(fx.Notify(owner, RevokedNotice(owner, ownership, why)))
            driver.arbiter.force_release(why, now_ns)
    except PortGoneError as exc:
        driver.begin_removal(str(exc), now_ns)
    return owner, grant


def pause(driver: FunctionDriver, reason: str, now_ns: int) -> bool:
    """Grant nobody, leave the device alone, keep everything else; True if it was so already."""
    was_paused = driver.paused is not None
    driver.paused = reason
    if was_paused:
        return True
    driver.arbiter.close()
    revoke(driver, f"port paused: {reason}" if reason else "port paused", now_ns)
    if driver.is_ready:
        try:
            driver.registry.suspend(now_ns)
        except PortGoneError as exc:
            driver.begin_removal(str(exc), now_ns)
    return False


def resume(driver: FunctionDriver, now_ns: int) -> bool:
    """Undo `pause`; False if there was none. A port that is not there serves when it is.

    Raises RequestError(STATUS_IO_DEVICE_ERROR) if the device's interrupt cannot be enabled: it is paused still.
    """
    if driver.paused is None:
        return False
    if driver.is_ready:
        try:
            driver.registry.resume(now_ns)
        except PortGoneError as exc:
            driver.begin_removal(str(exc), now_ns)
        except PortError as exc:
            raise RequestError(Status.STATUS_IO_DEVICE_ERROR, f"the port could not be resumed: {exc}") from exc
    driver.paused = None
    if driver.is_ready:
        driver.arbiter.is_safe = False  # nobody knows what was done to the device meanwhile
        open_up(driver, now_ns)
    return True


def open_up(driver: FunctionDriver, now_ns: int) -> None:
    """The port is there and not paused: let it be heard and granted."""
    try:
        driver.registry.resume(now_ns)
        driver.arbiter.open(now_ns)
    except PortError as exc:  # no request could end with it
        driver.begin_removal(str(exc), now_ns)
