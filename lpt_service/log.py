"""Loggers: plain lines on standard error, with the session on each line that has one.

Nothing is logged per request or per interrupt at the default level.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

LEVELS = ("debug", "info", "warning", "error")


class SessionLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the session's number before each line."""

    def __init__(self, logger: logging.Logger, session: int) -> None:
        super().__init__(logger, {"session": session})
        self._prefix = f"session {session}: "

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Prefix the message, and give handlers the number as a field."""
        kwargs["extra"] = self.extra
        return self._prefix + str(msg), kwargs


def configure(level: str) -> None:
    """Send the project's log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("lpt_service")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
