"""The standard streams, however they were inherited: closed, full, non-blocking, or without a reader.

Standard output is written whole, or the command fails: Failure, or ReaderGone where that is a pipe without a reader.
Standard error is for people: what it does not take is dropped, and holds up nothing.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, Final

from lptctl.outcome import UNWRITABLE, Failure

# A pipe takes so many bytes at once or none of them: it is always known what has been written.
_CHUNK_BYTES: Final = getattr(select, "PIPE_BUF", 512)
# A line for people waits for a reader so long, once; until that reads again, further lines do not wait at all.
NOTE_TIMEOUT_S: Final = 1.0


class ReaderGone(Exception):  # noqa: N818 - no error: `lptctl listen | head` ends so
    """The reader of the output has gone: it has seen enough."""


class Output(io.RawIOBase):
    """Standard output as a raw stream, safe to be written by one thread at a time.

    Attributes:
        written: bytes that the system has taken.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._has_failed = False
        self.written = 0

    def fileno(self) -> int:
        """The descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def writable(self) -> bool:
        """It is, or fails when it is used."""
        return True

    def write(self, data: Any, /) -> int:
        """Write some of it, and wait until that is possible; how much. Raises Failure or ReaderGone, once."""
        chunk = memoryview(data)[:_CHUNK_BYTES]
        if self._has_failed:
            return len(chunk)  # it has been told: the interpreter, which flushes at its end, need not complain
        try:
            count = self._write(chunk)
        except BrokenPipeError:
            self._has_failed = True
            raise ReaderGone from None
        except OSError as exc:
            self._has_failed = True
            reason = "it is closed" if exc.errno == errno.EBADF else exc.strerror
            raise Failure(f"standard output could not be written: {reason}", UNWRITABLE) from exc
        self.written += count
        return count

    def _write(self, chunk: memoryview) -> int:
        try:
            return os.write(self._number, chunk)
        except BlockingIOError:  # the process that started us shares this descriptor, and made it non-blocking
            select.select((), (self._number,), ())
            return 0


class Notes(Output):
    """Standard error as a raw stream: it never fails, and waits for at most NOTE_TIMEOUT_S."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._timeout_s = NOTE_TIMEOUT_S

    def write(self, data: Any, /) -> int:
        """Write some of it or drop that; how much."""
        chunk = memoryview(data)[:_CHUNK_BYTES]
        try:
            if select.select((), (self._number,), (), self._timeout_s)[1]:
                self._timeout_s = NOTE_TIMEOUT_S
                os.write(self._number, chunk)
            else:
                self._timeout_s = 0.0
        except OSError:
            pass  # there is nobody left to tell
        return len(chunk)


def take_over() -> None:
    """Have this process use its standard streams as this module says. For the beginning: nothing is open yet."""
    if os.name != "posix":
        return
    for number in range(3):
        _occupy(number)
    encodings = [stream.encoding if stream else None for stream in (sys.stdout, sys.stderr)]
    if sys.stdin is None:  # it was closed
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    output = Output(1)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(output), encodings[0], line_buffering=output.isatty())
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(Notes(2)), encodings[1], line_buffering=True)


def _occupy(number: int) -> None:
    """Open a standard stream that is closed, lest a socket of ours gets its number and what is written to it.

    It is open the wrong way round: to use it fails, as with a closed one. A command that we run finds it closed.
    """
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY)


def write_now(text: str) -> None:
    """Write to standard output, around its buffer: if this is given up in a thread, nothing is locked.

    Raises Failure or ReaderGone.
    """
    output = _output()
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    data = memoryview(encoded(text))
    while data:
        data = data[output.write(data) :]


def encoded(text: str) -> bytes:
    """Text as standard output gets it."""
    return text.encode(sys.stdout.encoding, "backslashreplace")


def bytes_written() -> int:
    """How much standard output has taken so far; 0 where it is not ours."""
    output = _output()
    return 0 if output is None else output.written


def _output() -> Output | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, Output) else None
