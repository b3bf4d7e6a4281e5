"""Why a request cannot be carried out now, in words: the detail of STATUS_IO_TIMEOUT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lpt_service.core.requests import ControlRequest, SessionState
from lpt_service.protocol.text import escape

if TYPE_CHECKING:
    from lpt_service.core.function_driver import FunctionDriver

# Of each name in it: enough to recognize it.
SHOWN_CHARACTERS_MAX: Final = 60


def why_busy(driver: FunctionDriver, request: ControlRequest) -> str:
    """What `request` waits for at this moment, and its place if it is in the queue.

    What it says of the owner, `status` says to everybody.
    """
    ownership, name = driver.ownership, driver.settings.name
    if driver.jobs.belong_to(request.session):
        assert driver.job is not None
        return f"{driver.job.request.row.name} of this session is still running"
    reasons = []
    if ownership.owner is not None:
        reasons.append(f"{_who(ownership.owner)} owns port {name}")
    if driver.paused is not None:
        reasons.append(f"port {name} is paused" + (f": {_shown(driver.paused)}" if driver.paused else ""))
    if ownership.drainers:
        reasons.append(f"port {name} is being drained: nobody new is granted")
    waiter = ownership.find_waiter(request.session)
    if waiter is not None:
        place = min(waiter.position, ownership.waiting)  # as it was told last, but others may have gone since
        reasons.append(f"this request was number {place} of {ownership.waiting} in the queue")
    return "; ".join(reasons) or f"port {name} is busy"


def _who(session: SessionState) -> str:
    about = [f'"{_shown(session.client)}"'] if session.client else []
    about += [_shown(text) for text in (session.identity, session.peer) if text]
    return f"session {session.session} ({', '.join(about)})"


def _shown(text: str) -> str:
    shown = escape(text[:SHOWN_CHARACTERS_MAX])
    return shown if len(text) <= SHOWN_CHARACTERS_MAX else f"{shown}…"
