"""Standard output and error of a process that must not wait for their readers.

A reader may stop reading: a pager, a terminal after Ctrl-S, a collector of logs that hangs. A thread waits for it in
the place of the event loop; what it does not take in time is lost, counted, and told.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO, cast

# What waits for a reader: some ten thousand lines of the log. Beyond it lines are lost.
QUEUE_MAX_BYTES: Final = 1024 * 1024
# How long the end of the process waits for the readers of what is left.
STOP_TIMEOUT_S: Final = 1.0
# Who writes a line goes on when it is written, as it is elsewhere; it waits no longer than this, and then not at all
# until the reader has caught up.
_PATIENCE_S: Final = 0.05
_PIECE_BYTES: Final = 64 * 1024  # in one write, about
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2


class BackgroundOutput(io.TextIOBase):
    """A text stream to a descriptor, whose `write` does not fail, and does not wait for a reader who does not read.

    Error handling: what a full disk, a closed descriptor or a reader that has gone does not take is lost, as is what
    exceeds QUEUE_MAX_BYTES; the next line that is taken is preceded by one that says how many are missing. A descriptor
    that does not block is waited for.

    Resource handling: a thread, for the rest of the process; the descriptor stays its owner's.

    Synchronization: for any thread.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0  # those on their way, too
        self._lost_lines = 0
        self._is_in_lost_line = False
        self._is_behind = False  # from a write that was not over in time, until nothing waits
        self._changed = threading.Condition()
        # A daemon: the process ends though it waits.
        threading.Thread(target=self._run, name=f"output {descriptor}", daemon=True).start()

    def write(self, text: str, /) -> int:
        """Have it written, now if that takes no time."""
        data = text.encode(errors="backslashreplace")
        if not data:
            return 0
        with self._changed:
            if self._waiting_bytes + len(data) > QUEUE_MAX_BYTES or self._is_in_lost_line:
                self._lost_lines += data.count(b"\n")
                self._is_in_lost_line = not data.endswith(b"\n")
            else:
                self._append(data)
            if not self._is_behind:
                self._is_behind = not self._changed.wait_for(lambda: not self._waiting_bytes, _PATIENCE_S)
        return len(text)

    def drain(self, timeout_s: float) -> bool:
        """Wait until all is written, the number of lost lines included; False if that takes longer than `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            if self._lost_lines:
                self._append(b"")
            while self._waiting_bytes:
                if not self._changed.wait(max(0.0, deadline_s - time.monotonic())) and time.monotonic() >= deadline_s:
                    return False
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """Whether a terminal is at the other end."""
        return os.isatty(self._descriptor)

    def _append(self, data: bytes) -> None:
        if self._lost_lines:
            data = b"lptd: %d lines are missing here: they could not be written\n" % self._lost_lines + data
            self._lost_lines = 0
        self._pieces.append(data)
        self._waiting_bytes += len(data)
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pieces:
                    self._changed.wait()
                data = self._pieces.popleft()
                while self._pieces and len(data) < _PIECE_BYTES:
                    data += self._pieces.popleft()
            left = self._write_all(data)
            with self._changed:
                self._waiting_bytes -= len(data)
                self._lost_lines += bytes(left).count(b"\n")
                self._is_behind = self._is_behind and self._waiting_bytes > 0
                self._changed.notify_all()

    def _write_all(self, data: bytes) -> memoryview:
        """Write, however long it takes; what could not be written."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                select.select((), (self._descriptor,), ())
            except OSError:
                break
        return left


@contextmanager
def background_output() -> Iterator[None]:
    """Meanwhile `sys.stdout` and `sys.stderr` keep nobody waiting; at the end all is written, if that is soon done.

    If it is not, they stay as they are, for nobody is to wait for their readers later, either.
    """
    former = sys.stdout, sys.stderr
    for each in former:
        with suppress(OSError):
            each.flush()
    error = BackgroundOutput(_STANDARD_ERROR)
    output = error if _is_same_file() else BackgroundOutput(_STANDARD_OUTPUT)  # so that lines stay in order
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, error)
    try:
        yield
    finally:
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        are_out = [each.drain(deadline_s - time.monotonic()) for each in (error, output)]
        if all(are_out):
            sys.stdout, sys.stderr = former


def unblocking_copy(descriptor: int) -> int:
    """Another descriptor of the same file, to which writing never waits; where there can be none, the same."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return descriptor


def _is_same_file() -> bool:
    return os.path.sameopenfile(_STANDARD_OUTPUT, _STANDARD_ERROR)
