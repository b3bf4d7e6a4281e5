"""Grant numbers that only ever grow, across restarts too.

A daemon begins at the time of day in microseconds, which grows faster than grants do. Where there is a state directory,
a file there notes a number beyond every one given out, for machines whose clock may go back.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

# How many numbers one note covers: far more than can be granted between two looks at it.
_RESERVE: Final = 1 << 24
_GRANT_MAX: Final = 1 << 53
_log = logging.getLogger(__name__)


class GrantLedger:
    """The note of one port."""

    def __init__(self, directory: Path | None, port_name: str) -> None:
        self._path = None if directory is None else directory / f"last-grant-{port_name}"
        self._reserved = 0

    def first(self, realtime_ns: int) -> int:
        """A number that no daemon has passed before."""
        number = realtime_ns // 1000
        if self._path is not None:
            try:
                number = max(number, self._read(self._path))
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as exc:
                _log.warning("%s: not usable (%s); grant numbers begin at the time of day", self._path, exc)
        self.keep(number)
        return number

    def _read(self, path: Path) -> int:
        noted = int(path.read_text())
        if not 0 <= noted < _GRANT_MAX:
            raise ValueError(f"{noted} is no grant number")
        return noted

    def keep(self, grant: int) -> None:
        """Note a number well beyond `grant`, if the last note is nearly used up."""
        if self._path is None or grant < self._reserved - _RESERVE // 2:
            return
        self._reserved = grant + _RESERVE
        scratch = self._path.with_name(self._path.name + ".new")
        try:
            with scratch.open("w") as file:
                file.write(f"{self._reserved}\n")
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._path)
        except OSError as exc:
            _log.warning("%s: cannot be written (%s); after a restart grants rely on the clock", self._path, exc)
