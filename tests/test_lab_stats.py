"""Intervals against published values and their own laws."""

import pytest

from lab.stats import counted, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_values(correct, n, low, high):
    """Source: Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (no continuity correction)."""
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_no_trials_say_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_bounds_hold_the_share_and_stay_within_0_and_1(n):
    for correct in range(n + 1):
        low, high = wilson(correct, n)
        assert 0 <= low <= correct / n <= high <= 1
        assert low < high
        assert (1 - high, 1 - low) == pytest.approx(wilson(n - correct, n))


def test_more_confidence_is_wider_and_more_trials_are_narrower():
    widths = [high - low for low, high in (wilson(30, 60, 0.99), wilson(30, 60), wilson(300, 600))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(correct, n):
    with pytest.raises(ValueError, match="cannot be"):
        wilson(correct, n)


def test_a_metric_as_reports_hold_it():
    assert counted(15, 148) == {"correct": 15, "n": 148, "low": 0.0624, "high": 0.1605}
