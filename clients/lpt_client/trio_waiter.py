"""A caller of the trio client whose request is under way. It may outlive the connection on which it asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from lpt_client.errors import NotConnected
from lpt_client.operations import Call
from lpt_service.protocol.messages import Response

if TYPE_CHECKING:
    from lpt_client.trio_link import Link


class Waiter:
    """A caller whose request is under way: what it waits for, on which link, and where it is parked."""

    __slots__ = ("call", "error", "is_given_up", "link", "msgid", "on_response", "position", "response", "task")

    def __init__(self, link: Link, call: Call[Any], on_response: Callable[[Response], None] | None) -> None:
        self.link = link
        self.msgid = 0
        self.call = call
        self.is_given_up = False
        self.task: trio.lowlevel.Task | None = None
        self.response: Response | None = None
        self.error: NotConnected | None = None
        self.position: int | None = None  # in the queue, where the caller has not been told yet
        self.on_response = on_response

    @property
    def is_done(self) -> bool:
        """True once there is an answer, or will be none."""
        return self.response is not None or self.error is not None

    async def park(self) -> None:
        """Sleep until woken."""

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Let the caller go on, if it is parked."""
        if self.task is not None:
            task, self.task = self.task, None
            trio.lowlevel.reschedule(task)

    def answer(self, response: Response) -> None:
        """The answer is there: tell whoever is to know at once, and let the caller go on."""
        self.response = response
        self.wake()
        if self.on_response is not None:
            self.on_response(response)
