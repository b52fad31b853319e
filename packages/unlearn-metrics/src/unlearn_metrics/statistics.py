"""How sure a number is: bootstrap over prompts, and differences on the same prompts and seeds.

Several images of one prompt say less than as many images of different prompts, so whole prompts are drawn.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from unlearn_core.errors import InvalidInput
from unlearn_core.score import Interval
from unlearn_core.seeds import derive
from unlearn_metrics.proportions import difference_bounds

RESAMPLES = 2000
FLIPS = 9999
_CELLS = 2_000_000  # random numbers in memory at a time


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much more a gets than b on the images that both have."""

    value: float
    """Mean of a - b."""
    low: float | None
    """Of the 95 % interval; None where a single prompt leaves nothing to compare."""
    high: float | None
    n: int
    """Number of pairs."""
    p: float
    """Probability of a difference at least as large, either way, if a and b were alike."""
    how: str
    """How the interval was worked out."""


def mean_interval(
    values: Sequence[float] | NDArray[np.floating],
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Return the percentile bootstrap interval of the mean of `values`; None where there is one cluster.

    Args:
        values: one number per image.
        clusters: the prompt of each image; images of one prompt are drawn together. None: each for itself.
        level: fraction of intervals that hold the true mean.
        seed: of the resampling.

    Raises:
        InvalidInput: no values, values that are not finite, not as many clusters, a level outside (0, 1).
    """
    values = _numbers(values)
    if not 0 < level < 1:
        raise InvalidInput(f"the level of an interval is in (0, 1), such as 0.95, got {level}")
    sums, counts = _by_cluster(values, clusters)
    if len(sums) < 2:
        return None
    rng = np.random.default_rng(derive(seed, "bootstrap"))
    means = np.empty(RESAMPLES)
    step = max(1, _CELLS // len(sums))
    for start in range(0, RESAMPLES, step):
        drawn = rng.integers(len(sums), size=(min(step, RESAMPLES - start), len(sums)))
        means[start : start + step] = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    mean = float(values.mean())
    # With two or three prompts, or by rounding, the mean itself could lie a little outside.
    how = "bootstrap" if clusters is None else "bootstrap by prompt"
    return Interval(low=min(low, mean), high=max(high, mean), level=level, how=how)


def paired_difference(
    a: Mapping[str, float | None],
    b: Mapping[str, float | None],
    clusters: Mapping[str, Hashable] | None = None,
    seed: int = 0,
) -> PairedDifference:
    """Return the mean of a - b over the ids that both have a value for, with interval and p-value.

    The interval is the bootstrap's by prompt; where all values are 0 or 1, Newcombe's of two paired shares, widened to
    the bootstrap's where images share a prompt: that alone would claim certainty where all pairs agree. The p-value is
    McNemar's exact one where all values are 0 or 1 and no two images share a prompt, else that of random flips of the
    signs of whole prompts (9,999 of them).

    Args:
        a: prompt id -> value, None where it could not be judged.
        b: the same of the images to compare with.
        clusters: prompt id -> prompt text, if several rows share one. None: each for itself.
        seed: of bootstrap and flips.

    Raises:
        InvalidInput: no id has a value in both.
    """
    ids = [i for i, value in a.items() if value is not None and b.get(i) is not None]
    if not ids:
        raise InvalidInput("the two sets of values have no prompt id in common that both could judge")
    pairs = np.array([(a[i], b[i]) for i in ids], np.float64)
    difference = _numbers(pairs[:, 0] - pairs[:, 1])
    prompts = None if clusters is None else [clusters[i] for i in ids]
    interval = mean_interval(difference, prompts, seed=seed)
    sums, _ = _by_cluster(difference, prompts)
    low, high, how = None, None, ""
    if interval is not None:
        low, high, how = interval.low, interval.high, interval.how
    alone, shares = len(sums) == len(ids), bool(np.isin(pairs, (0, 1)).all())
    if shares and (alone or interval is not None):
        hit_a, hit_b = (pairs == 1).T
        cells = (hit_a & hit_b, hit_a & ~hit_b, ~hit_a & hit_b, ~hit_a & ~hit_b)
        bounds, how = difference_bounds(*(int(cell.sum()) for cell in cells)), "newcombe"
        if alone or interval is None:
            low, high = bounds
        else:
            low, high = min(interval.low, bounds[0]), max(interval.high, bounds[1])
            how = "bootstrap by prompt, no narrower than newcombe"
    if alone and shares:
        p = mcnemar(int((difference > 0).sum()), int((difference < 0).sum()))
    else:
        p = _sign_flips(sums, seed)
    return PairedDifference(value=float(difference.mean()), low=low, high=high, n=len(ids), p=p, how=how)


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p-value of McNemar's test with `b` and `c` discordant pairs."""
    n = b + c
    term = total = (
        1  # binomial coefficients as whole numbers: exact, and no overflow at ten thousands of pairs
    )
    for k in range(min(b, c)):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**n)


def influence_interval(
    value: float, influence: NDArray[np.float64], clusters: Sequence[Hashable], level: float = 0.95
) -> Interval | None:
    """Return the delta-method interval of a smooth statistic of n images; None where there is one cluster.

    Args:
        value: of the statistic.
        influence: n times the change of `value` by one image's share, centred on 0, (n,).
        clusters: the prompt of each image; images of one prompt vary together.
        level: fraction of intervals that hold the statistic's expectation at this n.
    """
    sums, _ = _by_cluster(_numbers(influence), clusters)
    if len(sums) < 2:
        return None
    error = np.sqrt(np.sum(sums**2) * len(sums) / (len(sums) - 1)) / len(influence)
    half = float(error) * NormalDist().inv_cdf((1 + level) / 2)
    return Interval(low=value - half, high=value + half, level=level, how="delta method by prompt")


def _sign_flips(sums: NDArray[np.float64], seed: int) -> float:
    rng = np.random.default_rng(derive(seed, "sign flips"))
    # Sums that are equal but for rounding count as at least as large.
    seen = abs(sums.sum()) * (1 - 1e-9)
    step = max(1, _CELLS // len(sums))
    extreme = 0
    for start in range(0, FLIPS, step):
        signs = rng.integers(2, size=(min(step, FLIPS - start), len(sums))) * 2 - 1
        extreme += int((np.abs(signs @ sums) >= seen).sum())
    return (extreme + 1) / (FLIPS + 1)


def _by_cluster(
    values: NDArray[np.float64], clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum and the number of the values of each cluster, in an order that theirs does not change."""
    if clusters is None:
        return np.sort(values), np.ones(len(values))
    if len(clusters) != len(values):
        raise InvalidInput(f"{len(values)} values need as many clusters, got {len(clusters)}")
    number: dict[Hashable, int] = {}
    index = np.array([number.setdefault(cluster, len(number)) for cluster in clusters])
    sums, counts = np.bincount(index, values), np.bincount(index).astype(np.float64)
    order = np.lexsort((counts, sums))
    return sums[order], counts[order]


def _numbers(values: object) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise InvalidInput(
            f"a mean is of one or more finite numbers in a row, got {array.shape} {array.ravel()[:3]}"
        )
    return array
