"""SAFREE's latent re-attention: skip connections of the UNet, filtered in Fourier space as FreeU filters them.

It compares the features of a prompt that was made safe with those of the original one, which it has drawn beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn_techniques.diffusion.steps import Step


@dataclass(frozen=True, kw_only=True)
class Reattention:
    """LRA at the modules that join hidden states of one width with skip connections."""

    on: ClassVar[str] = "input"
    original: ClassVar[bool] = True
    modules: tuple[str, ...]
    hidden: int
    """Channels of the hidden states, which come first."""
    b: float
    s: float
    rule: str

    def __call__(self, joined: Tensor, rows: Mapping[str, slice], step: Step) -> Tensor:
        """Return the joined states (rows, hidden + skip, h, w) with the skip of the prompt filtered."""
        backbone, skip = joined[:, : self.hidden // 2], joined[:, self.hidden :]
        if self.rule == "paper" and rows["prompt"] == rows["original"]:
            safe = skip[rows["prompt"]]  # equal features stay
        else:
            safe = reattend(skip[rows["prompt"]], skip[rows["original"]], self.s, self.rule)
        start, end = rows["prompt"].start, rows["prompt"].stop
        skip = torch.cat([skip[:start], safe, skip[end:]])
        return torch.cat([self.b * backbone, joined[:, self.hidden // 2 : self.hidden], skip], dim=1)


def reattend(safe: Tensor, original: Tensor, s: float, rule: str) -> Tensor:
    """Return the features `safe` (n, channels, h, w) with Fourier coefficients changed by comparison with `original`.

    "paper": ``F(safe) s where F(safe) > F(original)`` in the central 2 x 2 window, real parts compared. "low": there,
    the constant s unless F(original) is greater. "high": outside, s where F(original) is greater in absolute value.
    """
    x, y = (torch.fft.fftshift(torch.fft.fft2(f.float()), dim=(-2, -1)) for f in (safe, original))
    h, w = safe.shape[-2:]
    low = torch.zeros(h, w, dtype=torch.bool, device=safe.device)
    low[h // 2 - 1 : h // 2 + 1, w // 2 - 1 : w // 2 + 1] = True
    if rule == "paper":
        x = torch.where(low & (x.real > y.real), s * x, x)
    elif rule == "low":
        x = torch.where(low & ~(y.real > x.real), s, x)
    else:
        x = torch.where(~low & (y.real.abs() > x.real.abs()), s, x)
    return torch.fft.ifft2(torch.fft.ifftshift(x, dim=(-2, -1))).real.to(safe.dtype)


def reattention_sites(unet: Any, rule: str, scales: tuple[float, float, float, float]) -> list[Reattention]:
    """Return LRA for the UNet's deepest and next width: 7 joints of 1280 and 3 of 640 channels in SD v1.4."""
    deepest_first = tuple(dict.fromkeys(reversed(unet.config.block_out_channels)))
    sites: dict[int, list[str]] = {width: [] for width in deepest_first[:2]}
    hidden = deepest_first[0]
    for i, block in enumerate(unet.up_blocks):
        for j, resnet in enumerate(block.resnets):
            sites.get(hidden, []).append(f"up_blocks.{i}.resnets.{j}")
            hidden = resnet.out_channels
    b1, b2, s1, s2 = scales
    return [
        Reattention(modules=tuple(names), hidden=width, b=b, s=s, rule=rule)
        for (width, names), b, s in zip(sites.items(), (b1, b2), (s1, s2), strict=False)
        if names
    ]
