"""Low-rank adapters (Hu et al. 2021) of linear modules of the UNet: trained, and returned as changes of weights.

changes = lora(model, modules, loss, rank=1, seed=0, iterations=50, lr=1e-4)
edited = merged(model, changes)
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unlearn_core.errors import InvalidInput
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.finetune import Loss, Progress, finetune
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.weights import with_weights


class LowRank(nn.Linear):
    """A linear map with ``W + up down`` in the place of W; W itself is shared with the map it came from.

    `down` (rank, in) is normal with deviation 1/rank and `up` (out, rank) is 0, as in diffusers: it begins as the
    map that it adapts. There is no factor alpha.
    """

    def __init__(self, adapted: nn.Linear, rank: int, generator: torch.Generator) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = adapted.in_features, adapted.out_features
        self.weight, self.bias = adapted.weight, adapted.bias
        down = torch.randn(rank, self.in_features, generator=generator) / rank
        self.down = nn.Parameter(down.to(self.weight), requires_grad=False)
        self.up = nn.Parameter(self.weight.new_zeros(self.out_features, rank), requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``x W^T + b + x down^T up^T``."""
        return super().forward(input) + linear(linear(input, self.down), self.up)


def lora(
    model: StableDiffusion,
    modules: Sequence[str],
    loss: Loss,
    *,
    rank: int,
    seed: int,
    iterations: int,
    lr: float,
    weight_decay: float = 0.0,
    max_norm: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Return module -> the change ``up down`` (out, in) float32 of its weight that went down `loss`.

    Args:
        model: what is adapted; it stays as it was.
        modules: names of linear modules of the UNet.
        loss: called with the adapted student and the number of the iteration.
        rank: of each change.
        seed: of the first values of `down`.
        iterations: as in `finetune`.
        lr: as in `finetune`.
        weight_decay: of `up` and `down`.
        max_norm: of the gradient of all adapters together.
        progress: called after each iteration.

    Raises:
        InvalidInput: a module that is no linear one.
        UnlearnError: the loss is not finite.
    """
    student = dataclasses.replace(model, unet=_adapted(model.unet, modules, rank, seed))
    names = [f"{module}.{side}" for module in modules for side in ("down", "up")]

    def seen(student: StableDiffusion, iteration: int) -> Tensor:
        # A loss on attention does not depend on the last layer's values: their adapter has gradient 0, not none.
        unused = sum(student.unet.get_parameter(name).sum() for name in names)
        return loss(student, iteration) + 0.0 * unused

    trained = finetune(
        student, names, seen, iterations=iterations, lr=lr, weight_decay=weight_decay, max_norm=max_norm,
        progress=progress,
    ).unet  # fmt: skip
    found = {name: trained.get_submodule(name) for name in modules}
    return {name: m.up.detach().float() @ m.down.detach().float() for name, m in found.items()}


def merged(model: StableDiffusion, changes: Mapping[str, Tensor]) -> StableDiffusion:
    """Return the model with the changes (out, in) added to the weights of modules of its UNet."""
    weights = {f"{n}.weight": model.unet.get_submodule(n).weight.float() + d for n, d in changes.items()}
    return dataclasses.replace(model, unet=with_weights(model.unet, weights))


def _adapted(unet: nn.Module, modules: Sequence[str], rank: int, seed: int) -> Any:
    """Return the UNet with adapters in the place of `modules`; all weights are shared."""
    edited = with_weights(unet, {})
    for name in modules:
        owner, _, attribute = name.rpartition(".")
        try:
            found = edited.get_submodule(name)
        except AttributeError:
            found = None
        if type(found) is not nn.Linear:
            kind = "is not there" if found is None else f"is a {type(found).__name__}"
            raise InvalidInput(f"an adapter needs a linear module of the UNet, {name!r} {kind}")
        generator = torch.Generator().manual_seed(derive(seed, "lora", name))
        setattr(edited.get_submodule(owner), attribute, LowRank(found, rank, generator))
    return edited
