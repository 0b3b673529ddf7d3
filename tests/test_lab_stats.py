"""Intervals against published values and their own laws."""

import random

import pytest

from lab.stats import counted, mcnemar, paired, wilson


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


def answerers(both, only_first, only_second, neither):
    """Two answerers' rights, item by item, from how often each of the four cases stands."""
    cases = [(True, True)] * both + [(True, False)] * only_first
    cases += [(False, True)] * only_second + [(False, False)] * neither
    return [first for first, _ in cases], [second for _, second in cases]


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((2, 97, 1, 0), 0.8721, 0.9854),
        ((0, 30, 0, 0), 0.8395, 1.0),
        ((54, 0, 0, 0), -0.0664, 0.0664),
    ],
)
def test_paired_differences_as_published(cells, low, high):
    """Source: Newcombe, Statistics in Medicine 17 (1998) 2635-2650, table III, method 10 (first minus second)."""
    first, second = answerers(*cells)
    found = paired(second, first)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-4)


def test_a_difference_turns_round_with_its_answerers():
    first, second = answerers(40, 3, 9, 8)
    there, back = paired(first, second), paired(second, first)
    assert there == {
        "n": 60, "only_first": 3, "only_second": 9, "difference": 0.1, "low": there["low"], "high": there["high"], "p": 0.146,
    }  # fmt: skip
    assert there["low"] < 0.1 < there["high"]
    assert (back["low"], back["high"], back["p"]) == (-there["high"], -there["low"], there["p"])


def test_nineteen_of_twenty_intervals_hold_the_truth():
    chance, held = random.Random(0), 0
    for _ in range(1000):
        cells = chance.choices(
            ((True, True), (True, False), (False, True), (False, False)), (50, 20, 10, 20), k=56
        )
        found = paired([first for first, _ in cells], [second for _, second in cells])
        held += found["low"] <= -0.1 <= found["high"]
    assert 930 <= held <= 970


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (10, 2, 0.0385742)])
def test_mcnemar_is_the_exact_binomial_tail(first, second, p):
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(p, abs=1e-6)


def test_nothing_compared_says_nothing():
    assert paired([], []) == {
        "n": 0, "only_first": 0, "only_second": 0, "difference": 0.0, "low": -1.0, "high": 1.0, "p": 1.0,
    }  # fmt: skip


def test_answerers_of_other_items_are_refused():
    with pytest.raises(ValueError, match="shorter|longer"):
        paired([True], [True, False])
    with pytest.raises(ValueError, match="cannot be"):
        mcnemar(-1, 2)
