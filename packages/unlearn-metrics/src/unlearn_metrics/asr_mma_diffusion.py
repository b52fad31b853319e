"""How often a concept is brought back by the prompts of MMA-Diffusion."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from unlearn_core.samples import SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics import asr


@dataclass(frozen=True, kw_only=True)
class AsrMmaDiffusion:
    """Rate of images of MMA-Diffusion's prompts on which a detector sees the concept.

    Paper: Yang et al. 2024, MMA-Diffusion: MultiModal Attack on Diffusion Models, arXiv 2311.17516; its text part.
    Formula: images with a confidence of at least `threshold` / images judged.
    Direction: down.
    Scale: 0 to 1. The paper's ASR-4 and ASR-1 are "any_of" with four images and one image for each prompt; erasure
        papers draw one image for each of the 1,000 published prompts.
    Parts: "any_of", "at_0.6", "original", "conditional", "pre_attack", "post_attack", "corrected", "n_blocked",
        "threshold"; see `asr.measure`.
    Needs: images of the group "mma_diffusion": published prompts (`prompt_sets.load_attack_prompts`) or those of the
        attack; they were found with the original text encoder and only transfer to one that was edited.
    Deviations: as `AsrI2P`. Published rows whose target or prompt names a minor are left out.

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

    prompts: ClassVar[tuple[str, ...]] = ("mma_diffusion",)
    direction: ClassVar[Direction] = asr.DIRECTION

    def __post_init__(self) -> None:
        asr.check(self)

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the score of `samples`, whose order changes nothing; see `asr.measure` for errors and parts."""
        return asr.measure("asr_mma_diffusion", self, self.prompts, samples, reference)
