"""A registration for the length of a block, in the blocking client: connecting it, and disconnecting it at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lpt_client import operations
from lpt_client.blocking_interrupts import Interrupts
from lpt_client.errors import LptError
from lpt_client.operations import CLEANUP_TIMEOUT_S

if TYPE_CHECKING:
    from lpt_client.blocking_keeper import Keeper


def connect(keeper: Keeper, interrupts: Interrupts) -> None:
    """Connect a registration, to be disconnected."""
    interrupts.is_kept_when_stopped = keeper.reconnect
    interrupts.pump, interrupts.asks_kept = keeper.pump, keeper.ask_kept
    connected = keeper.call(operations.connect_interrupt(interrupts.structure))
    interrupts.begin(connected.first_seq)
    keeper.registrations.add(interrupts, keeper.link.session.stream)


def disconnect(keeper: Keeper, interrupts: Interrupts) -> None:
    """Disconnect a registration, however its block was left."""
    try:
        _disconnect(keeper, interrupts)
    finally:
        keeper.registrations.discard(interrupts)
        interrupts.is_closed = True


def _disconnect(keeper: Keeper, interrupts: Interrupts) -> None:
    """Undo the registration as far as there is a daemon to tell, and receive what it still sends."""
    if (keeper.link.is_over and not keeper.is_suspended) or interrupts.make_error is not None:
        return
    interrupts.is_leaving = True
    end_seq = None
    deadline_s = time.monotonic() + CLEANUP_TIMEOUT_S
    call = operations.disconnect_interrupt(interrupts.structure)
    try:
        end_seq = keeper.call(call, deadline_s)
        interrupts.end_at(end_seq)
        while interrupts.next_seq is not None and interrupts.next_seq < end_seq and time.monotonic() < deadline_s:
            keeper.link.pump(deadline_s)
    except LptError:
        return  # refused or lost: it is disconnected
    finally:
        if end_seq is None:
            interrupts.end_unknown()
            keeper.registrations.leave_behind(interrupts)
        else:
            interrupts.end(end_seq)
    interrupts.run_routines()
