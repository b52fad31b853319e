"""FADE-style: Fine-grained Attenuation for Diffusion Erasure, reconstructed.

Paper:
    K. Thakral, T. Glaser, T. Hassner, M. Vatsa, R. Singh, "Fine-Grained Erasure in Text-to-Image Diffusion-based
    Foundation Models", CVPR 2025, arXiv 2503.19783. No code is public, and this follows its abstract and others' notes
    on its equations, not its full text: report results as "FADE-style".
Idea:
    From the paper: A, the K concepts nearest to the concept c, are to survive. A low-rank adapter is trained on
    pictures that the model draws of c and of A, eps' with it and eps without, ``L = l_er L_er + l_adj L_adj + l_guid
    L_guid``. Expungement, a triplet: ``L_er = max(0, mean_a |eps'(x_t, c) - eps(x_t, a)|^2 - |eps'(x_t, c) - eps(x_t,
    c)|^2 + delta)``; adjacency: ``L_adj = mean_a |eps'(x_t, a) - eps(x_t, a)|^2``; guidance: ``L_guid = |eps'(x_t, c) -
    eps(x_t, "")|^2``. The squares of eps' in L_er cancel: while it is above 0 the best prediction is ``eps("") +
    l_er / l_guid (mean_a eps(a) - eps(c))``, that of ESD with the neighbours for its empty prompt.
Changes:
    Weights of every `attn2` of the UNet (to_q, to_k, to_v, to_out); the adapter is merged at the end.
Defaults:
    K 5 is the paper's. Ours, as the paper's are not known: the weights 3, 1, 2, delta 1, rank 4, AdamW 1e-4, 500
    iterations of batch 4, uniform t, 8 pictures a word. "pocket" and "pocket-style" were chosen on pocket-sd's dog,
    weapon and sketch style.
Deviations:
    Ours: nearness is the cosine of text embeddings, the paper's that of CLIP's mean image features; it is sought among
    the concept's neighbours and `preserve`. Norms are means over the latents. x_t of L_er and L_guid is of pictures of
    c, that of L_adj of one neighbour drawn for each row.
Reference code:
    None.
Cost:
    (K + 1) 8 pictures; an iteration is K + 3 batches through the frozen model, and two with gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.attention import cross_attentions
from unlearn_techniques.diffusion.drawn import drawn_latents, noised
from unlearn_techniques.diffusion.lora import lora, merged
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.tokens import ids


@dataclass(frozen=True, kw_only=True)
class FADE:
    """FADE-style erasure: an adapter that pushes the concept away and holds its nearest neighbours."""

    neighbours: int = 5
    """K."""
    preserve: tuple[str, ...] = ()
    """Words among which neighbours are sought, besides the concept's own."""
    expungement: float = 3.0
    """l_er."""
    adjacency: float = 1.0
    """l_adj."""
    guidance: float = 2.0
    """l_guid."""
    delta: float = 1.0
    """Margin of the triplet."""
    rank: int = 4
    iterations: int = 500
    lr: float = 1e-4
    batch: int = 4
    images: int = 8
    """Pictures of each word, which the model draws itself."""
    phrases: bool = False
    """Whether the concept's other words are erased in turn with its name."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a word, of its pictures in turn."""
    sampling_steps: int = 30
    sampling_guidance: float = 7.5

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "pocket": {
            "preserve": (
                *("cat", "wolf", "fox", "bear", "lion", "tiger", "panda", "rabbit", "mouse", "frog", "pig", "cow"),
                *("monkey", "apple", "lemon", "banana", "pear", "grapes", "strawberry", "car", "bus", "rocket"),
                *("house", "heart", "star", "sun", "moon", "rose"),
            ),
            "templates": ("a {}", "a {}, blue background", "a {}, sketch style"), "phrases": True, "images": 6,
            "sampling_steps": 15, "sampling_guidance": 4.0, "batch": 2, "iterations": 100, "lr": 2e-3,
            "adjacency": 10.0, "delta": 0.01,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        counts = (self.neighbours, self.rank, self.iterations, self.batch, self.images, self.sampling_steps)
        if min(counts) < 1 or self.lr <= 0:
            raise InvalidInput(
                "FADE: neighbours, rank, iterations, batch, images and sampling_steps are at least 1, lr is above 0"
            )
        if min(self.expungement, self.adjacency, self.guidance, self.delta) < 0:
            raise InvalidInput("FADE: expungement, adjacency, guidance and delta are at least 0")
        if not self.templates or any(t.count("{}") != 1 for t in self.templates):
            raise InvalidInput(f"FADE: each template has one {{}} for the word, got {self.templates}")

    def check(self, concepts: Sequence[Concept]) -> None:
        """Check what can be checked without a model.

        Raises:
            InvalidInput: a concept without any word that could be its neighbour.
        """
        for concept in concepts:
            if not self._candidates(concept, concepts):
                raise InvalidInput(
                    f"FADE: the concept {concept.name!r} has no neighbours; name some that are to survive, as its "
                    "adjacent or in preserve=[...]"
                )

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model whose cross-attention was trained away from `concepts`, one of their words per iteration.

        Raises:
            InvalidInput: a concept without neighbours.
            UnlearnError: the loss is not finite.
        """
        self.check(concepts)
        erased, words = [], dict[str, None]()
        for concept in concepts:
            near = nearest(model, concept.name, self._candidates(concept, concepts), self.neighbours)
            own = concept.names if self.phrases else (concept.name,)
            erased += [(word, near) for word in own]
            words |= dict.fromkeys((*own, *near))
        asked = [self.templates[i % len(self.templates)] for i in range(self.images)]
        texts = [template.format(word) for word in words for template in asked]
        total = len(texts) + self.iterations
        sampler = Sampler(scheduler="dpm", steps=self.sampling_steps, guidance_scale=self.sampling_guidance)
        latents = drawn_latents(
            model, texts, sampler, seed=derive(seed, "fade", "pictures"),
            progress=(lambda done, _: progress(done, total)) if progress else None,
        )  # fmt: skip
        pictures = dict(zip(words, torch.split(latents, self.images), strict=True))

        def loss(student: StableDiffusion, iteration: int) -> Tensor:
            generator = torch.Generator().manual_seed(derive(seed, "fade", iteration))

            def draw(n: int) -> list[int]:
                return torch.randint(n, (self.batch,), generator=generator).tolist()

            word, near = erased[draw(len(erased))[0]]
            rows, others = draw(self.images), [near[i] for i in draw(len(near))]
            t = torch.tensor(draw(1000), device=model.device)
            noise = torch.randn(2, self.batch, *latents.shape[1:], generator=generator).to(latents)
            x, x_a = (
                noised(model, torch.stack([pictures[w][i] for w, i in zip(of, rows, strict=True)]), eps, t)
                for of, eps in zip(([word] * self.batch, others), noise, strict=True)
            )

            def predicted(which: StableDiffusion, x: Sequence[Tensor], of: Sequence[Sequence[str]]) -> Tensor:
                """Return the noise (blocks, n, 4, h, w) of blocks of pictures under blocks of words, in one call."""
                texts = [
                    asked[i].format(w) if w else "" for block in of for w, i in zip(block, rows, strict=True)
                ]
                with torch.no_grad():
                    start = which.trajectory(texts)
                found = which.noise(torch.cat(list(x)), t.repeat(len(of)), start)
                return torch.stack(torch.split(found, self.batch))

            of_x = [[w] * self.batch for w in (word, "", *near)]
            with torch.no_grad():
                c, empty, *neighbours, a = predicted(model, [x] * len(of_x) + [x_a], [*of_x, others])
            c_new, a_new = predicted(student, [x, x_a], [of_x[0], others])
            l_er, l_adj, l_guid = fade_terms(
                c_new, c, empty, torch.stack(neighbours), a_new, a, delta=self.delta
            )
            return self.expungement * l_er + self.adjacency * l_adj + self.guidance * l_guid

        changes = lora(
            model, adapted_modules(model.unet), loss, rank=self.rank, seed=seed, iterations=self.iterations,
            lr=self.lr, weight_decay=0.01,
            progress=(lambda done, _: progress(len(texts) + done, total)) if progress else None,
        )  # fmt: skip
        return merged(model, changes)

    def _candidates(self, concept: Concept, concepts: Sequence[Concept]) -> list[str]:
        forgotten = {word for c in concepts for word in c.names}
        return [w for w in dict.fromkeys((*concept.adjacent, *self.preserve)) if w not in forgotten]


def adapted_modules(unet: nn.Module) -> list[str]:
    """Return the names of the linear maps of every cross-attention; SD v1.4 has 64."""
    sides = ("to_q", "to_k", "to_v", "to_out.0")
    return [f"{name}.{side}" for name in cross_attentions(unet) for side in sides]


def nearest(model: StableDiffusion, word: str, candidates: Sequence[str], k: int) -> list[str]:
    """Return the `k` candidates, or all if there are fewer, whose text embeddings are nearest to that of `word`.

    The embedding is the text encoder's last hidden state at the end token, nearness the cosine.
    """
    texts = [word, *candidates]
    with torch.no_grad():
        hidden = model.encode(texts).double()
    ends = [len(ids(model, text)) - 1 for text in texts]
    found = torch.nn.functional.normalize(hidden[range(len(texts)), ends], dim=1)
    order = (found[1:] @ found[0]).argsort(descending=True, stable=True)
    return [candidates[i] for i in order[:k].tolist()]


def fade_terms(
    concept_new: Tensor,
    concept: Tensor,
    empty: Tensor,
    neighbours: Tensor,
    neighbour_new: Tensor,
    neighbour: Tensor,
    *,
    delta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return L_er, L_adj and L_guid.

    Args:
        concept_new: eps'(x_t, c), (n, 4, h, w).
        concept: eps(x_t, c).
        empty: eps(x_t, "").
        neighbours: eps(x_t, a) for each neighbour, (K, n, 4, h, w).
        neighbour_new: eps'(x_t, a) on pictures of neighbours, (n, 4, h, w).
        neighbour: eps(x_t, a) there.
        delta: the margin.
    """

    def square(one: Tensor, other: Tensor) -> Tensor:
        return (one - other).float().square().mean()

    expungement = (square(concept_new, neighbours) - square(concept_new, concept) + delta).clamp(min=0)
    return expungement, square(neighbour_new, neighbour), square(concept_new, empty)
