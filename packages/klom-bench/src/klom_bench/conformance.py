"""What every unlearning method has to do, ours and a plugin's: call `check_method` from a test.

    def test_my_method():
        check_method(MyMethod(epochs=2), MLP(3), split)

Each property is a function of its own; a failure is an AssertionError that names the property in words.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from klom_bench.ensemble import per_model, size
from klom_bench.split import Split
from klom_bench.training import last
from unlearn_core.spec import settings_of
from unlearn_core.testing.settings import check_settings, require

_IDS = 11  # of the first model: no method may take ids for positions


def check_method(
    method: Any,
    model: nn.Module,
    split: Split,
    *,
    changes: bool = True,
    random: bool = True,
    tolerance: float = 1e-4,
) -> None:
    """Check every property below on `model`, an ensemble or one plain module.

    Keep the model small and the epochs few: the method runs about ten times.

    Args:
        method: an instance, set up so that it draws random numbers that matter (batches smaller than the set).
        model: with random weights, in training mode or not; an ensemble of two or more tells most.
        split: what it is given.
        changes: whether the method changes parameters; False for doing nothing.
        random: whether its result depends on the seed.
        tolerance: largest difference of a parameter between a model trained in an ensemble and alone. Batched
            products add in another order, and training carries the rounding on: 1e-4 for a few epochs of an
            MLP, more where max pooling or batch norm can tip over.

    Raises:
        AssertionError: a property does not hold.
    """
    check_settings(method)
    check_argument_untouched(method, model, split)
    check_snapshots(method, model, split)
    check_seed(method, model, split, random=random and changes)
    check_changes(method, model, split, changes=changes)
    check_ensemble(method, model, split, random=random and changes, tolerance=tolerance)
    if changes and "batch_norm" in settings_of(method) and _batch_norms(model):
        check_batch_norm(method, model, split)


def check_argument_untouched(method: Any, model: nn.Module, split: Split) -> None:
    """Nothing the method was given changes, bit for bit, nor does torch's global random state."""
    before, flags = _state(model), _flags(model)
    tensors = {k: v.clone() for k, v in vars(split).items()}
    ambient = torch.get_rng_state()
    _run(method, model, split)
    require(_equal(before, _state(model)), "parameters and buffers of the argument stay as they were")
    require(flags == _flags(model), "training mode, requires_grad and gradients of the argument stay")
    require(_equal(tensors, vars(split)), "the split stays as it was")
    require(torch.equal(ambient, torch.get_rng_state()), "torch's global random state is left alone")


def check_snapshots(method: Any, model: nn.Module, split: Split) -> None:
    """One model per epoch, in evaluation mode, that shares nothing with the training that goes on."""
    given, states = [], []
    for step in _steps(method, model, split):
        given.append(step)
        states.append(_state(step))
        require(not any(part.training for part in step.modules()), "models are yielded in evaluation mode")
        require(size(step) == size(model), "as many models come out as went in")
    epochs = settings_of(method).get("epochs", len(given))
    require(len(given) == epochs >= 1, f"one model per epoch: {len(given)} for {epochs} epochs")
    for step, state in zip(given, states, strict=True):
        require(_equal(state, _state(step)), "a yielded model does not change when training goes on")
    for step in _steps(method, model, split):
        result = _state(step)
        with torch.no_grad():
            for p in step.parameters():
                p.zero_()
    require(_equal(result, states[-1]), "training goes on from its own weights, not from what it yielded")


def check_seed(method: Any, model: nn.Module, split: Split, *, random: bool = True) -> None:
    """The same seed gives the same result, another seed another."""
    first = _run(method, model, split)
    torch.rand(1)  # whatever happens elsewhere in the process
    require(_equal(first, _run(method, model, split)), "the same seed gives the same result")
    other = _run(method, model, split, seed=2)
    require(_equal(first, other) != random, "another seed gives another result")


def check_changes(method: Any, model: nn.Module, split: Split, *, changes: bool = True) -> None:
    """Parameters, and not only the statistics of batch norm, change: in every model of the ensemble."""
    result = last(_steps(method, model, split))
    n = size(model)
    pairs = list(zip(model.parameters(), result.parameters(), strict=True))
    require(all(a is not b for a, b in pairs), "the result is a copy")
    for m in range(n):
        same = all(torch.equal(per_model(a, n)[m], per_model(b, n)[m]) for a, b in pairs)
        require(same != changes, f"the parameters of model {m} {'change' if changes else 'stay'}")
    require(all(bool(b.isfinite().all()) for _, b in pairs), "parameters stay finite")


def check_ensemble(
    method: Any, model: nn.Module, split: Split, *, random: bool = True, tolerance: float = 1e-4
) -> None:
    """Model i of an ensemble becomes what it becomes alone under its id; an id, not a place, decides."""
    n = size(model)
    together = list(_run(method, model, split).items())
    for m in range(n) if n > 1 else ():
        alone = _run(method, member(model, m), split, ids=[_IDS + m])
        for name, value in together:
            part = value.chunk(n)[m] if value.dim() else value
            off = float((part - alone[name]).abs().max())
            require(
                part.shape == alone[name].shape and off <= tolerance,
                f"model {m} is the same in an ensemble and alone: {name} is off by {off:.1e}",
            )
    elsewhere = _run(method, model, split, ids=range(_IDS + 100, _IDS + 100 + n))
    require(_equal(dict(together), elsewhere) != random, "another id is another stream")


def check_batch_norm(method: Any, model: nn.Module, split: Split) -> None:
    """batch_norm="frozen" keeps the running statistics; "train" updates them."""
    for mode in ("frozen", "train"):
        result = last(_steps(dataclasses.replace(method, batch_norm=mode), model, split))
        for before, after in zip(_batch_norms(model), _batch_norms(result), strict=True):
            same = _equal(dict(before.named_buffers()), dict(after.named_buffers()))
            require(same == (mode == "frozen"), f"batch_norm={mode!r} does to the statistics what it says")


def member(model: nn.Module, m: int) -> nn.Module:
    """Return model m of an ensemble as an ensemble of one, by the convention of `klom_bench.layers`."""
    n = size(model)
    one = copy.deepcopy(model)
    for part in one.modules():
        if hasattr(part, "n_models"):
            part.n_models = 1
        if hasattr(part, "num_features"):
            part.num_features //= n
    for tensor in [*one.parameters(), *one.buffers()]:
        if tensor.dim():
            tensor.data = tensor.data.chunk(n)[m].clone()
    return one


def _steps(
    method: Any, model: nn.Module, split: Split, *, seed: int = 1, ids: Sequence[int] | None = None
) -> Iterator[nn.Module]:
    ids = range(_IDS, _IDS + size(model)) if ids is None else ids
    steps: Callable[..., Iterator[nn.Module]] = method.steps
    return steps(model, split, seed=seed, ids=ids)


def _run(method: Any, model: nn.Module, split: Split, **options: Any) -> dict[str, Tensor]:
    return _state(last(_steps(method, model, split, **options)))


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def _flags(model: nn.Module) -> list[Any]:
    parameters = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    gradients = [None if g is None else g.tolist() for _, g in parameters]
    return [[part.training for part in model.modules()], [r for r, _ in parameters], gradients]


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
