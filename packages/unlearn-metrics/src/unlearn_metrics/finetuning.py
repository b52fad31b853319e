"""Fine-tuning of a diffusion model on a few images: the loop behind `relearning`."""

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from unlearn_core.errors import UnlearnError
from unlearn_core.prompts import Prompt
from unlearn_core.protocols import Progress
from unlearn_core.samples import Sample
from unlearn_core.seeds import derive
from unlearn_metrics.images import read


class Relearnable(Protocol):
    """A latent diffusion model that can be trained on: a dataclass of parts, as `StableDiffusion` is."""

    unet: Any
    """The torch module that is trained; `noise` asks it, and `dataclasses.replace` puts another in its place."""
    vae: Any
    """A diffusers `AutoencoderKL`."""
    scheduler: Any
    """Has `alphas_cumprod` (1000,) and `config.prediction_type`."""

    def to(self, *, dtype: Any) -> "Relearnable":
        """Return the model in a dtype; the argument stays as it was."""
        ...

    def tokens(self, texts: Sequence[str]) -> Any:
        """Return token ids, on the device of the model."""
        ...

    def trajectory(self, texts: Sequence[str]) -> Any:
        """Return what `noise` needs of n texts."""
        ...

    def noise(self, x: Any, t: Any, trajectory: Any) -> Any:
        """Return the noise (n, 4, h, w) that the model with its defence sees in latents, differentiable."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampler: Any = None) -> Iterable[Any]:
        """Return one uint8 RGB picture (h, w, 3) per prompt."""
        ...


def finetuned(
    model: Relearnable,
    learned: Sequence[Sample],
    *,
    steps: Sequence[int],
    lr: float,
    batch: int,
    seed: int,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield (steps done, the model as it then is) at each of `steps`; the argument stays as it was.

    The usual loss: the squared error of the noise at times drawn uniformly, of a copy of the UNet in float32, with
    whatever acts while the model draws. The same seed gives the same models.

    Args:
        model: what is trained on.
        learned: images, with their prompts.
        steps: numbers of steps, rising.
        lr: Adam's rate.
        batch: images in a step, drawn with replacement.
        seed: of images, times and noise.
        progress: called with (steps done, steps in all).

    Raises:
        UnlearnError: the loss is not finite.
    """
    import torch

    from unlearn_metrics.attacks.drawing import Noised, latents_of

    # In half precision an update of this rate is less than most weights can change by.
    model = model.to(dtype=torch.float32)
    student: Any = dataclasses.replace(model, unet=copy.deepcopy(model.unet).requires_grad_(True))  # type: ignore[type-var]
    latents = torch.cat([latents_of(student, read(row)) for row in learned])
    texts, weights = [row.prompt.text for row in learned], list(student.unet.parameters())
    optimiser = torch.optim.Adam(weights, lr=lr)
    generator = torch.Generator().manual_seed(derive(seed, "relearning"))
    for step in range(1, steps[-1] + 1):
        chosen = torch.randint(len(latents), (batch,), generator=generator).tolist()
        times = torch.randint(len(student.scheduler.alphas_cumprod), (batch,), generator=generator)
        noised = [
            Noised.of(student, latents[i][None], t, generator)
            for i, t in zip(chosen, times.tolist(), strict=True)
        ]
        with torch.no_grad():
            trajectory = student.trajectory([texts[i] for i in chosen])
        with torch.enable_grad():
            x, t = torch.cat([one.x for one in noised]), torch.stack([one.t for one in noised])
            error = student.noise(x, t, trajectory) - torch.cat([one.truth for one in noised])
            loss = error.square().mean()
        if not torch.isfinite(loss):
            raise UnlearnError(f"relearning: the loss of step {step} is {loss.item()}: lower lr")
        # Not backward(): parts that the student shares with the model would keep a gradient.
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimiser.step()
        if progress:
            progress(step, steps[-1])
        if step in steps:
            yield step, student
