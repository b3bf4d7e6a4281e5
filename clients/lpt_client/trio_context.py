"""Whether the trio client can be used here, and if not (asyncio, no event loop, another thread), what to do."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import trio

from lpt_client.blocks import Misuse

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)

_WAYS_OUT: Final = (
    "Three ways out: lpt_client.blocking, with each call in a thread (`await asyncio.to_thread(port.ping)`); trio in a "
    "thread of its own (`await asyncio.to_thread(trio.run, main)`), or as the guest of another loop "
    "(`trio.lowlevel.start_guest_run`); or trio for the whole program (`trio.run(main)`)"
)


def check_under_trio(what: str) -> None:
    """Raise RuntimeError, which says what to do, unless this is a task of trio."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(f"{what} needs trio, and this is {_where()}. {_WAYS_OUT}") from None


def _where() -> str:
    import asyncio  # takes long to load, and is seldom asked for

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "no task of its"
    return "a task of asyncio"


class Home:
    """The trio.run that a port belongs to: the one in which this is made."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self._token = trio.lowlevel.current_trio_token()

    def is_here(self) -> bool:
        """True in that trio.run."""
        try:
            return trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            return False

    def check(self) -> None:
        """Raise RuntimeError, which says what to do, unless this is a task of that trio.run."""
        if threading.get_ident() != self.thread:
            raise RuntimeError(
                "this port belongs to a trio.run in another thread: call it from there "
                "(`trio.from_thread.run(port.ping)`), or open a port here"
            )
        check_under_trio("this port")


class AsyncBlock(Misuse, AbstractAsyncContextManager[T_co]):
    """For one `async with`."""

    statement = "async with"

    def __init__(self, call: str, manager: AbstractAsyncContextManager[T_co]) -> None:
        self.call = call
        self._manager = manager
        self._is_entered = False

    async def __aenter__(self) -> T_co:
        check_under_trio(f"{self.call}(…)")
        if self._is_entered:
            self._refuse(f"this {self.call}(…) was entered before: make another one for each `async with`")
        self._is_entered = True
        return await self._manager.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)

    if not TYPE_CHECKING:

        def __enter__(self):
            self._refuse(f"{self.call}(…) of the trio client is for `async with`, not for `with`")

        def __exit__(self, *_):
            """Not reached."""


def async_block(function: Callable[P, AsyncIterator[T_co]]) -> Callable[P, AsyncBlock[T_co]]:
    """What `contextlib.asynccontextmanager` does, with better words."""
    manage = asynccontextmanager(function)

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> AsyncBlock[T_co]:
        return AsyncBlock(function.__name__, manage(*args, **kwargs))

    return make
