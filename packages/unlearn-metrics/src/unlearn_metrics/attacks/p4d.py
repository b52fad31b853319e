"""P4D: prompts for which the model under attack sees the noise that the original sees for the attacked prompt.

Paper:
    Z.-Y. Chin, C.-M. Jiang, C.-C. Huang, P.-Y. Chen, W.-C. Chiu, "Prompting4Debugging: Red-Teaming Text-to-Image
    Diffusion Models by Finding Problematic Prompts", ICML 2024, arXiv 2309.06135.
Idea:
    Free tokens Q, ``min_Q || eps'(z_t, t, Q) - eps(z_t, t, P) ||^2``: eps' of the model under attack, eps of the
    original for the prompt P, z_t its own picture with noise. As in PEZ the tokens are continuous vectors: the loss is
    that of the nearest tokens of the vocabulary (cosine), and its gradient there moves the vectors. Every so many steps
    the prompt is written down and drawn with the model under attack; the one with the picture most like the original's
    is kept. P4D-N has N free tokens and nothing else, P4D-K one before every K tokens of P.
Model:
    All of it, with gradients through its defence, and the original, which draws the target. Given the original alone,
    the attack is a `transfer` attack; given the model under test and the original, an `adaptive` one.
Defaults:
    The official code: P4D-N with 16 tokens (presets "n" and "k"; K is 3), 3000 steps of AdamW at 0.1 with weight decay
    0.1, a look every 50, the target the best of 3 pictures by the detector, likeness by the cosine of CLIP ViT-H/14.
    Guidance 7.5 where something acts while the model draws, as there for SLD and negative prompts, in both predictions;
    else the prompts alone. "pocket" was chosen on pocket-sd's pistol, which it is measured on.
Deviations:
    The prompt is padded as the tokenizer pads, not with "!"; the picture enters the autoencoder in [-1, 1], not [0, 1];
    all random numbers are seeded. Pictures are drawn as those of the run are; the official code looks with 25 steps of
    DPM-Solver. A prompt already drawn is not drawn again. The "P4D" of UnlearnDiffAtk's tables is another attack.
Reference code:
    https://github.com/joycenerd/P4D (MIT): not read; written from a description of the method.
Cost:
    A step is a gradient through the UNet and a prediction of the original; 3000 of them and 60 pictures for each row:
    tens of minutes on one GPU for SD v1.4, and two UNets in memory.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.protocols import Progress
from unlearn_core.seeds import derive
from unlearn_metrics import verdicts
from unlearn_metrics.attacks import drawing
from unlearn_metrics.attacks.crafting import Crafted, Found, Step, at_least, craft
from unlearn_metrics.attacks.drawing import Candidates, DrawingModel, Noised, Slots
from unlearn_metrics.attacks.target import check_length
from unlearn_metrics.attacks.vocabulary import Avoid, Vocabulary


@dataclass(frozen=True, kw_only=True)
class P4D:
    """P4D: a search by gradients for prompts whose noise is the one that the original sees for the attacked prompt."""

    variant: Literal["n", "k"] = "n"
    """Free tokens alone, or between those of the prompt."""
    tokens: int = 16
    """N, of P4D-N."""
    every: int = 3
    """K, of P4D-K: tokens of the prompt behind each free one."""
    steps: int = 3000
    lr: float = 0.1
    weight_decay: float = 0.1
    look: int = 50
    """Steps between two pictures."""
    samples: int = 3
    """Pictures of the original among which the detector chooses the target."""
    guidance_scale: float = 7.5
    """Of both predictions where something acts while the model under attack draws."""
    extractor: str = "clip"
    """What says how alike pictures are."""
    extractor_settings: dict[str, Any] = field(
        default_factory=lambda: {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k"}
    )
    detector: str = "nudenet"
    """What chooses the target; not asked where there is one sample."""
    detector_settings: dict[str, Any] = field(default_factory=dict)
    avoid: Avoid = "nothing"
    sensitive: tuple[str, ...] = ()
    """Further words, or parts of words, that the free tokens may not contain."""
    whole_words: bool = False
    """Whether only tokens are found that are read as themselves when written down."""

    name: ClassVar[str] = "p4d"
    white_box: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "n": {"variant": "n"},
        "k": {"variant": "k"},
        "object": {"detector": "clip"},
        "style": {"detector": "clip"},
        "unsafe": {},
        "pocket": {
            "tokens": 5, "steps": 200, "look": 10, "samples": 1, "guidance_scale": 4.0, "whole_words": True,
            "extractor": "pocket", "extractor_settings": {}, "detector": "pocket",
        },
        "pocket-k": {
            "variant": "k", "steps": 200, "look": 10, "samples": 1, "guidance_scale": 4.0, "whole_words": True,
            "extractor": "pocket", "extractor_settings": {}, "detector": "pocket",
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        at_least(1, self, "tokens", "every", "steps", "look", "samples", "guidance_scale")
        at_least(0, self, "weight_decay")
        if self.lr <= 0:
            raise InvalidInput(f"P4D: lr is above 0, got {self.lr}")

    def check(self, about: Concept) -> None:
        """Raise what `craft` would for want of an extractor or a detector."""
        verdicts.plug(drawing.EXTRACTORS, self.extractor, self.extractor_settings)
        if self.samples > 1:
            drawing.detector_of(self.detector, self.detector_settings, about)

    def budget(self, steps: int) -> int:
        """Return how many pictures of so many steps a search for one row costs at most; see `drawing.budget`."""
        looks = self.samples + -(-self.steps // self.look)
        return drawing.budget(predictions=4 * self.steps, pictures=looks, steps=steps)

    def craft(
        self,
        model: DrawingModel,
        prompts: PromptSet,
        *,
        seed: int,
        progress: Progress | None = None,
        concept: Concept | None = None,
        original: DrawingModel | None = None,
    ) -> Crafted:
        """Return one prompt for each row of `prompts`, in the group "p4d"; see `crafting.craft`.

        The original is the model before it forgot; None: `model` itself, so that what is found has to transfer.

        Raises:
            InvalidInput: more tokens than the model reads.
            MissingExtra: the extractor's or the detector's package is not installed.
        """
        target = model if original is None else original
        if self.variant == "n":
            check_length(model, self.tokens)

        def prepare(about: Concept) -> tuple[Concept, Vocabulary, Tensor, Any]:
            self.check(about)
            words = Vocabulary.for_attack(self, model, about)
            extractor = verdicts.plug(drawing.EXTRACTORS, self.extractor, self.extractor_settings)
            return about, words, words.vectors(model), extractor

        def search(row: Prompt, prepared: Any, generator: torch.Generator, step: Step) -> Found:
            about, words, table, extractor = prepared
            picture = self._target(target, row, about, seed)
            found = Candidates.of(self, model, words, row, about)
            return self.search(target, found, picture, table, extractor, generator, step)

        return craft(
            self, model, prompts, seed=seed, concept=concept, prepare=prepare, search=search,
            steps=self.steps, progress=progress, depends=drawing.pair_fingerprint(model, target),
        )  # fmt: skip

    def slots(self, prompt: list[int], most: int) -> Slots:
        """Return where free tokens stand: N alone, or one before every K of the prompt and one behind whole K's.

        Args:
            prompt: ids without begin and end.
            most: tokens in all; of a longer prompt the end is lost.
        """
        if self.variant == "n":
            return Slots(tokens=(None,) * self.tokens)
        found: list[int | None] = []
        for i in range(len(prompt) + 1):
            found += ([None] if i % self.every == 0 else []) + prompt[i : i + 1]
        return Slots(tokens=tuple(found[:most]))

    def search(
        self,
        original: DrawingModel,
        candidates: Candidates,
        picture: Any,
        table: Tensor,
        extractor: Any,
        generator: torch.Generator,
        step: Step = lambda: None,
    ) -> Found:
        """Return the prompt whose picture is most like `picture`, with an empty text where none may be said.

        Args:
            original: whose noise for the row is to be seen.
            candidates: prompts of the model under attack.
            picture: of the original, uint8 RGB (h, w, 3).
            table: vectors (m, width) float32 of the tokens that may be found.
            extractor: what says how alike pictures are.
            generator: of all random choices.
            step: called after each.
        """
        model, words = candidates.model, candidates.words
        latents, scale = drawing.latents_of(original, picture), self.guidance_scale if model.hooks else 1.0
        with torch.no_grad():
            asked = original.encode([candidates.row.text])
        start = torch.randint(len(table), (candidates.slots.count,), generator=generator)
        vectors = table[start.to(table.device)].clone().requires_grad_()
        adam = torch.optim.AdamW([vectors], lr=self.lr, weight_decay=self.weight_decay)
        seen: set[str] = set()
        best = Found(text="", ids=(), read=())
        for n in range(self.steps):
            ids = words.ids[nearest(vectors.detach(), table).cpu()]
            t = int(torch.randint(1000, (), generator=generator))
            noised = Noised.of(original, latents, t, generator)
            with torch.no_grad():
                wanted = noised.seen_by(original, candidates.row.text, asked, scale)
            _, vectors.grad = candidates.gradient(ids, noised, wanted, scale)
            adam.step()
            if (n + 1) % self.look == 0 or n + 1 == self.steps:
                ids = words.ids[nearest(vectors.detach(), table).cpu()]
                text = candidates.text(ids)
                if text not in seen and candidates.allowed(text):
                    seen.add(text)
                    loss = 1 - likeness(extractor, candidates.draw(text), picture)
                    if best.loss is None or loss < best.loss:
                        best = candidates.found(ids, loss)
            step()
        return replace(best, evaluations=self.steps, pictures=len(seen))

    def _target(self, original: DrawingModel, row: Prompt, about: Concept, seed: int) -> Any:
        """Return the picture of the original that the detector is surest of, of the row's noise and others."""
        rows = [
            row if k == 0 else replace(row, seed=derive(seed, self.name, "target", row.id, k))
            for k in range(self.samples)
        ]
        pictures = [picture for one in rows for picture in original.generate([one])]
        if len(pictures) == 1:
            return pictures[0]
        detector = drawing.detector_of(self.detector, self.detector_settings, about)
        return pictures[int(np.argmax(drawing.presence(detector, pictures)))]


def nearest(vectors: Tensor, table: Tensor) -> Tensor:
    """Return the row (n,) of a table (m, width) that each vector (n, width) has the largest cosine with."""
    return (normalize(vectors) @ normalize(table).T).argmax(1)


def likeness(extractor: Any, one: Any, other: Any) -> float:
    """Return the cosine of the features of two pictures, in [-1, 1]."""
    a, b = np.asarray(extractor.features([one, other]), np.float64)
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))
