"""Layers that hold many models at once.

Convention of the whole package: an *ensemble* of M models is a module with an attribute `n_models` each of
whose parameters and buffers is that of M single models concatenated along dimension 0. So the published
checkpoints of one model load into an ensemble of one, `torch.cat` builds an ensemble, and
`p.view(M, -1)` is the table of its models. Data flows as (M, B, ...): B examples for each of M models.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Module):
    """M linear maps as one batched matrix product: (M, B, inputs) -> (M, B, outputs).

    `weight` is (M * outputs, inputs), `bias` (M * outputs,), initialised like M separate `nn.Linear`.
    """

    def __init__(self, n_models: int, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        self.n_models = n_models
        self.weight = nn.Parameter(torch.empty(n_models * outputs, inputs))
        self.bias = nn.Parameter(torch.empty(n_models * outputs)) if bias else None

    def initialise(self, model: int, generator: torch.Generator) -> None:
        """Draw the parameters of one model: uniform in +-1/sqrt(inputs), the default of `nn.Linear`."""
        bound = self.weight.shape[1] ** -0.5
        for p in filter(lambda p: p is not None, (self.weight, self.bias)):
            part = p.data.view(self.n_models, -1)[model]
            part.copy_(torch.empty(part.shape).uniform_(-bound, bound, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Apply map m to x[m]."""
        weight = self.weight.view(self.n_models, -1, self.weight.shape[1]).transpose(1, 2)
        if self.bias is None:
            return torch.bmm(x, weight)
        return torch.baddbmm(self.bias.view(self.n_models, 1, -1), x, weight)


class Conv2d(nn.Module):
    """M convolutions without bias as one grouped convolution: (B, M * inputs, h, w) -> (B, M * outputs, ...)."""

    def __init__(
        self, n_models: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pad: int = 1
    ):
        super().__init__()
        self.n_models, self.stride, self.pad = n_models, stride, pad
        self.weight = nn.Parameter(torch.empty(n_models * outputs, inputs, kernel, kernel))

    def initialise(self, model: int, generator: torch.Generator) -> None:
        """Draw the weights of one model: uniform in +-1/sqrt(fan in), the default of `nn.Conv2d`."""
        bound = self.weight[0].numel() ** -0.5
        part = self.weight.data.view(self.n_models, -1)[model]
        part.copy_(torch.empty(part.shape).uniform_(-bound, bound, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the channels of model m with the kernels of model m."""
        return F.conv2d(x, self.weight, stride=self.stride, padding=self.pad, groups=self.n_models)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of M models at once; each channel has its own statistics anyway."""

    def __init__(self, n_models: int, channels: int):
        super().__init__(n_models * channels)
        self.n_models = n_models
