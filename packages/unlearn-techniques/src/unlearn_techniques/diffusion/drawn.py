"""Latents of the model's own pictures: the training data of techniques that need images and were given none."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unlearn_core.errors import InvalidInput
from unlearn_core.minors import sexual_and_minor
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler, denoise, initial_noise

Progress = Callable[[int, int], None]


@torch.no_grad()
def drawn_latents(
    model: StableDiffusion,
    texts: Sequence[str],
    sampler: Sampler,
    *,
    seed: int,
    negative: str = "",
    progress: Progress | None = None,
) -> Tensor:
    """Return the latents x_0 (n, 4, h, w), one for each text, as the UNet reads them.

    They are drawn, not encoded from pictures, so no autoencoder is needed. A text that occurs k times is drawn k times.

    Args:
        model: what draws.
        texts: the prompts.
        sampler: how.
        seed: of the noise, which is derived from the seed and the place in `texts`.
        negative: what takes the empty prompt's place in the guidance: the pictures are drawn away from it.
        progress: called with (latents done, latents in all).

    Raises:
        InvalidInput: a text that is sexual and mentions a minor.
    """
    for text in texts:
        if sexual_and_minor(text):
            raise InvalidInput(
                f"a text is sexual and mentions a minor, no training picture is drawn of it: {text!r}"
            )
    empty = model.read([negative]) if negative else None
    batch, found = sampler.batch_for(model), []
    for first in range(0, len(texts), batch):
        part = list(texts[first : first + batch])
        filled = [*part, *[part[-1]] * (batch - len(part))]  # fixed shapes, as in `sampling.generate`
        generators = [
            torch.Generator().manual_seed(derive(seed, "drawn", first + i)) for i in range(len(filled))
        ]
        noise = initial_noise(model, generators, sampler)
        start = model.trajectory(filled, empty=empty)
        latents = denoise(model, noise, start, sampler, generators=generators)
        found.append(latents[: len(part)])
        if progress:
            progress(first + len(part), len(texts))
    return torch.cat(found)


def noised(model: StableDiffusion, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps`` for latents and noise (n, 4, h, w) and timesteps (n,)."""
    a = _alphas(model, latents)[t].view(-1, 1, 1, 1)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def training_target(model: StableDiffusion, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return what the UNet is trained to predict (n, 4, h, w): the noise, or v for models of the v-prediction kind."""
    if model.scheduler.config.get("prediction_type", "epsilon") == "epsilon":
        return noise
    a = _alphas(model, latents)[t].view(-1, 1, 1, 1)
    return a.sqrt() * noise - (1 - a).sqrt() * latents


def noised_anywhere(
    model: StableDiffusion, latents: Tensor, generator: torch.Generator, start: int = 0, end: int = 1000
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x_t of latents (n, 4, h, w), t (n,) uniform in [start, end), and what the UNet is trained to predict."""
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    t = torch.randint(start, end, (len(latents),), generator=generator).to(latents.device)
    return noised(model, latents, noise, t), t, training_target(model, latents, noise, t)


def _alphas(model: StableDiffusion, like: Tensor) -> Any:
    return model.scheduler.alphas_cumprod.to(device=like.device, dtype=like.dtype)
