"""Bounds of a share and of the difference of two shares of the same items, in closed form."""

import math
from statistics import NormalDist

LEVEL = 0.95


def wilson_bounds(p: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's bounds as `unlearn_core.score.wilson` does, for an n that need not be whole."""
    w = NormalDist().inv_cdf((1 + level) / 2) ** 2 / n
    middle, half = p + w / 2, math.sqrt(w * p * (1 - p) + w * w / 4)
    # At the ends the formula gives exactly 0 and 1; rounding would put the value outside its own interval.
    low = 0.0 if p == 0 else min(p, (middle - half) / (1 + w))
    high = 1.0 if p == 1 else max(p, (middle + half) / (1 + w))
    return low, high


def difference_bounds(
    both: int, first: int, second: int, neither: int, level: float = LEVEL
) -> tuple[float, float]:
    """Return Newcombe's bounds of the difference of two shares of the same items.

    Method 10 of R. G. Newcombe, Statistics in Medicine 17, 1998, 2635: Wilson's bounds of both shares, joined by their
    correlation, which is made smaller where it is positive. Certain of nothing where all items agree, unlike the
    bootstrap.

    Args:
        both: items that are hits in both shares.
        first: hits in the first only.
        second: hits in the second only.
        neither: hits in neither; all four make n, at least 1.
        level: share of such intervals that hold the true difference.
    """
    n = both + first + second + neither
    p, q = (both + first) / n, (both + second) / n
    (low_p, high_p), (low_q, high_q) = wilson_bounds(p, n, level), wilson_bounds(q, n, level)
    together = both * neither - first * second
    if together > 0:
        together = max(together - n / 2, 0)
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    phi = together / math.sqrt(product) if product else 0.0
    below, above = p - low_p, high_q - q
    down = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    above, below = high_p - p, q - low_q
    up = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    value = (first - second) / n
    return max(-1.0, value - down), min(1.0, value + up)
