"""The harmonic mean of several accuracies, such as ERR: one bad arm cannot be made up for by good ones."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from unlearn_core.errors import InvalidInput
from unlearn_core.score import Interval, Score
from unlearn_core.seeds import derive
from unlearn_metrics.rates import LEVEL, effective_number

DRAWS = 10_000


def harmonic_mean(values: Iterable[float]) -> float:
    """Return n / sum(1 / value), or 0.0 where any of `values` is 0.

    Raises:
        InvalidInput: no values, a negative one, or one that is not finite.
    """
    found = [float(value) for value in values]
    if not found:
        raise InvalidInput("a harmonic mean is of one or more values")
    if wrong := [value for value in found if not 0 <= value < math.inf]:
        raise InvalidInput(f"a harmonic mean is of values from 0, got {wrong[0]}")
    if min(found) == 0:
        return 0.0
    return len(found) / math.fsum(1 / value for value in found)


def harmonic_score(metric: str, arms: Mapping[str, Score]) -> Score:
    """Return the harmonic mean of `arms`, accuracies in [0, 1] which stay as its parts.

    The interval is the parametric bootstrap of the arms: each is drawn from Jeffreys' posterior Beta(k + ½, m - k + ½),
    m being the number of independent images that would give it the interval it has, so that several images of one
    prompt do not count as many. Arms must not share images.

    Args:
        metric: name of the whole.
        arms: name -> accuracy, up is better. A declared arm that could not be measured raises before it gets here:
            none is ever left out.

    Raises:
        InvalidInput: no arms, one for which down is better, or one outside [0, 1].
    """
    for name, arm in arms.items():
        if arm.direction != "up" or not 0 <= arm.value <= 1:
            raise InvalidInput(f"{metric}: the arm {name!r} is an accuracy in [0, 1], got {arm.value}")
    value = harmonic_mean(arm.value for arm in arms.values())
    per_sample = {
        ident: right
        for arm in arms.values()
        if isinstance(arm.per_sample, Mapping)
        for ident, right in arm.per_sample.items()
    }
    return Score(
        metric=metric,
        value=value,
        direction="up",
        interval=_interval(value, arms),
        n_scored=sum(arm.n_scored for arm in arms.values()),
        n_unscored=sum(arm.n_unscored for arm in arms.values()),
        reasons=sum((Counter(arm.reasons) for arm in arms.values()), Counter()),
        parts=dict(arms),
        per_sample=per_sample or None,
    )


def _interval(value: float, arms: Mapping[str, Score]) -> Interval:
    total: NDArray[np.float64] = np.zeros(DRAWS)
    for name, arm in arms.items():
        n = effective_number(arm)
        rng = np.random.default_rng(derive(0, "harmonic", name))
        total += 1 / rng.beta(arm.value * n + 0.5, (1 - arm.value) * n + 0.5, DRAWS)
    low, high = np.quantile(len(arms) / total, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    how = "parametric bootstrap of the arms"
    return Interval(low=min(float(low), value), high=max(float(high), value), level=LEVEL, how=how)
