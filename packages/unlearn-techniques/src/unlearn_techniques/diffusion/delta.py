"""Weight edits as files: only the tensors that changed, in safetensors, with their record in the metadata.

delta = Delta.between(model, edited, record={"technique": "uce", ...})
delta.save("uce-dog.safetensors")
with Delta.load("uce-dog.safetensors").applied(pipeline):
    ...  # the pipeline has forgotten; afterwards it is what it was, bit for bit
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from unlearn_core import atomic
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_techniques.diffusion.fingerprints import weights_fingerprint
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.weights import with_weights

FORMAT = "unlearn-delta-1"


@dataclass(frozen=True, kw_only=True, eq=False)
class Delta:
    """The new values of the tensors that an edit changed, named "unet.…", "text_encoder.…" or "vae.…"."""

    tensors: Mapping[str, Tensor]
    base: str
    """Fingerprint of the weights of the model that was edited."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What made it: technique, settings, concepts, seed."""

    @classmethod
    def between(
        cls, model: StableDiffusion, edited: StableDiffusion, *, record: Mapping[str, Any] | None = None
    ) -> Self:
        """Return what `edited` changed in the weights of `model`; hooks are no part of it."""
        changed = {}
        for part in model.parts:
            old = getattr(model, part).state_dict()
            for name, tensor in getattr(edited, part).state_dict().items():
                if tensor is not old[name] and not torch.equal(tensor, old[name]):
                    changed[f"{part}.{name}"] = tensor.detach().clone()
        return cls(tensors=changed, base=_fingerprint(model), record=dict(record or {}))

    def save(self, path: str | Path) -> None:
        """Write the delta to `path` (.safetensors), atomically.

        Raises:
            Unavailable: the file cannot be written.
        """
        from safetensors.torch import save

        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.tensors.items()}
        metadata = {"format": FORMAT, "base": self.base, "record": json.dumps(self.record, sort_keys=True)}
        with atomic.replacing(Path(path)) as file:
            file.write(save(tensors, metadata))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the delta at `path`.

        Raises:
            Unavailable: there is no such file.
            InvalidInput: it is damaged, or no delta.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise Unavailable(f"there is no file {str(path)!r}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InvalidInput(f"{str(path)!r} is no whole safetensors file: {error}") from None
        if metadata.get("format") != FORMAT:
            raise InvalidInput(f"{str(path)!r} is no delta of a model: its metadata has no format {FORMAT!r}")
        return cls(tensors=tensors, base=metadata["base"], record=json.loads(metadata["record"]))

    def apply(self, model: StableDiffusion, *, any_base: bool = False) -> StableDiffusion:
        """Return `model` with the edit; the argument stays as it was.

        Args:
            model: the model that was edited.
            any_base: whether another model of the same shapes will do.

        Raises:
            InvalidInput: another model than the one that was edited, or tensors it does not have.
        """
        if not any_base and _fingerprint(model) != self.base:
            raise InvalidInput(
                f"the delta belongs to a model with the fingerprint {self.base[:12]}, {model.source or 'this'} has "
                f"{_fingerprint(model)[:12]}; any_base=True applies it all the same"
            )
        parts = {}
        for part, tensors in self._by_part().items():
            if part not in model.parts:
                raise InvalidInput(f"a delta changes {', '.join(model.parts)}, got {part!r}")
            parts[part] = with_weights(getattr(model, part), tensors)
        return replace(model, **parts)

    @contextlib.contextmanager
    def applied(self, pipe: Any) -> Iterator[Any]:
        """Edit a diffusers pipeline in place for the time of a block; then it is restored bit for bit.

        Raises:
            InvalidInput: the pipeline lacks a tensor, or has it in another shape.
        """
        targets = {}
        for part, tensors in self._by_part().items():
            own = dict(getattr(pipe, part).named_parameters())
            for name, tensor in tensors.items():
                if name not in own or own[name].shape != tensor.shape:
                    raise InvalidInput(f"the pipeline has no {part}.{name} of shape {tuple(tensor.shape)}")
                targets[f"{part}.{name}"] = own[name]
        before = {name: target.detach().clone() for name, target in targets.items()}
        try:
            _copy(targets, self.tensors)
            yield pipe
        finally:
            _copy(targets, before)

    def _by_part(self) -> dict[str, dict[str, Tensor]]:
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self.tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        return parts


@torch.no_grad()
def _copy(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(values[name])


def _fingerprint(model: StableDiffusion) -> str:
    return weights_fingerprint({name: getattr(model, name) for name in model.parts}, model.tokenizer)
