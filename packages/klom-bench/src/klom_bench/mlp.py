"""A multilayer perceptron that memorises enough for a forget set to matter: the model of the digits data set."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from klom_bench import layers


class MLP(nn.Sequential):
    """M networks of `sizes[0]` inputs, hidden layers with ReLU, and `sizes[-1]` logits each.

    (M, B, sizes[0]) -> (M, B, sizes[-1]); one model also takes (B, sizes[0]) and returns (B, sizes[-1]).
    """

    def __init__(self, n_models: int = 1, *, sizes: Sequence[int] = (64, 64, 64, 10)):
        maps = [layers.Linear(n_models, a, b) for a, b in pairwise(sizes)]
        super().__init__(*[part for linear in maps for part in (linear, nn.ReLU(inplace=True))][:-1])
        self.n_models = n_models

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of model m for the inputs x[m]."""
        plain = x.dim() == 2
        x = super().forward(x[None] if plain else x)
        return x[0] if plain else x
