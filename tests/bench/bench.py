"""What every figure is handed: how much to measure, on which cores, and where to say what was left out."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
Address = tuple[str, int] | str


@dataclass
class Bench:
    """The run.

    Attributes:
        core: both ends of a measurement are pinned to it.
        other_core: for what is to load the daemon from elsewhere; the same as `core` on a machine with one.
        skipped: a line for each rival that this machine lacks.
    """

    is_quick: bool
    core: int
    other_core: int
    skipped: list[str] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """How often each contender is measured, in turn with the others."""
        return 2 if self.is_quick else 7

    def pick(self, full: T, quick: T) -> T:
        """The size of something, in a full and in a quick run."""
        return quick if self.is_quick else full

    def skip(self, line: str) -> None:
        """Say once that something is left out."""
        if line not in self.skipped:
            self.skipped.append(line)

    def shuffled(self, names: list[str]) -> Iterator[list[str]]:
        """The order of the contenders in each round: the first of one round is the last of the next."""
        for turn in range(self.rounds):
            shift = turn % len(names)
            yield names[shift:] + names[:shift]


def make_bench(*, is_quick: bool) -> Bench:
    """Choose the cores: the last ones that this process may use, where the system itself does less."""
    cores = sorted(os.sched_getaffinity(0))
    return Bench(is_quick, cores[-1], cores[-2] if len(cores) > 1 else cores[-1])


def time_calls(call: Callable[[], object], count: int) -> list[int]:
    """The duration of each of `count` calls, in nanoseconds, after a few that are not counted."""
    for _ in range(min(100, count // 10)):
        call()
    clock, durations = time.perf_counter_ns, [0] * count
    with collector_off():
        for place in range(count):
            began = clock()
            call()
            durations[place] = clock() - began
    return durations


@contextmanager
def collector_off() -> Iterator[None]:
    """The measuring process does not collect garbage in the middle of a measurement; servers do as they please."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
