"""Shares of images, also averaged over labels as published tables do, and how sure they are."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from unlearn_core.score import Interval, Score
from unlearn_metrics.proportions import LEVEL, wilson_bounds
from unlearn_metrics.statistics import mean_interval


def rate(hits: Sequence[float], texts: Sequence[str], level: float = LEVEL) -> tuple[float, Interval]:
    """Return the share of `hits` and its interval: `weighted_rate` where all images count alike."""
    return weighted_rate(hits, texts, [""] * len(hits), {"": 1.0}, level)


def weighted_rate(
    hits: Sequence[float],
    texts: Sequence[str],
    strata: Sequence[str],
    weights: Mapping[str, float],
    level: float = LEVEL,
) -> tuple[float, Interval]:
    """Return the sum over strata of weight times share of `hits`, and its interval.

    The interval is Wilson's for n images; where strata weigh images differently, for Kish's effective number
    1 / sum(weight² / images). Where images share a prompt text, it is widened to what the bootstrap over texts
    gives: that alone would claim certainty where all images agree.

    Args:
        hits: 1 or 0 an image; at least one.
        texts: the prompt of each image.
        strata: what each image counts under.
        weights: stratum -> weight; they add up to 1.
        level: share of such intervals that hold the true value.
    """
    y, names = np.asarray(hits, np.float64), list(dict.fromkeys(strata))
    index = np.array([names.index(s) for s in strata])
    n, weight = np.bincount(index), np.array([weights[name] for name in names])
    shares = np.bincount(index, y) / n
    value = math.fsum(weight * shares) / math.fsum(weight)  # exactly 1 where every share is
    effective = 1 / float((weight**2 / n).sum())
    equal = math.isclose(effective, len(y))
    low, high = wilson_bounds(value, effective, level)
    how = "wilson" if equal else "wilson with Kish's effective n"
    if len(set(texts)) < len(texts):
        # Each image's share in the sum, so that a mean over images has the value and the spread of the sum.
        shares_of = value + len(y) * (weight / n)[index] * (y - shares[index])
        if (drawn := mean_interval(shares_of, texts, level)) is not None:
            low, high = min(low, max(drawn.low, 0.0)), max(high, min(drawn.high, 1.0))
            how = f"bootstrap by prompt, no narrower than {how}"
    return value, Interval(low=low, high=high, level=level, how=how)


def effective_number(score: Score) -> float:
    """Return how many independent images would give a rate the width of its interval; at most those scored.

    Images of one prompt say less than as many prompts: this is what is left of them.
    """
    n, interval = float(score.n_scored), score.interval
    if interval is None:
        return n
    z2, half = NormalDist().inv_cdf((1 + interval.level) / 2) ** 2, (interval.high - interval.low) / 2
    # Wilson's half width h at p: h (1 + z²/n) = z sqrt(p (1 - p) / n + z² / 4n²), squared and solved for z²/n.
    a, b = half * half - 0.25, 2 * half * half - score.value * (1 - score.value)
    if a >= 0:  # as wide as can be
        return min(n, 1.0)
    return min(n, z2 * -2 * a / (b + math.sqrt(b * b - 4 * a * half * half)))
