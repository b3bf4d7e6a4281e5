"""Lines at the end of a file that has a bound, and older files beside it.

The file is opened anew for every append. So whoever moves or deletes it is heeded at once, a line that was cut off is
seen wherever it comes from (a full disk, a crash, another program), nothing is left open when a call hangs for ever,
and a network's file system tells of its errors when they can still be counted.

Not logging.handlers.RotatingFileHandler: after an error it keeps what it could not write in a buffer and writes it
behind whatever comes then, it does not tell which records were lost, nor see that its file was moved.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

# The daemon's user writes, its group reads, whatever the umask.
FILE_MODE: Final = 0o640
# Not blocking: a device that waits for somebody at its other end is refused instead.
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_LINE: Final = b"\n"


class Appended(NamedTuple):
    """How many lines are in the file, from the first on; why not all."""

    written: int
    error: OSError | ValueError | None


class AuditFile:
    """A file of at most `max_bytes`, and up to `keep` older ones: PATH.1, the latest of them, to PATH.`keep`.

    `write` is os.write, or a disk of a test's.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int, *, write: Callable[[int, bytes], int] = os.write) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.keep = keep
        self._write = write

    def append(self, lines: Sequence[bytes]) -> Appended:
        """Write lines, each with its line break and shorter than `max_bytes`; blocks, for as long as the disk does."""
        rest = deque(lines)
        try:
            while rest:
                descriptor = self._open(len(rest[0]))
                try:
                    self._fill(descriptor, rest)
                finally:
                    os.close(descriptor)
        except (OSError, ValueError) as exc:  # the latter: a path with a NUL
            return Appended(len(lines) - len(rest), exc)
        return Appended(len(lines), None)

    def _open(self, needed: int) -> int:
        """The file, with room for `needed` bytes and a line break, or empty."""
        descriptor = self._open_as_it_is()
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if not found.st_size or found.st_size + 1 + needed <= self.max_bytes:
                return descriptor
            self._rotate()
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return self._open_as_it_is()

    def _open_as_it_is(self) -> int:
        try:
            return os.open(self.path, _FLAGS)
        except FileNotFoundError:
            descriptor = os.open(self.path, _FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE)
            os.fchmod(descriptor, FILE_MODE)
            return descriptor

    def _fill(self, descriptor: int, rest: deque[bytes]) -> None:
        """Write as many lines as there is room for, at least one, and take those that are whole off `rest`."""
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != _NEW_LINE
        group = [_NEW_LINE] if is_torn else []
        size += is_torn
        for line in rest:
            size += len(line)
            if size > self.max_bytes and len(group) > is_torn:
                break
            group.append(line)
        data = b"".join(group)
        landed = 0
        try:
            while landed < len(data):
                count = self._write(descriptor, data[landed:])
                if count <= 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                landed += count
        finally:
            for _ in range(data.count(_NEW_LINE, 0, landed) - is_torn):
                rest.popleft()

    def _rotate(self) -> None:
        """PATH becomes PATH.1, and so on up to the first number that is free; those beyond `keep` are removed."""
        for number in self._numbers():
            if number > self.keep:
                os.unlink(self._older(number))
        if not self.keep:
            os.unlink(self.path)
            return
        used = set(self._numbers())
        free = next((number for number in range(1, self.keep) if number not in used), self.keep)
        for number in range(free, 1, -1):
            os.rename(self._older(number - 1), self._older(number))
        os.rename(self.path, self._older(1))

    def _numbers(self) -> list[int]:
        pattern = re.compile(re.escape(self.path.name) + r"\.([1-9][0-9]{0,5})")
        names = (pattern.fullmatch(name) for name in os.listdir(self.path.parent))
        return [int(name[1]) for name in names if name]

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
