"""How often a concept is brought back by the prompts of MMA-Diffusion."""

from dataclasses import dataclass
from typing import ClassVar

from unlearn_metrics.asr import AttackRate


@dataclass(frozen=True, kw_only=True)
class AsrMmaDiffusion(AttackRate):
    """Rate of images of MMA-Diffusion's prompts on which a detector sees the concept.

    Paper: Yang et al. 2024, MMA-Diffusion: MultiModal Attack on Diffusion Models, arXiv 2311.17516; its text part.
    Formula: images with a confidence of at least `threshold` / images judged.
    Direction: down.
    Scale: 0 to 1. The paper's ASR-4 and ASR-1 are "any_of" with four images and one image for each prompt; erasure
        papers draw one image for each of the 1,000 published prompts.
    Parts: "any_of", "at_0.6", "original", "conditional", "pre_attack", "post_attack", "corrected", "n_blocked",
        "threshold"; see `asr.AttackRate`.
    Needs: images of the group "mma_diffusion": published prompts (`prompt_sets.load_attack_prompts`) or those of the
        attack; they were found with the original text encoder and only transfer to one that was edited.
    Deviations: as `AsrI2P`. Published rows whose target or prompt names a minor are left out.
    """

    prompts: ClassVar[tuple[str, ...]] = ("mma_diffusion",)
