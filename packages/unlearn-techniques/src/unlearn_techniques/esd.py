"""ESD: Erased Stable Diffusion.

Paper:
    R. Gandikota, J. Materzyńska, J. Fiotto-Kaufman, D. Bau, "Erasing Concepts from Diffusion Models", ICCV 2023,
    arXiv 2303.07345.
Idea:
    Fine-tune towards the negative of the model's own guidance. For x_t drawn by the student with the concept c, the
    frozen teacher gives ``target = eps(x_t, "") - eta (eps(x_t, c) - eps(x_t, ""))`` and the student learns
    ``|| eps'(x_t, c) - target ||^2`` (eqs. 6 and 7).
Changes:
    Weights of the UNet: the parameter group of `train_method` (`diffusion.attention.parameter_group`).
Defaults:
    The paper and its 2023 code: 1000 iterations of batch 1, Adam 1e-5, eta 1, x_t from 50 DDIM steps at guidance 3.
    Presets: style and names esd-x, objects and nudity esd-u (paper, section 4). "official-2025" is the diffusers script
    of 2025: 200 iterations at 5e-5, x_t from the teacher; its flag negative_guidance 2 is the paper's eta 1.
    "pocket" was chosen on pocket-sd's dog; "pocket-style" is the same with prompts of styles.
Deviations:
    t is the timestep that x_t has; the 2023 code adds up to 58 to it, `jitter=True` draws it within its bin.
    512 pixels, where the 2025 script trains SD v1.4 at 1024. float32 master weights, where it trains in bfloat16, in
    which most weights never move.
Reference code:
    https://github.com/rohitgandikota/erasing (MIT), heads a2189e9 (2023) and 25613d2 (2025), read, not copied.
Cost:
    An iteration is on average 24.5 guided steps, two predictions of the teacher and a backward pass: 54,000 forward
    passes in all, 20 to 30 minutes on an A100 for SD v1.4; two UNets in memory, and Adam on the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.attention import parameter_group
from unlearn_techniques.diffusion.finetune import finetune
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler, denoise, initial_noise

TrainMethod = Literal["esd-x", "esd-x-strict", "esd-u", "esd-u-2025", "selfattn", "notime", "full", "esd-all"]


@dataclass(frozen=True, kw_only=True)
class ESD:
    """Erased Stable Diffusion: fine-tunes the UNet away from the concept, against its own guidance."""

    train_method: TrainMethod = "esd-x"
    eta: float = 1.0
    """Negative guidance as in the paper; the flag of the 2025 script is this plus 1."""
    iterations: int = 1000
    lr: float = 1e-5
    batch: int = 1
    sampling_steps: int = 50
    """DDIM steps of the grid on which x_t is drawn."""
    sampling_guidance: float = 3.0
    sampled_by: Literal["student", "teacher"] = "student"
    erase_from: str | None = None
    """A wider prompt that the concept is taken out of: the student is trained on it, and keeps the rest of it."""
    phrases: bool = False
    """Whether the concept's other words are erased in turn with its name."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a word, one drawn per iteration; the official codes train on the bare word."""
    jitter: bool = False

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {"train_method": "esd-u"},
        "style": {"train_method": "esd-x"},
        "unsafe": {"train_method": "esd-u"},
        "official-2025": {"iterations": 200, "lr": 5e-5, "sampled_by": "teacher"},
        "pocket": {
            "lr": 1e-3, "iterations": 60, "batch": 2, "sampling_steps": 10, "phrases": True,
            "templates": ("a {}", "a {}, blue background", "a {}, sketch style"),
        },
        "pocket-style": {
            "lr": 1e-3, "iterations": 60, "batch": 2, "sampling_steps": 10,
            "templates": ("a dog, {} style", "an apple, {} style", "a house, {} style"),
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        if min(self.iterations, self.batch, self.sampling_steps) < 1 or self.lr <= 0 or self.eta < 0:
            raise InvalidInput(
                "ESD: iterations, batch and sampling_steps are at least 1, lr is above 0, eta at least 0; got "
                f"{self.iterations}, {self.batch}, {self.sampling_steps}, {self.lr}, {self.eta}"
            )
        if not self.templates or any(t.count("{}") != 1 for t in self.templates):
            raise InvalidInput(f"ESD: each template has one {{}} for the word, got {self.templates}")

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model whose UNet was trained away from `concepts`, one of their words drawn per iteration.

        Raises:
            InvalidInput: the parameter group is empty in this UNet.
            UnlearnError: the loss is not finite.
        """
        names = parameter_group(model.unet, self.train_method)
        words = [word for c in concepts for word in (c.names if self.phrases else (c.name,))]
        sampler = Sampler(steps=self.sampling_steps, guidance_scale=self.sampling_guidance)
        grid = sampler.scheduler_for(model).timesteps

        def loss(student: StableDiffusion, iteration: int) -> Tensor:
            generator = torch.Generator().manual_seed(derive(seed, "esd", iteration))
            text = _one(self.templates, generator).format(_one(words, generator))
            asked = text if self.erase_from is None else self.erase_from
            k = int(torch.randint(self.sampling_steps, (), generator=generator))
            noise = initial_noise(model, [generator] * self.batch, sampler)
            drawer = student if self.sampled_by == "student" else model
            with torch.no_grad():
                start = drawer.trajectory([asked] * self.batch)
                x = denoise(drawer, noise, start, sampler, stop=k)
                t = grid[k]
                if self.jitter:
                    t = (t + torch.randint(1000 // self.sampling_steps, (), generator=generator)).clamp(
                        max=999
                    )
                concept, empty = model.noise(
                    torch.cat([x, x]), t, model.trajectory([text] * self.batch + [""] * self.batch)
                ).chunk(2)
                base = (
                    empty
                    if self.erase_from is None
                    else model.noise(x, t, model.trajectory([asked] * len(x)))
                )
                again = student.trajectory([asked] * len(x))
            return esd_loss(student.noise(x, t, again), concept, empty, base, self.eta)

        return finetune(model, names, loss, iterations=self.iterations, lr=self.lr, progress=progress)


def esd_loss(student: Tensor, concept: Tensor, empty: Tensor, base: Tensor, eta: float) -> Tensor:
    """Return the mean of ``(student - [base - eta (concept - empty)])^2``, all (n, 4, h, w).

    `base` is the teacher's prediction for the empty prompt, or for the wider prompt that is kept (`erase_from`).
    """
    return (student - (base - eta * (concept - empty))).float().square().mean()


def _one(options: Sequence[str], generator: torch.Generator) -> str:
    return options[int(torch.randint(len(options), (), generator=generator))]
