"""The styles: each the same transformation for every object, so that a style is a concept of its own.

Each takes the premultiplied drawing `rgba` (n, 4, 64, 64) and the background colour (n, 3, 1, 1), floats in
[0, 1], and returns pictures (n, 3, 64, 64).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

CELL = 4
"""Side of a mosaic tile and of a halftone cell in pixels: one latent of the autoencoder."""


def emoji(rgba: Tensor, background: Tensor) -> Tensor:
    """The drawing over its background."""
    return rgba[:, :3] + (1 - rgba[:, 3:]) * background


def pixel(rgba: Tensor, background: Tensor) -> Tensor:
    """Tiles of one colour each, in few shades."""
    tiles = F.avg_pool2d(emoji(rgba, background), CELL)
    return F.interpolate((tiles * 8).round() / 8, scale_factor=CELL, mode="nearest")


def sketch(rgba: Tensor, background: Tensor) -> Tensor:
    """Pencil lines around pale grey on coloured paper."""
    alpha = rgba[:, 3:]
    shade = _light(emoji(rgba, torch.ones_like(background)))
    page = alpha * (0.62 + 0.38 * shade) + (1 - alpha) * background
    return page * (1 - 0.85 * _lines(rgba))


def blueprint(rgba: Tensor, background: Tensor) -> Tensor:
    """White lines on blue paper with a faint grid."""
    paper = torch.tensor([0.08, 0.24, 0.56]).view(1, 3, 1, 1).expand(len(rgba), 3, *rgba.shape[-2:]).clone()
    paper[..., ::16, :] += 0.1
    paper[..., :, ::16] += 0.1
    alpha = rgba[:, 3:]
    shade = _light(emoji(rgba, torch.zeros_like(background)))
    filled = paper + alpha * 0.25 * shade
    lines = _lines(rgba)
    return filled * (1 - lines) + lines * 0.97


def halftone(rgba: Tensor, background: Tensor) -> Tensor:
    """A dot in every cell, the larger the darker, on paper of a paler shade."""
    picture = emoji(rgba, background)
    cell = F.avg_pool2d(picture, CELL)
    dark = 1 - _light(cell)
    at = torch.arange(picture.shape[-1]) % CELL - (CELL - 1) / 2
    distance = (at[:, None] ** 2 + at[None, :] ** 2).sqrt()
    dot = torch.sigmoid(5 * (_grow(0.9 + 1.5 * dark) - distance))
    ink, paper = _grow(cell * 0.72), _grow(0.35 * cell + 0.65)
    return dot * ink + (1 - dot) * paper


def neon(rgba: Tensor, background: Tensor) -> Tensor:
    """Glowing tubes of the drawing's own colours in the dark."""
    colour = emoji(rgba, torch.full_like(background, 0.5))
    vivid = (colour - colour.amin(1, keepdim=True) + 0.15) / (
        colour.amax(1, keepdim=True) - colour.amin(1, keepdim=True) + 0.15
    )
    tubes = vivid * _lines(rgba)
    night = torch.tensor([0.05, 0.02, 0.12]).view(1, 3, 1, 1)
    return (night + tubes + 0.9 * gaussian_blur(tubes, [9, 9], [2.0, 2.0])).clamp(0, 1)


def sepia(rgba: Tensor, background: Tensor) -> Tensor:
    """An old brown photograph with dark corners."""
    light = _light(emoji(rgba, 0.5 + 0.5 * background)) ** 1.1
    side = torch.linspace(-1, 1, rgba.shape[-1])
    corner = 1 - 0.3 * ((side[:, None] ** 2 + side[None, :] ** 2) / 2) ** 1.5
    tone = torch.tensor([0.98, 0.86, 0.66]).view(1, 3, 1, 1)
    shadow = torch.tensor([0.22, 0.12, 0.05]).view(1, 3, 1, 1)
    return (shadow + (tone - shadow) * light) * corner


def watercolor(rgba: Tensor, background: Tensor) -> Tensor:
    """Pale washes that run into each other and leave the paper's rim white."""
    picture = emoji(rgba, background)
    wash = gaussian_blur(picture, [7, 7], [1.5, 1.5])
    wash = wash * (1 - 0.35 * gaussian_blur(_lines(rgba), [3, 3], [0.7, 0.7]))  # pigment gathers at edges
    side = torch.arange(rgba.shape[-1]) / rgba.shape[-1]
    wave = 0.02 * (torch.sin(37 * side) + torch.sin(23 * side + 1))
    inside = torch.minimum(side, 1 - side)
    rim = torch.minimum(inside[:, None] + wave[None, :], inside[None, :] + wave[:, None])
    wet = torch.sigmoid(60 * (rim - 0.07))
    return wet * (0.2 + 0.8 * wash) + (1 - wet) * 0.98


STYLES = {
    f.__name__: f for f in (emoji, pixel, sketch, blueprint, halftone, neon, sepia, watercolor)
}  # fmt: skip


def _light(rgb: Tensor) -> Tensor:
    """Return the luma (n, 1, h, w), Rec. 601."""
    return (rgb * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _lines(rgba: Tensor) -> Tensor:
    """Return how much each pixel is an edge of the drawing or its outline, (n, 1, h, w) in [0, 1]."""
    planes = torch.cat([rgba[:, :3] + (1 - rgba[:, 3:]), rgba[:, 3:]], 1)
    planes = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    across = planes[..., 1:-1, 2:] - planes[..., 1:-1, :-2]
    down = planes[..., 2:, 1:-1] - planes[..., :-2, 1:-1]
    slope = (across**2 + down**2).sqrt().amax(1, keepdim=True)
    return ((slope - 0.15) * 1.6).clamp(0, 1)


def _grow(cells: Tensor) -> Tensor:
    return F.interpolate(cells, scale_factor=CELL, mode="nearest")
