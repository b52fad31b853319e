"""Where in a picture each token of a prompt is read: its cross-attention, which fused kernels never show."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from unlearn_techniques.diffusion.attention import cross_attentions
from unlearn_techniques.diffusion.drawn import noised
from unlearn_techniques.diffusion.model import StableDiffusion

SIDE = 16
"""Maps are looked at in the finest layers of at most 16 x 16 pixels, where objects have the clearest shapes."""


@contextlib.contextmanager
def attention_maps(unet: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the cross-attention of the calls of a UNet within the block; gradients flow through it.

    Yields:
        Name of the `attn2` -> softmax(q k^T) (n, heads, pixels, tokens) of the latest call.
    """
    maps: dict[str, Tensor] = {}
    handles = []

    def watch(name: str, attention: Any) -> None:
        parts: dict[str, Tensor] = {}

        def keep(side: str) -> Any:
            def hook(module: Any, inputs: Any, output: Tensor) -> None:
                parts[side] = attention.head_to_batch_dim(output)

            return hook

        def score(module: Any, inputs: Any, output: Any) -> None:
            scores = attention.get_attention_scores(parts.pop("to_q"), parts.pop("to_k"))
            maps[name] = scores.unflatten(0, (-1, attention.heads))

        for side in ("to_q", "to_k"):
            handles.append(getattr(attention, side).register_forward_hook(keep(side)))
        handles.append(attention.register_forward_hook(score))

    try:
        for name, attention in cross_attentions(unet).items():
            watch(name, attention)
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def at_side(mask: Tensor, pixels: int) -> Tensor:
    """Return a mask (n, 1, h, w) of the latents as (n, pixels), each pixel of a layer taking the nearest."""
    factor = (mask.shape[-2] * mask.shape[-1] / pixels) ** 0.5
    size = tuple(round(side / factor) for side in mask.shape[-2:])
    return (interpolate(mask.float(), size=size, mode="nearest") > 0.5).flatten(1)


def attention_within(maps: Mapping[str, Tensor], masks: Tensor, tokens: Tensor) -> Tensor:
    """Return the norm (layers, n) of the attention that tokens get within masks, over heads, pixels and tokens.

    Args:
        maps: layer -> (n, heads, pixels, tokens).
        masks: bool (n, 1, h, w), the size of the latents.
        tokens: bool (n, tokens).
    """
    norms = []
    for attention in maps.values():
        within = at_side(masks, attention.shape[2])[:, None, :, None] & tokens[:, None, None, :]
        norms.append(torch.linalg.vector_norm((attention * within).float(), dim=(1, 2, 3)))
    return torch.stack(norms)


@torch.no_grad()
def concept_masks(
    model: StableDiffusion,
    latents: Tensor,
    texts: Sequence[str],
    tokens: Tensor,
    *,
    seed: int,
    threshold: float,
    times: Sequence[int] = (200, 400, 600),
) -> Tensor:
    """Return where pictures show the concept, bool (n, 1, h, w) at the size of the latents.

    The attention that the concept's tokens get, averaged over heads, layers and times, from 0 to 1 within each picture;
    what reaches `threshold`, and one pixel around it. A mask below 2 % or above 95 % of the picture says nothing, and
    becomes the whole picture.

    Args:
        model: the one that drew the pictures.
        latents: of the pictures, (n, 4, h, w).
        texts: their prompts.
        tokens: which of a prompt's tokens are the concept, bool (n, tokens).
        seed: of the noise.
        threshold: in [0, 1].
        times: noise is added up to each of these timesteps.
    """
    generator = torch.Generator().manual_seed(seed)
    read, chosen = model.encode(texts), tokens.to(latents.device, latents.dtype)
    seen = []
    for t in times:
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        x = noised(model, latents, noise, torch.full((len(latents),), t, device=latents.device))
        with attention_maps(model.unet) as maps:
            model.unet(x, t, encoder_hidden_states=read)
        sizes = {a.shape[2] for a in maps.values()}
        side = max((p for p in sizes if p <= SIDE**2), default=min(sizes))
        layers = [a.mean(1) @ chosen[:, :, None] for a in maps.values() if a.shape[2] == side]
        seen.append(torch.stack(layers).mean(0).squeeze(-1).float())
    height, width = latents.shape[-2:]
    mean = torch.stack(seen).mean(0)
    factor = (height * width / mean.shape[1]) ** 0.5
    mean = mean.reshape(len(latents), 1, round(height / factor), round(width / factor))
    low, high = mean.amin((1, 2, 3), keepdim=True), mean.amax((1, 2, 3), keepdim=True)
    mask = ((mean - low) / (high - low).clamp(min=1e-12) >= threshold).float()
    mask = interpolate(max_pool2d(mask, 3, stride=1, padding=1), size=(height, width), mode="nearest") > 0.5
    area = mask.float().mean((1, 2, 3), keepdim=True)
    return mask | (area < 0.02) | (area > 0.95)
