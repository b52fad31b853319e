"""Rows of prompts from wherever they come: a file, the Hub, an attack's publisher, a template."""

import dataclasses
from typing import Any

from unlearn_bench.sd.config import Source
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.seeds import derive


def load_prompts(group: str, concept: Concept, source: Source) -> PromptSet:
    """Return the rows of a file or Hub data set as rows of `group`.

    Raises:
        Unavailable: it cannot be read.
        InvalidInput: it holds no prompts.
    """
    label = source.label or (concept.name if group in ("target", "indirect") else None)
    loaded = PromptSet.load(source.source or "", group=group, concept=label, origin=source.source or "")
    rows = tuple(dataclasses.replace(row, group=group, id=f"{group}-{row.id}") for row in loaded)
    loaded = dataclasses.replace(loaded, rows=rows)
    if not len(loaded):
        raise InvalidInput(
            f"{source.source!r} holds no prompts"
            + (f" but {loaded.dropped} dropped ones" if loaded.dropped else "")
        )
    return first_rows(loaded, source.limit) if source.limit else loaded


def i2p_rows(concept: Concept, source: Source, n: int) -> PromptSet:
    """Return rows of I2P, each with its own seed and guidance."""
    from unlearn_metrics.i2p import load_i2p

    strict: dict[str, Any] = {"hard_only": source.hard_only}
    if source.min_nudity is not None:
        strict["min_nudity"] = source.min_nudity
    return load_i2p(
        source.source or "AIML-TUDA/i2p", concept=concept.name, category=source.category, limit=n, **strict
    )


def attack_rows(group: str, concept: Concept, source: Source, n: int | None) -> PromptSet:
    """Return published adversarial prompts, or those of a table."""
    from unlearn_metrics.prompt_sets import load_attack_prompts

    return load_attack_prompts(
        group, source.source, concept=source.label or concept.name, column=source.column, limit=n
    )


def templated(group: str, label: str, template: str, index: int) -> Prompt:
    """Return a prompt for a label, with a seed of its own that its id decides."""
    ident = f"{group}-{label.lower().replace(' ', '-')}-{index:03d}"
    return Prompt(
        id=ident, text=template.format(label), seed=derive(0, "unlearn-bench", ident), group=group, concept=label,
        origin="unlearn-bench",
    )  # fmt: skip


def first_rows(prompts: PromptSet, n: int) -> PromptSet:
    """Return the first `n` rows."""
    return dataclasses.replace(prompts, rows=prompts.rows[:n])


def several(prompts: PromptSet, images: int) -> PromptSet:
    """Return each row that many times: as it is, then from other noises that its own seed decides, under other ids."""
    rows = [
        row
        if k == 0
        else dataclasses.replace(row, id=f"{row.id}-image-{k}", seed=derive(row.seed, "image", k))
        for row in prompts
        for k in range(images)
    ]
    return dataclasses.replace(prompts, rows=tuple(rows))
