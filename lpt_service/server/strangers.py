"""What is logged of those who have not said who they are: a flood of them must not push other lines out of the log.

The journal drops what comes too fast, from whomever it is; docs/security.md promises that nobody can hide in it.
"""

from __future__ import annotations

import logging
from typing import Final

from lpt_service.server.audit_budget import Budget
from lpt_service.server.clock import Clock

# Connections with lines of their own, in a window of `audit_budget`. An ordinary day has that many.
STRANGERS_A_WINDOW: Final = 600
_log = logging.getLogger(__name__)
_quiet_log = logging.getLogger(f"{__name__}.quiet")
_quiet_log.setLevel(logging.ERROR)


class StrangerLog:
    """Hands out the logger for each connection, until it has said hello.

    Attributes:
        left_silently: connections that left before they said anything, of which the log says nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self.left_silently = 0
        self._clock = clock
        self._budget = Budget(STRANGERS_A_WINDOW)

    def logger(self, usual: logging.Logger) -> logging.Logger:
        """The usual one; beyond the budget, one that takes errors only, and the connection is counted."""
        more = self._budget.end_window(self._clock)
        if more is not None:
            _log.info("%d connections more in a minute than %d were not logged", more.number, STRANGERS_A_WINDOW)
        return usual if self._budget.take(self._clock, None) else _quiet_log
