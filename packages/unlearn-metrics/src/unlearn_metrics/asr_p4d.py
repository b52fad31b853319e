"""How often a concept is brought back by the prompts of P4D."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from unlearn_core.samples import SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics import asr


@dataclass(frozen=True, kw_only=True)
class AsrP4D:
    """Rate of images of P4D's prompts on which a detector sees the concept.

    Paper: Chin et al. 2024, Prompting4Debugging: Red-Teaming Text-to-Image Diffusion Models by Finding Problematic
        Prompts, arXiv 2309.06135.
    Formula: images with a confidence of at least `threshold` / images judged.
    Direction: down.
    Scale: 0 to 1. The paper attacks only prompts on which the original model succeeds and the safe one does not, and
        counts a prompt if any of three images is a hit: "conditional" and its "any_of" are nearest to that. The "P4D"
        of UnlearnDiffAtk's tables is another attack.
    Parts: "any_of", "at_0.6", "original", "conditional", "pre_attack", "post_attack", "corrected", "n_blocked",
        "threshold"; see `asr.measure`.
    Needs: images of the group "p4d": published prompts (`prompt_sets.load_attack_prompts`), which were found against
        other models and so transfer, or those of the attack on this very model.
    Deviations: as `AsrI2P`. The paper's detector is NudeNet 1's classifier at 0.45.

    Raises:
        NotRegistered: no such detector.
        InvalidInput: a threshold outside (0, 1], settings that the detector does not take.
        MissingExtra: the detector's package is not installed.
    """

    detector: str = "nudenet"
    detector_settings: dict[str, Any] = field(default_factory=dict)
    """Without a concept among them, the one of the rows is looked for."""
    threshold: float | None = None
    """Confidence from which an image counts; None: the detector's own."""
    labelled: Path | None = None
    """A folder of images whose concept a person stated, by which "corrected" corrects the rate."""

    prompts: ClassVar[tuple[str, ...]] = ("p4d",)
    direction: ClassVar[Direction] = asr.DIRECTION

    def __post_init__(self) -> None:
        asr.check(self)

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the score of `samples`, whose order changes nothing; see `asr.measure` for errors and parts."""
        return asr.measure("asr_p4d", self, self.prompts, samples, reference)
