"""Percentiles and buckets with known values."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lptctl.latency_statistics import Bucket, histogram, percentile, summarize


def test_percentiles_of_known_values() -> None:
    summary = summarize([number * 1000 for number in range(10_000, 0, -1)])
    assert summary == (10_000, 1.0, 5000.0, 9000.0, 9900.0, 9990.0, 10_000.0, 5000.5)


@pytest.mark.parametrize(("permille", "value"), [(0, 10), (250, 10), (251, 20), (500, 20), (999, 40), (1000, 40)])
def test_nearest_rank(permille: int, value: int) -> None:
    assert percentile([10, 20, 30, 40], permille) == value


@pytest.mark.parametrize(
    ("count", "known"),
    [(1, ()), (9, ()), (10, ("p90",)), (99, ("p90",)), (100, ("p90", "p99")), (1000, ("p90", "p99", "p999"))],
)
def test_what_so_few_values_do_not_have_is_not_told(count: int, known: tuple[str, ...]) -> None:
    summary = summarize(list(range(count)))
    assert tuple(name for name in ("p90", "p99", "p999") if getattr(summary, name) is not None) == known
    assert summary.p50 is not None


def test_nothing_has_no_summary() -> None:
    with pytest.raises(ValueError, match="no durations"):
        summarize([])
    with pytest.raises(ValueError, match="no durations"):
        histogram([])


def test_buckets_grow_by_a_factor() -> None:
    buckets = histogram([1_000, 3_000, 5_000, 20_000, 500_000, 1_000_000], 3)
    assert [(round(low, 6), round(high, 6), count) for low, high, count in buckets] == [
        (1.0, 10.0, 3),
        (10.0, 100.0, 1),
        (100.0, 1000.0, 2),
    ]


def test_every_value_is_in_a_bucket() -> None:
    values = [round(1.01**step * 50_000) for step in range(777)]
    buckets = histogram(values)
    assert sum(bucket.count for bucket in buckets) == len(values)
    assert buckets[0].low_us == pytest.approx(min(values) / 1000)
    assert buckets[-1].high_us == max(values) / 1000
    assert all(before.high_us == after.low_us for before, after in pairwise(buckets))


def test_values_that_are_all_the_same() -> None:
    assert histogram([7_000, 7_000]) == [Bucket(7.0, 7.0, 2)]
    assert histogram([0, 0]) == [Bucket(0.001, 0.001, 2)]
