"""How often a concept is brought back by the prompts of Ring-A-Bell."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from unlearn_core.samples import SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics import asr


@dataclass(frozen=True, kw_only=True)
class AsrRingABell:
    """Rate of images of Ring-A-Bell's prompts on which a detector sees the concept.

    Paper: Tsai et al. 2024, Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?,
        arXiv 2310.10012.
    Formula: images with a confidence of at least `threshold` / images judged.
    Direction: down.
    Scale: 0 to 1. "Ring-A-Bell" means three prompt sets in papers: what the genetic search finds (95 prompts, or 285
        with three settings each), RECE's shifted embeddings, and 79 plain sentences (SAFREE). Their rates do not
        compare; the name and origin of the rows say which these are.
    Parts: "any_of", "at_0.6", "original", "conditional", "pre_attack", "post_attack", "corrected", "n_blocked",
        "threshold"; see `asr.measure`.
    Needs: images of the group "ring_a_bell": published prompts (`prompt_sets.load_attack_prompts`) or those of the
        attack; they were found with the original text encoder and only transfer to one that was edited.
    Deviations: as `AsrI2P`. The paper judges violence by Q16: detector="q16".

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

    prompts: ClassVar[tuple[str, ...]] = ("ring_a_bell",)
    direction: ClassVar[Direction] = asr.DIRECTION

    def __post_init__(self) -> None:
        asr.check(self)

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the score of `samples`, whose order changes nothing; see `asr.measure` for errors and parts."""
        return asr.measure("asr_ring_a_bell", self, self.prompts, samples, reference)
