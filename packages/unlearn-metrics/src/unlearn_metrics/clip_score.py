"""CLIP score: do images show what their captions say?"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

BESIDE = ("target", "adjacent", "retain")
"""Groups whose images are rated too, where there are any."""


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
    Parts: "target", "adjacent" and "retain", the same of the images of these groups, where there are any: for an erased
        concept lower is meant, for the others higher. "captions cut off" counts captions beyond the context.
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
        score = rated("clip_score", self, of_groups("clip_score", samples, self.prompts))
        parts = dict(score.parts)
        for group in BESIDE:
            rows = sorted(samples.select(group=group), key=lambda sample: sample.prompt.id)
            if any(row.prompt.text.strip() for row in rows):
                parts[group] = rated(group, self, rows)
        return replace(score, parts=parts)


def rated(
    name: str, settings: ClipScore, rows: Sequence[Sample], texts: Mapping[str, str | None] | None = None
) -> Score:
    """Return the mean score of the images of `rows`, each with the text of its own.

    Args:
        name: of the score.
        settings: model and scale.
        rows: images.
        texts: prompt id -> what to compare its image with, None where there is nothing; by default the prompt itself.

    Raises:
        InvalidInput: no row has a text, or none of the images can be read.
        Unavailable: the model's weights cannot be had.
        UnlearnWarning: texts are longer than the model's context.
    """
    texts = {row.prompt.id: row.prompt.text for row in rows} if texts is None else texts
    stated = [(row, text) for row in rows if (text := texts[row.prompt.id]) and text.strip()]
    values = _values(settings, stated)
    scored = np.isfinite(values)
    judged = [pair for pair, good in zip(stated, scored, strict=True) if good]
    clip = load(settings.model, settings.pretrained, settings.device)
    cut = sum(clip.truncated([text for _, text in judged]))
    if cut:
        warnings.warn(
            f"{name}: {cut} of {len(judged)} captions are longer than the model's context and were cut off",
            UnlearnWarning,
            stacklevel=3,
        )
    reasons = {
        "the row has no text": len(rows) - len(stated),
        "the image cannot be read": int((~scored).sum()),
    }
    reasons = {reason: n for reason, n in reasons.items() if n}
    per_sample: dict[str, float | None] = {row.prompt.id: None for row in rows}
    for (row, _), value in zip(stated, values, strict=True):
        per_sample[row.prompt.id] = float(value) if np.isfinite(value) else None
    clusters = [row.prompt.text for row, _ in judged]
    return Score(
        metric=name,
        value=float(values[scored].mean()) if judged else 0.0,  # Score refuses a value of no images
        direction=settings.direction,
        interval=mean_interval(values[scored], clusters) if judged else None,
        n_scored=len(judged),
        n_unscored=sum(reasons.values()),
        reasons=reasons,
        parts={"captions cut off": float(cut)},
        per_sample=per_sample,
    )


def _values(settings: ClipScore, stated: Sequence[tuple[Sample, str]]) -> NDArray[np.float64]:
    """Return the score of each image and its text, NaN where the image cannot be read."""
    if not stated:
        return np.empty(0)
    extractor = ClipImages(model=settings.model, pretrained=settings.pretrained, device=settings.device)
    images = features([row for row, _ in stated], extractor, cache_folder())
    prefix = "A photo depicts " if settings.scale == "hessel" else ""
    clip = load(settings.model, settings.pretrained, settings.device)
    texts = clip.encode_texts([prefix + text for _, text in stated])
    cosines = (images.astype(np.float64) * texts).sum(1)
    if settings.scale == "hessel":
        return 2.5 * np.maximum(cosines, 0)  # keeps NaN
    return cosines if settings.scale == "cos" else 100 * cosines
