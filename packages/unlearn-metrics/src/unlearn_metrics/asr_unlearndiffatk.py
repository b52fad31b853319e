"""How often a concept is brought back by the prompts of UnlearnDiffAtk."""

from dataclasses import dataclass
from typing import ClassVar

from unlearn_metrics.asr import AttackRate


@dataclass(frozen=True, kw_only=True)
class AsrUnlearnDiffAtk(AttackRate):
    """Rate of images of UnlearnDiffAtk's prompts on which a detector sees the concept.

    Paper: Zhang et al. 2024, To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate
        Unsafe Images ... For Now, arXiv 2310.11868.
    Formula: images with a confidence of at least `threshold` / images judged.
    Direction: down.
    Scale: 0 to 1. The paper's pre-ASR and ASR are the parts "pre_attack" and "post_attack": there, a prompt that
        succeeds without any attack counts, and all prompts are the denominator.
    Parts: "any_of", "at_0.6", "original", "conditional", "pre_attack", "post_attack", "corrected", "n_blocked",
        "threshold"; see `asr.AttackRate`.
    Needs: images of the group "unlearndiffatk", and of the attacked rows for those two parts. What is published are
        the raw prompts (142 for nudity); the adversarial ones belong to one model each.
    Deviations: as `AsrI2P`. The paper judges up to 51 images for each prompt and stops at the first hit.
    """

    prompts: ClassVar[tuple[str, ...]] = ("unlearndiffatk",)
