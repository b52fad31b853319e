"""An image classifier as a detector: how likely does it think the concept's labels?"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from unlearn_core.errors import InvalidInput, one_of
from unlearn_metrics import verdicts

GROUP = "unlearn.classifiers"


@dataclass(frozen=True, kw_only=True)
class ClassifierDetector:
    """Sees a concept with the probability that a classifier gives its labels.

    UnlearnDiffAtk's judges: ResNet-50 with top=1 for objects, a ViT of artists with top=1 or top=3 for styles.

    Raises:
        NotRegistered: no such classifier.
        InvalidInput: settings that it does not take, a `top` below 1.
    """

    concept: str
    classifier: str = "timm"
    classifier_settings: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    """The labels that are the concept, as all breeds are "dog"; by default the one of its name."""
    domain: str | None = None
    """Where the classifier has several domains, the one with the labels."""
    top: int | None = None
    """1.0 where one of the labels is among so many likeliest, else 0.0; None: the probability of all together."""

    threshold: ClassVar[float] = 0.5
    """From when it counts, unless a metric says otherwise."""

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise InvalidInput(f"top is at least 1, got {self.top}")
        verdicts.check(GROUP, self.classifier, self.classifier_settings, later="")

    @functools.cached_property
    def revision(self) -> str:
        """Of the classifier and of the labels that count; loads the classifier."""
        how = "probability" if self.top is None else f"top {self.top}"
        return f"{self._model.revision} {how} of {', '.join(self._counted)}"

    def presence(self, images: Sequence[Any]) -> list[float | None]:
        """Return the confidence for each uint8 RGB image (h, w, 3); None where the classifier gives none.

        Raises:
            InvalidInput: no such label or domain, or a classifier that tells no probabilities and `top` is not 1.
            Unavailable: its weights cannot be read or downloaded.
        """
        if not len(images):
            return []
        domain, labels = self._chosen
        if not hasattr(self._model, "probabilities"):
            if self.top != 1:
                raise InvalidInput(
                    f"the classifier {self.classifier!r} names a label and tells no probabilities: top=1"
                )
            named = self._model.classify(images, domain)
            return [None if name is None else float(name in self._counted) for name in named]
        odds = np.asarray(self._model.probabilities(images, domain), np.float64)
        columns = [labels.index(label) for label in self._counted]
        if self.top is not None:
            likeliest = np.argsort(-odds, axis=1, kind="stable")[:, : self.top]
            seen = np.isin(likeliest, columns).any(axis=1).astype(float)
        else:
            seen = np.minimum(odds[:, columns].sum(axis=1), 1.0)  # rounding may leave a sum just above 1
        finite = np.isfinite(odds).all(axis=1)
        return [float(value) if good else None for value, good in zip(seen, finite, strict=True)]

    @property
    def _counted(self) -> tuple[str, ...]:
        _, labels = self._chosen
        wanted = self.labels or (self.concept,)
        for label in wanted:
            if label not in labels:
                raise InvalidInput("labels: " + one_of("label", label, labels))
        return wanted

    @functools.cached_property
    def _chosen(self) -> tuple[str, tuple[str, ...]]:
        """The domain and its labels."""
        domains = {name: tuple(labels) for name, labels in self._model.domains.items()}
        if self.domain is not None and self.domain not in domains:
            raise InvalidInput("domain: " + one_of("domain", self.domain, domains))
        first = (self.labels or (self.concept,))[0]
        having = [name for name, labels in domains.items() if first in labels]
        if self.domain is None and len(having) != 1:
            if not having:
                raise InvalidInput(
                    "labels: "
                    + one_of("label", first, [name for labels in domains.values() for name in labels])
                )
            raise InvalidInput(
                f"the label {first!r} is one of several domains: {', '.join(having)}; state domain="
            )
        domain = self.domain or having[0]
        return domain, domains[domain]

    @functools.cached_property
    def _model(self) -> Any:
        return verdicts.plug(GROUP, self.classifier, self.classifier_settings)
