"""Many models as one module: build, stack, take apart, run.

See `klom_bench.layers` for the one convention behind all of this. A plain `nn.Module` counts as one model.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

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

    A model is the same whichever ensemble it is initialised in. Batch norm starts from its defaults,
    statistics included. The layers of a plain module are drawn by their own `reset_parameters`.

    Raises:
        InvalidInput: not one seed per model, or a layer that nobody can draw anew: keeping its old values
            would make "trained from scratch" untrue.
    """
    n = size(model)
    if len(seeds) != n:
        raise InvalidInput(f"{len(seeds)} seeds for an ensemble of {n} models")
    for m, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):  # `reset_parameters` takes no generator
            torch.default_generator.manual_seed(seed)
            for name, layer in model.named_modules():
                _initialise_layer(layer, name, m, n, generator)
    return model


def _initialise_layer(layer: nn.Module, name: str, m: int, n: int, generator: torch.Generator) -> None:
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        layer.reset_parameters()
    elif hasattr(layer, "n_models") and hasattr(layer, "initialise"):
        layer.initialise(m, generator)
    elif not list(layer.parameters(recurse=False)):
        pass
    elif n == 1 and hasattr(layer, "reset_parameters"):
        fresh = copy.deepcopy(layer).cpu()  # the same numbers on every device
        fresh.reset_parameters()
        layer.load_state_dict(fresh.state_dict())
    else:
        raise InvalidInput(
            f"cannot draw the parameters of {name or 'the model'} ({type(layer).__name__}) anew: give it "
            + (
                "a method reset_parameters()"
                if n == 1
                else "n_models and a method initialise(model, generator)"
            )
        )


def stack(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the state dict of an ensemble from those of its models (or of smaller ensembles).

    Raises:
        InvalidInput: none at all, or one lacks a key or holds another shape; the message says which and where.
    """
    if not states:
        raise InvalidInput("no models to stack")
    first = states[0]
    for i, state in enumerate(states):
        counts = {len(v) / len(first[k]) for k, v in state.items() if v.dim() and k in first}
        for name in {**first, **state}:
            if name not in state or name not in first:
                raise InvalidInput(
                    f"model {i} has no tensor {name!r}" if name in first else f"only model {i} has {name!r}"
                )
            same = state[name].dim() == first[name].dim() and state[name].shape[1:] == first[name].shape[1:]
            if not same or (len(counts) > 1 and state[name].shape != first[name].shape):
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
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Return the margins (M, n) float32 of every model on `images` (n, ...) with `labels` (n,), in eval mode.

    `batch_size` images go through all models at once; by default 10,000 / M, which fits ResNet-9 into a GPU.
    """
    batch_size = batch_size or max(1, 10_000 // size(model))
    training = [module for module in model.modules() if module.training]
    model.eval()
    parts = []
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        x, y = x.to(device), y.to(device)
        z = logits(model, x.expand(size(model), *x.shape))
        parts.append(margins(z.float(), y).cpu())
    for module in training:  # one by one: some of them may have been frozen
        module.training = True
    return torch.cat(parts, dim=1)


def seeds_of(root: int, purpose: str, models: Sequence[int]) -> list[int]:
    """Return one seed per model id: the same model, the same seed, whatever runs beside it."""
    return [derive(root, purpose, int(i)) for i in models]


Progress = Callable[[int, int], None]
