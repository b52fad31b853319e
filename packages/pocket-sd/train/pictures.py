"""Captioned pictures: drawings at random sizes and places, in a style, over a background."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from drawings import PACKAGES, UNSEEN, drawings
from progress import load_state, save_state
from styles import STYLES
from torch import Tensor

from pocket_sd.words import BACKGROUNDS, OBJECTS, OWN_BACKGROUND, PLAIN, WORDS, caption
from pocket_sd.words import STYLES as STYLE_WORDS

SIDE = 64
"""Side of a picture in pixels."""
STYLE_NAMES = tuple(STYLES)
BACKGROUND_NAMES = tuple(BACKGROUNDS)
PLAIN_SHARE = 0.35
"""Share of the pictures in no style; the seven styles share the rest."""


@dataclass(frozen=True)
class Drawings:
    """All drawings of the objects."""

    rgba: Tensor  # (n, 4, 128, 128) float, premultiplied
    object: Tensor  # (n,) index into OBJECTS
    look: Tensor  # (n,) 0 or 1


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures and what is on each."""

    images: Tensor  # (n, 3, 64, 64), float in [0, 1] or, in the bank, uint8
    object: Tensor
    look: Tensor
    style: Tensor  # index into STYLE_NAMES
    background: Tensor  # index into BACKGROUND_NAMES; -1 where the style brings its own
    rows: Tensor | None = None  # where each stands in the bank


def premultiplied(rgba: np.ndarray) -> Tensor:
    """Return uint8 (n, h, w, 4) as premultiplied floats (n, 4, h, w)."""
    x = torch.from_numpy(rgba).permute(0, 3, 1, 2).float() / 255
    return torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)


def signed(images: Tensor) -> Tensor:
    """Return uint8 pictures as floats in [-1, 1], what every net takes."""
    return images.float() / 127.5 - 1


def load(folder: Path, *, unseen: bool = False) -> Drawings:
    """Return the drawings of the five sets, or of the one that no training sees."""
    sets = [UNSEEN] if unseen else [name for name in PACKAGES if name != UNSEEN]
    rows = list(drawings(folder, sets))
    return Drawings(
        rgba=premultiplied(np.stack([row[3] for row in rows])),
        object=torch.tensor([OBJECTS.index(row[0]) for row in rows]),
        look=torch.tensor([row[1] for row in rows]),
    )


def place(rgba: Tensor, generator: torch.Generator) -> Tensor:
    """Return the drawings (n, 4, 128, 128) at random sizes, places and sides, (n, 4, 64, 64)."""
    n = len(rgba)
    size = 0.78 + 0.17 * torch.rand(n, generator=generator)
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - size)[:, None] * 0.9
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = flip / size
    theta[:, 1, 1] = 1 / size
    theta[:, :, 2] = -shift / size[:, None] * torch.stack([flip, torch.ones(n)], 1)
    grid = F.affine_grid(theta, [n, 4, 2 * SIDE, 2 * SIDE], align_corners=False)
    return F.avg_pool2d(F.grid_sample(rgba, grid, align_corners=False), 2)


def draw(rgba: Tensor, style: Tensor, background: Tensor) -> Tensor:
    """Return the placed drawings in their styles over their backgrounds, (n, 3, 64, 64)."""
    colours = torch.tensor(list(BACKGROUNDS.values())).float()[background.clamp(min=0)] / 255
    images = torch.empty(len(rgba), 3, SIDE, SIDE)
    for index, name in enumerate(STYLE_NAMES):
        if (rows := style == index).any():
            images[rows] = STYLES[name](rgba[rows], colours[rows].view(-1, 3, 1, 1)).clamp(0, 1)
    return images


