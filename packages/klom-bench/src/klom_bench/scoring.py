"""From per-sample KLoM to a number one can trust: floor, debiased value, interval, warnings.

KLoM of a finite ensemble is biased: two halves of one distribution score well above zero (EasyDUB bins,
N = 100: mean 0.34, P95 0.66; N = 10: 5.6 and 8.4). So no score is given without the *floor*, what a perfect
method would score with as many models, and the *debiased* score, what lies above it.
"""

import functools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klom_bench.klom import MAXIMUM, Array, klom, margin_matrices
from unlearn_core.errors import InvalidInput
from unlearn_core.seeds import derive

LEVEL = 0.95
ENOUGH_MODELS = 80  # "Ascent Fails to Forget" (arXiv 2509.26427): stable from 80 models
_BOOTSTRAP_SAMPLES = 4000  # columns a bootstrap replicate is computed on; more add nothing to its spread


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """KLoM of one split (retain, forget or val).

    `p95` is the 95th percentile over samples, the headline number of EasyDUB; `low` and `high` bound it
    (95 %, bootstrap over models) and `floor` is what a perfect method would score there. The `mean_` fields
    say the same of the mean over samples.
    """

    n_models: int
    n_samples: int
    mean: float
    mean_low: float
    mean_high: float
    mean_floor: float
    mean_debiased: float
    p95: float
    low: float
    high: float
    floor: float
    debiased: float
    floor_from: str
    """"held-out oracles" or "simulation"."""
    clipped: float
    """Fraction of margins, of both ensembles, at or beyond the clipping range."""
    undefined: float
    """Fraction of samples that a public variant leaves without a score; mean and P95 pass over them."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the score as JSON values; a NaN (public variants only) becomes None."""
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in asdict(self).items()}


def summary(scores: Array) -> NDArray[np.float64]:
    """Return the mean and the 95th percentile over the samples of a split, (2,).

    Samples that a public variant leaves undefined (NaN) are passed over; `warnings_of` counts them.
    """
    valid = scores[~np.isnan(scores)]
    return np.array([valid.mean(), np.percentile(valid, 95)]) if len(valid) else np.full(2, np.nan)


