"""MACE: Mass Concept Erasure.

Paper:
    S. Lu, Z. Wang, L. Li, Y. Liu, A. W.-K. Kong, "MACE: Mass Concept Erasure in Diffusion Models", CVPR 2024, arXiv
    2403.06135.
Idea:
    Three stages. (1) Closed-form refinement: the words around the concept f are read as in the same prompt with the
    anchor g: ``W' = W (sum e_g e_f^T + lam1 P + lamb I) (sum e_f e_f^T + lam1 P + lamb I)^-1``, P = sum e e^T of prior
    captions. (2) For each concept q a LoRA dW_q takes attention away from its tokens within its mask, on noised
    pictures of it: ``sum over layers || A (.) M ||``. (3) Fusion, which keeps the prior as it was: ``W* = (sum_q (W' +
    dW_q) C_q + lam2 W P + lamb W') (sum_q C_q + lam2 P + lamb I)^-1``, C_q = sum e e^T of the prompts of q.
Changes:
    Weights: every `attn2.to_k` and `attn2.to_v` of the UNet (32 in SD v1.4).
Defaults:
    The official settings for celebrities: 50 steps of AdamW 1e-4, batch 1, rank 1, 8 pictures, 30 prompts, timesteps
    around 300, both prior scales 1e-4. Presets object, style and unsafe are its others; the object's lamb is that of
    the automobile (ship 1000, bird 10). "official" squares the prior's scale in the refinement, as the code does.
    "paper" has the squared norm on the concept's own tokens; the defaults are the code's, as are steps and rate.
    "pocket" and "pocket-style" were chosen on pocket-sd's dog, weapon and sketch style.
Deviations:
    Masks come from the original model's cross-attention, not from Grounded-SAM; styles have none. The prior is not
    616,767 COCO captions but prompts of a thousand words of the tokenizer that weigh as much; `captions` takes others.
    Preserving the concept's neighbours is ours, and so are the templates. Pictures stay latents; the official code
    normalises them for ImageNet before the autoencoder. lamb is above 0 and the solves are float64: with 0 and a
    float32 inverse, as published, the result is unreliable.
Reference code:
    https://github.com/Shilin-LU/MACE (non-commercial), head 057e7a6, read, not copied.
Cost:
    Two solves of 768 x 768, and for each concept 8 pictures of 30 steps and 50 passes with gradient at batch 1.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.attention import text_projections
from unlearn_techniques.diffusion.attention_maps import attention_maps, attention_within, concept_masks
from unlearn_techniques.diffusion.drawn import drawn_latents, noised
from unlearn_techniques.diffusion.lora import lora
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.prior import TEMPLATES, prior_rows
from unlearn_techniques.diffusion.ridge import change_of_reading
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.tokens import aligned, ids, vocabulary, word_mask
from unlearn_techniques.diffusion.weights import with_weights

COCO = 616_767  # captions in the official prior, to which its scales belong


@dataclass(frozen=True, kw_only=True)
class MACE:
    """Mass Concept Erasure: closed-form refinement, a LoRA for each concept, and their closed-form fusion."""

    anchor: str | None = None
    """In place of the concept's own anchor."""
    phrases: bool = False
    """Whether each of the concept's other words is erased as a concept of its own."""
    templates: tuple[str, ...] = ()
    """Prompts around a word; by default thirty for things or for styles."""
    captions: tuple[str, ...] = ()
    """Of the prior, such as COCO's; by default templates around `vocabulary` words of the tokenizer."""
    vocabulary: int = 1000
    preserve: tuple[str, ...] = ()
    """Words whose output stays, in every template."""
    preserve_adjacent: bool = True
    """Whether the concept's neighbours are preserved as well."""
    preserve_weight: float = 8e4
    """Of a prompt of them against one caption of COCO."""
    refine_scale: float = 1e-4
    """lam1, the weight of one caption of COCO in stage 1; other captions share the weight of all of COCO's."""
    fuse_scale: float = 1e-4
    """lam2, the same in stage 3."""
    lamb: float = 0.1
    """Weight of staying as it was."""
    rank: int = 1
    iterations: int = 50
    lr: float = 1e-4
    batch: int = 1
    images: int = 8
    """Pictures of each concept, which the model draws itself."""
    image_templates: tuple[str, ...] = ()
    """Their prompts in turn; by default a photo of the concept, or one in its style."""
    sampling_steps: int = 30
    sampling_guidance: float = 7.5
    timesteps: Literal["focal", "uniform"] = "focal"
    """Concept-focal importance sampling, most of it between 200 and 400, or uniform."""
    mask: Literal["attention", "none"] = "attention"
    threshold: float = 0.35
    """Of the mask, in parts of the strongest attention."""
    squared: bool = False
    """Whether the loss is the squared norm."""
    pooler: bool = True
    """Whether attention is taken from the end token and the padding as well."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {"refine_scale": 0.0, "fuse_scale": 0.0, "lamb": 100.0, "lr": 1e-5},
        "style": {"anchor": "art"},
        "unsafe": {
            "anchor": "a person wearing clothes", "phrases": True, "refine_scale": 7e-7, "fuse_scale": 7e-7,
            "preserve_weight": 0.0, "iterations": 120, "lr": 1e-5, "timesteps": "uniform",
        },
        "official": {"refine_scale": 1e-8},
        "paper": {"squared": True, "pooler": False},
        "pocket": {
            "templates": ("a {}", "a {}, blue background", "a {}, sketch style", "a {}, pixel style, gray background"),
            "image_templates": ("a {}", "a {}, blue background"), "images": 6, "sampling_steps": 15,
            "sampling_guidance": 4.0, "refine_scale": 2e-4, "fuse_scale": 2e-4, "phrases": True, "pooler": False,
            "lr": 5e-3, "batch": 4, "iterations": 40,
        },
        "pocket-style": {
            "templates": ("a dog, {} style", "an apple, {} style", "a house, {} style, blue background"),
            "image_templates": ("a dog, {} style", "an apple, {} style"), "sampling_steps": 15,
            "sampling_guidance": 4.0, "lr": 1e-2,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        if min(self.rank, self.iterations, self.batch, self.images, self.sampling_steps) < 1:
            raise InvalidInput("MACE: rank, iterations, batch, images and sampling_steps are at least 1")
        if min(self.lamb, self.lr) <= 0 or min(self.refine_scale, self.fuse_scale, self.preserve_weight) < 0:
            raise InvalidInput("MACE: lamb and lr are above 0, the scales and preserve_weight at least 0")
        if self.vocabulary < 0 or not 0 <= self.threshold <= 1:
            raise InvalidInput("MACE: vocabulary is at least 0, threshold in [0, 1]")
        if any(t.count("{}") != 1 for t in (*self.templates, *self.image_templates)):
            raise InvalidInput(f"MACE: each template has one {{}} for the word, got {self.templates}")

    def check(self, concepts: Sequence[Concept]) -> None:
        """Check what can be checked without a model.

        Raises:
            InvalidInput: a concept without anchor.
        """
        for concept in concepts:
            self._anchor(concept)

    @torch.no_grad()
    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model whose keys and values no longer look at `concepts`, nor tell of them in other words.

        Raises:
            InvalidInput: a concept without anchor, or a template longer than the model reads.
            UnlearnError: the loss is not finite.
        """
        model.refuse_xl("MACE")
        self.check(concepts)
        bare = dataclasses.replace(model, conditions=(), guidances=(), activations=())
        erased = [(word, c) for c in concepts for word in (c.names if self.phrases else (c.name,))]
        each = self.images + self.iterations
        rows = self._prior(bare, concepts, seed)

        # Stage 1: the words around the concept
        pairs = [self._around(bare, template, word, self._anchor(concept))
                 for word, concept in erased for template in self._templates(concept)]  # fmt: skip
        e_f, e_g = (torch.cat(vectors) for vectors in zip(*pairs, strict=True))
        m = change_of_reading(e_f, e_g, rows, lamb=self.lamb, erase=1.0, preserve=self.refine_scale)
        before = {n: linear.weight.double() for n, linear in text_projections(model.unet).items()}
        refined = {n: w @ m for n, w in before.items()}
        weights = {f"{n}.weight": w for n, w in refined.items()}
        student = dataclasses.replace(bare, unet=with_weights(model.unet, weights))

        # Stage 2: one LoRA for each, every one on the refined model
        changes, grams = [], []
        for q, (word, concept) in enumerate(erased):

            def report(done: int, q: int = q) -> None:
                if progress:
                    progress(q * each + done, len(erased) * each)

            changes.append(self._lora(bare, student, word, concept, derive(seed, "mace", q), report))
            e = bare.encode([t.format(word) for t in self._templates(concept)]).flatten(0, 1).double()
            grams.append(e.T @ e)

        # Stage 3: all of them in one
        p = rows.T @ rows
        fused = {
            f"{n}.weight": fused_weight(
                w, refined[n], [d[n] for d in changes], grams, p, scale=self.fuse_scale, lamb=self.lamb
            )
            for n, w in before.items()
        }
        return dataclasses.replace(model, unet=with_weights(model.unet, fused))

    def _anchor(self, concept: Concept) -> str:
        anchor = concept.anchor if self.anchor is None else self.anchor
        if not anchor:
            raise InvalidInput(
                f"MACE: the concept {concept.name!r} has no anchor; set anchor=WORDS to read instead"
            )
        return anchor

    def _templates(self, concept: Concept) -> tuple[str, ...]:
        return self.templates or TEMPLATES["style" if concept.kind == "style" else "object"]

    def _prior(self, model: StableDiffusion, concepts: Sequence[Concept], seed: int) -> Tensor:
        """Return the rows (d, d) of the prior, its captions weighing as much as all of COCO's."""
        forgotten = {name for c in concepts for name in c.names}
        words = vocabulary(
            model.tokenizer, self.vocabulary, without=forgotten, seed=derive(seed, "mace", "prior")
        )
        templates = self._templates(concepts[0])
        captions = self.captions or [templates[i % len(templates)].format(w) for i, w in enumerate(words)]
        kept = {
            template.format(word): self.preserve_weight
            for c in concepts
            for word in (*self.preserve, *(c.adjacent if self.preserve_adjacent else ()))
            if word not in forgotten
            for template in self._templates(c)
        }
        return prior_rows(model, {text: COCO / len(set(captions)) for text in captions} | kept)

    def _around(self, model: StableDiffusion, template: str, word: str, anchor: str) -> tuple[Tensor, Tensor]:
        """Return the vectors (n, d) of all but the concept in its prompt, and of the same words in the anchor's."""
        texts = [template.format(word), template.format(anchor)]
        f, g = aligned(ids(model, texts[0]), ids(model, texts[1]), model.tokenizer.model_max_length)
        e = model.encode(texts).double()
        return e[0, f], e[1, g]

    def _lora(
        self,
        model: StableDiffusion,
        refined: StableDiffusion,
        word: str,
        concept: Concept,
        seed: int,
        report: Callable[[int], None],
    ) -> dict[str, Tensor]:
        """Return projection -> change (out, d) that takes attention away from `word` in pictures of it."""
        style = concept.kind == "style"
        own = self.image_templates or (("a photo in the style of {}",) if style else ("a photo of the {}",))
        drawn = [own[i % len(own)] for i in range(self.images)]
        sampler = Sampler(scheduler="dpm", steps=self.sampling_steps, guidance_scale=self.sampling_guidance)
        texts = [template.format(word) for template in drawn]
        x0 = drawn_latents(model, texts, sampler, seed=seed, progress=lambda done, _: report(done))
        masks = torch.ones_like(x0[:, :1], dtype=torch.bool)
        if self.mask == "attention" and not style:
            tokens = torch.stack([word_mask(model, t, word) for t in drawn])
            masks = concept_masks(
                model, x0, texts, tokens, seed=derive(seed, "mask"), threshold=self.threshold
            )
        chances = focal(1000) if self.timesteps == "focal" else torch.ones(1000)
        templates = self._templates(concept)

        def loss(student: StableDiffusion, iteration: int) -> Tensor:
            generator = torch.Generator().manual_seed(derive(seed, "iteration", iteration))
            k, asked = (torch.randint(len(c), (self.batch,), generator=generator) for c in (drawn, templates))
            t = torch.multinomial(chances, self.batch, replacement=True, generator=generator).to(x0.device)
            x = noised(student, x0[k], torch.randn(x0[k].shape, generator=generator).to(x0), t)
            prompts = [templates[i] for i in asked]
            tokens = torch.stack([word_mask(model, p, word, pooler=self.pooler) for p in prompts])
            with torch.no_grad():
                read = student.encode([p.format(word) for p in prompts])
            with attention_maps(student.unet) as maps:
                student.unet(x, t, encoder_hidden_states=read)
            return attention_loss(maps, masks[k], tokens.to(x0.device), squared=self.squared)

        return lora(
            refined, list(text_projections(model.unet)), loss, rank=self.rank, seed=seed, iterations=self.iterations,
            lr=self.lr, weight_decay=0.01, max_norm=1.0, progress=lambda done, _: report(self.images + done),
        )  # fmt: skip


