"""Intervals for counted results, and for the difference of two answerers of the same items."""

import math
from statistics import NormalDist


def wilson(correct, n, confidence=0.95):
    """(low, high), shares from 0 to 1: the Wilson score interval of `correct` successes in `n` trials.

    It stays within 0 and 1 and is honest for small n and for 0 or n successes; without trials it is (0.0,
    1.0). Raises ValueError for counts that cannot be. Source: Wilson, Probable Inference, the Law of
    Succession, and Statistical Inference, JASA 22 (1927), without continuity correction.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n} cannot be")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = correct / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == n else min(1.0, middle + half)
    return low, high


def counted(correct, n):
    """A metric as reports hold it: {"correct", "n", "low", "high"}, with Wilson's bounds at 95 %."""
    low, high = wilson(correct, n)
    return {"correct": correct, "n": n, "low": round(low, 4), "high": round(high, 4)}


def less_scaled(value, base, factor):
    """(low, high): the 95 % interval of `value`'s share less `factor` times `base`'s, both as `counted` makes them.

    The two are taken as independent. Source: Zou and Donner, Statistics in Medicine 27 (2008) 1693-1702 (MOVER), on
    Wilson intervals.
    """
    share, other = value["correct"] / value["n"], factor * base["correct"] / base["n"]
    below = math.hypot(share - value["low"], factor * base["high"] - other)
    above = math.hypot(value["high"] - share, other - factor * base["low"])
    return share - other - below, share - other + above


def mcnemar(only_first, only_second):
    """The exact two-sided p-value that two answerers of the same items are equally often right.

    `only_first` and `only_second` count the items that one got right and the other did not; 1.0 where there are
    none. Source: McNemar, Psychometrika 12 (1947), with the exact binomial tail.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"{only_first} and {only_second} items cannot be")
    differ, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(differ, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / 2**differ)


def paired(first, second, confidence=0.95):
    """How much oftener `second` is right than `first` on the same items, two sequences of bool of one length.

    Returns {"n", "only_first", "only_second", "difference", "low", "high", "p"}: shares from -1 to 1, positive where
    `second` is better; `p` by `mcnemar`. Without items the difference is 0 in [-1, 1]. Raises ValueError for sequences of
    unlike length. Source: Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10 (Wilson intervals squared and
    added, with their correlation).
    """
    pairs = list(zip(first, second, strict=True))
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    low, high = _paired_interval(both, only_first, only_second, neither, confidence)
    difference = (only_second - only_first) / max(1, len(pairs))
    counts = {"n": len(pairs), "only_first": only_first, "only_second": only_second}
    shares = {"difference": difference, "low": low, "high": high, "p": mcnemar(only_first, only_second)}
    return counts | {name: round(share, 4) for name, share in shares.items()}


def _paired_interval(both, only_first, only_second, neither, confidence):
    n = both + only_first + only_second + neither
    if n == 0:
        return -1.0, 1.0
    rights = both + only_first, both + only_second
    (low_1, high_1), (low_2, high_2) = (wilson(right, n, confidence) for right in rights)
    share_1, share_2 = rights[0] / n, rights[1] / n
    linked = _correlation(both, only_first, only_second, neither)
    below, above = (share_2 - low_2, high_1 - share_1), (high_2 - share_2, share_1 - low_1)
    half = [math.sqrt(max(0.0, a * a - 2 * linked * a * b + b * b)) for a, b in (below, above)]
    difference = share_2 - share_1
    return max(-1.0, difference - half[0]), min(1.0, difference + half[1])


def _correlation(both, only_first, only_second, neither):
    """Of the two answerers' being right, corrected for continuity where it is positive, as method 10 asks."""
    n = both + only_first + only_second + neither
    product = both * neither - only_first * only_second
    corrected = max(0.0, product - n / 2) if product > 0 else product
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    return corrected / math.sqrt(margins) if margins else 0.0
