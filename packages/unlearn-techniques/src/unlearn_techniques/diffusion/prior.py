"""What a text encoder says of many prompts, in d rows: all that a closed form needs to know of what it keeps."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from unlearn_techniques.diffusion.model import StableDiffusion

_MEDIA = ("photo", "picture", "painting", "drawing", "print")
_AROUND = {
    "object": (
        *("a {m} of {w}", "{w} in a {m}", "a {m} of {w} at night", "a {m} with {w} in it"),
        *("a good {m} of {w} up close", "{w} outdoors, {m}"),
    ),
    "style": (
        *("a {m} by {w}", "a {m} in the style of {w}", "{w}, a {m} of a house", "a famous {m} by {w}"),
        *("a {m} of a tree by {w}", "{w} made this {m}"),
    ),
}

TEMPLATES = {
    kind: tuple(around.format(m=m, w="{}") for around, m in itertools.product(prompts, _MEDIA))
    for kind, prompts in _AROUND.items()
}
"""Thirty prompts around a thing ("object") or a style, each with one {}."""


@torch.no_grad()
def prior_rows(model: StableDiffusion, weighted: Mapping[str, float], *, batch: int = 64) -> Tensor:
    """Return rows P (d, d) float64 with ``P^T P = sum weight e e^T`` over all tokens e of the prompts.

    Args:
        model: whose text encoder reads.
        weighted: prompt -> its weight, at least 0.
        batch: prompts per call.
    """
    width, texts = model.unet.config.cross_attention_dim, list(weighted)
    gram = torch.zeros(width, width, dtype=torch.float64, device=model.device)
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        root = torch.tensor(
            [weighted[text] ** 0.5 for text in part], dtype=torch.float64, device=model.device
        )
        e = (model.encode(part).double() * root[:, None, None]).flatten(0, 1)
        gram += e.T @ e
    values, vectors = torch.linalg.eigh(gram)
    return values.clamp(min=0).sqrt()[:, None] * vectors.T
