"""FID: how far the distribution of images is from that of real ones, taken as Gaussian."""

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from unlearn_core import registry, spec
from unlearn_core.errors import InvalidInput, UnlearnWarning, one_of
from unlearn_core.samples import SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics.features import Features
from unlearn_metrics.references import Matrix, compared, moments

ENOUGH = 2048  # below it, the covariance of Inception's features is singular


@dataclass(frozen=True, kw_only=True)
class FID:
    """Fréchet distance between the features of the images and those of a reference.

    Paper: Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500.
    Formula: |m1 - m2|² + tr(S1) + tr(S2) - 2 tr((S1 S2)^½) with mean m and unbiased covariance S of the
        features; in float64, the last trace as the sum of the roots of the eigenvalues of S1^½ S2 S1^½.
    Direction: down.
    Scale: 0 for equal sets; it grows as N falls (two samples of the same 64-d Gaussian: 22.7 at N = 100, 2.2 at
        1,000), differently for each model, so numbers at different N do not compare, nor those below 10,000
        images with published ones. Less than 2,048 images or than features is a warning.
    Parts: "by image" (the distance as a mean of each image's share, to first order, by which two models are compared
        image by image) and the number of images of the reference.
    Needs: images of the group "quality", and a reference: real images, or those of the unmodified model. The
        score names it among its parts. Inception's weights (96 MB), or another extractor.
    Deviations: none; torch-fidelity's numbers. Rounding can leave it slightly below 0. The interval is that of
        the expected FID at this N against this reference (delta method, whole prompts): it holds the noise
        of the images drawn and not the bias of a small N.
    """

    prompts: ClassVar[tuple[str, ...]] = ("quality",)
    direction: ClassVar[Direction] = "down"

    extractor: str = "inception"
    extractor_settings: dict[str, Any] = field(default_factory=dict)
    reference: str = ""
    """Folder of images, data set of the Hub (owner/name[@revision]), or file (.safetensors, .npz) with
    `features` or with `mean`, `cov` and `n`. Empty: the images of the unmodified model."""

    def __post_init__(self) -> None:
        known = registry.names("unlearn.extractors")
        if self.extractor not in known:
            raise InvalidInput(one_of("extractor", self.extractor, known))

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the distance of the images of the group "quality" to the reference.

        Raises:
            InvalidInput: fewer than two images, no reference, or one of other features.
            Unavailable: weights or reference cannot be had.
        """
        extractor = spec.build(registry.load("unlearn.extractors", self.extractor), self.extractor_settings)
        sets = compared("fid", samples, self.prompts, extractor, self.reference, reference)
        n, d = sets.features.shape
        mean, cov = sets.reference.statistics(d)
        fewest = min(n, sets.reference.n or n)
        if fewest < max(ENOUGH, d):
            warnings.warn(
                f"fid of {n} images against {sets.reference.n or 'an unknown number'}: below {max(ENOUGH, d):,} it "
                "is mostly the bias of a small sample; compare it only at equal numbers, and see kid",
                UnlearnWarning,
                stacklevel=2,
            )
        value = frechet(*moments(sets.features, "fid"), mean, cov)
        return sets.score("fid", value, influence(sets.features, mean, cov))


def frechet(mean1: Matrix, cov1: Matrix, mean2: Matrix, cov2: Matrix) -> float:
    """Return the Fréchet distance of two Gaussians with means (d,) and covariances (d, d), in float64."""
    root = _root(cov2)
    values = np.linalg.eigvalsh(root @ cov1 @ root)
    # The product is as positive as covariances are: what is below 0 is rounding.
    trace = np.sqrt(values.clip(0)).sum()
    return float(np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * trace)


def influence(rows: Features, mean: Matrix, cov: Matrix) -> Matrix:
    """Return how much each of `rows` (n, d) moves their distance from `mean` and `cov`, centred on 0, (n,).

    With M = A (A S A)^-½ A and A the root of the reference's covariance, moving the mean by dm and the
    covariance by dS moves the distance by 2 (m - m_ref) dm + tr((1 - M) dS).
    """
    own_mean, own_cov = moments(rows, "fid")
    root = _root(cov)
    values, vectors = np.linalg.eigh(root @ own_cov @ root)
    kept = values > values[-1] * 1e-10  # fewer images than features leave directions without any spread
    half = root @ (vectors[:, kept] / values[kept] ** 0.25)
    centred = rows - own_mean
    found: Matrix = 2 * centred @ (own_mean - mean) + (centred**2).sum(1) - ((centred @ half) ** 2).sum(1)
    return found - found.mean()


def _root(cov: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(cov)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
