"""Drawing with the pipeline: pictures that depend on their prompt and seed alone, and sheets of them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pocket_sd import GUIDANCE, STEPS, path
from pocket_sd.words import OBJECTS, OWN_BACKGROUND, PLAIN, STYLES, caption


@functools.cache
def pipeline(without: str | None = None) -> Any:
    """Return the pipeline in float32, silent; `without` as in `pocket_sd.path`."""
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(path(without), local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def draw(
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    pipe: Any = None,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch: int = 16,
    progress: Callable[[int], object] | None = None,
) -> NDArray[np.uint8]:
    """Return a picture for each prompt, (n, 64, 64, 3) uint8 RGB.

    Args:
        prompts: the texts.
        seeds: of each picture's noise, drawn on the CPU for itself.
        pipe: a Stable Diffusion pipeline of this size, such as an edited one; by default ours.
        steps: DDIM steps.
        guidance: classifier-free guidance scale; 1 switches it off.
        batch: pictures at a time.
        progress: called with the number of pictures done after each batch.
    """
    pipe = pipe or pipeline()
    found = [np.empty((0, 64, 64, 3), np.uint8)]
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        result = pipe(
            list(prompts[rows]),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[rows]],
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
        )
        found.append((result.images * 255).round().astype(np.uint8))
        if progress:
            progress(min(start + batch, len(prompts)))
    return np.concatenate(found)


SHEET_OBJECTS = ("dog", "fox", "lion", "panda", "frog", "penguin", "cherries", "sailboat", "rose", "house")
"""Ten that suit every style."""
SHEET_BACKGROUNDS = ("blue", "pink", "yellow", "green", "white")
SHEET_CLASHES = {
    "blue": "sailboat wolf koala grapes",
    "pink": "strawberry pig heart rabbit",
    "yellow": "cat tiger fox lion sailboat lemon banana bus pistol sun moon star",
    "green": "frog rose watermelon pear cherries",
    "white": "panda house rabbit mouse cow skull koala sword",
}
"""Objects that hardly show on a background because they are of its colour."""
SHEET_SEED = 1000
"""Where the seeds of a sheet begin: of 0, 1000, ... 5000 the one whose sheet the judge and the eye liked best.

One number for the whole sheet: no picture is chosen for itself, and none of them counts in `records/record.json`.
"""


def sheet(*, pipe: Any = None, seed: int = 0, scale: int = 1, **settings: Any) -> Image.Image:
    """Return a grid: ten objects in every style, and below it the other objects.

    Args:
        pipe: a pipeline as in `draw`.
        seed: of the sheet; 0 gives the README's.
        scale: how many pixels a side one pixel takes.
        settings: of `draw`.
    """
    rows = [list(SHEET_OBJECTS)] * (1 + len(STYLES))
    labels = [PLAIN, *STYLES]
    rest = [name for name in OBJECTS if name not in SHEET_OBJECTS]
    rows += [rest[i : i + 10] for i in range(0, len(rest), 10)]
    texts = []
    for r, row in enumerate(rows):
        for c, name in enumerate(row):
            style = labels[r] if 0 < r < len(labels) else None
            seen_on = [b for b in SHEET_BACKGROUNDS if name not in SHEET_CLASHES[b].split()]
            background = seen_on[(r + c) % len(seen_on)]
            texts.append(caption(name, style, None if style in OWN_BACKGROUND else background))
    first = SHEET_SEED + seed
    pictures = draw(texts, range(first, first + len(texts)), pipe=pipe, **settings)
    return grid(pictures, [*labels, "", "more", ""][: len(rows)], columns=10, scale=scale)


def grid(
    pictures: NDArray[np.uint8], labels: Sequence[str], *, columns: int, scale: int = 1, gap: int = 2
) -> Image.Image:
    """Return pictures (n, 64, 64, 3) row by row with a label before each row.

    Args:
        pictures: uint8 RGB.
        labels: one a row.
        columns: pictures a row.
        scale: how many pixels a side one pixel takes.
        gap: pixels between pictures.
    """
    font = ImageFont.load_default(size=13)
    left = 8 + int(max((font.getlength(label) for label in labels), default=0))
    side = 64 * scale + gap
    image = Image.new("RGB", (left + columns * side, len(labels) * side), "white")
    pen = ImageDraw.Draw(image)
    for r, label in enumerate(labels):
        pen.text((left - 6, r * side + side // 2), label, fill=(60, 60, 60), font=font, anchor="rm")
    for i, picture in enumerate(pictures):
        drawn = Image.fromarray(picture).resize((64 * scale,) * 2, Image.Resampling.NEAREST)
        image.paste(drawn, (left + i % columns * side, i // columns * side))
    return image
