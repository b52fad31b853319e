"""ResNet-9 as in EasyDUB, data-unlearning-bench and Attribute-to-Delete (KakaoBrain's torchskeleton).

2,274,880 parameters and 2,696 buffer values per model; 291.3 M multiply-adds per 32 x 32 image. The module
tree gives the very state-dict keys of the published checkpoints: `0.0.weight`, `2.module.1.1.bias`, ...
"""

import torch
from torch import Tensor, nn

from klom_bench import layers


class Residual(nn.Module):
    """x + module(x), without an activation after the sum."""

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.module = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + module(x)."""
        return x + self.module(x)


class ResNet9(nn.Sequential):
    """M networks: (M, B, 3, h, w) normalised images -> (M, B, classes) logits.

    One model also takes (B, 3, h, w) and then returns (B, classes), as users of the checkpoints expect.

    Args:
        n_models: M.
        classes: number of classes.
        width: channels of the first block; 64 in every published model, smaller in tests.
    """

    def __init__(self, n_models: int = 1, *, classes: int = 10, width: int = 64):
        def block(inputs: int, outputs: int, **shape: int) -> nn.Sequential:
            return nn.Sequential(
                layers.Conv2d(n_models, inputs, outputs, **shape),
                layers.BatchNorm2d(n_models, outputs),
                nn.ReLU(inplace=True),
            )

        w = width
        super().__init__(
            block(3, w),
            block(w, 2 * w, kernel=5, stride=2, pad=2),
            Residual(block(2 * w, 2 * w), block(2 * w, 2 * w)),
            block(2 * w, 4 * w),
            nn.MaxPool2d(2),
            Residual(block(4 * w, 4 * w), block(4 * w, 4 * w)),
            block(4 * w, 2 * w, pad=0),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            layers.Linear(n_models, 2 * w, classes, bias=False),
        )
        self.n_models = n_models

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of model m for the images x[m]."""
        plain = x.dim() == 4
        if plain:
            x = x[None]
        m, b = x.shape[:2]
        x = x.transpose(0, 1).reshape(b, -1, *x.shape[3:])  # (B, M * 3, h, w): the models are channel groups
        if x.is_cuda:
            x = x.contiguous(memory_format=torch.channels_last)
        *features, head = self.children()
        for layer in features:
            x = layer(x)
        x = head(x.view(b, m, -1).transpose(0, 1)) * 0.2
        return x[0] if plain else x
