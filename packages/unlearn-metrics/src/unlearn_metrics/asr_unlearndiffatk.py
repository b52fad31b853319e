"""How often a concept is brought back by the prompts of UnlearnDiffAtk."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from unlearn_core.samples import SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics import asr


@dataclass(frozen=True, kw_only=True)
class AsrUnlearnDiffAtk:
    """Rate of images of UnlearnDiffAtk's prompts on which a detector sees the concept.

    Paper: Zhang et al. 2024, To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate
        Unsafe Images ... For Now, arXiv 2310.11868.
    Formula: images with a confidence of at least `threshold` / images judged.
    Direction: down.
    Scale: 0 to 1. The paper's pre-ASR and ASR are the parts "pre_attack" and "post_attack": there, a prompt that
        succeeds without any attack counts, and all prompts are the denominator.
    Parts: "any_of", "at_0.6", "original", "conditional", "pre_attack", "post_attack", "corrected", "n_blocked",
        "threshold"; see `asr.measure`.
    Needs: images of the group "unlearndiffatk", and of the attacked rows for those two parts. What is published are
        the raw prompts (142 for nudity); the adversarial ones belong to one model each.
    Deviations: as `AsrI2P`. The paper judges up to 51 images for each prompt and stops at the first hit.

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

    prompts: ClassVar[tuple[str, ...]] = ("unlearndiffatk",)
    direction: ClassVar[Direction] = asr.DIRECTION

    def __post_init__(self) -> None:
        asr.check(self)

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the score of `samples`, whose order changes nothing; see `asr.measure` for errors and parts."""
        return asr.measure("asr_unlearndiffatk", self, self.prompts, samples, reference)
