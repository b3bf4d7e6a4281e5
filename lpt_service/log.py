"""Loggers: records for systemd's journal where standard error is connected to it, else plain lines there.

A record carries the port, the session and the client that it is about, where there is one. Nothing is logged per
request or per interrupt at the default level.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from lpt_service import journal

LEVELS = ("debug", "info", "warning", "error")
_port: ContextVar[str | None] = ContextVar("port", default=None)


class _LineFormatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """Local time with its distance from UTC: 2026-11-30T18:52:10.123+01:00."""
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


class SessionLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the session's number, and who it is, before each line."""

    def __init__(self, logger: logging.Logger, session: int, identity: str) -> None:
        super().__init__(logger, {"session": session, "identity": identity})
        self._prefix = f"session {session} ({identity}): "

    def said_hello(self, port: str, client: str) -> None:
        """From now on the port, and the client's name for itself, are known."""
        self.extra = {**(self.extra or {}), "port": port, "client": client}

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Prefix the message, and give handlers what is known as fields."""
        if self.isEnabledFor(level):
            kwargs["extra"] = self.extra
            # The prefix as an argument, for a name may have a % in it; the caller is that of `info` and the like.
            self.logger.log(level, f"%s{msg}", self._prefix, *args, stacklevel=2, **kwargs)


@contextmanager
def about_port(name: str) -> Iterator[None]:
    """What is logged meanwhile, and by tasks that begin meanwhile, is about this port."""
    token = _port.set(name)
    try:
        yield
    finally:
        _port.reset(token)


def configure(level: str) -> None:
    """Send the project's log to the journal, or to standard error."""
    handler: logging.Handler
    if journal.is_standard_error():
        handler = journal.JournalHandler(journal.SOCKET_PATH)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(_add_port)
    logger = logging.getLogger("lpt_service")
    for former in logger.handlers:
        former.close()
    logger.handlers[:] = [handler]
    logger.propagate = False
    set_level(level)


def set_level(level: str) -> None:
    """Log from `level` on, one of LEVELS."""
    logging.getLogger("lpt_service").setLevel(level.upper())


def _add_port(record: logging.LogRecord) -> bool:
    name = _port.get()
    if name is not None and not hasattr(record, "port"):
        record.port = name
    return True
