"""Modules with other values for some parameters, which share all the rest."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from unlearn_core.errors import InvalidInput


def with_weights(module: nn.Module, changes: Mapping[str, Tensor]) -> Any:
    """Return the module with other values for the parameters named; all others are shared with the argument.

    Raises:
        InvalidInput: no such parameter, or another shape.
    """
    # Another Parameter on the same storage: training may set requires_grad here without the argument noticing.
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    shared |= {id(b): b for b in module.buffers()}
    edited = copy.deepcopy(module, shared)
    for name, value in changes.items():
        owner_name, _, attribute = name.rpartition(".")
        try:
            owner = edited.get_submodule(owner_name)
            old = owner.get_parameter(attribute)
        except AttributeError:
            raise InvalidInput(f"{type(module).__name__} has no parameter {name!r}") from None
        if old.shape != value.shape:
            raise InvalidInput(f"parameter {name!r} is {tuple(old.shape)}, not {tuple(value.shape)}")
        value = value.detach().to(device=old.device, dtype=old.dtype)
        setattr(owner, attribute, nn.Parameter(value, requires_grad=False))
    return edited
