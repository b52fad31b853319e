"""Names of models by their content: the weights, the vocabulary, and what acts while they draw."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_core.spec import canonical_json, fingerprint, settings_of


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor of any dtype."""
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def weights_fingerprint(parts: Mapping[str, nn.Module], tokenizer: Any) -> str:
    """Return the sha256 over every tensor (name, dtype, shape, bytes) of the parts, and the vocabulary."""
    digest = hashlib.sha256(canonical_json(tokenizer.get_vocab()).encode())
    for part, module in parts.items():
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor_bytes(tensor) if tensor.numel() else b"")
    return digest.hexdigest()


def hooks_fingerprint(base: str, hooks: Iterable[Any]) -> str:
    """Return `base` where there are no hooks, else the sha256 of it and their settings.

    A hook that holds more than JSON, such as the weights of an autoencoder, states a `fingerprint` of its own.
    """
    named = [
        [type(hook).__qualname__, getattr(hook, "fingerprint", None) or settings_of(hook)] for hook in hooks
    ]
    return fingerprint([base, named]) if named else base
