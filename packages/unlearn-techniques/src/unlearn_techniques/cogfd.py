"""CoGFD: Concept Graph-based high-level Feature Decoupling.

Paper:
    H. Nie, Q. Yao, Y. Liu, Z. Wang, Y. Bian, "Erasing Concept Combination from Text-to-Image Diffusion Model",
    ICLR 2025 (OpenReview OBjF5I4PWg).
Idea:
    Push a combination of concepts away from what the model made of it, and hold its parts. A graph (`concept_graph`)
    gives the texts D_- of the combination and D_+ of its parts. With x_t a noised picture of the combination and
    l_-, l_+ the mean of ``(eps'(x_t, t, m) - eps(x_t, t, m))^2`` over the texts m of each,
    ``L = 0.1 exp(-l_-) + exp(l_+)``. Only large t are trained, where the high-level features are decided.
Changes:
    Weights: queries, keys and output projections of the cross-attention, not its values; or the whole UNet.
Defaults:
    The official run.sh: 130 iterations of up to 20 texts, AdamW 2.5e-5, decay 0.01, gradient norm 1, five pictures of
    100 steps at guidance 9. t is drawn from 900 to 999; preset "official" has their 990 to 999, which a sampler of 50
    steps never visits (its first t is 981): draw with 100 steps of PNDM (991) after it, as its authors do.
    "pocket" and "pocket-style" were chosen on pocket-sd's dog, weapon and sketch style.
Deviations:
    At the start eps' = eps and every gradient is 0. `start="perturbed"` adds a little noise to the trained weights
    first; "decay" leaves it to weight decay, as the official code does (with the rounding of its half precision).
    A batch holds both kinds of texts: theirs is NaN without one of them. `token_mask="official"` adds their 0/1 mask
    to the logits of the attention, in training only; the default leaves the attention as it is. Without a graph one
    is drafted from the concept, not asked of GPT-4o. A single concept is no combination: its neighbours are held in
    place of parts.
Reference code:
    https://github.com/Sirius11311/CoGFD-ICLR25 (no licence), head 923e9be, read, not copied. The base is SD v1.5 there.
Cost:
    An iteration is a pass of two UNets over the batch, one with its gradient: minutes on a GPU of 24 GB for 130 of 20.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.seeds import derive
from unlearn_techniques.concept_graph import draft_graph, joined, plain, read_graph, texts_of
from unlearn_techniques.diffusion.attention import cross_attentions, parameter_group
from unlearn_techniques.diffusion.drawn import drawn_latents, noised_anywhere
from unlearn_techniques.diffusion.finetune import finetune
from unlearn_techniques.diffusion.model import StableDiffusion, Trajectory
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.text_mask import added_to_logits, text_mask
from unlearn_techniques.diffusion.weights import with_weights

__all__ = ["CoGFD", "draft_graph"]


@dataclass(frozen=True, kw_only=True)
class CoGFD:
    """Concept Graph-based Feature Decoupling: pushes a combination away, and holds its parts."""

    graph: str | dict[str, Any] | None = None
    """A graph, or the file of one, whose content takes its place here; by default drafted from the concepts."""
    train: Literal["cross-attention", "full"] = "cross-attention"
    iterations: int = 130
    lr: float = 2.5e-5
    batch: int = 20
    """Texts per iteration, of both kinds as in the graph; all of them where there are fewer."""
    t_start: int = 900
    t_end: int = 1000
    """t is drawn from t_start up to t_end - 1."""
    erase_weight: float = 0.1
    start: Literal["perturbed", "decay"] = "perturbed"
    perturbation: float = 1e-3
    """Standard deviation of the noise on the weights at the start, in those of each tensor."""
    weight_decay: float = 0.01
    max_norm: float = 1.0
    token_mask: Literal["none", "official"] = "none"
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a text, one drawn each time; the official code trains on the bare text."""
    picture_templates: tuple[str, ...] = ("an image of {}",)
    images: int = 5
    """Pictures of each combination; all texts of the graph share them."""
    sampling_steps: int = 100
    sampling_guidance: float = 9.0

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "official": {"t_start": 990, "start": "decay", "token_mask": "official"},
        "pocket": {
            "t_start": 0, "lr": 3e-4, "images": 24, "sampling_steps": 10, "sampling_guidance": 4.0,
            "templates": ("a {}", "a {}, blue background", "a {}, sketch style"), "picture_templates": ("a {}",),
        },
        "pocket-style": {
            "t_start": 0, "lr": 3e-4, "images": 24, "sampling_steps": 10, "sampling_guidance": 4.0,
            "templates": ("a dog, {} style", "an apple, {} style", "a house, {} style"),
            "picture_templates": ("a dog, {} style", "an apple, {} style", "a house, {} style"),
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        if min(self.iterations, self.images, self.sampling_steps) < 1 or self.batch < 2 or self.lr <= 0:
            raise InvalidInput(
                "CoGFD: iterations, images and sampling_steps are at least 1, batch at least 2, lr above 0; got "
                f"{self.iterations}, {self.images}, {self.sampling_steps}, {self.batch}, {self.lr}"
            )
        if not 0 <= self.t_start < self.t_end <= 1000:
            raise InvalidInput(f"CoGFD: 0 <= t_start < t_end <= 1000, got {self.t_start} and {self.t_end}")
        if self.start == "decay" and not self.weight_decay:
            raise InvalidInput(
                "CoGFD: start=decay needs weight_decay above 0: nothing else moves the weights"
            )
        if min(self.weight_decay, self.erase_weight) < 0 or min(self.max_norm, self.perturbation) <= 0:
            raise InvalidInput(
                "CoGFD: weight_decay and erase_weight are at least 0, max_norm and perturbation above 0; got "
                f"{self.weight_decay}, {self.erase_weight}, {self.max_norm}, {self.perturbation}"
            )
        for name in ("templates", "picture_templates"):
            if not (given := getattr(self, name)) or any(t.count("{}") != 1 for t in given):
                raise InvalidInput(f"CoGFD: each of {name} has one {{}} for the text, got {given}")
        if self.graph is not None:
            # The content, not the path: a file that is edited is another setting.
            object.__setattr__(self, "graph", read_graph(self.graph))

    def check(self, concepts: Sequence[Concept]) -> None:
        """Check what can be checked without a model.

        Raises:
            InvalidInput: a concept that the graph does not have, or of which none can be drafted.
        """
        self._graph(concepts)

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model that was pushed away from the combinations of the graph of `concepts`.

        Raises:
            InvalidInput: as `check`, or a UNet whose projections are fused or adapted.
            UnlearnError: the loss is not finite.
        """
        graph = self._graph(concepts)
        forgotten, kept = texts_of(graph)
        names = self._names(model.unet)
        pictures = [
            self.picture_templates[k % len(self.picture_templates)].format(text)
            for text in graph
            for k in range(self.images)
        ]
        total = len(pictures) + self.iterations
        latents = drawn_latents(
            model, pictures, Sampler(steps=self.sampling_steps, guidance_scale=self.sampling_guidance),
            seed=derive(seed, "cogfd", "pictures"), progress=progress and (lambda done, _: progress(done, total)),
        )  # fmt: skip
        n = min(self.batch, len(forgotten) + len(kept))
        first = min(max(1, round(n * len(forgotten) / (len(forgotten) + len(kept)))), n - 1)

        def loss(student: StableDiffusion, iteration: int) -> Tensor:
            generator = torch.Generator().manual_seed(derive(seed, "cogfd", iteration))
            chosen = [*_some(forgotten, first, generator), *_some(kept, n - first, generator)]
            texts = [
                self.templates[int(torch.randint(len(self.templates), (), generator=generator))].format(m)
                for m in chosen
            ]
            rows = torch.randint(len(latents), (len(texts),), generator=generator)
            x_t, t, _ = noised_anywhere(model, latents[rows], generator, self.t_start, self.t_end)
            mask = text_mask(model, texts) if self.token_mask == "official" else None
            with torch.no_grad(), added_to_logits(model.unet, mask):
                old = model.noise(x_t, t, _read(model, texts, mask))
            with torch.no_grad():
                start = _read(student, texts, mask)
            with added_to_logits(student.unet, mask):
                new = student.noise(x_t, t, start)
            return cogfd_loss(new, old, first, self.erase_weight)

        return finetune(
            self._begin(model, names, seed), names, loss, iterations=self.iterations, lr=self.lr,
            weight_decay=self.weight_decay, max_norm=self.max_norm,
            progress=progress and (lambda done, _: progress(len(pictures) + done, total)),
        )  # fmt: skip

    def _graph(self, concepts: Sequence[Concept]) -> dict[str, Any]:
        if self.graph is None:
            return read_graph(joined(draft_graph(concept) for concept in concepts))
        graph: Any = self.graph  # read and checked when the settings were made
        for concept in concepts:
            if (name := plain(concept.name)) not in graph:
                raise InvalidInput("CoGFD: the graph is of others: " + one_of("combination", name, graph))
        return graph

    def _names(self, unet: nn.Module) -> list[str]:
        cross_attentions(unet)  # refuses those that an edit would not reach
        if self.train == "full":
            return parameter_group(unet, "full")
        return [name for name in parameter_group(unet, "esd-x") if ".to_v." not in name]

    def _begin(self, model: StableDiffusion, names: Sequence[str], seed: int) -> StableDiffusion:
        """Return the model whose weights the training starts from."""
        if self.start == "decay":
            return model
        generator = torch.Generator().manual_seed(derive(seed, "cogfd", "start"))
        changes = {}
        for name in names:
            weight = model.unet.get_parameter(name)
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            changes[name] = weight + self.perturbation * weight.float().std(correction=0).to(weight) * noise
        return dataclasses.replace(model, unet=with_weights(model.unet, changes))


def cogfd_loss(new: Tensor, old: Tensor, forgotten: int, erase_weight: float = 0.1) -> Tensor:
    """Return ``0.1 exp(-l_-) + exp(l_+)`` of predictions (n, 4, h, w).

    Args:
        new: of the model that is trained.
        old: of the model as it was.
        forgotten: how many of the rows, from the first, are of the combination; the others are of its parts.
        erase_weight: the 0.1.
    """
    error = (new - old).float().square()
    return erase_weight * torch.exp(-error[:forgotten].mean()) + torch.exp(error[forgotten:].mean())


def _read(model: StableDiffusion, texts: Sequence[str], mask: Tensor | None) -> Trajectory:
    if mask is None:
        return model.trajectory(texts)
    hidden = model.text_encoder(model.tokens(texts), attention_mask=mask).last_hidden_state
    return model.trajectory(texts, embeddings=hidden)


def _some(texts: Sequence[str], n: int, generator: torch.Generator) -> list[str]:
    return [texts[int(i)] for i in torch.randperm(len(texts), generator=generator)[:n]]
