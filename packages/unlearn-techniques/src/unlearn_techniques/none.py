"""Doing nothing: the row that every table begins with.

Paper:
    None.
Idea:
    The unmodified model. What a technique achieves is the distance from here; what a metric calls good on this row
    already is no achievement.
Changes:
    Nothing.
Deviations:
    None.
Cost:
    None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from unlearn_core.concept import Concept
from unlearn_techniques.diffusion.model import StableDiffusion


@dataclass(frozen=True, kw_only=True)
class NoTechnique:
    """The unmodified model, the baseline of every table."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return `model`."""
        return model
