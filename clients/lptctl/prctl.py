"""What Linux can do for a process and its children, by prctl(2). On other systems each of these does nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36


@lru_cache(maxsize=1)
def _prctl() -> Callable[[int, int], object]:
    if sys.platform != "linux":
        return lambda _option, _value: None
    try:
        import ctypes  # an interpreter may have been built without

        function = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda _option, _value: None
    unsigned = ctypes.c_ulong
    return lambda option, value: function(option, unsigned(value), unsigned(0), unsigned(0), unsigned(0))


def forbid_core() -> None:
    """Let this process die without leaving a core file."""
    _prctl()(_PR_SET_DUMPABLE, 0)


def adopt_orphans(is_on: bool) -> None:
    """Make this process, in place of the first one, the parent of what its descendants leave behind; or stop that."""
    _prctl()(_PR_SET_CHILD_SUBREAPER, is_on)


def dying_with_parent(number: int) -> Callable[[], None]:
    """A function for a child before its exec: it gets this signal when the thread that started it has died."""
    prctl = _prctl()  # loaded here: the child, between fork and exec, is to do as little as possible
    return lambda: (prctl(_PR_SET_PDEATHSIG, number), None)[1]
