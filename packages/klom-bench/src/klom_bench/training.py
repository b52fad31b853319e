"""The pieces every method is written with: orders, losses and gradients, each kept apart per model.

All of them treat an ensemble of M models as M separate trainings that happen to share their matrix
products: every model has its own random stream, its own loss and its own gradient norm.
"""

import collections
import copy
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from klom_bench.ensemble import logits, per_model, seeds_of, size
from klom_bench.split import Split
from unlearn_core.errors import InvalidInput

BatchNorm = Literal["train", "frozen"]
"""Whether batch norm uses and updates batch statistics while a method trains, or keeps those it has."""


def last(steps: Iterator[nn.Module]) -> nn.Module:
    """Return the last model that a method yields: its result."""
    return collections.deque(steps, maxlen=1).pop()


def streams(model: nn.Module, seed: int, purpose: str, ids: Sequence[int] | None) -> list[torch.Generator]:
    """Return one random stream per model, on its device, from the root `seed` and the model's id.

    `ids` defaults to 0..M-1. A model meets the same randomness alone and in any ensemble.
    """
    ids = range(size(model)) if ids is None else ids
    if len(ids) != size(model):
        raise InvalidInput(f"{len(ids)} ids for an ensemble of {size(model)} models")
    device = next(model.parameters()).device
    return [torch.Generator(device).manual_seed(s) for s in seeds_of(seed, purpose, ids)]


def student_of(model: nn.Module, batch_norm: BatchNorm) -> nn.Module:
    """Return a copy of `model` in training mode; its statistics of batch norm are fixed if "frozen".

    On a forget set of ten images, one pass in training mode replaces the statistics of the whole train set
    by those of ten images: that, rather than the gradient, dominates gradient ascent at small learning
    rates in the published results (EasyDUB sets 6, 8, 9).
    """
    student = copy.deepcopy(model).train()
    if batch_norm == "frozen":
        for module in student.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    return student


def teacher_of(model: nn.Module) -> nn.Module:
    """Return a copy of `model` in evaluation mode that takes no gradient."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def snapshot(student: nn.Module) -> nn.Module:
    """Return a copy of the model in training, in evaluation mode: what a method yields after an epoch."""
    return copy.deepcopy(student).eval()


def shuffled(indices: Tensor, batch_size: int, streams: Sequence[torch.Generator]) -> Iterator[Tensor]:
    """Yield one pass over `indices` in batches (M, B), every model in an order of its own."""
    orders = [torch.randperm(len(indices), generator=g, device=g.device) for g in streams]
    yield from indices[torch.stack(orders)].split(batch_size, dim=1)


def outputs(model: nn.Module, split: Split, batch: Tensor) -> Tensor:
    """Return the logits (M, B, classes) of model m on the training images batch[m]."""
    return logits(model, split.images[batch])


def cross_entropy(model: nn.Module, split: Split, batch: Tensor) -> Tensor:
    """Return the mean cross-entropy (M,) of each model on its own batch (M, B) of training images."""
    # log sum_c exp z_c - z_y, with the images last: a sum over ten classes in the last place is twice as slow.
    z = outputs(model, split, batch).float().transpose(1, 2).contiguous()
    right = z.gather(1, split.labels[batch][:, None]).squeeze(1)
    return (z.logsumexp(1) - right).mean(1)


def step(optimizer: "SGD", losses: Tensor, *, lr: float | None = None) -> None:
    """Take one step down the M `losses`; no model's gradient reaches another's parameters."""
    backward(optimizer, losses)
    optimizer.lr = optimizer.lr if lr is None else lr
    optimizer.step()


def backward(optimizer: "SGD", losses: Tensor) -> None:
    """Put the gradient of every model's loss into its parameters, replacing what was there."""
    optimizer.zero_grad()
    losses.sum().backward()


class SGD:
    """Gradient descent with momentum and weight decay, step for step that of `torch.optim.SGD`.

    torch's own costs five seconds to construct (it imports the compiler), more than many a method takes here.
    """

    def __init__(self, model: nn.Module, lr: float, momentum: float = 0.0, weight_decay: float = 0.0):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.velocities = [torch.zeros_like(p) for p in self.parameters] if momentum else []
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """G <- grad + weight_decay theta; v <- momentum v + g; theta <- theta - lr v."""
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            g = p.grad.add(p, alpha=self.weight_decay) if self.weight_decay else p.grad
            if self.momentum:
                g = self.velocities[i].mul_(self.momentum).add_(g)
            p.sub_(g, alpha=self.lr)


def clip_gradients(model: nn.Module, max_norm: float) -> None:
    """Scale the gradient of each model so that its norm over all parameters is at most `max_norm`."""
    gradients = _gradients(model)
    norms = torch.stack([g.square().sum(1) for g in gradients]).sum(0).sqrt()
    scale = (max_norm / norms.clamp_min(1e-12)).clamp_max(1)[:, None]
    for g in gradients:
        g.mul_(scale)


def add_gradient_noise(model: nn.Module, std: float, streams: Sequence[torch.Generator]) -> None:
    """Add independent N(0, std^2) to every coordinate of every model's gradient, each from its own stream."""
    gradients = _gradients(model)
    widths = [g.shape[1] for g in gradients]
    noise = torch.empty(size(model), sum(widths), device=gradients[0].device)
    for row, stream in zip(noise, streams, strict=True):
        row.normal_(0.0, std, generator=stream)
    for g, part in zip(gradients, noise.split(widths, dim=1), strict=True):
        g.add_(part)


def _gradients(model: nn.Module) -> list[Tensor]:
    """Return the gradients there are (a frozen or unused parameter has none) as tables (M, values)."""
    return [per_model(p.grad, size(model)) for p in model.parameters() if p.grad is not None]


def triangle(progress: float, peak: float = 0.0) -> float:
    """Return the learning-rate factor at `progress` in [0, 1]: 0 to 1 until `peak`, then down to 0."""
    return progress / peak if progress < peak else (1 - progress) / (1 - peak)
