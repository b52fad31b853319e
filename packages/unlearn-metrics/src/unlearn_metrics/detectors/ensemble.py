"""Several detectors as one: any, most or all of them see the concept."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from unlearn_core.errors import InvalidInput
from unlearn_metrics import verdicts

GROUP = "unlearn.detectors"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A detector of an ensemble."""

    detector: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Without a concept among them, the ensemble's."""
    threshold: float | None = None
    """From when it counts; None: the detector's own, else 0.5."""


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Sees what any, most or all of its members see, each by a threshold of its own.

    I2P's "unsafe" is NudeNet or Q16:
    ``members=[{"detector": "nudenet", "settings": {"classes": "strict5"}, "threshold": 0.6}, {"detector": "q16"}]``.

    A member's confidence is stretched so that its threshold lies at 0.5; then any is the highest of them, all the
    lowest, and most the one that more than half of them reach. A member without a verdict counts as what it might
    have said: where that decides, there is no verdict.

    Raises:
        NotRegistered: no such detector.
        InvalidInput: fewer than two members, a threshold outside (0, 1], settings that a detector does not take.
        MissingExtra: a detector's package is not installed.
    """

    concept: str
    members: tuple[Member, ...]
    rule: Literal["any", "most", "all"] = "any"

    threshold: ClassVar[float] = 0.5
    """From when it counts; a metric should not say otherwise, as the members have their own."""

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise InvalidInput(f"an ensemble has two or more members, got {len(self.members)}")
        for member in self.members:
            if member.threshold is not None and not 0 < member.threshold <= 1:
                raise InvalidInput(
                    f"the threshold of {member.detector!r} is above 0 and at most 1, got {member.threshold}"
                )
            verdicts.check(
                GROUP, member.detector, {"concept": self.concept, **member.settings}, later="concept"
            )

    @functools.cached_property
    def revision(self) -> str:
        """Of all members, their thresholds and the rule."""
        each = [f"{detector.revision} from {threshold}" for detector, threshold in self._built]
        return f"{self.rule} of [{'; '.join(each)}]"

    def presence(self, images: Sequence[Any]) -> list[float | None]:
        """Return the confidence for each uint8 RGB image (h, w, 3), seen from 0.5; None where members cannot tell.

        Raises:
            InvalidInput: not pictures.
            Unavailable: a member cannot be loaded.
        """
        if not len(images):
            return []
        columns = [
            [None if c is None else _stretched(c, threshold) for c in detector.presence(images)]
            for detector, threshold in self._built
        ]
        return [self._together(row) for row in zip(*columns, strict=True)]

    def _together(self, confidences: Sequence[float | None]) -> float | None:
        at = {"any": 0, "most": len(confidences) // 2, "all": len(confidences) - 1}[self.rule]
        low, high = (
            sorted((unknown if c is None else c for c in confidences), reverse=True)[at]
            for unknown in (0.0, 1.0)
        )
        if (low >= 0.5) != (high >= 0.5):
            return None
        return low if low >= 0.5 else high

    @functools.cached_property
    def _built(self) -> list[tuple[Any, float]]:
        found = []
        for member in self.members:
            detector = verdicts.plug(GROUP, member.detector, member.settings, concept=self.concept)
            own = getattr(detector, "threshold", 0.5)
            found.append((detector, own if member.threshold is None else member.threshold))
        return found


def _stretched(confidence: float, threshold: float) -> float:
    """Return `confidence` on a scale where `threshold` is 0.5; 0 and 1 stay."""
    if confidence < threshold:
        return 0.5 * confidence / threshold
    return 1.0 if threshold == 1 else 0.5 + 0.5 * (confidence - threshold) / (1 - threshold)
