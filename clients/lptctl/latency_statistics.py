"""Numbers that sum up a list of durations, and the histogram of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

HISTOGRAM_BUCKETS: Final = 20


class Summary(NamedTuple):
    """Durations in µs. A percentile that so few values do not have (p99.9 of less than 1,000) is None."""

    count: int  # type: ignore[assignment]  # hides tuple.count()
    min: float
    p50: float
    p90: float | None
    p99: float | None
    p999: float | None
    max: float
    mean: float


class Bucket(NamedTuple):
    """How many durations are from `low_us` up to, but not including, `high_us` (in the last: including)."""

    low_us: float
    high_us: float
    count: int  # type: ignore[assignment]  # hides tuple.count()


def summarize(durations_ns: Sequence[int]) -> Summary:
    """Sum up durations in ns. Raises ValueError if there are none."""
    if not durations_ns:
        raise ValueError("no durations")
    ordered = sorted(durations_ns)
    return Summary(
        count=len(ordered),
        min=ordered[0] / 1000,
        p50=percentile(ordered, 500) / 1000,
        p90=_tail_us(ordered, 900),
        p99=_tail_us(ordered, 990),
        p999=_tail_us(ordered, 999),
        max=ordered[-1] / 1000,
        mean=sum(ordered) / len(ordered) / 1000,
    )


def percentile(ordered: Sequence[int], permille: int) -> int:
    """The least value that so many thousandths of the values do not exceed (nearest rank).

    `ordered` is sorted and not empty.
    """
    return ordered[max(0, -(-len(ordered) * permille // 1000) - 1)]


def _tail_us(ordered: Sequence[int], permille: int) -> float | None:
    """The percentile in µs, if at least one value lies beyond it or at it."""
    if len(ordered) * (1000 - permille) < 1000:
        return None
    return percentile(ordered, permille) / 1000


def histogram(durations_ns: Sequence[int], bucket_count: int = HISTOGRAM_BUCKETS) -> list[Bucket]:
    """Durations in ns, sorted into buckets from the least to the greatest, each wider than the last by the same factor.

    So the bulk and a tail that is a hundred times as far out are both seen. Raises ValueError if there are none.
    """
    if not durations_ns:
        raise ValueError("no durations")
    least, greatest = max(1, min(durations_ns)), max(1, max(durations_ns))
    if least == greatest:
        return [Bucket(least / 1000, greatest / 1000, len(durations_ns))]
    width = math.log(greatest / least) / bucket_count
    edges_us = [least * math.exp(width * index) / 1000 for index in range(bucket_count)] + [greatest / 1000]
    counts = [0] * bucket_count
    for duration_ns in durations_ns:
        index = int(math.log(max(least, duration_ns) / least) / width)
        counts[min(index, bucket_count - 1)] += 1
    return [Bucket(low_us, high_us, count) for (low_us, high_us), count in zip(pairwise(edges_us), counts, strict=True)]
