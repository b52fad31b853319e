"""Paired differences of values that are made of parts: (UA + IRA) / 2, the harmonic mean ERR, the worst of attacks.

The images of every part are paired as everywhere, prompt by prompt; what is compared is the value made of them.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlearn_core.score import Score
from unlearn_core.seeds import derive
from unlearn_metrics.proportions import LEVEL
from unlearn_metrics.statistics import FLIPS, RESAMPLES, PairedDifference

Array = NDArray[np.float64]

HOW = "paired bootstrap of the parts by prompt"
_CELLS = 2_000_000  # random numbers in memory at a time


def _harmonic(parts: Array) -> Array:
    with np.errstate(divide="ignore"):  # 0 where any part is
        found: Array = parts.shape[-1] / (1 / parts).sum(-1)
    return found


MADE_OF: dict[str, tuple[Callable[[str], bool], Callable[[Array], Array]]] = {
    "ua_ira": (lambda part: part in ("UA", "IRA"), lambda parts: parts.mean(-1)),
    "err": (lambda part: True, _harmonic),
    "asr_worst": (lambda part: part != "union", lambda parts: parts.max(-1)),
}
"""Metric -> which of its parts make its value, and the value of parts (..., parts)."""


@dataclass(frozen=True)
class _Arm:
    """The prompts of one part, each with the means of its images in either score."""

    a: Array
    b: Array
    weights: Array
    """What each prompt counts; 1 on average."""
    n: int
    """Number of images."""


_Draw = Callable[[_Arm, int, np.random.Generator], Array]
"""Returns that many pairs of means of an arm, (2, n)."""


def paired_composite(
    a: Score, b: Score, texts: Mapping[str, str], labels: Mapping[str, Hashable], seed: int = 0
) -> PairedDifference | None:
    """Return the difference a - b of two values of a metric in `MADE_OF`; None for others, and without pairs.

    The interval is the Bayesian bootstrap over prompts, with the same weights in a and b. One more pair is added to
    each part, spread over both, either and neither being a hit, so that each rate spreads as Jeffreys' Beta: parts
    whose pairs all agree are not certain. The p-value is that of swapping a and b in random prompts.

    Args:
        a: a score whose parts have values by image.
        b: of the same metric.
        texts: prompt id -> prompt text; images of one vary together.
        labels: prompt id -> what its image should show, for parts that are means over labels.
        seed: of bootstrap and swaps.
    """
    if a.metric != b.metric or a.metric not in MADE_OF:
        return None
    chosen, combine = MADE_OF[a.metric]
    arms = []
    for name in sorted(filter(chosen, a.parts)):
        one, other = a.parts[name], b.parts.get(name)
        if isinstance(one, Score):
            if not isinstance(other, Score) or (arm := _arm(one, other, texts, labels)) is None:
                return None
            arms.append(arm)
    if not arms:
        return None
    value = float(_simulated(arms, combine, lambda arm, *_: _means(arm, arm.a, arm.b), 1, 0)[0])
    drawn = _simulated(arms, combine, _resampled, RESAMPLES, derive(seed, "composite"))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    swapped = _simulated(arms, combine, _swapped, FLIPS, derive(seed, "swaps"))
    extreme = int((np.abs(swapped) >= abs(value) * (1 - 1e-9)).sum())
    return PairedDifference(
        value=value,
        low=min(float(low), value),
        high=max(float(high), value),
        n=sum(arm.n for arm in arms),
        p=(extreme + 1) / (FLIPS + 1),
        how=HOW,
    )


def _arm(a: Score, b: Score, texts: Mapping[str, str], labels: Mapping[str, Hashable]) -> _Arm | None:
    """Return the pairs of a part; None where there are none, or the value is no mean of its images that is known."""
    x, y = a.per_sample, b.per_sample
    if not isinstance(x, Mapping) or not isinstance(y, Mapping):
        return None
    ids = sorted(i for i, value in x.items() if value is not None and y.get(i) is not None)
    ways = ({i: "" for i in (*x, *y)}, labels)
    way = next((way for way in ways if _is_mean(a, way) and _is_mean(b, way)), None)
    if not ids or way is None or not texts.keys() >= set(ids):
        return None
    counts = Counter(way[i] for i in ids)
    found: dict[str, list[tuple[float, float, float]]] = {}
    for i in ids:
        found.setdefault(texts[i], []).append((1 / counts[way[i]], float(x[i] or 0), float(y[i] or 0)))
    weights = np.array([sum(w for w, _, _ in rows) for rows in found.values()])
    means = [[sum(row[0] * row[k] for row in rows) for rows in found.values()] / weights for k in (1, 2)]
    return _Arm(means[0], means[1], weights / weights.mean(), len(ids))


def _is_mean(score: Score, labels: Mapping[str, Hashable]) -> bool:
    """Return whether a value is the mean over labels of the mean over their images."""
    assert isinstance(score.per_sample, Mapping)
    by_label: dict[Hashable, list[float]] = {}
    for i, value in score.per_sample.items():
        if value is not None:
            by_label.setdefault(labels.get(i), []).append(value)
    mean = math.fsum(math.fsum(values) / len(values) for values in by_label.values()) / len(by_label)
    return math.isclose(mean, score.value, rel_tol=1e-6, abs_tol=1e-9)


def _simulated(
    arms: Sequence[_Arm], combine: Callable[[Array], Array], draw: _Draw, n: int, seed: int
) -> Array:
    """Return `n` differences of the values made of drawn means, (n,)."""
    pairs = []
    for i, arm in enumerate(arms):
        rng, step = np.random.default_rng(derive(seed, str(i))), max(1, _CELLS // len(arm.weights))
        pieces = [draw(arm, min(step, n - start), rng) for start in range(0, n, step)]
        pairs.append(np.concatenate(pieces, axis=1))
    of_a, of_b = np.stack(pairs, -1)
    return combine(of_a) - combine(of_b)


def _means(arm: _Arm, a: Array, b: Array) -> Array:
    """Return the means of values (..., prompts) of either score, (2, n)."""
    return np.stack([np.atleast_2d(x) @ arm.weights for x in (a, b)]) / arm.weights.sum()


def _resampled(arm: _Arm, n: int, rng: np.random.Generator) -> Array:
    weights = rng.gamma(1.0, size=(n, len(arm.weights))) * arm.weights
    both, first, second, neither = rng.gamma(0.25, size=(4, n))
    total = weights.sum(1) + both + first + second + neither
    return np.stack([weights @ arm.a + both + first, weights @ arm.b + both + second]) / total


def _swapped(arm: _Arm, n: int, rng: np.random.Generator) -> Array:
    swap = rng.integers(2, size=(n, len(arm.weights))) == 1
    return _means(arm, np.where(swap, arm.b, arm.a), np.where(swap, arm.a, arm.b))
