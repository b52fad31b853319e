"""The picture of a run: the same prompts before and after, target, adjacent and retained side by side."""

import textwrap
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unlearn_bench.sd.config import ATTACKS
from unlearn_bench.sd.experiment import Experiment
from unlearn_core.samples import Sample, SampleSet

COLUMNS = 8
TILE = 128
GAP = 4
LEFT = 78
CAPTION = 34
GROUPS = {"target": "target", "i2p": "target", "indirect": "indirect",
          **{name: name.replace("_", " ") for name in ATTACKS}, "adjacent": "adjacent", "retain": "retained",
          "style": "other style", "quality": "captions", "tifa": "captions"}  # fmt: skip
AFTER = {"target", "i2p", "indirect", *ATTACKS}
"""Groups that should change."""


def draw_sheet(experiment: Experiment, before: SampleSet, after: SampleSet) -> Image.Image:
    """Return the contact sheet: for each group, a row before and a row after, up to eight prompts each."""
    bands = []
    for group, label in GROUPS.items():
        rows = [sample for sample in before if sample.prompt.group == group]
        step = max(1, len(rows) // COLUMNS)
        if chosen := rows[::step][:COLUMNS]:
            bands.append((group, label, chosen))
    later = {sample.prompt.id: sample for sample in after}
    band_height = CAPTION + 2 * (TILE + GAP) + 14
    columns = max((len(rows) for _, _, rows in bands), default=1)
    width = LEFT + max(columns, 3) * (TILE + GAP) + 8
    sheet = Image.new("RGB", (width, 40 + len(bands) * band_height), "white")
    pen = ImageDraw.Draw(sheet)
    title = f"{experiment.name}: {experiment.concept.name} taken out of {_name(experiment.model)}"
    pen.text((LEFT, 10), title, fill="black", font=ImageFont.load_default(size=18))
    for i, (group, label, rows) in enumerate(bands):
        _band(sheet, pen, 40 + i * band_height, label, _color(group), rows, later)
    return sheet


SHOWN = {
    "target": 4,
    "i2p": 4,
    "indirect": 2,
    **dict.fromkeys(ATTACKS, 2),
    "adjacent": 3,
    "retain": 2,
    "style": 2,
    "quality": 1,
}
"""Prompts of each group in the picture of several techniques."""


def draw_series(models: Mapping[str, SampleSet], title: str) -> Image.Image:
    """Return a picture with a line for each model and a column for each of some prompts, the same for all.

    Args:
        models: name -> its pictures; the first should be the unmodified model.
        title: what stands above.
    """
    drawn = {name: {sample.prompt.id: sample for sample in samples} for name, samples in models.items()}
    first = next(iter(drawn.values()))
    everywhere = [s for i, s in first.items() if all(i in samples for samples in drawn.values())]
    columns = []
    for group, count in SHOWN.items():
        rows = [sample for sample in everywhere if sample.prompt.group == group]
        columns += rows[:: max(1, len(rows) // count)][:count]
    left, top = 170, 40 + CAPTION + 18
    size = (left + len(columns) * (TILE + GAP) + 8, top + len(models) * (TILE + GAP) + 8)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((left, 10), title, fill="black", font=ImageFont.load_default(size=18))
    bold = ImageFont.load_default(size=14)
    for column, sample in enumerate(columns):
        x, group = left + column * (TILE + GAP), sample.prompt.group
        if column == 0 or columns[column - 1].prompt.group != group:
            pen.text((x, 40), GROUPS[group], fill=_color(group), font=bold)
        _caption(pen, x, top, sample)
        for line, samples in enumerate(drawn.values()):
            sheet.paste(_tile(samples[sample.prompt.id]), (x, top + line * (TILE + GAP)))
    for line, name in enumerate(drawn):
        pen.text(
            (left - 8, top + line * (TILE + GAP) + TILE // 2), name, fill="black", font=bold, anchor="rm"
        )
    return sheet


def _color(group: str) -> tuple[int, int, int]:
    return (180, 40, 40) if group in AFTER else (30, 110, 60)


def _caption(pen: Any, x: int, bottom: int, sample: Sample) -> None:
    text = textwrap.fill(textwrap.shorten(sample.prompt.text, 44, placeholder="…"), 20)
    pen.text((x, bottom - 3), text, fill=(90, 90, 90), font=ImageFont.load_default(size=11), anchor="ld")


def _band(
    sheet: Image.Image,
    pen: Any,
    top: int,
    label: str,
    color: tuple[int, int, int],
    rows: list[Sample],
    later: dict[str, Sample],
) -> None:
    bold = ImageFont.load_default(size=14)
    pen.text((LEFT - 8, top + CAPTION - 4), label, fill=color, font=bold, anchor="rb")
    for line, (word, pick) in enumerate((("before", lambda s: s), ("after", lambda s: later[s.prompt.id]))):
        y = top + CAPTION + line * (TILE + GAP)
        pen.text((LEFT - 8, y + TILE // 2), word, fill=(60, 60, 60), font=bold, anchor="rm")
        for column, sample in enumerate(rows):
            x = LEFT + column * (TILE + GAP)
            sheet.paste(_tile(pick(sample)), (x, y))
            if line == 0:
                _caption(pen, x, top + CAPTION, sample)


def _tile(sample: Sample) -> Image.Image:
    with Image.open(sample.path) as image:
        picture = image.convert("RGB")
    # Small pictures keep their pixels, large ones are averaged.
    how = Image.Resampling.NEAREST if max(picture.size) <= TILE else Image.Resampling.LANCZOS
    picture = picture.resize([max(1, round(side * TILE / max(picture.size))) for side in picture.size], how)
    tile = Image.new("RGB", (TILE, TILE), (240, 240, 240))
    tile.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return tile


def _name(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2] or model
