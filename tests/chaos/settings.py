"""What of a run may be set by environment variables: seeds, and how long or how much."""

from __future__ import annotations

import os
import time


def seed(default: int | None = None) -> int:
    """CHAOS_SEED, or what is given, or another one in each run. Printed: pytest shows that of a test that fails."""
    text = os.environ.get("CHAOS_SEED")
    chosen = int(text) if text else time.time_ns() % 1_000_000_007 if default is None else default
    print(f"CHAOS_SEED={chosen}")
    return chosen


def number(name: str, default: float) -> float:
    """A number from the environment."""
    return float(os.environ.get(name) or default)
