"""Published adversarial prompts, from the Hub or a table, in the columns of their own files.

No row of them is shipped here, and some are gated: their authors ask who uses them, and for what.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_core import hub, tables
from unlearn_core.errors import InvalidInput, Unavailable, one_of
from unlearn_core.minors import sexual_and_minor
from unlearn_core.prompts import PromptSet, prompt_of
from unlearn_metrics.errors import NotApplicable
from unlearn_metrics.i2p import CATEGORY_OF


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the prompts of an attack are published, and in which columns."""

    source: str
    """``owner/name[:file]`` on the Hub; "" where nothing can be fetched."""
    text: tuple[str, ...] = ("prompt",)
    """Names of the column with the adversarial prompt; the first that is there."""
    aim: str = ""
    """Column with what the prompt was made to show."""
    licence: str
    where: str
    """Where a person finds them."""


SETS: dict[str, Published] = {
    "ring_a_bell": Published(
        source="Chia15/RingABell-Nudity",
        text=("prompt", "sensitive prompt"),
        licence="MIT; gated",
        where="https://huggingface.co/datasets/Chia15/RingABell-Nudity",
    ),
    "mma_diffusion": Published(
        source="YijunYang280/MMA-Diffusion-NSFW-adv-prompts-benchmark",
        text=("adv_prompt", "prompt"),
        aim="target_prompt",
        licence="CC BY-NC-ND 3.0; gated",
        where="https://huggingface.co/datasets/YijunYang280/MMA-Diffusion-NSFW-adv-prompts-benchmark",
    ),
    "p4d": Published(
        source="joycenerd/p4d:p4dn_16_prompt.csv",
        licence="CC BY 4.0, for non-commercial use; gated",
        where="https://huggingface.co/datasets/joycenerd/p4d",
    ),
    "unlearndiffatk": Published(
        source="",
        licence="MIT",
        where="https://github.com/OPTML-Group/Diffusion-MU-Attack, folder prompts (nudity.csv, violence.csv, …)",
    ),
}
"""Attack -> its published prompts. All that can be fetched are for nudity."""

SEEDS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCES = ("evaluation_guidance", "sd_guidance_scale", "guidance")


def load_attack_prompts(
    name: str,
    source: str | Path | None = None,
    *,
    concept: str | None = None,
    column: str | None = None,
    limit: int | None = None,
) -> PromptSet:
    """Return adversarial prompts as rows of the group `name`, each with its own seed and guidance where stated.

    Rows without a text are left out, and so are those that are sexual (by their words, their aim, their category or
    their concept) and mention a minor; `dropped` counts both. Prompts that stand there twice stay two rows. A table
    that an attack of ours saved is read too, and keeps its ids and origins.

    Args:
        name: of the attack: a key of `SETS`.
        source: a table, or ``owner/name[@revision][:file]`` on the Hub; None: the published ones.
        concept: what the pictures are rated for; "nudity" for the published ones.
        column: that of the prompts, such as "sanitized_adv_prompt" of MMA-Diffusion, where it is another one.
        limit: keep only the first rows that are left.

    Raises:
        NotApplicable: the published prompts are for another concept, or there is nothing to fetch.
        Unavailable: the source cannot be read, or it is gated and no token was given.
        MissingExtra: a Hub id without huggingface_hub.
        InvalidInput: an unknown attack, a table without the column, no rows left.
    """
    if name not in SETS:
        raise InvalidInput(one_of("attack with published prompts", name, SETS))
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is at least 1, got {limit}")
    known = SETS[name]
    if source is None:
        concept = concept or "nudity"
        source = _published(name, known, concept)
    path, revision = _fetched(source, known)
    columns = (column,) if column else (*known.text, "text")
    rows, dropped = [], 0
    for index, (place, row) in enumerate(tables.read(path)):
        text = str(row[_column(row, place, columns, name)] or "").strip()
        if not text or sexual_and_minor(f"{text} {row.get(known.aim) or ''} {_sexual(row, concept)}"):
            dropped += 1
            continue
        fields = {
            "id": ("origin" in row and row.get("id")) or f"{name}-{index:04d}",
            "text": text,
            "seed": _cell(row, SEEDS),
            "guidance": _cell(row, GUIDANCES),
            "group": name,
            "concept": concept or row.get("concept"),
            "origin": row.get("origin") or str(source),
        }
        rows.append(prompt_of({k: v for k, v in fields.items() if v not in (None, "") and v == v}, place))
    if not rows:
        raise InvalidInput(f"{str(source)!r} has no row that fits; {dropped} were left out for their text")
    found = PromptSet(name=name, revision=revision, rows=tuple(rows), dropped=dropped)
    return dataclasses.replace(found, rows=found.rows[:limit])


def _published(name: str, known: Published, concept: str) -> str:
    if not known.source:
        raise NotApplicable(
            f"{name} publishes no prompts on the Hub; download a table and name it as the source: {known.where}"
        )
    if CATEGORY_OF.get(concept.lower()) != "sexual":
        raise NotApplicable(
            f"the published prompts of {name} are for nudity, not for {concept!r}; run the attack, or name a table of "
            "prompts as the source"
        )
    return known.source


def _fetched(source: str | Path, known: Published) -> tuple[Path, str]:
    path = Path(source)
    if path.exists() or not hub.is_hub_id(str(source)):
        return path, ""
    try:
        return hub.fetch(str(source))
    except Unavailable as error:
        reason = str(error)
        if not any(sign in reason.lower() for sign in ("401", "403", "gated", "restricted")):
            raise
        repo = str(source).partition(":")[0].partition("@")[0]
        raise Unavailable(
            f"{reason}. It may be gated: accept its conditions at https://huggingface.co/datasets/{repo} "
            f"(licence: {known.licence}), then set HF_TOKEN=… or run 'hf auth login'; or name a table as the source"
        ) from error


def _column(row: Mapping[str, Any], place: str, columns: Sequence[str], name: str) -> str:
    for column in columns:
        if column in row:
            return column
    raise InvalidInput(
        f"{place}: the prompts of {name} stand in a column {' or '.join(map(repr, columns))}; columns found: "
        f"{', '.join(map(repr, row))}. Name another with column="
    )


def _cell(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    return next((row[column] for column in columns if column in row), None)


def _sexual(row: Mapping[str, Any], concept: str | None) -> str:
    """Return "sexual" unless the row is known not to be: its words need not name what they aim at."""
    stated = concept or row.get("concept")
    labels = [label.strip() for label in str(row.get("categories") or "").split(",")]
    of_concept = CATEGORY_OF.get(str(stated).lower()) == "sexual" if stated else True
    try:
        shown = float(row.get("nudity_percentage") or 0) > 0
    except ValueError:
        shown = True
    return "sexual" if of_concept or shown or "sexual" in labels else ""
