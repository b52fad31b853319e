"""Whether a delta belongs to a model, told from the model's files.

A delta keeps the sha256 over the vocabulary and every tensor (name, dtype, shape, bytes) of the model it was made from
(`Delta.between` of unlearn-techniques), in the dtype in which that model was loaded: its own tensors have it too.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from genmu_eval.safetensors_file import as_dtype
from genmu_eval.weights import Weights
from unlearn_core.errors import InvalidInput
from unlearn_core.spec import canonical_json

_TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_ORDER = ("unet", "vae", "text_encoder", "text_encoder_2")
_SPELLINGS = ("", "text_model.")
"""What stands before the names of the text encoder's tensors: nothing since transformers 5, this before."""


def check_delta(original: Weights, delta: Weights, *, known: str = "") -> bool | None:
    """Return whether `delta` was made from `original`; None where `original` has no vocabulary to tell by.

    Args:
        original: the model that the delta is applied to or compared with.
        delta: what was submitted.
        known: fingerprint of `original` as it was loaded; one that the delta agrees with spares reading its files.

    Raises:
        InvalidInput: it was made from another model.
    """
    if known and delta.base == known:
        return True
    if vocabulary(original.source) is None:
        return None
    dtypes = sorted({t.dtype for t in delta.tensors.values() if t.floating}) or ["F32", "F16", "BF16"]
    for dtype in dtypes:
        if any(fingerprint(original, dtype, spelling) == delta.base for spelling in _SPELLINGS):
            return True
    raise InvalidInput(
        f"{str(delta.source)!r} is a delta of another model than {str(original.source)!r}: it was made from one with "
        f"the fingerprint {delta.base[:12] or 'none'!r}, this one's is {fingerprint(original, dtypes[0])[:12]!r}"
    )


@functools.lru_cache(maxsize=16)
def fingerprint(weights: Weights, dtype: str, spelling: str = "") -> str:
    """Return the fingerprint of a whole model as it would be loaded as `dtype` ("F32", …).

    Raises:
        InvalidInput: the model has no vocabulary.
    """
    words = vocabulary(weights.source)
    if words is None:
        raise InvalidInput(
            f"{str(weights.source)!r} has no tokenizer, which is part of a model's fingerprint"
        )
    digest = hashlib.sha256(canonical_json(words).encode())
    for part in _ORDER:
        prefix = f"{part}." + spelling * (part == "text_encoder")
        names = {
            name.partition(".")[2]: t for name, t in weights.tensors.items() if name.startswith(f"{part}.")
        }
        for name, tensor in sorted(names.items()):
            digest.update(f"{prefix}{name} torch.{_TORCH[dtype]} {tensor.shape}".encode())
            for stretch in tensor.chunks() if tensor.floating else ():
                digest.update(as_dtype(stretch, tensor.dtype, dtype).tobytes())
    return digest.hexdigest()


def vocabulary(model: Path) -> dict[str, int] | None:
    """Return token -> id of the tokenizer in a folder of diffusers; None where there is none."""
    folder = model / "tokenizer"
    try:
        whole, words, added, config = (
            _json(folder / f"{name}.json")
            for name in ("tokenizer", "vocab", "added_tokens", "tokenizer_config")
        )
        if whole:
            found = dict(whole["model"]["vocab"])
            found |= {token["content"]: token["id"] for token in whole.get("added_tokens", ())}
        else:
            found = words | added
        later = config.get("added_tokens_decoder", {})
        found |= {token["content"]: int(number) for number, token in later.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidInput(f"{str(folder)!r} holds no tokenizer of CLIP") from None
    return found or None


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.is_file() else {}
