"""Files that a result goes to: found to be writable before the work begins, filled after it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from lptctl.outcome import UNWRITABLE, USAGE, Failure


class ResultFile:
    """An open file. What was in it stays until `replace`."""

    def __init__(self, path: str, file: TextIO) -> None:
        self.path = path
        self._file = file
        self.is_filled = False

    def fill(self, write: Callable[[TextIO], object]) -> list[Failure]:
        """Write it anew; what keeps it from being written after all, if anything."""
        try:
            if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                self._file.truncate(0)
            self.is_filled = True
            write(self._file)
            self._file.flush()
        except OSError as exc:
            return [Failure(f"{self.path} could not be written: {exc.strerror or exc}", UNWRITABLE)]
        return []


@contextmanager
def result_file(path: str | None) -> Iterator[ResultFile | None]:
    """Open a file for the length of the block; None for None. One that is new and stays empty is taken away again.

    Raises Failure if it cannot be written.
    """
    if path is None:
        yield None
        return
    is_new = not os.path.lexists(path)
    try:
        file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115 - "a": keeps what is there for now
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise Failure(f"{path} cannot be written: {reason}; choose another file", USAGE) from exc
    result = ResultFile(path, file)
    try:
        yield result
    finally:
        with suppress(OSError):  # told when it was flushed
            file.close()
        if is_new and not result.is_filled:
            with suppress(OSError):
                os.unlink(path)
