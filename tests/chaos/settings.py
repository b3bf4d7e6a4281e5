"""What of a run may be set by environment variables: seeds, and how long or how much."""

from __future__ import annotations

import os
import time

_RANDOM = "random"
# Of the long forms: one that is the same in each run, so that a change is not refused for what another seed finds.
LONG = 2


def seed(default: int | None = None) -> int:
    """CHAOS_SEED, or what is given; without it, or if it is `random`, another one in each run.

    Printed: pytest shows that of a test that fails.
    """
    text = os.environ.get("CHAOS_SEED") or (_RANDOM if default is None else str(default))
    chosen = time.time_ns() % 1_000_000_007 if text == _RANDOM else int(text)
    print(f"CHAOS_SEED={chosen}")
    return chosen


def number(name: str, default: float) -> float:
    """A number from the environment."""
    return float(os.environ.get(name) or default)
