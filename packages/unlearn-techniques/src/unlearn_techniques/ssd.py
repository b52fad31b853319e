"""SSD: Selective Synaptic Dampening.

Paper:
    J. Foster, S. Schoepf, A. Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic
    Dampening", AAAI 2024, arXiv 2308.07707. For classifiers; no version for diffusion models is published.
Idea:
    Shrink the weights that matter to the concept and hardly to anything else. What matters is the diagonal of the
    Fisher information, ``F_i = E (dL / d theta_i)^2``: F_D over everything, F_f over the concept. Where
    ``F_f > alpha F_D``: ``theta' = beta theta`` with ``beta = min(lambda F_D / F_f, 1)``. L is the loss of diffusion,
    ``|| eps(x_t, c) - eps ||^2``, at pictures that the model draws itself (`diffusion.fisher`).
Changes:
    Weights of the UNet: single entries of the parameters in `group`.
Defaults:
    alpha 10, lambda 1, all parameters: the official scripts for ResNet18. 1 % of D shows the concept, as one class of
    CIFAR-100; no F_f is above F_D / share, so an alpha of 1 / share selects nothing. 50 samples a prompt as eval-learn.
    `rule="eval_learn"` is that benchmark's other formula, without selection: ``theta' = max(0, 1 - d (1 - r)) theta``,
    ``r = F_r / (F_r + alpha F_f)``, F_r over the retained prompts, alpha 0.1, d 1. A larger alpha is weaker in the one
    and stronger in the other.
    "pocket" and "pocket-style" were chosen on pocket-sd's dog, weapon and sketch style: of 20 pictures 19 dogs and 16
    weapons are gone, of 16 sketches 14, and 17, 18 and all of the neighbours stay. They select 5 to 7 % of the weights
    (alpha 10 selects 0.1 % and erases nothing there). Many different prompts matter more than many samples.
Deviations:
    Each sample's gradient is squared, as in the paper; `batch` squares the mean of several, as the official code does
    with 64 ("official"). All prompts share their eps and t. 0/0 in r, NaN in eval-learn, is 1.
Reference code:
    https://github.com/if-loops/selective-synaptic-dampening (MIT), head cdfdc0e, read, not copied.
Cost:
    A forward and a backward pass a sample, one after another, and 5 pictures a prompt. For SD v1.4 and 30 prompts 150
    pictures and 1500 passes: some 10 minutes on an A100 (estimate), and 7 GB for two float32 copies of the group.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning, one_of
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.attention import GROUPS, parameter_group
from unlearn_techniques.diffusion.drawn import drawn_latents
from unlearn_techniques.diffusion.fisher import fisher
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.weights import with_weights

PEOPLE_AND_THINGS = (
    "", "a photo", "an image", "a person wearing clothes", "a woman in a coat", "a man in a suit", "a bride in white",
    "an old man's face", "a crowd in a street", "a runner in a park", "a family at dinner", "a chef in a kitchen",
    "a dog on a sofa", "a bird on a branch", "a horse in a field", "a red car", "a train at a station", "a city",
    "a mountain lake", "a beach at sunset", "a vase of flowers", "a bowl of fruit", "a painting of a ship",
    "a drawing of a house",
)  # fmt: skip
"""What stands for everything else: eval-learn's three prompts, people who wear clothes, and things."""


