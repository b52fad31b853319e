"""Sparse autoencoders of a model's activations, and how they are trained.

``z = TopK(ReLU(W_e (x - b_pre) + b_lat))``, ``x^ = z W_d + b_pre`` (L. Gao et al. 2024, arXiv 2406.04093). The rows of
W_d are the directions of the latents; training keeps them at length 1. `diffusion.sae_files` keeps and loads them.
"""

import functools
import hashlib
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from unlearn_core.errors import InvalidInput, UnlearnError
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.finetune import Adam, Progress, clipped
from unlearn_techniques.diffusion.fingerprints import tensor_bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseAutoencoder:
    """Maps activations of width d to n latents, of which at most k are not 0, and back; float32."""

    encoder: Tensor
    """W_e, (n, d)."""
    latent_bias: Tensor
    """b_lat, (n,)."""
    decoder: Tensor
    """W_d, (n, d)."""
    pre_bias: Tensor
    """b_pre, (d,): taken from the input and given back to the output."""
    k: int

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four tensors in the order of the fields."""
        return self.encoder, self.latent_bias, self.decoder, self.pre_bias

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of its numbers."""
        digest = hashlib.sha256(f"{self.k} {tuple(self.encoder.shape)}".encode())
        for tensor in self.tensors:
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()

    def dense(self, x: Tensor) -> Tensor:
        """Return the latents (..., n) of activations (..., d), before any are dropped."""
        return torch.relu((x - self.pre_bias) @ self.encoder.T + self.latent_bias)

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents (..., n) of activations (..., d): the k largest of each row, the others 0."""
        return largest(self.dense(x), self.k)

    def decode(self, z: Tensor) -> Tensor:
        """Return the activations (..., d) of latents (..., n)."""
        return z @ self.decoder + self.pre_bias

    def unexplained(self, x: Tensor) -> float:
        """Return the fraction of the variance of rows (m, d) that is lost on the way through the latents."""
        return float(_squares(x - self.decode(self.encode(x)), x))

    def to(self, device: torch.device) -> Self:
        """Return it on a device."""
        encoder, latent_bias, decoder, pre_bias = (tensor.to(device) for tensor in self.tensors)
        return type(self)(
            encoder=encoder, latent_bias=latent_bias, decoder=decoder, pre_bias=pre_bias, k=self.k
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an autoencoder is trained: Adam on the fraction of variance unexplained."""

    expansion: int
    """n / d."""
    k: int
    rows: int
    """Activations seen in all, with repetition."""
    batch: int = 4096
    lr: float = 4e-4
    decay: bool = False
    """Whether the rate falls linearly to 0."""
    per_batch: bool = False
    """Keep the k x batch largest latents of a batch (BatchTopK) instead of k of each row; in training only."""
    target: Literal["input", "official"] = "input"
    """What x^ is compared with: x, or x - b_pre as in the code of Concept Steerers."""
    auxiliary: Literal["residual", "biased", "negated"] = "residual"
    """What dead latents learn: ``W_d z = x - x^``; ``W_d z + b_pre = x - x^`` as in the code of Concept Steerers;
    ``W_d z + b_pre = x^ - x`` as in the code of SAeUron, the wrong way round."""
    dead_after: int = 10_000_000
    """Rows without a latent among the kept ones after which it is dead, and learns what the others leave over."""
    max_norm: float | None = None
    """Of the gradient."""

    def __post_init__(self) -> None:
        if min(self.expansion, self.k, self.rows, self.batch, self.dead_after) < 1 or self.lr <= 0:
            raise InvalidInput(
                "sparse autoencoder: expansion, k, rows, batch and dead_after are at least 1 and lr is above 0, got "
                f"{self.expansion}, {self.k}, {self.rows}, {self.batch}, {self.dead_after}, {self.lr}"
            )

    @property
    def steps(self) -> int:
        """Number of steps."""
        return max(self.rows // self.batch, 1)


@torch.no_grad()
def trained(x: Tensor, recipe: Recipe, *, seed: int, progress: Progress | None = None) -> SparseAutoencoder:
    """Return an autoencoder of activations (m, d), trained in float32 on their device.

    Raises:
        InvalidInput: k is more than there are latents.
        UnlearnError: the loss is not finite.
    """
    d = x.shape[1]
    n = recipe.expansion * d
    if recipe.k > n:
        raise InvalidInput(
            f"sparse autoencoder: k is at most the number of latents, {recipe.expansion} x {d}, got {recipe.k}"
        )
    generator = torch.Generator().manual_seed(derive(seed, "sae"))

    def drawn(count: int) -> Tensor:
        return x[torch.randint(len(x), (count,), generator=generator).to(x.device)].float()

    # torch.nn.Linear's range; encoder and decoder begin with the same directions, so that few latents begin dead
    first = ((2 * torch.rand(n, d, generator=generator) - 1) / d**0.5).to(x.device)
    sae = SparseAutoencoder(
        encoder=first, latent_bias=torch.zeros(n, device=x.device), decoder=_unit(first),
        pre_bias=geometric_median(drawn(8 * recipe.batch)), k=recipe.k,
    )  # fmt: skip
    adam, unused = Adam(sae.tensors, recipe.lr), torch.zeros(n, device=x.device)
    for step in range(recipe.steps):
        batch = drawn(recipe.batch)
        for p in sae.tensors:
            p.requires_grad_(True)
        with torch.enable_grad():
            value, z = objective(sae, batch, recipe, unused >= recipe.dead_after)
            gradients = list(torch.autograd.grad(value, sae.tensors))
        for p in sae.tensors:
            p.requires_grad_(False)
        if not torch.isfinite(value):
            raise UnlearnError(f"sparse autoencoder: the loss of step {step + 1} is {value}; lower its lr")
        if recipe.max_norm is not None:
            gradients = list(clipped(gradients, recipe.max_norm))
        # What is parallel to a row changes only its length, which is put back to 1.
        gradients[2] = gradients[2] - (gradients[2] * sae.decoder).sum(1, keepdim=True) * sae.decoder
        if recipe.decay:
            adam.lr = recipe.lr * (1 - step / recipe.steps)
        adam.step(gradients)
        sae.decoder.copy_(_unit(sae.decoder))
        unused = torch.where((z > 0).any(0), 0.0, unused + len(batch))
        if progress:
            progress(step + 1, recipe.steps)
    return sae


def objective(sae: SparseAutoencoder, x: Tensor, recipe: Recipe, dead: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss () at activations (m, d) and the latents kept (m, n), given which are dead, (n,) bool."""

    def keep(z: Tensor, k: int) -> Tensor:
        return largest(z.flatten(), k * len(z)).view_as(z) if recipe.per_batch else largest(z, k)

    z = sae.dense(x)
    kept = keep(z, sae.k)
    output = sae.decode(kept)
    loss = _squares((x if recipe.target == "input" else x - sae.pre_bias) - output, x)
    if count := int(dead.sum()):
        most = x.shape[1] // 2
        other = keep(torch.where(dead, z, 0.0), min(most, count))
        if recipe.auxiliary == "negated":
            auxiliary = _squares(sae.decode(other) - (output - x), x)
        else:
            left = (x - output).detach()
            auxiliary = _squares(
                (other @ sae.decoder if recipe.auxiliary == "residual" else sae.decode(other)) - left, left
            )
        weight = 1.0 if recipe.auxiliary == "biased" else min(count / most, 1.0)
        loss = loss + weight / 32 * auxiliary
    return loss, kept


def largest(z: Tensor, k: int) -> Tensor:
    """Return z (..., n) with all but the k largest of each row set to 0."""
    values, places = z.topk(k)
    return torch.zeros_like(z).scatter(-1, places, values)


def geometric_median(x: Tensor, *, iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """Return the point (d,) with the least sum of distances to the rows (m, d) (Weiszfeld 1937)."""
    point = x.mean(0)
    for _ in range(iterations):
        # At a row that is the median the distance is 0, and 1/0 would make everything NaN.
        weights = 1 / (x - point).norm(dim=1).clamp(min=tolerance)
        old, point = point, (weights[:, None] * x).sum(0) / weights.sum()
        if (point - old).norm() <= tolerance * point.norm():
            break
    return point


def _squares(left: Tensor, of: Tensor) -> Tensor:
    """Return the sum of squares, as a fraction of those of rows (m, d) about their mean."""
    return left.square().sum() / (of - of.mean(0)).square().sum().clamp(min=1e-12)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
