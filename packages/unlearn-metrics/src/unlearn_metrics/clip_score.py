"""CLIP score: do images show what their captions say?"""

import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from unlearn_core.errors import UnlearnWarning
from unlearn_core.samples import Sample, SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics.extractors.clip import ClipImages
from unlearn_metrics.features import cache_folder, features
from unlearn_metrics.groups import of_groups
from unlearn_metrics.open_clip_model import load
from unlearn_metrics.statistics import mean_interval


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """How well images match their own captions, by the cosine of their CLIP embeddings.

    Paper: Hessel et al. 2021, CLIPScore: A Reference-free Evaluation Metric for Image Captioning,
        arXiv 2104.08718; the model is that of Radford et al. 2021, arXiv 2103.00020.
    Formula: mean over images of 100 cos(image, caption).
    Direction: up.
    Scale: "100cos" is what torchmetrics, transformers' logits and most papers give (about 31 for SD v1.4 on
        COCO captions with ViT-L/14), "cos" a hundredth of it, "hessel" 2.5 max(cos, 0) with "A photo depicts "
        before each caption, as the paper does with ViT-B/32. Numbers of different models do not compare.
    Needs: images of the group "quality" with their captions; open_clip and its weights, or local-dir:/path.
    Deviations: none of "100cos" is clamped at 0 (torchmetrics clamps the mean, which hides only nonsense).
        A caption beyond the context is cut off keeping the end token, which torchmetrics drops; it is counted.
        An image that cannot be read and one without a caption are unscored.
    """

    prompts: ClassVar[tuple[str, ...]] = ("quality",)
    direction: ClassVar[Direction] = "up"

    model: str = "ViT-L-14-quickgelu"
    pretrained: str = "openai"
    scale: Literal["100cos", "cos", "hessel"] = "100cos"
    device: str = "auto"

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the mean score of the images of the group "quality"; `reference` is not looked at.

        Raises:
            InvalidInput: no such images, or none that could be judged.
            Unavailable: the model's weights cannot be had.
        """
        rows = of_groups("clip_score", samples, self.prompts)
        captioned = [row for row in rows if row.prompt.text.strip()]
        values = self._values(captioned)
        scored = np.isfinite(values)
        texts = [row.prompt.text for row, good in zip(captioned, scored, strict=True) if good]
        cut = sum(load(self.model, self.pretrained, self.device).truncated(texts))
        if cut:
            warnings.warn(
                f"clip_score: {cut} of {len(texts)} captions are longer than the model's context and were cut off",
                UnlearnWarning,
                stacklevel=2,
            )
        reasons = {
            "the row has no text": len(rows) - len(captioned),
            "the image cannot be read": int((~scored).sum()),
        }
        reasons = {reason: n for reason, n in reasons.items() if n}
        per_sample: dict[str, float | None] = {row.prompt.id: None for row in rows}
        for row, value in zip(captioned, values, strict=True):
            per_sample[row.prompt.id] = float(value) if np.isfinite(value) else None
        return Score(
            metric="clip_score",
            value=float(values[scored].mean()) if texts else 0.0,  # Score refuses a value of no images
            direction=self.direction,
            interval=mean_interval(values[scored], texts) if texts else None,
            n_scored=len(texts),
            n_unscored=sum(reasons.values()),
            reasons=reasons,
            parts={"captions cut off": float(cut)},
            per_sample=per_sample,
        )

    def _values(self, rows: list[Sample]) -> NDArray[np.float64]:
        """Return the score of each of `rows`, NaN where the image cannot be read."""
        if not rows:
            return np.empty(0)
        extractor = ClipImages(model=self.model, pretrained=self.pretrained, device=self.device)
        images = features(rows, extractor, cache_folder())
        prefix = "A photo depicts " if self.scale == "hessel" else ""
        clip = load(self.model, self.pretrained, self.device)
        texts = clip.encode_texts([prefix + row.prompt.text for row in rows])
        cosines = (images.astype(np.float64) * texts).sum(1)
        if self.scale == "hessel":
            return 2.5 * np.maximum(cosines, 0)  # keeps NaN
        return cosines if self.scale == "cos" else 100 * cosines
