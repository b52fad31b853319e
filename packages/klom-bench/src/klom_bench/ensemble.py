"""Many models as one module: build, stack, take apart, run.

See `klom_bench.layers` for the one convention behind all of this. A plain `nn.Module` counts as one model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from klom_bench import layers
from klom_bench.margins import margins
from unlearn_core.errors import InvalidInput
from unlearn_core.seeds import derive


def size(model: nn.Module) -> int:
    """Return the number of models in `model`: its `n_models`, 1 for a plain module."""
    return getattr(model, "n_models", 1)


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Return (M, B, classes) logits of model m for the inputs x[m], x of shape (M, B, ...)."""
    return model(x) if hasattr(model, "n_models") else model(x[0])[None]


def per_model(tensor: Tensor, n_models: int) -> Tensor:
    """Return a parameter, gradient or buffer of an ensemble as a table (M, values of one model)."""
    return tensor.view(n_models, -1)


def initialise(model: nn.Module, seeds: Sequence[int]) -> nn.Module:
    """Draw all parameters of model m from its own seed, in place, and return `model`.

    A model is the same whichever ensemble it is initialised in.
    """
    for m, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for layer in model.modules():
            if isinstance(layer, layers.Linear | layers.Conv2d):
                layer.initialise(m, generator)
    return model


def stack(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the state dict of an ensemble from those of its models (or of smaller ensembles).

    Raises:
        InvalidInput: a state dict lacks a key or holds another shape; the message says which and where.
    """
    first = states[0]
    for i, state in enumerate(states):
        for name in first.keys() | state.keys():
            if name not in state or name not in first:
                raise InvalidInput(
                    f"model {i} has no tensor {name!r}" if name in first else f"only model {i} has {name!r}"
                )
            if state[name].shape[1:] != first[name].shape[1:]:
                raise InvalidInput(
                    f"model {i}: {name!r} is {tuple(state[name].shape)}, not {tuple(first[name].shape)}"
                )
    # Counters of batch norm are scalars and the same for all models of a recipe.
    return {k: torch.cat([s[k] for s in states]) if v.dim() else v.clone() for k, v in first.items()}


def unstack(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield the state dict of each model of an ensemble."""
    n = size(model)
    for m in range(n):
        yield {
            k: v.detach().chunk(n)[m].clone() if v.dim() else v.clone() for k, v in model.state_dict().items()
        }


@torch.inference_mode()
def ensemble_margins(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 2000,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Return the margins (M, n) float32 of every model on `images` (n, ...) with `labels` (n,), in eval mode."""
    was_training = model.training
    model.eval()
    parts = []
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        x, y = x.to(device), y.to(device)
        z = logits(model, x.expand(size(model), *x.shape))
        parts.append(margins(z.float(), y).cpu())
    model.train(was_training)
    return torch.cat(parts, dim=1)


def seeds_of(root: int, purpose: str, models: Sequence[int]) -> list[int]:
    """Return one seed per model id: the same model, the same seed, whatever runs beside it."""
    return [derive(root, purpose, int(i)) for i in models]


Progress = Callable[[int, int], None]
