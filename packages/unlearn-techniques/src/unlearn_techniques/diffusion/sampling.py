"""The one sampling loop: prompts in, pictures out, each a function of its row, the model and the sampler alone.

The noise of a row comes from a CPU generator of its own. Kernels choose the order of their sums by the shape they are
given, so a picture drawn in a call of another size may differ in the last bit of a few pixels; to keep a row's bits the
same in any company, every call has exactly `batch` rows and a short one is filled up. The device and the number of
threads choose kernels too: bits are those of one machine set up in one way, elsewhere a pixel may differ by one level.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearn_core.errors import InvalidInput, Unavailable, UnlearnWarning
from unlearn_core.prompts import Prompt
from unlearn_techniques.diffusion.steps import Step

if TYPE_CHECKING:
    from unlearn_techniques.diffusion.model import StableDiffusion, Trajectory

Progress = Callable[[int, int], None]

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "ddpm": "DDPMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "dpm": "DPMSolverMultistepScheduler",
}
"""Name -> class of diffusers; "model" takes the one that the model came with."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How pictures are drawn.

    Raises:
        InvalidInput: a number out of its range.
    """

    scheduler: Literal["ddim", "pndm", "ddpm", "euler", "euler_ancestral", "dpm", "model"] = "ddim"
    """DDIM counts steps as techniques do; PNDM, which SD v1.4 came with, takes 51 iterations for 50 steps."""
    steps: int = 50
    guidance_scale: float = 7.5
    """Of rows that state none; up to 1 there is no guidance, as in diffusers."""
    height: int | None = None
    width: int | None = None
    """In pixels; by default the model's own size."""
    batch: int | None = None
    """Pictures per call; by default 8 of the small sizes and 1 of the large on the CPU, 16 on a GPU, 4 of XL."""

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch", 1), ("guidance_scale", 0)):
            value = getattr(self, name)
            if value is not None and not low <= value < float("inf"):
                raise InvalidInput(f"sampler: {name} is at least {low}, got {value}")

    def scheduler_for(self, model: "StableDiffusion") -> Any:
        """Return a scheduler of this kind for the model, its timesteps set.

        Raises:
            InvalidInput: more steps than the model was trained with.
        """
        import diffusers

        if self.steps > (most := model.scheduler.config.num_train_timesteps):
            raise InvalidInput(
                f"sampler: steps is at most {most}, as the model was trained; got {self.steps}"
            )

        if self.scheduler == "model":
            made = type(model.scheduler).from_config(model.scheduler.config)
        else:
            # clip_sample is for pixels, not latents; DDIM has it on unless the configuration says otherwise.
            config = {
                "clip_sample": False,
                "set_alpha_to_one": False,
                "steps_offset": 1,
                **model.scheduler.config,
            }
            made = getattr(diffusers, SCHEDULERS[self.scheduler]).from_config(config)
        made.set_timesteps(self.steps, device=model.device)
        return made

    def batch_for(self, model: "StableDiffusion") -> int:
        """Return how many pictures a call draws."""
        if self.batch is not None:
            return self.batch
        side = model.latent_shape(self.height, self.width)[1]
        if model.device.type == "cuda":
            return 16 if side <= 64 else 4
        return 8 if side <= 32 else 1


def initial_noise(
    model: "StableDiffusion", generators: Sequence[torch.Generator], sampler: Sampler
) -> Tensor:
    """Return unit noise (n, 4, h, w), each row from its own CPU generator.

    Drawn in float32 whatever the model's dtype, so that half precision starts from the same picture.
    """
    shape = model.latent_shape(sampler.height, sampler.width)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    return noise.to(device=model.device, dtype=model.dtype)


