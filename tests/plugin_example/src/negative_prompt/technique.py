"""Negative prompt: every picture is drawn away from the concept.

Paper:
    N. Liu, S. Li, Y. Du, A. Torralba, J. Tenenbaum, "Compositional Visual Generation with Composable Diffusion Models",
    ECCV 2022, arXiv 2206.01714: the operator NOT.
Idea:
    Take the concept's own direction out of the guidance: ``p - u`` becomes ``(p - u) - strength (c - u)``, where p, u
    and c are the predictions for the prompt, the empty prompt and the concept.
Changes:
    The guidance of each step. No weights.
Defaults:
    strength 1, the paper's NOT. The preset for pocket-sd was chosen on its dog.
Deviations:
    None known.
Cost:
    Three predictions a step in place of two. No training.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.steps import Predictions, Step


@dataclass(frozen=True, kw_only=True)
class NegativePrompt:
    """Negative prompt: every picture is drawn away from the concept."""

    strength: float = 1.0
    """How much of the concept's direction is taken out; 0 leaves the model as it is."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"pocket": {"strength": 0.8}}

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise InvalidInput(f"NegativePrompt: strength is at least 0, got {self.strength}")

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model that draws away from `concepts`; `model` stays as it was."""
        text = ", ".join(word for concept in concepts for word in concept.names)
        away = Away(texts=(text,), strength=self.strength)
        return dataclasses.replace(model, guidances=(*model.guidances, away))


@dataclass(frozen=True, kw_only=True)
class Away:
    """What acts at each step. Its fields are part of the model's fingerprint."""

    texts: tuple[str, ...]
    """Predicted in the same call of the UNet as the prompt."""
    strength: float

    def start(self) -> Callable[[Tensor, Predictions, Step], Tensor]:
        """Return what changes the direction of one trajectory's guidance, (n, 4, h, w)."""

        def step(direction: Tensor, seen: Predictions, where: Step) -> Tensor:
            (concept,) = seen.extra
            return direction - self.strength * (concept - seen.empty)

        return step