@functools.cache
def simulated_floor(n_models: int, n_samples: int, variant: str = "easydub") -> tuple[float, float]:
    """Return mean and P95 that two draws of one normal distribution score with this N and number of samples.

    KLoM with data-driven bins does not depend on location and scale, and little on shape: Laplace and skewed
    margins have floors within 10 % of this (`robust`: 25 %).
    """
    splits = max(1, 4000 // n_samples)
    # More samples than this change nothing; fewer matter: P95 of ten samples lies below P95 of thousands.
    columns = min(n_samples, 4000)
    rng = np.random.default_rng(derive(0, "klom floor", n_models))
    draw = rng.standard_normal((2, n_models, splits * columns), dtype=np.float32)
    # Fixed bins have a scale: +-100 wide, for margins that spread by about 3.
    scores = klom(draw[0] * 3, draw[1] * 3, variant).reshape(splits, columns)
    mean, p95 = np.mean([summary(s) for s in scores], axis=0)
    return float(mean), float(p95)


def bootstrap(
    oracle: Array, unlearned: Array, variant: str, *, replicates: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """Return how far mean and P95 move when both ensembles are drawn again, (replicates, 2), centred on 0.

    A replicate that a public variant gives no score at all is left out.

    Models are resampled, not samples: the margins of one model on two images are not independent. A resampled
    ensemble repeats models, which raises KLoM as a smaller ensemble would; the shift is common to all
    replicates and is taken out.
    """
    rng = np.random.default_rng(derive(seed, "klom bootstrap"))
    if oracle.shape[1] > _BOOTSTRAP_SAMPLES:
        columns = rng.choice(oracle.shape[1], _BOOTSTRAP_SAMPLES, replace=False)
        oracle, unlearned = oracle[:, columns], unlearned[:, columns]
    n = len(oracle)
    moves = np.array(
        [
            summary(klom(oracle[rng.integers(n, size=n)], unlearned[rng.integers(n, size=n)], variant))
            for _ in range(replicates)
        ]
    )
    defined = moves[~np.isnan(moves).any(axis=1)]
    return defined - defined.mean(axis=0) if len(defined) else moves


def score(
    oracle: Any,
    unlearned: Any,
    variant: str = "easydub",
    *,
    held_out: Any | None = None,
    replicates: int = 200,
    seed: int = 0,
) -> SplitScore:
    """Return the KLoM of one split with floor, interval and debiased value.

    Args:
        oracle: margins (n_models, n_samples).
        unlearned: margins, same shape.
        variant: see `klom_bench.klom.VARIANTS`.
        held_out: margins of as many further oracles; the floor is their score. Without them it is simulated.
        replicates: bootstrap replicates.
        seed: of the bootstrap.

    Raises:
        InvalidInput: as `klom`.
    """
    oracle, unlearned = margin_matrices(oracle, unlearned)
    values = klom(oracle, unlearned, variant)
    mean, p95 = summary(values)
    spread = np.quantile(
        bootstrap(oracle, unlearned, variant, replicates=replicates, seed=seed), _TAILS, axis=0
    )
    # Not the highest score seen: P95 of ten samples is close to that, and may well lie higher next time.
    possible = np.fmin(np.fmin.reduce(values), 0), np.fmax(np.fmax.reduce(values), MAXIMUM)
    (mean_low, low), (mean_high, high) = np.clip(np.array([mean, p95]) + spread, *possible)
    # Where every replicate scores the same, rounding alone could put a bound on the wrong side.
    mean_low, low = np.fmin([mean_low, low], [mean, p95])
    mean_high, high = np.fmax([mean_high, high], [mean, p95])
    if held_out is None:
        (mean_floor, floor), source = simulated_floor(*oracle.shape, variant), "simulation"
    elif np.shape(held_out) != oracle.shape:
        raise InvalidInput(
            f"held-out margins are {np.shape(held_out)} and oracle margins {oracle.shape}; both must be alike"
        )
    else:
        (mean_floor, floor), source = summary(klom(oracle, held_out, variant)), "held-out oracles"
    margins = np.stack([oracle, unlearned])
    return SplitScore(
        n_models=oracle.shape[0],
        n_samples=oracle.shape[1],
        mean=float(mean),
        mean_low=float(mean_low),
        mean_high=float(mean_high),
        mean_floor=float(mean_floor),
        mean_debiased=float(mean - mean_floor),
        p95=float(p95),
        low=float(low),
        high=float(high),
        floor=float(floor),
        debiased=float(p95 - floor),
        floor_from=source,
        clipped=float(np.mean(~(np.abs(margins) < 100))),
        undefined=float(np.mean(np.isnan(values))),
    )


_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def too_few_models(result: SplitScore) -> list[str]:
    """Return a warning in words if the ensembles are too small for any statement, else nothing."""
    if result.n_models >= ENOUGH_MODELS:
        return []
    return [
        f"with {result.n_models} models a perfect method scores P95 {result.floor:.2f}; use {ENOUGH_MODELS} or more"
    ]


def warnings_of(
    name: str, oracle: Any, unlearned: Any, result: SplitScore, variant: str = "easydub"
) -> list[str]:
    """Return, in words, why the score of split `name` deserves a second look; empty if nothing is odd."""
    oracle, unlearned = (m.astype(np.float64) for m in margin_matrices(oracle, unlearned))
    found = []
    if result.undefined > 0:
        found.append(
            f"{name}: {variant!r} gives {result.undefined:.1%} of the samples no score; mean and P95 are of the rest"
        )
    if not np.isfinite(oracle).all():
        models = np.flatnonzero(~np.isfinite(oracle).all(axis=1))
        found.append(f"{name}: margins of {len(models)} oracles (first: model {models[0]}) are not finite")
        oracle = np.where(np.isfinite(oracle), oracle, 0.0)
    broken = ~np.isfinite(unlearned)
    if broken.any():
        models = np.flatnonzero(broken.any(axis=1))
        found.append(
            f"{name}: {broken.sum()} margins of {len(models)} unlearned models (first: model {models[0]}) are not "
            f"finite; {variant!r} lets that lower the score, 'robust' refuses it"
        )
        unlearned = np.where(broken, 0.0, unlearned)
    if result.clipped > 0:
        found.append(f"{name}: {result.clipped:.2%} of the margins are at or beyond +-100 and were clipped")
    lower, upper = np.percentile(oracle, [5, 95], axis=0)
    width = np.maximum(upper - lower, 1e-6)
    constant = np.mean(unlearned.std(axis=0) < 0.01 * width)
    if constant > 0.05:
        found.append(
            f"{name}: on {constant:.0%} of the samples all unlearned models give nearly the same margin, "
            "which no ensemble of trained models does"
        )
    far = np.abs(unlearned - np.median(oracle, axis=0)) > 10 * width
    stretched = np.mean(far.any(axis=0) & (far.mean(axis=0) < 0.5))
    if stretched > 0.05 and variant != "robust":
        found.append(
            f"{name}: on {stretched:.0%} of the samples a few unlearned models lie far from all others and "
            "stretch the bins until the rest looks alike; 'robust' does not let them"
        )
    if result.mean < 0.5 * result.mean_floor:
        found.append(
            f"{name}: the mean {result.mean:.2f} is below half of what two halves of one distribution score "
            f"({result.mean_floor:.2f}); see whether margins were dropped or copied"
        )
    return found
