"""CLIP's image embeddings as features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unlearn_metrics.features import Features
from unlearn_metrics.images import Array
from unlearn_metrics.open_clip_model import OpenClip, load


@dataclass(frozen=True, kw_only=True)
class ClipImages:
    """Image embeddings of any open_clip model, normalised to length 1.

    Paper: Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision,
        arXiv 2103.00020.
    Needs: open_clip and its weights (ViT-L/14: 1.7 GB), or a folder ``local-dir:/path``.
    """

    model: str = "ViT-L-14-quickgelu"
    pretrained: str = "openai"
    resize: Literal["crop", "squash"] = "crop"
    """How an image that is not square fits: the model's own preprocessing, or scaled without cropping."""
    device: str = "auto"

    @property
    def revision(self) -> str:
        """Of architecture, weights, preprocessing and resizing; loads the model."""
        return self._clip.revision + (" squashed" if self.resize == "squash" else "")

    def features(self, images: Sequence[Array]) -> Features:
        """Return the embeddings (n, d) float32 of uint8 RGB images (h, w, 3)."""
        return self._clip.encode_images(images, squash=self.resize == "squash")

    @property
    def _clip(self) -> OpenClip:
        return load(self.model, self.pretrained, self.device)
