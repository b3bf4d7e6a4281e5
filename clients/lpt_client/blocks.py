"""Context managers that explain themselves when they are not used by `with`, or `async with`.

They are contextlib's context managers, whose own errors ("object has no attribute 'ping'") tell a newcomer nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class Misuse:
    """The wrong ways to use a block. `statement` is the right one, `call` what makes the block."""

    statement: str
    call: str

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(f"{what}: write `{self.statement} {self.call}(…) as …:`, and continue inside that block")

    if not TYPE_CHECKING:  # a type checker is not to believe that these are there

        def __await__(self):
            self._refuse(f"{self.call}(…) is not awaited")

        def __iter__(self):
            self._refuse(f"{self.call}(…) is not iterated over before it is entered")

        __aiter__ = __iter__

        def __getattr__(self, name):
            if not name.startswith("_"):
                raise AttributeError(
                    f"{self.call}(…) has no {name!r} before it is entered: "
                    f"write `{self.statement} {self.call}(…) as …:`, and use what that gives"
                )
            raise AttributeError(name)


class Block(Misuse, AbstractContextManager[T_co]):
    """For one `with`."""

    statement = "with"

    def __init__(self, call: str, manager: AbstractContextManager[T_co]) -> None:
        self.call = call
        self._manager = manager
        self._is_entered = False

    def __enter__(self) -> T_co:
        if self._is_entered:
            self._refuse(f"this {self.call}(…) was entered before: make another one for each `with`")
        self._is_entered = True
        return self._manager.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return self._manager.__exit__(kind, error, traceback)
        finally:
            if error is not None:  # before Python 3.11 it would hold contextlib's frame, and that the error
                error.__traceback__ = traceback

    if not TYPE_CHECKING:

        async def __aenter__(self):
            self._refuse(f"{self.call}(…) of the blocking client is for `with`, not for `async with`")

        async def __aexit__(self, *_):
            """Not reached."""


def block(function: Callable[P, Iterator[T_co]]) -> Callable[P, Block[T_co]]:
    """What `contextlib.contextmanager` does, with better words."""
    manage = contextmanager(function)

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> Block[T_co]:
        return Block(function.__name__, manage(*args, **kwargs))

    return make
