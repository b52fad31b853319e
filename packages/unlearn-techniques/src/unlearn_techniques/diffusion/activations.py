"""Activations of a model: to look at them, and to change those of the text encoder.

Those of the UNet are changed by hooks (`diffusion.steps.Activation`); what is looked at here is what they left.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_techniques.diffusion.drawn import Progress, drawn_latents
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.steps import Step


def text_layers(text_encoder: nn.Module) -> Any:
    """Return the layers of a CLIP text encoder, which transformers 4 wraps in `text_model`."""
    return getattr(text_encoder, "text_model", text_encoder).encoder.layers


@contextlib.contextmanager
def changed_layer(text_encoder: nn.Module, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let `change` act on what a layer returns, (n, tokens, width), before the next layer reads it."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        # transformers 4 returns a tuple, 5 a tensor
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = text_layers(text_encoder)[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def text_activations(model: StableDiffusion, texts: Sequence[str], layer: int, *, batch: int = 64) -> Tensor:
    """Return what a layer of the text encoder returns for texts, (n, tokens, width)."""
    seen: list[Tensor] = []

    def look(h: Tensor) -> Tensor:
        seen.append(h)
        return h

    with changed_layer(model.text_encoder, layer, look):
        for start in range(0, len(texts), batch):
            model.encode(texts[start : start + batch])
    return torch.cat(seen)


@torch.no_grad()
def drawn_activations(
    model: StableDiffusion,
    texts: Sequence[str],
    module: str,
    sampler: Sampler,
    *,
    every: int,
    seed: int,
    progress: Progress | None = None,
) -> Tensor:
    """Return what a module of the UNet says to texts while they are drawn, (n, steps, places, channels).

    Args:
        model: what draws.
        texts: the prompts; what the module says to the empty prompt is left out.
        module: its name; it returns maps (rows, channels, h, w).
        sampler: how.
        every: the first of each so many steps is looked at.
        seed: of the noise.
        progress: called with (pictures done, pictures in all).
    """
    recorder = _Recorder(modules=(module,), every=every)
    watched = dataclasses.replace(model, activations=(*model.activations, recorder))
    drawn_latents(watched, texts, sampler, seed=seed, progress=progress)
    steps = -(-sampler.steps // every)
    maps = torch.stack(recorder.maps).unflatten(0, (-1, steps)).transpose(1, 2).flatten(0, 1)
    return maps[: len(texts)].flatten(3).transpose(2, 3)  # the last batch was filled up


@dataclass(frozen=True, kw_only=True, eq=False)
class _Recorder:
    modules: tuple[str, ...]
    every: int
    maps: list[Tensor] = field(default_factory=list)

    def __call__(self, output: Tensor, rows: Mapping[str, slice], step: Step) -> Tensor:
        if step.index % self.every == 0:
            self.maps.append(output[rows["prompt"]])
        return output
