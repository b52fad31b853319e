"""KID: how far the distribution of images is from that of real ones, without a bias for small sets."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge

from unlearn_core import registry, spec
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.samples import SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics.mmd import influence, unbiased
from unlearn_metrics.references import Matrix, compared

MOST = 1000  # images in a subset where the settings name no number


@dataclass(frozen=True, kw_only=True)
class KID:
    """Squared maximum mean discrepancy between the features of the images and those of a reference.

    Paper: Bińkowski et al. 2018, Demystifying MMD GANs, arXiv 1801.01401.
    Formula: MMD² with the kernel (x·y / d + 1)³, its unbiased estimate, averaged over random subsets.
    Direction: down.
    Scale: 0 for equal distributions whatever N, possibly slightly below 0; often printed x 1,000.
    Parts: "by image" as of `FID`, "images in a subset", "std over subsets" and the number of images of the reference.
    Needs: images of the group "quality", and a reference: real images, or those of the unmodified model. The
        score names it among its parts. Inception's weights (96 MB), or another extractor.
    Defaults: 100 subsets of 1,000 images drawn as torch-fidelity draws them (its seed 2020).
    Deviations: where a set has fewer images than that, the subsets are as large as the smaller set;
        torch-fidelity refuses. The interval is not made of the spread over subsets, which share their
        images and is reported as a part: it holds the noise of the images drawn against this reference
        (delta method, whole prompts).
    """

    prompts: ClassVar[tuple[str, ...]] = ("quality",)
    direction: ClassVar[Direction] = "down"

    extractor: str = "inception"
    extractor_settings: dict[str, Any] = field(default_factory=dict)
    reference: str = ""
    """Folder of images, data set of the Hub (owner/name[@revision]), or file (.safetensors, .npz) with
    `features`. Empty: the images of the unmodified model."""
    subsets: Annotated[int, Ge(1)] = 100
    subset_size: Annotated[int, Ge(0)] = 0
    """Images in a subset; 0: 1,000, or as many as the smaller set has."""
    seed: int = 2020

    def __post_init__(self) -> None:
        known = registry.names("unlearn.extractors")
        if self.extractor not in known:
            raise InvalidInput(one_of("extractor", self.extractor, known))

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the discrepancy of the images of the group "quality" to the reference.

        Raises:
            InvalidInput: fewer than two images or than a subset has, no reference, or one of other features.
            Unavailable: weights or reference cannot be had.
        """
        extractor = spec.build(registry.load("unlearn.extractors", self.extractor), self.extractor_settings)
        sets = compared("kid", samples, self.prompts, extractor, self.reference, reference)
        x = sets.features.astype(np.float64)
        y = sets.reference.features_of("kid", x.shape[1]).astype(np.float64)
        fewest = min(len(x), len(y))
        size = self.subset_size or min(MOST, fewest)
        if not 2 <= size <= fewest:
            raise InvalidInput(
                f"kid: subsets of {size} images cannot be drawn from {len(x)} images and {len(y)} of the reference"
            )
        rng = np.random.RandomState(
            self.seed
        )  # torch-fidelity's generator: the same subsets, the same number
        found = []
        for _ in range(1 if size == len(x) == len(y) else self.subsets):
            ours, theirs = (z[rng.choice(len(z), size, replace=False)] for z in (x, y))
            found.append(unbiased(cubic, ours, theirs))
        value = float(np.mean(found))
        about = {"images in a subset": float(size), "std over subsets": float(np.std(found))}
        return sets.score("kid", value, influence(cubic, x, y), about)


def cubic(x: Matrix, y: Matrix) -> Matrix:
    """Return KID's kernel (x·y / d + 1)³ of the rows (n, d) and (m, d), (n, m)."""
    return (x @ y.T / x.shape[1] + 1) ** 3