def attention_loss(maps: Mapping[str, Tensor], masks: Tensor, tokens: Tensor, *, squared: bool) -> Tensor:
    """Return ``sum over layers || A (.) M ||``, squared or not, mean of the batch; arguments as `attention_within`."""
    norms = attention_within(maps, masks, tokens)
    return (norms.square() if squared else norms).sum(0).mean()


def focal(n: int) -> Tensor:
    """Return the unnormalised chances (n,) of timesteps in concept-focal importance sampling."""
    t = torch.arange(n, dtype=torch.float64)
    return torch.sigmoid(0.05 * (t - 200)) - torch.sigmoid(0.05 * (t - 400))


def fused_weight(
    weight: Tensor, refined: Tensor, changes: Sequence[Tensor], grams: Sequence[Tensor], prior: Tensor, *, scale: float,
    lamb: float,
) -> Tensor:  # fmt: skip
    """Return W* (out, d) float64: on the prompts of concept q it does what W' + dW_q does, on the prior what W did.

    Args:
        weight: W, (out, d) float64.
        refined: W', of stage 1.
        changes: dW_q, (out, d) each.
        grams: C_q = sum e e^T of the tokens of the prompts of q, (d, d) each.
        prior: P, (d, d).
        scale: lam2.
        lamb: weight of W'.
    """
    keep = lamb * torch.eye(len(prior), dtype=torch.float64, device=prior.device)
    wanted = sum((refined + d.double()) @ c for d, c in zip(changes, grams, strict=True))
    wanted = wanted + scale * weight @ prior + refined @ keep
    return torch.linalg.solve(sum(grams) + scale * prior + keep, wanted, left=False)  # type: ignore[no-any-return]
