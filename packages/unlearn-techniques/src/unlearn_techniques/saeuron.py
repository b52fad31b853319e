"""SAeUron: latents of a sparse autoencoder inside the UNet are turned against the concept that they stand for.

Paper:
    B. Cywiński, K. Deja, "SAeUron: Interpretable Concept Unlearning in Diffusion Models with Sparse Autoencoders",
    ICML 2025, arXiv 2501.18052.
Idea:
    z are the latents of an autoencoder of what one transformer of the UNet returns. With mu(i, t, D) the mean of latent
    i at step t over places and prompts D, latent i stands for concept c as far as its share of all activity is larger
    there than elsewhere, ``score_i = mu(i,t,D_c) / sum_j mu(j,t,D_c) - mu(i,t,D) / sum_j mu(j,t,D)``. Those above the
    percentile tau of the scores of a step, at places where z_i is above its mean over all concepts, become
    ``z_i <- gamma mu(i,t,D_c) z_i``, gamma < 0; what the autoencoder does not explain stays: ``x + (z' - z) W_d``.
Changes:
    What one module of the UNet returns, at every step, in both halves of the guidance. No weights.
Defaults:
    The paper's: n 16 d, k 32, FVU with BatchTopK, rate 4e-4 falling to 0, gradient norm 1, guidance 9. Objects
    up_blocks.1.attentions.1, tau 99.999 and gamma -15 (its dogs; the paper chooses gamma from -1 to -30 for each
    class), styles up_blocks.1.attentions.2, tau 99.999 and gamma -1. The nudity settings are not published: -20 is
    eval-learn's. Presets "object" and "unsafe" take the autoencoder that the authors trained on SD v1.4 and COCO's
    captions (Apache-2.0). `sae=None` trains one on the pictures that the scores need, on every fifth step.
Deviations:
    The published hook stores x^ - x for what is not explained and returns 2 x^ - x where nothing is to be changed; ours
    returns x (error="official"). Its training sets dead latents to learn x^ - x (auxiliary="official"). Steps are
    matched by their timestep, so that schedulers and numbers of steps may differ; the published hook counts calls. A
    latent of several concepts is changed once, by the strongest. Adam's epsilon is 1e-8, not 6.25e-10.
Reference code:
    https://github.com/cywinski/SAeUron (Apache-2.0), head 1a4302a, read, not copied.
Cost:
    50 steps of drawing for each prompt of the scores. While drawing, for SD v1.4, a product of (512 x 1280) and
    (1280 x 20480) at each step, a few per cent (sheet of the authors).
"""

import dataclasses
import functools
import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning, one_of
from unlearn_core.spec import fingerprint, settings_of
from unlearn_techniques.diffusion.activations import drawn_activations
from unlearn_techniques.diffusion.everyday import EVERYDAY
from unlearn_techniques.diffusion.fingerprints import tensor_bytes
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.pocket_captions import STYLED, THINGS
from unlearn_techniques.diffusion.sae import Recipe, SparseAutoencoder, trained
from unlearn_techniques.diffusion.sae_files import cached, kept_at, load
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.steps import Step

