"""I2P: prompts that lead Stable Diffusion to inappropriate pictures, with the seed and guidance of each.

Paper: Schramowski et al. 2023, Safe Latent Diffusion, arXiv 2211.05105.
Data: `AIML-TUDA/i2p` on the Hub (MIT, 4,703 rows); the copies in paper repositories name the columns otherwise and
    number the rows (`case_number`). No row of it is shipped here.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn_core import hub, tables
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.minors import sexual_and_minor
from unlearn_core.prompts import PromptSet, prompt_of
from unlearn_metrics.errors import NotApplicable

SOURCE = "AIML-TUDA/i2p"
CATEGORIES = ("sexual", "shocking", "harassment", "self-harm", "violence", "illegal activity", "hate")
CATEGORY_OF = {
    **{name: "sexual" for name in ("nudity", "nude", "naked", "nsfw")},
    **{name: "violence" for name in ("blood", "gore", "violent")},
    **{category: category for category in CATEGORIES},
}
"""Concept -> category of its prompts."""


def category_of(concept: str) -> str:
    """Return the category of I2P that a concept is rated on.

    Raises:
        NotApplicable: I2P has no prompts for it, as for every object and style.
    """
    if concept.lower() not in CATEGORY_OF:
        raise NotApplicable(
            f"I2P is not defined for {concept!r}: it has prompts for {', '.join(CATEGORIES)}, not for objects or "
            "styles, which are rated on target prompts of their own"
        )
    return CATEGORY_OF[concept.lower()]


def load_i2p(
    source: str | Path = SOURCE,
    *,
    concept: str | None = None,
    category: str | None = None,
    hard_only: bool = False,
    min_nudity: float = 0.0,
    limit: int | None = None,
) -> PromptSet:
    """Return rows of I2P as prompts of the group "i2p", each with its own seed and guidance.

    Rows without a text are left out, and so are those that are sexual (by their words, their category or a
    nudity_percentage above 0) and mention a minor; `dropped` counts both among the rows that were asked for.
    Prompts that stand there twice stay two rows.

    Args:
        source: a CSV or other table of I2P, or ``owner/name[@revision][:file]`` on the Hub.
        concept: what the pictures are rated for ("nudity"); chooses the category unless that is stated.
        category: keep only rows with this label among theirs.
        hard_only: keep only rows marked "hard".
        min_nudity: keep only rows whose nudity_percentage is at least this (0 to 100).
        limit: keep only the first rows that are left.

    Raises:
        Unavailable: the source cannot be read.
        MissingExtra: a Hub id without huggingface_hub.
        NotApplicable: a concept that I2P is not defined for.
        InvalidInput: an unknown category, a table that is not I2P's, no rows left.
    """
    if category is None and concept is not None:
        category = category_of(concept)
    if category is not None and category not in CATEGORIES:
        raise InvalidInput(one_of("category of I2P", category, CATEGORIES))
    if not 0 <= min_nudity <= 100:
        raise InvalidInput(f"min_nudity is a percentage, 0 to 100, got {min_nudity}")
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is at least 1, got {limit}")
    path, revision = Path(source), ""
    if not path.exists() and hub.is_hub_id(str(source)):
        path, revision = hub.fetch(str(source))
    concept = concept or category
    rows, dropped = [], 0
    for index, (place, row) in enumerate(tables.read(path)):
        labels = [label.strip() for label in str(_cell(row, place, "categories")).split(",")]
        nudity = _number(row, place, "nudity_percentage")
        if category is not None and category not in labels:
            continue
        if nudity < min_nudity or (hard_only and _number(row, place, "hard") != 1):
            continue
        text = str(_cell(row, place, "prompt") or "")
        # These prompts often name nothing of what they lead to: what the pictures were found to be counts as said.
        sexual = "sexual" in labels or nudity > 0 or CATEGORY_OF.get(str(concept).lower()) == "sexual"
        if not text.strip() or sexual_and_minor(f"{text} sexual" if sexual else text):
            dropped += 1
            continue
        number = int(_number(row, place, "case_number")) if "case_number" in row else index
        fields = {
            "id": f"i2p-{number:04d}",
            "text": text,
            "seed": _cell(row, place, "sd_seed", "evaluation_seed"),
            "guidance": _cell(row, place, "sd_guidance_scale", "evaluation_guidance"),
            "group": "i2p",
            "concept": concept,
            "origin": str(source),
        }
        rows.append(prompt_of(fields, place))
    if not rows:
        raise InvalidInput(
            f"{str(source)!r} has no row of I2P that fits; {dropped} were left out for their text"
        )
    name = "/".join(["i2p", *([category] if category else [])])
    prompts = PromptSet(name=name, revision=revision, rows=tuple(rows), dropped=dropped)
    return dataclasses.replace(prompts, rows=prompts.rows[:limit])


def _cell(row: Mapping[str, Any], place: str, *columns: str) -> Any:
    """Return the cell under the first of `columns` that there is."""
    for column in columns:
        if column in row:
            return row[column]
    raise InvalidInput(
        f"{place}: I2P has a column {' or '.join(map(repr, columns))}; columns found: {', '.join(map(repr, row))}"
    )


def _number(row: Mapping[str, Any], place: str, column: str) -> float:
    cell = _cell(row, place, column)
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{place}: {column!r} is a number, got {cell!r}")
    return number
