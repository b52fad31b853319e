"""What every network needs when it is loaded: a device that is there, and a name for what it computes."""

import hashlib

import torch
from torch import nn

from unlearn_core.errors import InvalidInput, Unavailable


def device_of(name: str) -> torch.device:
    """Return the device `name`; "auto" is the first CUDA device if there is one, else the CPU.

    Raises:
        InvalidInput: no name of a device.
        Unavailable: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InvalidInput(f"{name!r} is no device; write auto, cpu, cuda or cuda:1") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise Unavailable(f"there is no device {name!r} here; write auto or cpu") from None
    return device


def weights_hash(module: nn.Module) -> str:
    """Return the sha256 (hex) of all parameters and buffers of `module`, wherever they were loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