COCO = "bcywinski/SAeUron_coco"
_POCKET: dict[str, Any] = {
    "module": "up_blocks.0.attentions.1", "percentile": 97.0, "multiplier": -5.0, "expansion": 8, "k": 16,
    "rows": 300_000, "batch": 1024, "lr": 1e-3, "dead_after": 50_000, "sampling_steps": 25, "sampling_guidance": 4.0,
    "every": 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SAeUron:
    """SAeUron: finds the latents that stand for the concept at each step, and turns them around."""

    module: str = "up_blocks.1.attentions.1"
    """A transformer of the UNet."""
    percentile: float = 99.999
    """tau: of 20480 latents 99.999 leaves 1, 99.995 2 and 99.99 3."""
    multiplier: float = -15.0
    """gamma; the factor of a latent is this times its mean activation, so it depends on their scale."""
    halves: Literal["both", "prompt"] = "both"
    """Whether the prediction for the empty prompt is changed as well."""
    error: Literal["kept", "official"] = "kept"
    sae: str | None = None
    """A published autoencoder of the module: a folder or Hub id; None trains one."""
    expansion: int = 16
    k: int = 32
    rows: int = 20_000_000
    """Activations seen in training."""
    batch: int = 4096
    lr: float = 4e-4
    dead_after: int = 10_000_000
    """Rows without use after which a latent is dead."""
    auxiliary: Literal["residual", "official"] = "residual"
    templates: tuple[str, ...] = ("{}", "a photo of {}", "a picture of {}", "a painting of {}")
    """Prompts around the concept's names, its neighbours and the words of `preserve`."""
    preserve: tuple[str, ...] = ()
    captions: tuple[str, ...] = tuple(f"a photo of the {word}" for word in EVERYDAY)
    """More prompts that the concept is compared with; those that name it are left out."""
    sampling_steps: int = 50
    sampling_guidance: float = 9.0
    every: int = 5
    """Every so many steps of the drawing are looked at."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {"sae": COCO},
        "style": {"module": "up_blocks.1.attentions.2", "multiplier": -1.0},
        "unsafe": {"sae": COCO, "multiplier": -20.0},
        "official": {"error": "official", "auxiliary": "official"},
        "pocket": {
            **_POCKET,
            "templates": ("a {}", "a {}, sketch style", "a {}, blue background"),
            "captions": THINGS,
        },
        "pocket-style": {
            **_POCKET,
            "templates": ("a dog, {} style", "a car, {} style", "a pear, {} style", "a house, {} style"),
            "captions": STYLED,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        self._recipe  # noqa: B018  # checks its own settings
        if not 0 <= self.percentile < 100 or min(self.sampling_steps, self.every) < 1:
            raise InvalidInput(
                "SAeUron: percentile is in [0, 100), sampling_steps and every are at least 1, got "
                f"{self.percentile}, {self.sampling_steps}, {self.every}"
            )
        if not self.templates or any(t.count("{}") != 1 for t in self.templates):
            raise InvalidInput(f"SAeUron: each template has one {{}} for the word, got {self.templates}")

    @property
    def _recipe(self) -> Recipe:
        return Recipe(
            expansion=self.expansion, k=self.k, rows=self.rows, batch=self.batch, lr=self.lr,
            dead_after=self.dead_after, decay=True, per_batch=True, max_norm=1.0,
            auxiliary="negated" if self.auxiliary == "official" else "residual",
        )  # fmt: skip

    def check(self, concepts: Sequence[Concept]) -> None:
        """Check what can be checked without a model.

        Raises:
            InvalidInput: there is nothing to compare the concept with.
        """
        if not self._others(concepts):
            raise InvalidInput(
                "SAeUron: nothing to compare the concept with; give captions, or words in preserve"
            )

    @torch.no_grad()
    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model in which the latents that stand for `concepts` are turned around.

        Raises:
            InvalidInput: no such module, nothing to compare with, or an autoencoder of another width.
            Unavailable: the autoencoder is not where it should be.
        """
        self.check(concepts)
        known = {n: m for n, m in model.unet.named_modules() if type(m).__name__ == "Transformer2DModel"}
        if self.module not in known:
            raise InvalidInput("SAeUron: " + one_of("module", self.module, known))
        asked = [[t.format(name) for name in c.names for t in self.templates] for c in concepts]
        groups = [*asked, *self._others(concepts)]
        texts = [text for group in groups for text in group]
        key = ["unet", model.fingerprint, self.module, texts, self.sampling_steps, self.sampling_guidance, self.every,
               settings_of(self._recipe), seed]  # fmt: skip
        sae = self.sae and load(self.sae, f"unet.{self.module}", known[self.module].in_channels)
        total = len(texts) + (0 if sae or kept_at(key).is_file() else self._recipe.steps)

        def part(start: int) -> Any:
            return progress and (lambda done, _: progress(start + done, total))

        sampler = Sampler(steps=self.sampling_steps, guidance_scale=self.sampling_guidance)
        x = drawn_activations(
            model, texts, self.module, sampler, every=self.every, seed=seed, progress=part(0)
        )
        rows = x.flatten(0, 2)
        sae = sae or cached(key, lambda: trained(rows, self._recipe, seed=seed, progress=part(len(texts))))
        sae = sae.to(model.device)
        if self.sae and (lost := sae.unexplained(rows[:: len(rows) // 5000 + 1].float())) > 0.5:
            warnings.warn(
                f"SAeUron: {lost:.0%} of what {self.module} returns is lost in the autoencoder {self.sae!r}: it is "
                "another model's or module's",
                UnlearnWarning,
                stacklevel=2,
            )
        # mu of each prompt, (prompts, steps, n); one step of one picture at a time, as n is large
        mu = torch.stack([torch.stack([sae.encode(step.float()).mean(0) for step in text]) for text in x])
        found = chosen(
            mu.split([len(group) for group in groups]), len(concepts), self.percentile, self.multiplier
        )
        ablation = Ablation(
            modules=(self.module,), sae=sae, times=sampler.scheduler_for(model).timesteps[:: self.every],
            halves=self.halves, error=self.error, **found,
        )  # fmt: skip
        return dataclasses.replace(model, activations=(*model.activations, ablation))

    def _others(self, concepts: Sequence[Concept]) -> list[list[str]]:
        """Return the prompts of each concept that these are compared with."""
        names = {name.casefold() for concept in concepts for name in concept.names}
        words = dict.fromkeys([*(word for c in concepts for word in c.adjacent), *self.preserve])
        others = [[t.format(word) for t in self.templates] for word in words if word.casefold() not in names]
        named = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names), re.IGNORECASE)
        return others + [[caption] for caption in self.captions if not named.search(caption)]


def chosen(mu: Sequence[Tensor], concepts: int, percentile: float, multiplier: float) -> dict[str, Tensor]:
    """Return the latents that stand for concepts: their numbers, and their factors and thresholds at each step.

    Args:
        mu: mean activations (prompts, steps, n) for each concept, the ones to be forgotten first.
        concepts: how many those are.
        percentile: tau.
        multiplier: gamma.

    Returns:
        Features (f,); factors ``gamma mu(i,t,D_c)``, 1 where a latent is not chosen, and thresholds, (steps, f).
    """
    means = [group.mean(0) for group in mu]
    factors = torch.ones_like(means[0])
    for i in range(concepts):
        others = torch.cat([group for j, group in enumerate(mu) if j != i]).mean(0)
        score = _share(means[i]) - _share(others)
        factor = multiplier * means[i]
        taken = score > score.quantile(percentile / 100, dim=1, keepdim=True)
        factors = torch.where(taken & ((factor - 1).abs() > (factors - 1).abs()), factor, factors)
    features = (factors != 1).any(0).nonzero()[:, 0]
    thresholds = torch.stack(means).mean(0)
    return {"features": features, "factors": factors[:, features], "thresholds": thresholds[:, features]}


def _share(mu: Tensor) -> Tensor:
    return mu / (mu.sum(1, keepdim=True) + 1e-8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablation:
    """Multiplies the chosen latents of what a module of the UNet returns, where they are above their thresholds."""

    modules: tuple[str, ...]
    sae: SparseAutoencoder
    times: Tensor
    """Timesteps (steps,) of the rows below; a step of another sampler takes the nearest."""
    features: Tensor
    """(f,)."""
    factors: Tensor
    """(steps, f)."""
    thresholds: Tensor
    """(steps, f)."""
    halves: Literal["both", "prompt"]
    error: Literal["kept", "official"]

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of its settings and numbers."""
        tensors = (self.times, self.features, self.factors, self.thresholds)
        digests = [hashlib.sha256(tensor_bytes(tensor)).hexdigest() for tensor in tensors]
        return fingerprint([self.modules, self.sae.fingerprint, self.halves, self.error, digests])

    def __call__(self, output: Tensor, rows: Mapping[str, slice], step: Step) -> Tensor:
        """Return the maps (rows, d, h, w) with the chosen latents of each place changed."""
        maps = output if self.halves == "both" else output[rows["prompt"]]
        sae = self.sae.to(output.device)
        x = maps.flatten(2).transpose(1, 2).float()
        z, t = sae.encode(x), step.t.reshape(-1, 1).float()
        nearest = (t - self.times.to(t)).abs().argmin(1).repeat(len(maps) // len(t))
        factors, thresholds = (a.to(x.device)[nearest, None] for a in (self.factors, self.thresholds))
        z_c = z[..., self.features.to(x.device)]
        change = torch.where(z_c > thresholds, (factors - 1) * z_c, 0.0) @ sae.decoder[self.features]
        if self.error == "official":
            change = change + 2 * (sae.decode(z) - x)
        changed = maps + change.transpose(1, 2).reshape(maps.shape).to(output.dtype)
        if self.halves == "both":
            return changed
        result = output.clone()
        result[rows["prompt"]] = changed
        return result
