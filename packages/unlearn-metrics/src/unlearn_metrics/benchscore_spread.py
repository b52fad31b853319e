"""How sure a BenchScore is: its interval, and the probability of each rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from unlearn_core.errors import InvalidInput
from unlearn_core.score import Score
from unlearn_core.seeds import derive
from unlearn_metrics.benchscore import UNBOUNDED, Array, Row, Table, Version, benchscore
from unlearn_metrics.rates import effective_number

DRAWS = 2000
_CELLS = 2_000_000  # random numbers in memory at a time


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How sure score and rank of one technique are."""

    low: float
    """Of the interval of the score."""
    high: float
    rank_low: int
    """Best rank of the interval."""
    rank_high: int
    rank_probabilities: tuple[float, ...]
    """Of rank 1, 2, …; they add up to 1."""


def spread(
    rows: Sequence[Row],
    alpha: float = 0.5,
    version: Version = "corrected",
    *,
    unmodified: Row | None = None,
    collapsed: Mapping[str, float] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Spread]:
    """Return interval and rank probabilities of each score that `benchscore` returns, the arguments being its own.

    Every number of the table is drawn again and the whole table scored again, `draws` times. Where all rows have
    values for the same pictures of an axis, by the Bayesian bootstrap (Rubin 1981) with the same weights of the
    pictures in every row, so that what is common to all rows cancels. To shares half a hit and half a miss are added:
    k of n then spread as Jeffreys' Beta(k + 1/2, n - k + 1/2), which no hits at all do not make certain. Without
    values by picture, the same Beta with n from `rates.effective_number`, or the normal distribution of the interval.
    A bare number stays as it is. Axes are drawn independently of each other.

    Args:
        rows: see `benchscore`, as for the next four.
        alpha: weight of safety.
        version: of BenchScore.
        unmodified: the unmodified model, drawn again like the others.
        collapsed: the model that draws noise; its numbers stay as they are.
        level: of the intervals.
        draws: number of tables.
        seed: of the draws.

    Raises:
        InvalidInput: as `benchscore`, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InvalidInput(f"the level of an interval is in (0, 1), such as 0.95, got {level}")
    table = Table.of(rows, alpha, version, unmodified, collapsed)
    found = benchscore(rows, alpha, version, unmodified=unmodified, collapsed=collapsed)
    drawn = [
        _draw(axis, [row.scores[axis] for row in table.rows], draws, derive(seed, "benchscore", axis))
        for axis in table.axes
    ]
    safety, quality = table.parts(np.stack(drawn, -1))
    scores = alpha * safety + (1 - alpha) * quality
    ranks = table.ranks(safety, quality)
    tails = (1 - level) / 2, (1 + level) / 2
    spreads = []
    for i, one in enumerate(found):
        low, high = np.quantile(scores[:, i], tails)
        best, worst = np.quantile(ranks[:, i], tails, method="inverted_cdf")
        counts = np.bincount(ranks[:, i], minlength=table.n_ranked + 1)[1 : table.n_ranked + 1]
        spreads.append(
            Spread(
                low=min(float(low), one.score),
                high=max(float(high), one.score),
                rank_low=int(best),
                rank_high=int(worst),
                rank_probabilities=tuple((counts / draws).tolist()) if one.rank is not None else (),
            )
        )
    return spreads


def _draw(axis: str, scores: Sequence[Score | float], draws: int, seed: int) -> Array:
    """Return `draws` values of each row, (draws, rows)."""
    rng = np.random.default_rng(seed)
    found = [score for score in scores if isinstance(score, Score) and isinstance(score.per_sample, Mapping)]
    if len(found) == len(scores) and len({frozenset(score.per_sample or ()) for score in found}) == 1:
        return _draw_pictures(axis, found, draws, rng)
    return np.stack([_draw_number(axis, score, draws, rng) for score in scores], -1)


def _draw_number(axis: str, score: Score | float, draws: int, rng: np.random.Generator) -> Array:
    if not isinstance(score, Score):
        return np.full(draws, float(score))
    if axis not in UNBOUNDED:
        n = effective_number(score)
        return rng.beta(score.value * n + 0.5, (1 - score.value) * n + 0.5, draws)
    return rng.normal(score.value, _standard_error(score), draws)


def _draw_pictures(axis: str, scores: Sequence[Score], draws: int, rng: np.random.Generator) -> Array:
    ids: list[str] = sorted(scores[0].per_sample or ())  # type: ignore[type-var]
    columns = [[score.per_sample[i] for i in ids] for score in scores]  # type: ignore[index, call-overload]
    x = np.array([[np.nan if value is None else value for value in column] for column in columns]).T
    judged = ~np.isnan(x)
    x = np.where(judged, x, 0.0)
    share = axis not in UNBOUNDED
    means = x.sum(0) / judged.sum(0)
    if share:
        independent = [effective_number(score) / score.n_scored for score in scores]
    else:  # the variance of the mean that the interval tells of, beside that of as many independent pictures
        variances = ((x - means) ** 2 * judged).sum(0) / judged.sum(0) ** 2
        errors = [_standard_error(score) ** 2 for score in scores]
        independent = [v / e if e and v else 1.0 for v, e in zip(variances, errors, strict=True)]
    weight = max(min(1.0, *independent), 1e-3)
    parts = []
    step = max(1, _CELLS // len(ids))
    for start in range(0, draws, step):
        n = min(step, draws - start)
        w = rng.gamma(weight, size=(n, len(ids)))
        hit, miss = rng.gamma(0.5, size=(2, n, 1)) if share else (0.0, 0.0)
        parts.append((w @ x + hit) / (w @ judged + hit + miss))
    # A value that is a mean over labels differs from that over pictures; its spread is about the same.
    drawn = np.concatenate(parts) + [score.value for score in scores] - means
    return np.clip(drawn, 0, 1) if share else drawn


def _standard_error(score: Score) -> float:
    if score.interval is None:
        return 0.0
    z = NormalDist().inv_cdf((1 + score.interval.level) / 2)
    return (score.interval.high - score.interval.low) / 2 / z
