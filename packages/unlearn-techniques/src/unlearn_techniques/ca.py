"""CA: Ablating Concepts, also known as Concept Ablation.

Paper:
    N. Kumari, B. Zhang, S.-Y. Wang, E. Shechtman, R. Zhang, J.-Y. Zhu, "Ablating Concepts in Text-to-Image Diffusion
    Models", ICCV 2023, arXiv 2303.13516.
Idea:
    Where the prompt c* says the concept, predict what an anchor's prompt c gives. On x_t, the noised picture x of the
    anchor that the model drew itself for c, the model-based loss is
    ``|| sg(eps'(x_t, t, c)) - eps'(x_t, t, c*) ||^2``, both from the network that is trained; the noise-based one is
    ``|| eps - eps'(x_t, t, c*) ||^2``. Optional: the anchor's own training loss ``|| eps - eps'(x_t, t, c) ||^2``.
Changes:
    Weights: keys and values of the cross-attention; or all attention; the whole UNet; the concept's token embeddings.
Defaults:
    The paper's: 1000 pictures of 200 prompts, 100 iterations of batch 8 (4 on each of 2 GPUs), AdamW 1.6e-5, decay
    0.01, gradient norm 1. `lr` is what the optimiser takes. The official codes print 2e-6 and multiply it by batch,
    GPUs and, with prior preservation, 2: 2e-6 itself erases almost nothing. Presets, learning rates multiplied out:
    object, style and "memorized" are the paper's, unsafe is the README's of 2024, "one-gpu" is its advice for one GPU.
    "pocket" and "pocket-style" were chosen on pocket-sd's dog, weapon and sketch style.
Deviations:
    Prompts are a grid of templates, not ChatGPT's or LAION's, and of "people": no prompt about minors. Pictures are
    drawn by DPM-Solver++ as in the diffusers code (CompVis: DDIM, 200 steps, eta 1) and kept as latents, so without
    `augment` there is no mirroring. Resizing is bicubic, not Lanczos. Without SSCD the preset "memorized" does not sort
    out copies. Prompts of styles are the CompVis code's, with which the paper was made; preset "diffusers" has the
    other's, where one branch is written twice. Prior weight: 1 as in the diffusers code, in CompVis's 0.2.
Reference code:
    https://github.com/nupurkmr9/concept-ablation (MIT), head c11fb1b, read, not copied.
Cost:
    1000 pictures of 25 guided steps are 50,000 predictions, most of it. An iteration is two passes over the batch and
    one backward pass: about 5 minutes for 100 on two GPUs (paper).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.minors import sexual_and_minor
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.attention import parameter_group, text_projections
from unlearn_techniques.diffusion.captions import captions_for
from unlearn_techniques.diffusion.detached import FirstTokenDetached, only_rows
from unlearn_techniques.diffusion.drawn import drawn_latents, noised_anywhere
from unlearn_techniques.diffusion.finetune import finetune
from unlearn_techniques.diffusion.model import StableDiffusion, Trajectory
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.zoom import masked_error, zoomed

Prompts = list[tuple[str, list[str]]]


@dataclass(frozen=True, kw_only=True)
class CA:
    """Ablating Concepts: fine-tunes the concept's prompts towards an anchor's."""

    loss: Literal["model-based", "noise-based"] = "model-based"
    parameter_group: Literal["cross-attn", "attn", "full-weight", "embedding"] = "cross-attn"
    anchor: str | None = None
    """In place of the concept's own anchor."""
    phrases: bool = False
    """Whether the concept's other words are ablated in turn with its name."""
    iterations: int = 100
    lr: float = 1.6e-5
    """As the optimiser takes it: the official flag times batch times GPUs, times 2 with prior preservation."""
    batch: int = 8
    prior_weight: float | None = None
    """Of prior preservation; by default 1 where a word of the concept holds its anchor (grumpy cat, cat), else 0."""
    augment: bool = False
    """Whether pictures are shown at other sizes, with prompts that say so (`diffusion.zoom`)."""
    images: int = 1000
    """Pictures of the anchor, for each concept."""
    captions: tuple[str, ...] = ()
    """Prompts of these, {} for the anchor; by default 200 for the concept's kind (`diffusion.captions`)."""
    target_prompts: tuple[str, ...] | None = None
    """Prompts of the concept, of {word} and the anchor's {caption}; (): the word takes the anchor's place in it."""
    sampling_steps: int = 25
    sampling_guidance: float = 6.0
    detach_first_token: bool = True
    """No gradient through keys and values of the first token, which is the same in every prompt: both codes."""
    weight_decay: float = 0.01
    """Not of the token embeddings: it would change words that are not the concept's."""
    max_norm: float = 1.0

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {"augment": True},
        "style": {"anchor": "painting"},
        "unsafe": {
            "anchor": "people", "parameter_group": "attn", "lr": 6.4e-5, "iterations": 400, "prior_weight": 1.0,
            "phrases": True,
        },
        "memorized": {
            "parameter_group": "full-weight", "lr": 4e-6, "iterations": 400, "batch": 4, "prior_weight": 1.0,
            "captions": ("{}",),
        },
        "one-gpu": {"batch": 4, "lr": 8e-6, "iterations": 200},
        "diffusers": {
            "anchor": "painting",
            "target_prompts": (
                "{caption}, in the style of {word}", "in {word}'s style, {caption}", "in {word}'s style, {caption}",
            ),
        },
        "pocket": {
            "phrases": True, "prior_weight": 1.0, "lr": 3e-4, "iterations": 150, "target_prompts": (),
            "captions": ("a {}", "a {}, blue background", "a {}, sketch style"),
            "images": 64, "sampling_steps": 10, "sampling_guidance": 4.0,
        },
        "pocket-style": {
            "phrases": True, "prior_weight": 1.0, "lr": 3e-4, "iterations": 150, "target_prompts": (),
            "captions": ("a dog, {} style", "an apple, {} style", "a house, {} style"),
            "images": 64, "sampling_steps": 10, "sampling_guidance": 4.0,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        if (
            min(self.iterations, self.batch, self.images, self.sampling_steps) < 1
            or min(self.lr, self.max_norm) <= 0
        ):
            raise InvalidInput(
                "CA: iterations, batch, images and sampling_steps are at least 1, lr and max_norm above 0; got "
                f"{self.iterations}, {self.batch}, {self.images}, {self.sampling_steps}, {self.lr}, {self.max_norm}"
            )
        if min(self.prior_weight or 0, self.weight_decay) < 0:
            raise InvalidInput(
                f"CA: prior_weight and weight_decay are at least 0, got {self.prior_weight}, {self.weight_decay}"
            )
        if any(t.count("{}") != 1 for t in self.captions):
            raise InvalidInput(f"CA: each of captions has one {{}} for the anchor, got {self.captions}")
        if any("{word}" not in t or "{caption}" not in t for t in self.target_prompts or ()):
            raise InvalidInput(
                f"CA: each of target_prompts has {{word}} and {{caption}}, got {self.target_prompts}"
            )

    def check(self, concepts: Sequence[Concept]) -> None:
        """Check what can be checked without a model.

        Raises:
            InvalidInput: a concept without anchor, or a training prompt that is sexual and mentions a minor.
        """
        for concept in concepts:
            for text in (text for _, targets in self._prompts(concept) for text in targets):
                if sexual_and_minor(text):
                    raise InvalidInput(f"CA: a training prompt is sexual and mentions a minor: {text!r}")

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model that draws the anchors where a text says one of `concepts`.

        Raises:
            InvalidInput: as `check`, or a UNet whose projections are fused or adapted.
            UnlearnError: the loss is not finite.
        """
        self.check(concepts)
        total = len(concepts) * self.images + self.iterations
        prior = self._prior(concepts)
        part, names = self._parameters(model)
        first = FirstTokenDetached(modules=tuple(text_projections(model.unet)))
        ids = [
            i
            for c in concepts
            for w in self._words(c)
            for i in model.tokenizer(w, add_special_tokens=False).input_ids
        ]
        prompts: Prompts = []
        pictures = []
        for i, concept in enumerate(concepts):
            own = self._prompts(concept)
            own = [own[k % len(own)] for k in range(self.images)]
            prompts += own
            pictures.append(
                drawn_latents(
                    model, [c for c, _ in own],
                    Sampler(scheduler="dpm", steps=self.sampling_steps, guidance_scale=self.sampling_guidance),
                    seed=derive(seed, "ca", "pictures", i),
                    # Pictures of people are drawn away from what is not wanted of them (diffusers code).
                    negative=", ".join(self._words(concept)) if concept.kind == "unsafe" else "",
                    progress=_from(i * self.images, total, progress),
                )
            )  # fmt: skip
        latents = torch.cat(pictures)

        def read(student: StableDiffusion, texts: Sequence[str]) -> Trajectory:
            if part == "unet":
                with torch.no_grad():
                    return student.trajectory(texts)
            with only_rows(student.text_encoder.get_input_embeddings(), ids):
                return student.trajectory(texts)

        def loss(student: StableDiffusion, iteration: int) -> Tensor:
            generator = torch.Generator().manual_seed(derive(seed, "ca", iteration))
            if self.detach_first_token:
                student = dataclasses.replace(student, activations=(*student.activations, first))
            rows = torch.randint(len(latents), (self.batch,), generator=generator)
            x, anchors = latents[rows], [prompts[k][0] for k in rows]
            targets = [_one(prompts[k][1], generator) for k in rows]
            mask = torch.ones_like(x[:, :1])
            if self.augment:
                x, mask, targets = zoomed(model, x, targets, generator)
            x_t, t, wanted = noised_anywhere(model, x, generator)
            if self.loss == "model-based":
                with torch.no_grad():
                    wanted = student.noise(x_t, t, student.trajectory(anchors))
            value = masked_error(student.noise(x_t, t, read(student, targets)), wanted, mask)
            if prior:
                rows = torch.randint(len(latents), (self.batch,), generator=generator)
                x_t, t, wanted = noised_anywhere(model, latents[rows], generator)
                predicted = student.noise(x_t, t, read(student, [prompts[k][0] for k in rows]))
                value = value + prior * (predicted - wanted).float().square().mean()
            return value

        return finetune(
            model, names, loss, iterations=self.iterations, lr=self.lr, part=part, max_norm=self.max_norm,
            # A decay would reach the words that are not the concept's.
            weight_decay=self.weight_decay if part == "unet" else 0.0,
            progress=_from(len(latents), total, progress),
        )  # fmt: skip

    def _words(self, concept: Concept) -> tuple[str, ...]:
        return concept.names if self.phrases else (concept.name,)

    def _anchor(self, concept: Concept) -> str:
        anchor = concept.anchor if self.anchor is None else self.anchor
        if not anchor:
            raise InvalidInput(
                f"CA: the concept {concept.name!r} has no anchor; set anchor=WORD, what it is to become, such as "
                "painting for a painter"
            )
        return anchor

    def _prior(self, concepts: Sequence[Concept]) -> float:
        if self.prior_weight is not None:
            return self.prior_weight
        return float(
            any(self._anchor(c).casefold() in w.casefold() for c in concepts for w in self._words(c))
        )

    def _prompts(self, concept: Concept) -> Prompts:
        """Return each prompt c of the anchor with its prompts c* of the concept."""
        anchor, words, found = self._anchor(concept), self._words(concept), []
        own, forms = captions_for(concept.kind)
        forms = forms if self.target_prompts is None else self.target_prompts
        for caption in self.captions or own:
            c = caption.format(anchor)
            around = [form.format(caption=c, word=word) for form in forms for word in words]
            found.append((c, around or [caption.format(word) for word in words]))
        return found

    def _parameters(self, model: StableDiffusion) -> tuple[Literal["unet", "text_encoder"], list[str]]:
        if self.parameter_group == "embedding":
            table = model.text_encoder.get_input_embeddings().weight
            return "text_encoder", [n for n, p in model.text_encoder.named_parameters() if p is table]
        if self.parameter_group == "attn":
            attention = {"to_q", "to_k", "to_v", "to_out"}
            return "unet", [n for n in parameter_group(model.unet, "full") if attention & set(n.split("."))]
        group = "full" if self.parameter_group == "full-weight" else "esd-x-strict"
        return "unet", parameter_group(model.unet, group)


def _from(before: int, total: int, progress: Any) -> Any:
    return progress and (lambda done, _: progress(before + done, total))


def _one(options: Sequence[str], generator: torch.Generator) -> str:
    return options[int(torch.randint(len(options), (), generator=generator))]
