"""What becomes of raw times: percentiles of a sample, medians over rounds, ratios. Needs the standard library alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """A sample of durations, in microseconds."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least value that `share` of the values do not exceed (nearest rank). `ordered` is sorted and not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def times_of(durations_ns: Iterable[int]) -> Times:
    """Sum up one sample of durations in nanoseconds."""
    ordered = sorted(each / 1000 for each in durations_ns)
    if not ordered:
        raise ValueError("a sample without values")
    return Times(
        len(ordered),
        percentile(ordered, 0.5),
        percentile(ordered, 0.99),
        percentile(ordered, 0.999),
        ordered[-1],
    )


def over_rounds(rounds: Sequence[Times]) -> Times:
    """Sum up the rounds: the median of each percentile, but the greatest maximum; `count` is that of all rounds."""
    return Times(
        sum(each.count for each in rounds),
        statistics.median(each.p50 for each in rounds),
        statistics.median(each.p99 for each in rounds),
        statistics.median(each.p999 for each in rounds),
        max(each.max for each in rounds),
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of ours / theirs.

    Each round compares what was measured side by side, so that a machine that slows down for a while does not tilt it.
    """
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))
