"""A registration for the length of a block, in the trio client: connecting it, and disconnecting it at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

from lpt_client import operations
from lpt_client.errors import LptError
from lpt_client.operations import CLEANUP_TIMEOUT_S
from lpt_client.trio_interrupts import Interrupts
from lpt_service.protocol.messages import Response

if TYPE_CHECKING:
    from lpt_client.trio_keeper import Keeper


@asynccontextmanager
async def registered(keeper: Keeper, interrupts: Interrupts) -> AsyncIterator[None]:
    """Connect a registration for the length of the block."""
    call = operations.connect_interrupt(interrupts.structure)
    interrupts.home = keeper.home

    def on_response(response: Response) -> None:
        if response.error is None and keeper.link is not None:
            interrupts.begin(call.finish(response).first_seq)
            try:
                keeper.registrations.add(interrupts, keeper.link.session.stream)
            except Exception as exc:
                keeper.fail(exc)

    try:
        await keeper.call(call, on_response=on_response)
    except BaseException:
        _drop(keeper, interrupts)  # the call has undone it
        raise
    try:
        with trio.CancelScope() as scope:
            if interrupts.has_isr or not interrupts.hears:
                interrupts.end_block_with(scope)
            yield
    finally:
        await _disconnect(keeper, interrupts)
    if interrupts.scope is not None and interrupts.make_error is not None:
        raise interrupts.make_error()


async def _disconnect(keeper: Keeper, interrupts: Interrupts) -> None:
    """Undo the registration as far as there is a daemon to tell, and wait for what it still sends."""
    link = keeper.link
    end_seq = None
    interrupts.is_leaving = True
    try:
        if interrupts.is_over or (link is None and not keeper.is_suspended):
            return
        with trio.move_on_after(CLEANUP_TIMEOUT_S, shield=True) as scope:
            call = operations.disconnect_interrupt(interrupts.structure)

            def on_response(response: Response) -> None:
                with suppress(LptError):  # the caller is told
                    interrupts.end_at(call.finish(response))

            end_seq = await keeper.call(call, on_response=on_response)
            await interrupts.wait_until(end_seq)
        if scope.cancelled_caught and link is not None:
            link.lose(f"the daemon did not answer the disconnecting within {CLEANUP_TIMEOUT_S:g} s")
    except LptError:
        return  # refused or lost: it is disconnected
    finally:
        if end_seq is None:
            interrupts.end_unknown()
            keeper.registrations.leave_behind(interrupts)
        else:
            interrupts.end(end_seq)
        _drop(keeper, interrupts)


def _drop(keeper: Keeper, interrupts: Interrupts) -> None:
    keeper.registrations.discard(interrupts)
    interrupts.close()
