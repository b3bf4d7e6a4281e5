"""Signals: those that this process was started to ignore or to block, and how to die of one."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from lptctl import prctl


def end_at_once() -> None:
    """From now on SIGINT ends this process as it stands, for nothing is connected yet.

    KeyboardInterrupt would not: where it comes up within an import, Python may drop it. Ignored, SIGINT stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_in_order() -> None:
    """From now on SIGINT raises KeyboardInterrupt: there is something to be set right. For after the imports."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def heeded(names: Sequence[str]) -> list[int]:
    """Those that this system has, without those that this process was started to ignore, as under nohup(1)."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def received(
    numbers: Sequence[int], at_once: Callable[[int], object] = lambda _number: None
) -> Iterator[AsyncIterator[int]]:
    """These signals as they come, also if this process was started with them blocked. Under trio.

    The receiver has a signal soon, `at_once` between the very steps of the program that it comes between.
    """
    import trio

    # Held back until `at_once` is in place: it would not be told of one that came before.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    with trio.open_signal_receiver(*map(signal.Signals, numbers)) as receiver:
        try:
            for number in numbers:
                _call_first(at_once, number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
            yield receiver
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call_first(function: Callable[[int], object], number: int) -> None:
    handler = signal.getsignal(number)
    assert callable(handler)

    def handle(signum: int, frame: FrameType | None) -> None:
        function(signum)
        handler(signum, frame)

    signal.signal(number, handle)


def die_of(number: int) -> None:
    """End this process by a signal, so that a shell sees that and ends its loop. Leaves no core file.

    Returns where that cannot be: to the first process of a container its own signals do nothing.
    """
    prctl.forbid_core()
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
