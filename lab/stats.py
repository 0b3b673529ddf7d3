"""Intervals for counted results."""

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
