"""The loop of every technique that trains: some parameters of one part, a loss, Adam, and fp32 master weights."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearn_core.errors import UnlearnError
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.weights import with_weights

Progress = Callable[[int, int], None]
Loss = Callable[[StableDiffusion, int], Tensor]
"""(student, iteration) -> scalar."""


def finetune(
    model: StableDiffusion,
    names: Sequence[str],
    loss: Loss,
    *,
    iterations: int,
    lr: float,
    part: Literal["unet", "text_encoder"] = "unet",
    weight_decay: float = 0.0,
    max_norm: float | None = None,
    progress: Progress | None = None,
) -> StableDiffusion:
    """Return a model whose parameters `names` of one part went down `loss`; the argument stays as it was.

    Adam with its default betas and a constant rate. The trained parameters are held and updated in float32: in
    bfloat16 an update of one rate is less than half a unit in the last place of most weights, which never move. Where
    the model is in half precision, the forward pass runs under autocast.

    Args:
        model: the teacher; it shares every other tensor with the result.
        names: of the parameters of the part.
        loss: called with the student and the number of the iteration.
        iterations: how many.
        lr: Adam's rate.
        part: what is trained.
        weight_decay: decoupled, as in AdamW.
        max_norm: the gradient of all parameters together is scaled down to this norm; None leaves it.
        progress: called after each iteration.

    Raises:
        UnlearnError: the loss is not finite.
    """
    original: nn.Module = getattr(model, part)
    module = with_weights(original, {name: original.get_parameter(name).clone() for name in names})
    trained = _masters(module, names)
    # The other part as constants: a gradient passes through it, and nothing is kept for one of its weights.
    other = "unet" if part == "text_encoder" else "text_encoder"
    student = dataclasses.replace(model, **{part: module, other: with_weights(getattr(model, other), {})})
    adam = Adam(trained, lr, weight_decay=weight_decay)
    half = model.dtype in (torch.float16, torch.bfloat16)
    for iteration in range(iterations):
        with torch.enable_grad(), torch.autocast(model.device.type, model.dtype, enabled=half):
            value = loss(student, iteration)
        if not torch.isfinite(value):
            raise UnlearnError(
                f"the loss of iteration {iteration + 1} is {value.item()}: lower the learning rate or use --dtype fp32"
            )
        gradients = torch.autograd.grad(value, trained)
        if max_norm is not None:
            gradients = clipped(gradients, max_norm)
        adam.step(gradients)
        if progress:
            progress(iteration + 1, iterations)
    final = {name: p.detach().to(model.dtype) for name, p in zip(names, trained, strict=True)}
    return dataclasses.replace(model, **{part: with_weights(original, final)})


def clipped(gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """Return the gradients scaled down to a common norm of at most `max_norm`, as `clip_grad_norm_` does."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))
    return torch._foreach_mul(list(gradients), (max_norm / (norm + 1e-6)).clamp(max=1.0))  # type: ignore[return-value]


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1), AdamW with a decay: as torch's, which costs five seconds to import."""

    def __init__(
        self,
        parameters: Sequence[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters, self.lr, self.betas, self.steps = list(parameters), lr, betas, 0
        self.weight_decay = weight_decay
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step down the gradients, one for each parameter."""
        self.steps += 1
        b1, b2 = self.betas
        grads = list(gradients)
        if self.weight_decay:
            torch._foreach_mul_(self.parameters, 1 - self.lr * self.weight_decay)
        torch._foreach_lerp_(self.first, grads, 1 - b1)
        torch._foreach_mul_(self.second, b2)
        torch._foreach_addcmul_(self.second, grads, grads, 1 - b2)
        root = torch._foreach_sqrt(self.second)
        torch._foreach_div_(root, (1 - b2**self.steps) ** 0.5)
        torch._foreach_add_(root, 1e-8)
        torch._foreach_addcdiv_(self.parameters, self.first, root, -self.lr / (1 - b1**self.steps))


def _masters(module: nn.Module, names: Sequence[str]) -> list[Any]:
    """Put float32 parameters that require a gradient in the place of those named, and return them."""
    found = []
    for name in names:
        owner_name, _, attribute = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        master = nn.Parameter(owner.get_parameter(attribute).detach().float())
        setattr(owner, attribute, master)
        found.append(master)
    return found
