"""Points on the way to pictures, drawn by a model that stays as it is, and what it predicts there.

Where only the text encoder is trained they do not depend on what is trained, so a pool of them can serve a whole
training.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler, denoise, initial_noise


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Latents of n prompts at one timestep; the predictions are made when they are first asked for."""

    model: StableDiffusion
    texts: tuple[str, ...]
    x: Tensor
    """x_t, (n, 4, h, w)."""
    t: Tensor
    """The timestep that the UNet is told, ()."""

    @functools.cached_property
    def prompted(self) -> Tensor:
        """The model's own prediction for the prompts, (n, 4, h, w)."""
        return self._predicted(self.texts)

    @functools.cached_property
    def empty(self) -> Tensor:
        """The model's own prediction for the empty prompt, (n, 4, h, w)."""
        return self._predicted([""] * len(self.x))

    def noise(self, model: StableDiffusion, hidden: Tensor) -> Tensor:
        """Return another model's prediction (n, 4, h, w) for embeddings (n or 1, tokens, width)."""
        return model.noise(self.x, self.t, model.trajectory(embeddings=hidden.expand(len(self.x), -1, -1)))

    @torch.no_grad()
    def _predicted(self, texts: Sequence[str]) -> Tensor:
        return self.model.noise(self.x, self.t, self.model.trajectory(texts))


class Scenes:
    """Draws scenes of a model, all anew or from a pool that is filled as it is used."""

    def __init__(
        self,
        model: StableDiffusion,
        sampler: Sampler,
        *,
        seed: int,
        pool: int | None = None,
        later: bool = False,
    ) -> None:
        """Draw nothing yet.

        Args:
            model: what draws.
            sampler: the grid of timesteps, and the guidance.
            seed: of everything that is random here.
            pool: how many scenes there are of the same prompts; None for any number.
            later: tell the UNet a timestep 2 to 3 steps above that of x_t, as the LDM sampler of ESD's first code
                does: 39 to 58 for 50 steps.
        """
        self.model, self.sampler, self.seed, self.pool, self.later = model, sampler, seed, pool, later
        self.grid = sampler.scheduler_for(model).timesteps
        self._fresh = itertools.count()
        self._drawn: dict[tuple[tuple[str, ...], int], Scene] = {}

    def of(self, text: str, n: int, generator: torch.Generator) -> Scene:
        """Return a scene of n pictures of one prompt; `generator` chooses which of the pool."""
        return self._scene((text,) * n, self._number(generator))

    def among(self, texts: Sequence[str], n: int, generator: torch.Generator) -> Scene:
        """Return a scene of n of the prompts, all different; `generator` chooses which of the pool."""
        number = self._number(generator)
        chosen = torch.randperm(len(texts), generator=self._generator("among", number))[:n]
        return self._scene(tuple(texts[int(i)] for i in chosen), number)

    def _number(self, generator: torch.Generator) -> int:
        if self.pool is None:
            return next(self._fresh)
        return int(torch.randint(self.pool, (), generator=generator))

    def _scene(self, texts: tuple[str, ...], number: int) -> Scene:
        if (texts, number) in self._drawn:
            return self._drawn[texts, number]
        generator = self._generator("scene", number, *texts)
        stop = int(torch.randint(len(self.grid), (), generator=generator))
        noise = initial_noise(self.model, [generator] * len(texts), self.sampler)
        t = self.grid[stop]
        if self.later:
            step = 1000 // len(self.grid)
            t = (t + 2 * step - 1 + int(torch.randint(step, (), generator=generator))).clamp(max=999)
        with torch.no_grad():
            x = denoise(self.model, noise, self.model.trajectory(texts), self.sampler, stop=stop)
        scene = Scene(model=self.model, texts=texts, x=x, t=t)
        if self.pool is not None:
            self._drawn[texts, number] = scene
        return scene

    def _generator(self, *labels: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(derive(self.seed, "scenes", *labels))
