"""The contact sheet: the same prompts before and after, for each of the five axes."""

import textwrap
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from genmu_eval.prompts import Draw
from unlearn_bench.genmu.protocol import Protocol
from unlearn_core.samples import SampleSet

COLUMNS = 9
TILE = 112
GAP = 4
LEFT = 96
CAPTION = 34
BANDS = {"fgt": "target", "ind": "indirect", "adv": "adversarial", "adj": "adjacent", "ret": "retained"}
CHANGES = ("fgt", "ind", "adv")
"""Axes whose pictures should change."""


def draw_sheet(asked: Protocol, before: SampleSet, after: Mapping[str, SampleSet], title: str) -> Image.Image:
    """Return the sheet.

    Args:
        asked: all that was drawn.
        before: pictures of the unmodified model.
        after: target -> pictures of the model that forgot it; the same for all where one forgot all.
        title: what stands above.
    """
    old = {sample.prompt.id: sample.path for sample in before}
    new = {(target, sample.prompt.id): sample.path for target, samples in after.items() for sample in samples}
    lines = [
        (axis, draws[start : start + COLUMNS])
        for axis, draws in ((axis, _chosen(asked, axis)) for axis in BANDS)
        for start in range(0, len(draws), COLUMNS)
    ]
    columns = max(len(draws) for _, draws in lines)
    height = CAPTION + 2 * (TILE + GAP) + 12
    size = (LEFT + max(columns, 4) * (TILE + GAP) + 8, 40 + len(lines) * height)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((12, 10), title, fill="black", font=ImageFont.load_default(size=18))
    bold, small = ImageFont.load_default(size=14), ImageFont.load_default(size=11)
    for number, (axis, draws) in enumerate(lines):
        top = 40 + number * height + CAPTION
        color = (180, 40, 40) if axis in CHANGES else (30, 110, 60)
        pen.text((LEFT - 8, top - 4), BANDS[axis], fill=color, font=bold, anchor="rb")
        for line, word in enumerate(("before", "after")):
            y = top + line * (TILE + GAP) + TILE // 2
            pen.text((LEFT - 8, y), word, fill=(60, 60, 60), font=bold, anchor="rm")
        for column, draw in enumerate(draws):
            x, which = LEFT + column * (TILE + GAP), draw.prompt.id
            text = textwrap.fill(textwrap.shorten(draw.question.text, 40, placeholder="…"), 18)
            pen.text((x, top - 3), text, fill=(90, 90, 90), font=small, anchor="ld")
            target = draw.question.concept if draw.question.concept in asked.targets else asked.targets[0]
            sheet.paste(_tile(old[which]), (x, top))
            sheet.paste(_tile(new[target, which]), (x, top + TILE + GAP))
    return sheet


def _chosen(asked: Protocol, axis: str) -> list[Draw]:
    """Return some pictures of an axis, spread over its concepts and prompts: a line full, or one of each target."""
    by_concept: dict[str, list[Draw]] = {}
    for draw in asked.draws:
        if draw.question.axis == axis:
            by_concept.setdefault(draw.question.concept, []).append(draw)
    most = COLUMNS if axis == "ret" else max(COLUMNS, len(by_concept))
    wanted = -(-most // len(by_concept))
    some = [draws[:: max(1, len(draws) // wanted)][:wanted] for draws in by_concept.values()]
    mixed = [draw for turn in zip_longest(*some) for draw in turn if draw is not None]
    return sorted(mixed[:most], key=lambda draw: list(by_concept).index(draw.question.concept))


def _tile(path: Any) -> Image.Image:
    with Image.open(path) as image:
        picture = image.convert("RGB")
    # Small pictures keep their pixels, large ones are averaged.
    how = Image.Resampling.NEAREST if max(picture.size) <= TILE else Image.Resampling.LANCZOS
    picture = picture.resize([max(1, round(side * TILE / max(picture.size))) for side in picture.size], how)
    tile = Image.new("RGB", (TILE, TILE), (240, 240, 240))
    tile.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return tile
