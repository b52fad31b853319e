"""Zero-shot CLIP as a classifier, over a fixed set of labels for every domain."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.spec import fingerprint
from unlearn_metrics import zero_shot


@dataclass(frozen=True, kw_only=True)
class ClipClassifier:
    """Names the label of a domain whose description is nearest to the image in CLIP's space.

    Raises:
        InvalidInput: no domain, fewer than three labels in one, a negation among them ("without a dog"), a
            template without ``{}`` or for a domain that is none, a batch below 1.
    """

    labels: dict[str, tuple[str, ...]]
    """Domain -> its labels, such as ``{"object": ("dog", "cat", "car")}``."""
    template: str | dict[str, str] = "a photo of a {}"
    """Description of a label; where domains need their own, domain -> description."""
    model: str = "ViT-L-14-quickgelu"
    """A name of open_clip, ``hf-hub:owner/name`` or ``local-dir:/path``."""
    pretrained: str = "openai"
    """Tag or file of the weights; no part of ``hf-hub:`` and ``local-dir:``."""
    device: str = "auto"
    batch: int = 64

    def __post_init__(self) -> None:
        if not self.labels:
            raise InvalidInput("labels: the classifier needs a domain with its labels, such as object")
        for domain, labels in self.labels.items():
            zero_shot.check_labels(f"labels of {domain!r}", labels)
            zero_shot.check_template(self._template(domain))
        if isinstance(self.template, Mapping):
            for domain in self.template:
                if domain not in self.labels:
                    raise InvalidInput("template: " + one_of("domain", domain, self.labels))
        if self.batch < 1:
            raise InvalidInput(f"a batch holds at least one image, got {self.batch}")

    @property
    def domains(self) -> Mapping[str, tuple[str, ...]]:
        """The labels of every domain."""
        return self.labels

    @functools.cached_property
    def revision(self) -> str:
        """Of the CLIP and the descriptions it chooses among; loads the CLIP."""
        return f"{self._clip.revision} {fingerprint({d: self._texts(d) for d in self.labels})[:16]}"

    def classify(self, images: Sequence[Any], domain: str) -> list[str | None]:
        """Return a label of `domain` for each uint8 RGB image (h, w, 3); None where CLIP gives NaN.

        Raises:
            InvalidInput: no such domain or model, not pictures.
            Unavailable: the weights cannot be read or downloaded.
        """
        found = self.probabilities(images, domain)
        finite = np.isfinite(found).all(axis=1)
        return [self.labels[domain][i] if ok else None for i, ok in zip(found.argmax(1), finite, strict=True)]

    def probabilities(self, images: Sequence[Any], domain: str) -> NDArray[np.float64]:
        """Return (n, labels of `domain`) for uint8 RGB images (h, w, 3); rows sum to 1. Raises as `classify`."""
        if domain not in self.labels:
            raise InvalidInput(one_of("domain", domain, self.labels))
        if not len(images):
            return np.empty((0, len(self.labels[domain])))
        return zero_shot.probabilities(self._clip, images, self._texts(domain), self.batch)

    def _template(self, domain: str) -> str:
        if isinstance(self.template, str):
            return self.template
        if domain not in self.template:
            raise InvalidInput(
                f"template: the domain {domain!r} has none; give it one, such as 'a photo of a {{}}'"
            )
        return self.template[domain]

    def _texts(self, domain: str) -> tuple[str, ...]:
        return tuple(self._template(domain).format(label) for label in self.labels[domain])

    @functools.cached_property
    def _clip(self) -> Any:
        from unlearn_metrics import open_clip_model

        return open_clip_model.load(self.model, self.pretrained, self.device)
