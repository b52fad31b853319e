"""The weights of a model by part and tensor: diffusers folders, single safetensors files, our weight deltas."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genmu_eval.names import of_single_file, usual
from genmu_eval.safetensors_file import StoredTensor, read_header
from unlearn_core.errors import InvalidInput, Unavailable

DELTA = "unlearn-delta-1"
"""What the metadata of a weight delta call its format: new values of the tensors that an edit changed."""

PARTS = ("unet", "text_encoder", "vae")

_FOLDERS = {
    "unet": "unet", "transformer": "unet", "text_encoder": "text_encoder", "text_encoder_2": "text_encoder",
    "text_encoder_3": "text_encoder", "vae": "vae",
}  # fmt: skip
"""Folder of a diffusers pipeline -> part; the safety checker is none."""

_ADAPTERS = {"lora_unet_": "unet", "lora_te": "text_encoder"}
"""How adapters for Stable Diffusion begin the names of their tensors -> part."""

_STEMS = ("diffusion_pytorch_model", "model")


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Tensors that lie in files, by full name (see `names`): "unet.down_blocks.0.…", "text_encoder.…", "vae.…"."""

    source: Path
    tensors: Mapping[str, StoredTensor]
    is_delta: bool = False
    """Whether the tensors are those that an edit changed, and all others are the original's."""
    base: str = ""
    """Fingerprint of the model that a delta belongs to."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What a delta says made it: technique, settings, concepts, seed. Claimed, not checked."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of `PARTS` are there."""
        found = {part_of(name) for name in self.tensors}
        return tuple(part for part in PARTS if part in found)


def part_of(name: str) -> str:
    """Return the part (`PARTS`) that the tensor of this full name belongs to."""
    return _FOLDERS.get(name.partition(".")[0], "")


def open_weights(path: str | Path) -> Weights:
    """Return the weights at `path`; no tensor is read.

    Args:
        path: a folder of diffusers (parts in folders of their own, sharded or not), a folder of one part, a
            safetensors file of a whole model (in the names of Stable Diffusion's first code, or ours) or of one part,
            or a delta.

    Raises:
        Unavailable: there is nothing.
        InvalidInput: it holds no weights in safetensors, or it is unclear of what they are.
    """
    path = Path(path)
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        raise Unavailable(
            f"there is no model at {str(path)!r}; name a folder of diffusers or a .safetensors file"
        )
    folders = [f for f in _FOLDERS if (path / f).is_dir()]
    tensors: dict[str, StoredTensor] = {}
    for folder in folders:
        tensors |= {f"{folder}.{name}": tensor for name, tensor in _of_folder(path / folder).items()}
    if not folders:
        files = sorted(path.glob("*.safetensors"))
        if len(files) == 1:
            return _of_file(files[0])
        if not files:
            raise InvalidInput(
                f"{str(path)!r} holds no weights: neither a folder of {', '.join(_FOLDERS)} nor a .safetensors file"
            )
        tensors = _named(path, _of_folder(path))
    return Weights(source=path, tensors=_usual(path, tensors))


def _of_file(path: Path) -> Weights:
    tensors, metadata = read_header(path)
    if metadata.get("format") == DELTA:
        if unknown := [name for name in tensors if not part_of(name)]:
            raise InvalidInput(f"{str(path)!r}: a delta changes {', '.join(PARTS)}, got {unknown[0]!r}")
        record = metadata.get("record", "{}")
        try:
            record = json.loads(record)
        except (ValueError, RecursionError):
            raise InvalidInput(f"{str(path)!r}: the record of the delta is no JSON") from None
        return Weights(
            source=path,
            tensors=_usual(path, tensors),
            is_delta=True,
            base=metadata.get("base", ""),
            record=record,
        )
    return Weights(source=path, tensors=_usual(path, _named(path, tensors)))


def _of_folder(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors of one part: one file, shards with their index, or the only file there is."""
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return _shards(index)
        for variant in (stem, f"{stem}.fp16", f"{stem}.bf16", f"{stem}.non_ema"):
            if (file := folder / f"{variant}.safetensors").is_file():
                return read_header(file)[0]
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return read_header(files[0])[0]
    if files:
        raise InvalidInput(f"{str(folder)!r} holds {len(files)} files of weights and none has a usual name")
    raise InvalidInput(
        f"{str(folder)!r} holds no weights in safetensors; pipe.save_pretrained(FOLDER) of diffusers writes them"
    )


def _shards(index: Path) -> dict[str, StoredTensor]:
    try:
        names = json.loads(index.read_bytes())["weight_map"]
        files = sorted(set(names.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidInput(f"{str(index)!r} is no index of shards") from None
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        if not isinstance(file, str) or Path(file).name != file:
            raise InvalidInput(f"{str(index)!r} names {file!r}, which is no file beside it")
        tensors |= read_header(index.parent / file)[0]
    if tensors.keys() != names.keys():
        raise InvalidInput(f"{str(index)!r} and its shards disagree on the tensors there are")
    return tensors


def _named(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the tensors under full names, told by how their names begin."""
    if all(part_of(name) for name in tensors):
        return dict(tensors)
    full = of_single_file(tensors)
    for name in tensors:
        if prefix := next((p for p in _ADAPTERS if name.startswith(p)), None):
            full[name] = f"{_ADAPTERS[prefix]}.{name}"
    if len(set(full.values())) != len(full):
        raise InvalidInput(f"{str(path)!r} holds one tensor under two names")
    if full:
        return {full[name]: tensor for name, tensor in tensors.items() if name in full}
    for part, telling in _TELLING.items():
        if any(re.match(telling, name) for name in tensors):
            return {f"{part}.{name}": tensor for name, tensor in tensors.items()}
    shown = ", ".join(list(tensors)[:3]) or "no tensor"
    raise InvalidInput(
        f"{str(path)!r}: these are no weights of a Stable Diffusion model ({shown}); expected a diffusers folder, a "
        "single file of Stable Diffusion, or a delta"
    )


def _usual(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the tensors by the names of today, without position ids, which some files hold as numbers."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        new = usual(name)
        if new in found:
            raise InvalidInput(f"{str(path)!r} holds {new!r} twice, under an old name and a new one")
        if name.endswith(".position_ids"):
            continue
        if new.startswith("vae.") and ".attentions." in new and tensor.shape[2:] == (1, 1):
            tensor = replace(tensor, shape=tensor.shape[:2])  # once convolutions of width 1
        found[new] = tensor
    return found


_TELLING = {
    "unet": r"(down_blocks|time_embedding|transformer_blocks)\.",
    "text_encoder": r"(text_model|encoder\.layers|embeddings\.token_embedding)\.",
    "vae": r"(encoder|decoder)\.(conv_in|down_blocks|up_blocks)\.",
}