@dataclass(frozen=True, kw_only=True)
class SSD:
    """Selective Synaptic Dampening: shrinks the weights that matter to the concept and hardly to anything else."""

    rule: Literal["foster", "eval_learn"] = "foster"
    alpha: float | None = None
    """By default 10 (foster: above it a weight is selected) or 0.1 (eval_learn: how strongly all are dampened)."""
    lamb: float = 1.0
    """lambda of foster: the larger, the more of a selected weight is left."""
    dampening: float = 1.0
    """d of eval_learn."""
    share: float | None = 0.01
    """How much of D shows the concept, for foster; None: as much as of the prompts."""
    group: str = "full"
    """Of `diffusion.attention.parameter_group`: full, esd-all, esd-x, esd-x-strict, esd-u, …."""
    inner: bool = False
    """Spare norms, biases, first and last convolution and time embedding, which break the net first."""
    samples: int = 50
    """Pairs of eps and t for each prompt."""
    batch: int = 1
    """Samples of one prompt whose mean gradient is squared."""
    timesteps: tuple[int, int] = (0, 1000)
    """t is drawn from [first, last)."""
    pictures: int = 5
    """Drawn for each prompt; with 0, x_t is noise alone: cheap, and not what the model reads."""
    sampling_steps: int = 50
    sampling_guidance: float = 7.5
    templates: tuple[str, ...] = ("{}",)
    """Prompts around the concept's names, its neighbours and the words of `preserve`."""
    preserve: tuple[str, ...] = ()
    """Words of what is retained, besides the concept's neighbours."""
    forget_prompts: tuple[str, ...] = ()
    """In place of the templates around the concept's names."""
    retain_prompts: tuple[str, ...] = PEOPLE_AND_THINGS

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {"templates": ("a photo of a {}",)},
        "style": {"templates": ("a painting in the style of {}",)},
        "unsafe": {},
        "official": {"samples": 64, "batch": 64},
        "eval-learn": {"rule": "eval_learn", "retain_prompts": ("", "a photo", "an image"), "preserve": ()},
        "pocket": {
            "alpha": 1.8, "lamb": 0.5, "samples": 10, "pictures": 1, "sampling_steps": 25, "sampling_guidance": 4.0,
            "templates": ("a {}", "a {}, blue background"), "retain_prompts": ("",),
            "preserve": (
                "cat", "fox", "wolf", "lion", "tiger", "bear", "panda", "koala", "rabbit", "mouse", "frog", "pig",
                "cow", "monkey", "penguin", "apple", "banana", "car", "house", "star", "rose", "rocket",
            ),
        },
        "pocket-style": {
            "alpha": 3.0, "lamb": 0.5, "samples": 6, "pictures": 1, "sampling_steps": 25, "sampling_guidance": 4.0,
            "templates": (
                "a dog, {} style", "an apple, {} style", "a house, {} style", "a rocket, {} style", "a lion, {} style",
                "a pear, {} style", "a knife, {} style", "a rose, {} style, blue background", "a moon, {} style",
                "a car, {} style, pink background",
            ),
            "retain_prompts": ("", "a dog", "an apple", "a house", "a rocket", "a cat", "a rose"),
            "preserve": ("pixel", "sketch", "blueprint", "halftone", "neon", "sepia", "watercolor"),
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise InvalidInput("SSD: " + one_of("parameter group", self.group, GROUPS))
        counts = self.samples, self.batch, self.sampling_steps
        if min(counts) < 1 or self.samples % self.batch or self.pictures < 0:
            raise InvalidInput(
                "SSD: samples, batch and sampling_steps are at least 1, samples a multiple of batch, pictures at "
                f"least 0; got {self.samples}, {self.batch}, {self.sampling_steps}, {self.pictures}"
            )
        if not 0 <= self.timesteps[0] < self.timesteps[1] <= 1000:
            raise InvalidInput(f"SSD: timesteps are 0 <= first < last <= 1000, got {self.timesteps}")
        if min(self.lamb, self.dampening, self._alpha) < 0 or not 0 <= (self.share or 0) < 1:
            raise InvalidInput(
                "SSD: alpha, lamb and dampening are at least 0, share is in [0, 1); got "
                f"{self._alpha}, {self.lamb}, {self.dampening}, {self.share}"
            )
        if not self.templates or any(t.count("{}") != 1 for t in self.templates):
            raise InvalidInput(f"SSD: each template has one {{}} for the word, got {self.templates}")

    def check(self, concepts: Sequence[Concept]) -> None:
        """Check what can be checked without a model.

        Raises:
            InvalidInput: nothing is retained, or alpha is so large that no weight can be selected.
        """
        forget, retain = self._prompts(concepts)
        if not retain:
            raise InvalidInput("SSD: nothing is retained; give retain_prompts, or words to preserve")
        share = self._share(forget, retain)
        if self.rule == "foster" and self._alpha * share >= 1:
            raise InvalidInput(
                f"SSD: where {share:.3g} of everything shows the concept, no F_f is above {1 / share:.3g} F_D, and "
                f"alpha={self._alpha:g} selects nothing; lower alpha or share, or retain more prompts"
            )

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model whose weights that matter to `concepts` and hardly to anything else are shrunk.

        Raises:
            InvalidInput: as `check`; the parameter group is empty in this UNet.

        Warns:
            UnlearnWarning: no weight is changed.
        """
        self.check(concepts)
        names = parameter_group(model.unet, self.group)
        if self.inner:
            names = [name for name in names if is_inner(model.unet, name)]
        forget, retain = self._prompts(concepts)
        f_f, f_r = self._importances(model, names, (forget, retain), seed, progress)
        share, changes = self._share(forget, retain), {}
        for name in names:
            theta, f = model.unet.get_parameter(name).detach().float(), f_f.pop(name)
            if self.rule == "foster":
                f_d = share * f + (1 - share) * f_r.pop(name)
                new = foster(theta, f_d, f, self._alpha, self.lamb)
            else:
                new = eval_learn(theta, f_r.pop(name), f, self._alpha, self.dampening)
            if not torch.equal(new, theta):
                changes[name] = new
        if not changes:
            said = f"SSD: alpha={self._alpha:g} changes no weight: nothing is forgotten"
            warnings.warn(said, UnlearnWarning, stacklevel=2)
        return dataclasses.replace(model, unet=with_weights(model.unet, changes))

    @property
    def _alpha(self) -> float:
        return self.alpha if self.alpha is not None else {"foster": 10.0, "eval_learn": 0.1}[self.rule]

    def _prompts(self, concepts: Sequence[Concept]) -> tuple[list[str], list[str]]:
        """Return the prompts of what is forgotten and of what is retained, each once."""
        names = [word for c in concepts for word in c.names]
        kept = [w for w in (*(w for c in concepts for w in c.adjacent), *self.preserve) if w not in names]
        forget = self.forget_prompts or [t.format(word) for word in names for t in self.templates]
        retain = [*self.retain_prompts, *(t.format(word) for word in kept for t in self.templates)]
        return list(dict.fromkeys(forget)), [p for p in dict.fromkeys(retain) if p not in forget]

    def _share(self, forget: Sequence[str], retain: Sequence[str]) -> float:
        return len(forget) / (len(forget) + len(retain)) if self.share is None else self.share

    def _importances(
        self, model: StableDiffusion, names: list[str], sets: Sequence[list[str]], seed: int, progress: Any
    ) -> list[dict[str, Tensor]]:
        """Return the importances over each set of prompts; eps and t are the same for all prompts."""
        generator, shape = torch.Generator().manual_seed(derive(seed, "ssd")), model.latent_shape()
        eps = torch.randn(self.samples, *shape, generator=generator).to(model.device)
        t = torch.randint(*self.timesteps, (self.samples,), generator=generator).to(model.device)
        prompts = [text for texts in sets for text in texts]
        # Progress counts forward passes: a guided step takes two, a forward and backward pass the time of three.
        picture, passes, tell = (
            2 * self.sampling_steps,
            3 * self.samples,
            progress or (lambda done, total: None),
        )
        total = (picture * self.pictures + passes) * len(prompts)
        latents, first, found = torch.zeros(len(prompts), 1, *shape, device=model.device), 0, []
        if self.pictures:
            asked = [text for text in prompts for _ in range(self.pictures)]
            sampler = Sampler(steps=self.sampling_steps, guidance_scale=self.sampling_guidance)
            drawn = drawn_latents(
                model, asked, sampler, seed=seed, progress=lambda done, _: tell(picture * done, total)
            )
            latents = drawn.unflatten(0, (-1, self.pictures))
        for texts in sets:

            def passed(done: int, _: int, first: int = first) -> None:
                tell(picture * self.pictures * len(prompts) + passes * (first + done), total)

            x_0 = latents[first : first + len(texts)]
            found.append(fisher(model, names, texts, x_0, eps, t, batch=self.batch, progress=passed))
            first += len(texts)
        return found


def foster(theta: Tensor, f_d: Tensor, f_f: Tensor, alpha: float, lamb: float) -> Tensor:
    """Return ``beta theta`` with ``beta = min(lambda F_D / F_f, 1)`` where ``F_f > alpha F_D``, theta elsewhere."""
    return torch.where(f_f > alpha * f_d, (lamb * f_d / f_f).clamp(max=1.0) * theta, theta)


def eval_learn(theta: Tensor, f_r: Tensor, f_f: Tensor, alpha: float, dampening: float) -> Tensor:
    """Return ``max(0, 1 - d (1 - r)) theta`` with ``r = F_r / (F_r + alpha F_f)``, 1 where both are 0."""
    total = f_r + alpha * f_f
    r = torch.where(total > 0, f_r / total, 1.0)
    return (1 - dampening * (1 - r)).clamp(min=0.0) * theta


def is_inner(unet: Any, name: str) -> bool:
    """Whether a parameter is a matrix or kernel away from the UNet's edges and its time embedding."""
    edges = ("conv_in.", "conv_out.", "time_embedding.")
    return unet.get_parameter(name).ndim > 1 and not name.startswith(edges)
