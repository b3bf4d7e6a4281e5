"""Programs that start others, and leave none behind.

Those of the tests let SIGTERM and a terminal that closes end them as Ctrl-C does: then what they have started ends with
them, by the context managers that hold it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from types import FrameType


def end_in_order() -> None:
    """From now on, in this process: by SystemExit in the main thread, with the exit code that shells give a signal."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # the end is under way
    sys.exit(128 + number)


def children(parent: int) -> set[int]:
    """The processes that a process has started, and that run."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent_now = stat_of(int(folder.name))
            if parent_now == parent and state != "Z":
                found.add(int(folder.name))
    return found


def stat_of(pid: int) -> tuple[str, int]:
    """State and parent. Raises OSError if there is no such process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[1])


def have_ended(pids: set[int]) -> bool:
    """Whether they are gone; whether somebody has collected their exit codes does not matter."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if stat_of(pid)[0] != "Z":
                return False
    return True
