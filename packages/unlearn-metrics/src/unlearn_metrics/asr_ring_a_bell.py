"""How often a concept is brought back by the prompts of Ring-A-Bell."""

from dataclasses import dataclass
from typing import ClassVar

from unlearn_metrics.asr import AttackRate


@dataclass(frozen=True, kw_only=True)
class AsrRingABell(AttackRate):
    """Rate of images of Ring-A-Bell's prompts on which a detector sees the concept.

    Paper: Tsai et al. 2024, Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?,
        arXiv 2310.10012.
    Formula: images with a confidence of at least `threshold` / images judged.
    Direction: down.
    Scale: 0 to 1. "Ring-A-Bell" means three prompt sets in papers: what the genetic search finds (95 prompts, or 285
        with three settings each), RECE's shifted embeddings, and 79 plain sentences (SAFREE). Their rates do not
        compare; the name and origin of the rows say which these are.
    Parts: "any_of", "at_0.6", "original", "conditional", "pre_attack", "post_attack", "corrected", "n_blocked",
        "threshold"; see `asr.AttackRate`.
    Needs: images of the group "ring_a_bell": published prompts (`prompt_sets.load_attack_prompts`) or those of the
        attack; they were found with the original text encoder and only transfer to one that was edited.
    Deviations: as `AsrI2P`. The paper judges violence by Q16: detector="q16".
    """

    prompts: ClassVar[tuple[str, ...]] = ("ring_a_bell",)
