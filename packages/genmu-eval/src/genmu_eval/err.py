"""ERR: what a model forgot, what it kept and what it withstands, as one harmonic mean; two statistics of that name.

The published formula takes the harmonic mean of five means over all concepts, ``err_pooled``. The published tables
show one harmonic mean per concept, and their average is ``err_macro``. The harmonic mean is concave, so
``err_macro <= err_pooled`` always; on the one table published in full they are 0.7245 and 0.824.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genmu_eval.cells import Cells
from genmu_eval.table import AXES, Judgement
from unlearn_core.errors import InvalidInput
from unlearn_core.score import wilson
from unlearn_core.seeds import derive

LEVEL = 0.95

Over = Literal["concepts", "images"]
"""What is drawn anew: concepts and, in each, images (a statement about concepts in general), or images alone (about
these concepts)."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A rate or a mean of rates, as fractions, with its 95 % interval."""

    value: float
    low: float
    high: float

    def document(self) -> dict[str, float]:
        """Return it as JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, kw_only=True)
class ConceptErr:
    """The row of one concept: its harmonic mean and its five components, with Wilson's intervals."""

    err: float
    components: Mapping[str, Estimate]
    n: Mapping[str, int]
    """Axis -> number of images."""


@dataclass(frozen=True, kw_only=True)
class Err:
    """ERR of one submission; higher is better everywhere."""

    err_pooled: Estimate
    err_macro: Estimate
    components: Mapping[str, Estimate]
    """Axis -> mean over the concepts of their success rates."""
    concepts: Mapping[str, ConceptErr]
    n: int
    """Number of judged images."""
    over: Over

    def document(self) -> dict[str, Any]:
        """Return it as JSON values: err_pooled, err_macro, components, concepts, n, interval."""
        return {
            "err_pooled": self.err_pooled.document(),
            "err_macro": self.err_macro.document(),
            "components": {axis: e.document() for axis, e in self.components.items()},
            "concepts": {
                name: {
                    "err": c.err,
                    **{axis: e.document() | {"n": c.n[axis]} for axis, e in c.components.items()},
                }
                for name, c in self.concepts.items()
            },
            "n": self.n,
            "interval": {"level": LEVEL, "over": self.over},
        }


def harmonic_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the harmonic mean along the last axis, exactly 0 where any value is.

    A component of 0 is the limit of the formula, never left out: leaving it out would reward failing totally.

    Raises:
        InvalidInput: no value, or one outside [0, 1].
    """
    values = np.asarray(values, np.float64)
    if not values.shape[-1] or not ((values >= 0) & (values <= 1)).all():
        raise InvalidInput(f"a harmonic mean is of one or more rates in [0, 1], got {values!r}")
    worst = values.min(-1, keepdims=True)  # scaled by it, since 1 / 5e-324 overflows
    scaled = np.divide(worst, values, out=np.ones_like(values), where=worst > 0)
    return np.where(worst[..., 0] > 0, worst[..., 0] * values.shape[-1] / scaled.sum(-1), 0.0)


def err(rows: Iterable[Judgement], *, seed: int = 0, resamples: int = 2000, over: Over = "concepts") -> Err:
    """Return the ERR of the judged images `rows`, whose order changes nothing.

    A concept with rows on fgt, ind or adv is a target, and needs all three. On ret and on adj either every target has
    rows of its own (a model per concept, each with its own sets), or none has and the rows of other concepts serve all
    of them (one model, one retained set). A component is the mean over concepts of the share of images that succeed.

    The intervals are percentile bootstraps, no narrower than what Wilson's intervals of the components allow: the
    bootstrap alone would claim certainty where all images agree.

    Args:
        rows: at least one image per target and axis.
        seed: of the bootstrap.
        resamples: number of draws.
        over: what is drawn anew; see `Over`.

    Raises:
        InvalidInput: a missing component, named with its concept; an image judged twice; no rows.
    """
    rows = tuple(rows)
    cells = Cells.of(rows)
    if resamples < 100:
        raise InvalidInput(f"an interval takes at least 100 resamples, got {resamples}")
    rates = cells.rates()  # (targets, 5)
    rng = np.random.default_rng(derive(seed, "err"))
    drawn = cells.draw(rng, resamples, concepts=over == "concepts")  # (resamples, targets, 5)
    means, drawn_means = rates.mean(0), drawn.mean(1)
    widths = [_widths(cells, i) for i in range(len(AXES))]
    pooled, macro = float(harmonic_mean(means)), float(harmonic_mean(rates).mean())
    down, up = _margins(means, widths)
    return Err(
        err_pooled=_estimate(pooled, harmonic_mean(drawn_means), down, up),
        err_macro=_estimate(macro, harmonic_mean(drawn).mean(-1), down, up),
        components={
            axis: _estimate(float(means[i]), drawn_means[:, i], *widths[i]) for i, axis in enumerate(AXES)
        },
        concepts={name: _concept(cells, c, rates[c]) for c, name in enumerate(cells.targets)},
        n=len(rows),
        over=over,
    )


def _concept(cells: Cells, c: int, rates: NDArray[np.float64]) -> ConceptErr:
    components, n = {}, {}
    for i, axis in enumerate(AXES):
        if cells.groups[i] == cells.targets:
            successes, images = int(cells.counts[i][c, 1]), int(cells.counts[i][c].sum())
        else:  # one set for all targets
            successes, images = cells.total(i)
        bounds = wilson(successes, images)
        value = float(rates[i])
        components[axis] = Estimate(value=value, low=min(bounds.low, value), high=max(bounds.high, value))
        n[axis] = images
    return ConceptErr(err=float(harmonic_mean(rates)), components=components, n=n)


def _margins(means: NDArray[np.float64], widths: list[tuple[float, float]]) -> tuple[float, float]:
    """Return how far below and above itself the harmonic mean may lie for the images alone.

    Zou and Donner's combination of the components' intervals (Statistics in Medicine 27, 2008), with the change of the
    mean itself in place of its slope. Components of 0 rise together: one alone would change nothing.
    """
    value = float(harmonic_mean(means))
    if (means == 0).any():
        highest = np.minimum(1.0, means + np.array([up for _, up in widths]))
        return value, float(harmonic_mean(np.where(means == 0, highest, means)))
    below = above = 0.0
    for i, (down, up) in enumerate(widths):
        lower, higher = means.copy(), means.copy()
        lower[i], higher[i] = max(0.0, means[i] - down), min(1.0, means[i] + up)
        below += (value - float(harmonic_mean(lower))) ** 2
        above += (float(harmonic_mean(higher)) - value) ** 2
    return below**0.5, above**0.5


def _widths(cells: Cells, axis: int) -> tuple[float, float]:
    """Return how far Wilson's interval of the share of all images of an axis reaches below and above that share."""
    successes, images = cells.total(axis)
    bounds = wilson(successes, images)
    return successes / images - bounds.low, bounds.high - successes / images


def _estimate(value: float, drawn: NDArray[np.float64], down: float, up: float) -> Estimate:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(
        value=value, low=max(0.0, min(float(low), value - down)), high=min(1.0, max(float(high), value + up))
    )
