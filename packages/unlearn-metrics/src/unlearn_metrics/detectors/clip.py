"""Zero-shot CLIP as a detector: is the concept the likeliest of a fixed set of labels?"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from unlearn_core.errors import InvalidInput
from unlearn_core.spec import fingerprint
from unlearn_metrics import zero_shot


@dataclass(frozen=True, kw_only=True)
class ClipDetector:
    """Sees a concept with the probability that CLIP gives it among fixed other labels.

    The number depends on those labels: results compare only under equal ones, which `revision` tells.

    Raises:
        InvalidInput: fewer than two other labels, a negation among them ("without a dog"), the concept itself,
            a template without ``{}``, a batch below 1.
    """

    concept: str
    against: tuple[str, ...]
    """What else the images may show."""
    template: str = "a photo of a {}"
    model: str = "ViT-L-14-quickgelu"
    """A name of open_clip, ``hf-hub:owner/name`` or ``local-dir:/path``."""
    pretrained: str = "openai"
    """Tag or file of the weights; no part of ``hf-hub:`` and ``local-dir:``."""
    device: str = "auto"
    batch: int = 64

    threshold: ClassVar[float] = 0.5
    """From when it counts, unless a metric says otherwise: likelier than all others together."""

    def __post_init__(self) -> None:
        zero_shot.check_labels("against", (self.concept, *self.against))
        zero_shot.check_template(self.template)
        if self.batch < 1:
            raise InvalidInput(f"a batch holds at least one image, got {self.batch}")

    @functools.cached_property
    def revision(self) -> str:
        """Of the CLIP and the descriptions it chooses among; loads the CLIP."""
        return f"{self._clip.revision} {fingerprint(self._texts)[:16]}"

    def presence(self, images: Sequence[Any]) -> list[float | None]:
        """Return the probability of the concept for each uint8 RGB image (h, w, 3); None where it is NaN.

        Raises:
            InvalidInput: not pictures, no such model.
            Unavailable: the weights cannot be read or downloaded.
        """
        if not len(images):
            return []
        found = zero_shot.probabilities(self._clip, images, self._texts, self.batch)[:, 0]
        return [float(p) if math.isfinite(p) else None for p in found]

    @property
    def _texts(self) -> tuple[str, ...]:
        return tuple(self.template.format(label) for label in (self.concept, *self.against))

    @functools.cached_property
    def _clip(self) -> Any:
        from unlearn_metrics import open_clip_model

        return open_clip_model.load(self.model, self.pretrained, self.device)
