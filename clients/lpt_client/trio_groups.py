"""A nursery that belongs to a `with` block of the SDK: the caller's exceptions leave it as they are, not in a group."""

from __future__ import annotations

import builtins
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

# Before Python 3.11 trio brings it along, in a package.
_Group: Final[Any] = (
    getattr(builtins, "BaseExceptionGroup", None) or importlib.import_module("exceptiongroup").BaseExceptionGroup
)


@asynccontextmanager
async def open_flat_nursery() -> AsyncIterator[trio.Nursery]:
    """`trio.open_nursery`, for one whose own tasks do not raise: a single exception is not wrapped.

    `except AccessDenied` around `async with open_port(…)` works only so; that there is a nursery inside is nothing that
    a caller should have to know.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except _Group as group:
        error = group
        while isinstance(error, _Group) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, _Group):
            raise
        context = error.__context__  # raising it here would replace what it was raised in the handling of
        try:
            raise error
        finally:
            error.__context__ = context
            del error
