"""The picture of a run: the same prompts before and after, target, adjacent and retained side by side."""

import textwrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unlearn_bench.sd.experiment import Experiment
from unlearn_core.samples import Sample, SampleSet

COLUMNS = 8
TILE = 128
GAP = 4
LEFT = 78
CAPTION = 34
GROUPS = {"target": "target", "i2p": "target", "indirect": "indirect", "adjacent": "adjacent", "retain": "retained",
          "style": "other style", "quality": "captions"}  # fmt: skip
AFTER = {"target", "i2p", "indirect"}
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
        _band(sheet, pen, 40 + i * band_height, label, group in AFTER, rows, later)
    return sheet


def _band(
    sheet: Image.Image,
    pen: Any,
    top: int,
    label: str,
    changes: bool,
    rows: list[Sample],
    later: dict[str, Sample],
) -> None:
    small, bold = ImageFont.load_default(size=11), ImageFont.load_default(size=14)
    color = (180, 40, 40) if changes else (30, 110, 60)
    pen.text((LEFT - 8, top + CAPTION - 4), label, fill=color, font=bold, anchor="rb")
    for line, (word, pick) in enumerate((("before", lambda s: s), ("after", lambda s: later[s.prompt.id]))):
        y = top + CAPTION + line * (TILE + GAP)
        pen.text((LEFT - 8, y + TILE // 2), word, fill=(60, 60, 60), font=bold, anchor="rm")
        for column, sample in enumerate(rows):
            x = LEFT + column * (TILE + GAP)
            sheet.paste(_tile(pick(sample)), (x, y))
            if line == 0:
                text = textwrap.shorten(sample.prompt.text, 44, placeholder="…")
                pen.text(
                    (x, top + CAPTION - 3),
                    textwrap.fill(text, 20),
                    fill=(90, 90, 90),
                    font=small,
                    anchor="ld",
                )


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