def styles_and_backgrounds(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return random indices of n styles and n backgrounds."""
    shares = torch.full((len(STYLE_NAMES),), (1 - PLAIN_SHARE) / (len(STYLE_NAMES) - 1))
    shares[STYLE_NAMES.index(PLAIN)] = PLAIN_SHARE
    style = torch.multinomial(shares, n, replacement=True, generator=generator)
    background = torch.randint(len(BACKGROUND_NAMES), (n,), generator=generator)
    own = torch.tensor([name in OWN_BACKGROUND for name in STYLE_NAMES])[style]
    return style, torch.where(own, -1, background)


def pictures(source: Drawings, n: int, generator: torch.Generator) -> Pictures:
    """Return `n` random pictures, every object and each of its looks equally often."""
    kind = 2 * source.object + source.look
    drawings_of = torch.bincount(kind, minlength=2 * len(OBJECTS))
    looks_of = (drawings_of.view(-1, 2) > 0).sum(1)
    weight = 1.0 / (drawings_of[kind] * looks_of[source.object])
    chosen = torch.multinomial(weight, n, replacement=True, generator=generator)
    style, background = styles_and_backgrounds(n, generator)
    images = draw(place(source.rgba[chosen], generator), style, background)
    return Pictures(images, source.object[chosen], source.look[chosen], style, background)


def bank(icons: Path, path: Path, n: int, *, seed: int, without: str | None = None) -> Pictures:
    """Return the `n` pictures all parts are trained on, drawn once and kept at `path`, as uint8.

    Args:
        icons: folder of the icon sets.
        path: where they are kept.
        n: how many.
        seed: of the pictures.
        without: an object or a style; its pictures are left out of what is returned.
    """
    if not path.exists():
        source, generator = load(icons), torch.Generator().manual_seed(seed)
        parts = [pictures(source, min(1000, n - done), generator) for done in range(0, n, 1000)]
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in _COLUMNS}
        columns["images"] = (columns["images"] * 255).round().byte()
        save_state(path, **columns)
    columns = load_state(path)
    if without is None:
        keep = torch.ones(n, dtype=torch.bool)
    elif without in OBJECTS:
        keep = columns["object"] != OBJECTS.index(without)
    elif without in STYLE_WORDS:
        keep = columns["style"] != STYLE_NAMES.index(without)
    else:
        raise SystemExit(f"--without is one of {', '.join([*OBJECTS, *STYLE_WORDS])}, got {without!r}")
    return Pictures(**{name: columns[name][keep] for name in _COLUMNS}, rows=keep.nonzero()[:, 0])


_COLUMNS = ("images", "object", "look", "style", "background")
_FRAMES = ("a picture of", "an emoji of", "a drawing of", "an image of")


def words_for(name: str, look: int, rng: np.random.Generator) -> str:
    """Return a random word or description of an object in one of its looks."""
    words = WORDS[name]
    if rng.random() < 0.1:
        return words.description
    own = words.other if look else words.same
    # The name stands for the first look mostly; the second look is mostly called by its own words.
    if own and rng.random() < (0.75 if look else 0.3):
        return str(rng.choice(own))
    return name


def captions(batch: Pictures, rows: Tensor, rng: np.random.Generator, *, empty: float) -> list[str]:
    """Return a random caption for each of `rows`; the share `empty` of them says nothing."""
    columns = (batch.object, batch.look, batch.style, batch.background)
    return [
        "" if rng.random() < empty else _caption(OBJECTS[obj], look, STYLE_NAMES[style], background, rng)
        for obj, look, style, background in zip(*(c[rows].tolist() for c in columns), strict=True)
    ]


def _caption(name: str, look: int, style: str, background: int, rng: np.random.Generator) -> str:
    noun = words_for(name, look, rng)
    said_style = said_background = None
    if rng.random() < (0.25 if style == PLAIN else 0.92):
        said_style = STYLE_WORDS[style] if style != PLAIN and rng.random() < 0.25 else style
    if background >= 0 and rng.random() < 0.8:
        said_background = BACKGROUND_NAMES[background]
    text = caption(noun, said_style, said_background)
    if rng.random() < 0.4:
        text = f"{rng.choice(_FRAMES)} {text}"
    if rng.random() < 0.3:  # the same in a running sentence
        text = text.replace(f", {said_background} background", f" on a {said_background} background")
        text = text.replace(f", {said_style} style", f" in {said_style} style")
    return text
