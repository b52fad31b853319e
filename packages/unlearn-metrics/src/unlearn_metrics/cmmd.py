"""CMMD: how far the distribution of images is from that of real ones, in CLIP's eyes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unlearn_core.samples import SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics.extractors.clip import ClipImages
from unlearn_metrics.mmd import biased, influence
from unlearn_metrics.references import Matrix, compared

SIGMA = 10.0
SCALE = 1000.0


@dataclass(frozen=True, kw_only=True)
class CMMD:
    """Maximum mean discrepancy between the CLIP embeddings of the images and those of a reference.

    Paper: Jayasumana et al. 2024, Rethinking FID: Towards a Better Evaluation Metric for Image Generation,
        arXiv 2401.09603.
    Formula: 1000 MMD² with the kernel exp(-|x - y|² / (2 σ²)), σ = 10, the V-statistic, of normalised image
        embeddings.
    Direction: down.
    Scale: 0 for equal sets; two samples of one distribution are above it by an amount that shrinks as 1 / N.
    Parts: "by image" as of `FID`, and the number of images of the reference.
    Needs: images of the group "quality", and a reference: real images, or those of the unmodified model. The
        score names it among its parts. CLIP ViT-L/14 at 336 pixels, or local-dir:/path.
    Deviations: none in the formula; images are resized to the model's square without a crop, by Pillow.
    """

    prompts: ClassVar[tuple[str, ...]] = ("quality",)
    direction: ClassVar[Direction] = "down"

    model: str = "ViT-L-14-336-quickgelu"
    pretrained: str = "openai"
    device: str = "auto"
    reference: str = ""
    """Folder of images, data set of the Hub (owner/name[@revision]), or file (.safetensors, .npz) with
    `features`. Empty: the images of the unmodified model."""

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the discrepancy of the images of the group "quality" to the reference.

        Raises:
            InvalidInput: fewer than two images, no reference, or one of other features.
            Unavailable: weights or reference cannot be had.
        """
        extractor = ClipImages(
            model=self.model, pretrained=self.pretrained, device=self.device, resize="squash"
        )
        sets = compared("cmmd", samples, self.prompts, extractor, self.reference, reference)
        x = sets.features.astype(np.float64)
        y = sets.reference.features_of("cmmd", x.shape[1]).astype(np.float64)
        value = SCALE * biased(gaussian, x, y)
        return sets.score("cmmd", value, SCALE * influence(gaussian, x, y))


def gaussian(x: Matrix, y: Matrix) -> Matrix:
    """Return the kernel exp(-|x - y|² / (2 σ²)) of the rows (n, d) and (m, d), (n, m)."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return np.exp(squares.clip(0) / (-2 * SIGMA**2))
