"""The harmonic mean of several accuracies, such as ERR: one bad arm cannot be made up for by good ones."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.score import Interval, Score
from unlearn_core.seeds import derive
from unlearn_metrics.proportions import LEVEL
from unlearn_metrics.rates import effective_number, weighted_rate

DRAWS = 10_000
AXES = {
    "fgt": "forgetting", "ret": "retention", "adj": "adjacent", "ind": "indirect", "adv": "adversarial",
}  # fmt: skip
"""The challenge's five axes, and the names of their arms."""


class Judged(Protocol):
    """One judged image of five-arm ERR, as `genmu_eval.table.Judgement` is."""

    @property
    def concept(self) -> str:
        """The target that it counts under, or the retained or adjacent concept."""
        ...

    @property
    def axis(self) -> str:
        """One of `AXES`."""
        ...

    @property
    def image(self) -> str:
        """Its name, unique within concept and axis."""
        ...

    @property
    def success(self) -> bool:
        """Whether what should be kept is seen, or what should be gone is not."""
        ...


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


def five_arm(rows: Iterable[Judged]) -> Score:
    """Return five-arm ERR of judged images: each arm is the mean over concepts of the share of successes.

    Raises:
        InvalidInput: an axis without images, an unknown one, or an image judged twice.
    """
    arms: dict[str, list[Judged]] = {axis: [] for axis in AXES}
    for row in rows:
        if row.axis not in arms:
            raise InvalidInput(one_of("axis", row.axis, AXES))
        arms[row.axis].append(row)
    return harmonic_score("err", {name: _mean_over_concepts(name, arms[axis]) for axis, name in AXES.items()})


def _mean_over_concepts(name: str, rows: Sequence[Judged]) -> Score:
    if not rows:
        raise InvalidInput(f"err: the arm {name!r} has no images; an arm is never left out")
    hits = {f"{name} {row.concept} {row.image}": float(row.success) for row in rows}
    if len(hits) < len(rows):
        raise InvalidInput(f"err: an image of the arm {name!r} was judged twice")
    concepts = [row.concept for row in rows]
    each = dict.fromkeys(concepts, 1 / len(set(concepts)))
    value, interval = weighted_rate(list(hits.values()), list(hits), concepts, each)
    return Score(
        metric=name, value=value, direction="up", interval=interval, n_scored=len(rows), per_sample=hits
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
