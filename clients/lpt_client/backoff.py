"""How long to wait between attempts to reach a daemon: longer each time, up to a limit, and never quite the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

# Short at first, because most daemons that go away are restarting. At the limit a thousand clients ask a daemon that
# comes back 300 times a second.
FIRST_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0
# A connection that held this long was a good one; the delays begin anew.
STABLE_AFTER_S: Final = MAX_DELAY_S


class Backoff:
    """The delays, one by one: between half and the whole of 0.1, 0.2, 0.4 … 5 seconds.

    The random part keeps the clients of a daemon that restarts from coming back all at once.
    """

    def __init__(self, random_unit: Callable[[], float] = random.random) -> None:
        self._random_unit = random_unit
        self._delay_s = FIRST_DELAY_S

    def next_delay_s(self) -> float:
        """How long to wait before the next attempt."""
        delay_s = self._delay_s
        self._delay_s = min(MAX_DELAY_S, delay_s * 2)
        return delay_s * (1 + self._random_unit()) / 2

    def reset(self) -> None:
        """Begin anew with short delays."""
        self._delay_s = FIRST_DELAY_S
