"""Looks, now and then, whether the sessions' peers can be reached, and read their replies.

The kernel does the asking; what it found out is looked at here: `Stream.is_unreachable`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

import trio

from lpt_service.config import LimitsConfig

if TYPE_CHECKING:
    from lpt_service.server.session import Session

# Looks within the time after which something is to be noticed: so it is noticed at most a fifth late.
_LOOKS: Final = 5
# A reload that shortens the limits takes effect within this.
LOOK_INTERVAL_MAX_S: Final = 5.0
# About 0.1 ms of work.
LOOKS_A_TURN: Final = 64


async def watch_peers(sessions: Collection[Session], limits: Callable[[], LimitsConfig]) -> None:
    """Have every session check its peer, for ever. `sessions` may change; `limits` gives those in force."""
    while True:
        shortest_s = min(limits().dead_peer_s, limits().unread_reply_s)
        await trio.sleep(min(shortest_s / _LOOKS, LOOK_INTERVAL_MAX_S))
        for count, session in enumerate(tuple(sessions), 1):
            session.check_peer(trio.current_time())
            if count % LOOKS_A_TURN == 0:
                await trio.lowlevel.checkpoint()
