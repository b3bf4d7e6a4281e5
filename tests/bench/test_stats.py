"""The statistics of the benchmarks."""

from __future__ import annotations

import pytest

from tests.bench.stats import Times, over_rounds, percentile, ratio, times_of


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.505, 51), (0.99, 99), (0.999, 100), (1.0, 100)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected


def test_percentile_of_one_value() -> None:
    assert percentile([7.0], 0.5) == percentile([7.0], 0.999) == 7.0


def test_times_are_in_microseconds_and_in_no_order() -> None:
    assert times_of([3000, 1000, 2000]) == Times(3, 2.0, 3.0, 3.0, 3.0)


def test_a_sample_needs_values() -> None:
    with pytest.raises(ValueError, match="without values"):
        times_of([])


def test_over_rounds_takes_medians_but_the_greatest_maximum() -> None:
    rounds = [Times(10, 1.0, 2.0, 3.0, 4.0), Times(10, 2.0, 3.0, 4.0, 99.0), Times(5, 9.0, 9.0, 9.0, 9.0)]
    assert over_rounds(rounds) == Times(25, 2.0, 3.0, 4.0, 99.0)


def test_ratio_compares_round_by_round() -> None:
    # A machine that is ten times slower in the second round.
    assert ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == 2.0


def test_ratio_needs_as_many_rounds_of_both() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [1.0, 2.0])
