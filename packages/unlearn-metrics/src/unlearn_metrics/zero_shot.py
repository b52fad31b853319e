"""Zero-shot classification by CLIP: which of a fixed set of descriptions fits an image best."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearn_core.errors import InvalidInput

FEWEST = 3
"""Labels. Of two, one must be the answer: an image of neither would count as one of them."""
NEGATIONS = ("without ", "no ", "not ", "non-")


def check_labels(where: str, labels: Sequence[str]) -> None:
    """Refuse label sets whose answers would mean nothing.

    Raises:
        InvalidInput: fewer than three, one twice, a blank one, or a negation ("without a dog"), which CLIP reads
            as the thing itself.
    """
    if len(labels) < FEWEST:
        raise InvalidInput(
            f"{where}: zero-shot CLIP chooses among a fixed set of {FEWEST} labels or more, got "
            f"{', '.join(map(repr, labels)) or 'none'}; add what else the images may show"
        )
    for label in labels:
        if not label.strip():
            raise InvalidInput(f"{where}: a label is blank")
        if label.lower().startswith(NEGATIONS):
            raise InvalidInput(f"{where}: CLIP does not understand {label!r}; name what is seen instead")
    if twice := next((label for i, label in enumerate(labels) if label in labels[:i]), None):
        raise InvalidInput(f"{where}: the label {twice!r} stands there twice")


def check_template(template: str) -> None:
    """Refuse a template without its one place for the label.

    Raises:
        InvalidInput: not exactly one ``{}``.
    """
    if template.count("{}") != 1 or template.replace("{}", "").count("{"):
        raise InvalidInput(f"a template has one {{}} where the label goes, got {template!r}")


def probabilities(
    clip: Any, images: Sequence[Any], texts: tuple[str, ...], batch: int
) -> NDArray[np.float64]:
    """Return (n, len(texts)): the softmax over the texts of CLIP's scaled cosines; rows sum to 1.

    Args:
        clip: an `open_clip_model.OpenClip`.
        images: uint8 RGB (h, w, 3).
        texts: a description for every label.
        batch: images that the model sees at once.
    """
    scale = float(clip.model.logit_scale.detach().exp())
    seen = clip.encode_images(images, batch).astype(np.float64)
    logits = scale * seen @ _embedded(clip, texts).astype(np.float64).T
    logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True)


@functools.lru_cache(maxsize=32)
def _embedded(clip: Any, texts: tuple[str, ...]) -> NDArray[np.float32]:
    return clip.encode_texts(texts)
