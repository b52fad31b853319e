"""What takes part in a forward pass of training but gets no gradient."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearn_techniques.diffusion.steps import Step


@dataclass(frozen=True, kw_only=True)
class FirstTokenDetached:
    """An activation hook on keys and values: those of the first token, the same in every prompt, get no gradient."""

    modules: tuple[str, ...]

    def __call__(self, output: Tensor, rows: Mapping[str, slice], step: Step) -> Tensor:
        """Return `output` (n, tokens, width), its numbers unchanged."""
        return torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)


@contextlib.contextmanager
def only_rows(table: nn.Embedding, ids: Collection[int]) -> Iterator[None]:
    """Let gradients reach the rows `ids` of an embedding alone, while the context lasts."""
    chosen = torch.zeros(table.num_embeddings, dtype=torch.bool, device=table.weight.device)
    chosen[list(ids)] = True

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return torch.where(chosen[inputs[0]].unsqueeze(-1), output, output.detach())

    handle = table.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
