"""The loop of every technique that trains: some parameters of the UNet, a loss, Adam, and fp32 master weights."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_core.errors import UnlearnError
from unlearn_techniques.diffusion.model import StableDiffusion, with_weights

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
    progress: Progress | None = None,
) -> StableDiffusion:
    """Return a model whose UNet parameters `names` went down `loss`; the argument stays as it was.

    Adam with its default betas and a constant rate. The trained parameters are held and updated in float32: in
    bfloat16 an update of one rate is less than half a unit in the last place of most weights, which never move. Where
    the model is in half precision, the forward pass runs under autocast.

    Args:
        model: the teacher; it shares every other tensor with the result.
        names: of the parameters of the UNet.
        loss: called with the student and the number of the iteration.
        iterations: how many.
        lr: Adam's rate.
        progress: called after each iteration.

    Raises:
        UnlearnError: the loss is not finite.
    """
    originals = dict(model.unet.named_parameters())
    unet = with_weights(model.unet, {name: originals[name].clone() for name in names})
    trained = _masters(unet, names)
    student = dataclasses.replace(model, unet=unet)
    adam = Adam(trained, lr)
    half = model.dtype in (torch.float16, torch.bfloat16)
    for iteration in range(iterations):
        with torch.enable_grad(), torch.autocast(model.device.type, model.dtype, enabled=half):
            value = loss(student, iteration)
        if not torch.isfinite(value):
            raise UnlearnError(
                f"the loss of iteration {iteration + 1} is {value.item()}: lower the learning rate or use --dtype fp32"
            )
        adam.step(torch.autograd.grad(value, trained))
        if progress:
            progress(iteration + 1, iterations)
    final = {name: p.detach().to(model.dtype) for name, p in zip(names, trained, strict=True)}
    return dataclasses.replace(model, unet=with_weights(model.unet, final))


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1), equal to `torch.optim.Adam`, which costs five seconds to import."""

    def __init__(
        self, parameters: Sequence[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self.parameters, self.lr, self.betas, self.steps = list(parameters), lr, betas, 0
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step down the gradients, one for each parameter."""
        self.steps += 1
        b1, b2 = self.betas
        grads = list(gradients)
        torch._foreach_lerp_(self.first, grads, 1 - b1)
        torch._foreach_mul_(self.second, b2)
        torch._foreach_addcmul_(self.second, grads, grads, 1 - b2)
        root = torch._foreach_sqrt(self.second)
        torch._foreach_div_(root, (1 - b2**self.steps) ** 0.5)
        torch._foreach_add_(root, 1e-8)
        torch._foreach_addcdiv_(self.parameters, self.first, root, -self.lr / (1 - b1**self.steps))


def _masters(unet: nn.Module, names: Sequence[str]) -> list[Any]:
    """Put float32 parameters that require a gradient in the place of those named, and return them."""
    found = []
    for name in names:
        owner_name, _, attribute = name.rpartition(".")
        owner = unet.get_submodule(owner_name)
        master = nn.Parameter(owner.get_parameter(attribute).detach().float())
        setattr(owner, attribute, master)
        found.append(master)
    return found