def denoise(
    model: "StableDiffusion",
    noise: Tensor,
    trajectory: "Trajectory",
    sampler: Sampler,
    *,
    guidance_scale: float | Tensor | None = None,
    stop: int | None = None,
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Return the latents (n, 4, h, w) after `stop` steps from unit noise, by default after the last.

    Args:
        model: the model.
        noise: (n, 4, h, w), unit variance.
        trajectory: of the n prompts; used up by this call.
        sampler: how.
        guidance_scale: by default the sampler's.
        stop: number of steps to take.
        generators: one per row, for schedulers that draw noise.
    """
    scheduler = sampler.scheduler_for(model)
    scale = sampler.guidance_scale if guidance_scale is None else guidance_scale
    latents = noise * scheduler.init_noise_sigma
    extra = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = list(generators) if generators else None
    timesteps = scheduler.timesteps
    for index, t in enumerate(timesteps[:stop]):
        step = Step(index=index, total=len(timesteps), t=t, latents=latents)
        scaled = scheduler.scale_model_input(latents, t)
        predicted = model.noise(scaled, t, trajectory, guidance_scale=scale, step=step)
        # A guidance may have moved the latents themselves.
        latents = scheduler.step(predicted, t, step.latents, **extra).prev_sample.to(model.dtype)
    return latents


def decode(model: "StableDiffusion", latents: Tensor) -> NDArray[np.uint8]:
    """Return the pictures (n, h, w, 3) uint8 RGB of latents (n, 4, h, w)."""
    pixels = model.decoder.decode(latents.to(model.decoder.dtype) / model.vae.config.scaling_factor).sample
    pixels = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float()
    return (pixels * 255).round().byte().cpu().numpy()  # type: ignore[no-any-return]


@torch.no_grad()
def generate(
    model: "StableDiffusion", prompts: Sequence[Prompt], sampler: Sampler, *, progress: Progress | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Yield one uint8 RGB picture (h, w, 3) per prompt, in order.

    A batch that does not fit into the memory is drawn again in halves.

    Raises:
        InvalidInput: a prompt that is sexual and mentions a minor.
        Unavailable: not even one picture fits into the memory.

    Warns:
        UnlearnWarning: prompts are longer than the model reads.
    """
    for prompt in prompts:
        if prompt.refused:
            raise InvalidInput(f"the prompt {prompt.id!r} is sexual and mentions a minor: it is not drawn")
    if long := model.too_long([prompt.text for prompt in prompts]):
        limit = model.tokenizer.model_max_length
        warnings.warn(
            f"{len(long)} of {len(prompts)} prompts have more than the {limit} tokens that the model reads; their "
            f"ends are lost, first of all of {long[0][:60]!r}",
            UnlearnWarning,
            stacklevel=2,
        )
    batch, done = sampler.batch_for(model), 0
    while done < len(prompts):
        rows = prompts[done : done + batch]
        try:
            pictures = _draw(model, rows, sampler, batch)
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if batch == 1:
                raise Unavailable(
                    f"a single picture does not fit into the memory of {model.device}: use a smaller --height and "
                    "--width or --dtype fp16"
                ) from error
            batch //= 2
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        yield from pictures[: len(rows)]
        done += len(rows)
        if progress:
            progress(done, len(prompts))


def _draw(
    model: "StableDiffusion", prompts: Sequence[Prompt], sampler: Sampler, batch: int
) -> NDArray[np.uint8]:
    """Return the pictures of at most `batch` prompts, drawn in a call of exactly `batch`."""
    filled = [*prompts, *[prompts[-1]] * (batch - len(prompts))]
    scales = [sampler.guidance_scale if p.guidance is None else p.guidance for p in filled]
    scale = torch.tensor([max(s, 1.0) for s in scales], device=model.device, dtype=model.dtype)
    generators = [torch.Generator().manual_seed(p.seed) for p in filled]
    latents = denoise(
        model,
        initial_noise(model, generators, sampler),
        model.trajectory([p.text for p in filled]),
        sampler,
        guidance_scale=scale.view(-1, 1, 1, 1),
        generators=generators,
    )
    return decode(model, latents)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or "not enough memory" in str(error)
