"""How lptd ends: its exit codes, the line that says why, and what signals and standard streams have to do with it."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, NoReturn

from lpt_service import journal
from lpt_service.protocol.errors import LptError
from lpt_service.protocol.text import escape

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
SIGNAL_BASE: Final = 128
EXIT_BROKEN_PIPE: Final = SIGNAL_BASE + signal.SIGPIPE
EXIT_CODES: Final = """\b
Exit codes: 0 stopped in order; 1 could not serve (the reason is on standard error);
2 wrong usage, or a configuration with errors; 128+n ended by signal n before it served.
"""

# What the daemon heeds; see Daemon.handle_signals.
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_log = logging.getLogger(__name__)


def complain(line: str) -> None:
    """Say on standard error what is wrong, in one line; the journal is told that it is an error."""
    with suppress(OSError):  # nobody hears it; the exit code still tells
        print(f"{'<3>' if journal.is_standard_error() else ''}lptd: {escape(line)}", file=sys.stderr, flush=True)


def explain(error: BaseException) -> None:
    """Say why the daemon ends, a line for each cause. What is a mistake of its own goes to the log with its stack."""
    for each in _leaves(error):
        if isinstance(each, LptError):
            for line in str(each).splitlines():
                complain(line)
        else:
            _log.critical("internal error", exc_info=each)
            complain(f"internal error (its stack is in the log): {type(each).__name__}: {each}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """A group's exceptions, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Gather SIGNALS that come before anybody handles them; after the block they are ignored.

    So none of them ends a daemon that is about to stop in order, until its process is gone: for the rest of it.
    """
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)

    for each in SIGNALS:
        signal.signal(each, note)
    try:
        yield noted
    finally:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)


def die_of(number: int) -> NoReturn:
    """End this process by a signal that it has heeded, so that a shell sees what it was and ends its loop, too."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(SIGNAL_BASE + number)  # where it is blocked


def prepare_standard_streams() -> None:
    """Let there be all three, and let them take every text.

    A closed one leads nowhere from now on, so that no socket gets its number; output to it fails. A character that the
    terminal has not is written as its number.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for the rest of the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Let what is still buffered go nowhere: the interpreter flushes at its end, and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def output_failure(error: OSError) -> int:
    """The exit code when standard output takes no more; told unless its reader has merely seen enough."""
    drop_output()
    if isinstance(error, BrokenPipeError):
        return EXIT_BROKEN_PIPE
    complain(f"standard output cannot be written: {error.strerror or error}")
    return EXIT_FAILED
