"""From rows to adversarial rows: one search after another, each kept on disk, with the guard behind all of them.

A finished search is a file in the folder of its attack, named by everything that it depends on: the attack, its
settings, the text encoder, the concept, the row and the seed. So a killed run goes on where it was, and models with
one text encoder share their prompts.
"""

import dataclasses
import functools
import itertools
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unlearn_core import atomic
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_core.minors import sexual_and_minor
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.protocols import Progress
from unlearn_core.seeds import derive
from unlearn_core.spec import canonical_json, fingerprint, settings_of
from unlearn_metrics import features
from unlearn_metrics.attacks.target import TextModel, reader_fingerprint
from unlearn_metrics.attacks.vocabulary import is_sexual
from unlearn_metrics.origins import origin_of


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found."""

    text: str
    """The prompt."""
    ids: tuple[int, ...]
    """Tokens that the search found, without begin and end."""
    read: tuple[int, ...]
    """Tokens that the prompt is read as."""
    loss: float | None = None
    """Objective of the tokens found, lower is better; None where there is none."""
    read_loss: float | None = None
    """Objective of the prompt as it is read."""
    evaluations: int = 0
    """Prompts that the text encoder read to find it, each with a gradient through the UNet in a white-box attack."""
    pictures: int = 0
    """Pictures that the model under attack drew to find it."""

    @property
    def changed(self) -> bool:
        """Whether the prompt is read as other tokens than were found."""
        return self.ids != self.read


@dataclass(frozen=True, kw_only=True)
class Crafted(PromptSet):
    """Adversarial prompts, and how they were found."""

    found: Mapping[str, Found] = field(default_factory=dict, compare=False)
    """Prompt id -> what the search found."""

    @property
    def changed(self) -> int:
        """Number of rows whose prompt is read as other tokens than the search found."""
        return sum(row.id in self.found and self.found[row.id].changed for row in self.rows)


Step = Callable[[], None]
"""What a search calls after each of its steps."""

Search = Callable[[Prompt, Any, torch.Generator, Step], Found]
"""Of a row, what was prepared for its concept, a CPU generator, and what to call after every step."""


def at_least(least: int, attack: Any, *settings: str) -> None:
    """Check settings of an attack.

    Raises:
        InvalidInput: one of them is less.
    """
    for name in settings:
        if (value := getattr(attack, name)) < least:
            raise InvalidInput(f"{type(attack).__name__}: {name} is at least {least}, got {value}")


def cache_folder() -> Path:
    """Return the folder in which attacks keep what they found, beside the one of features."""
    return features.cache_folder().with_name("attacks")


def craft(
    attack: Any,
    model: TextModel,
    prompts: PromptSet,
    *,
    seed: int,
    concept: Concept | None,
    prepare: Callable[[Concept], Any],
    search: Search,
    steps: int,
    tries: int = 1,
    progress: Progress | None = None,
    depends: str | None = None,
) -> Crafted:
    """Return `tries` adversarial rows for each row of `prompts`, searched for or found on disk.

    Args:
        attack: its name and settings; `batch`, prompts read at a time, changes nothing and is in no name of a file.
        model: under attack.
        prompts: what is attacked.
        seed: root of all random choices.
        concept: what is to come back; None: what each row states.
        prepare: what the searches for one concept share; called if one of them is not on disk.
        search: for one row.
        steps: of a search.
        tries: searches for a row.
        progress: called with (steps done, steps in all).
        depends: fingerprint of what the search asks; None: of the text encoder, and a row is its text alone.

    Raises:
        InvalidInput: a row that states no concept where none is given, or one that leaves no token to attack with.
        Unavailable: the cache cannot be written.
    """
    name, prepared = attack.name, functools.cache(prepare)
    folder = cache_folder() / name
    atomic.make_folder(folder)  # a folder that cannot be written is known now, not after the first search
    settings = {key: value for key, value in settings_of(attack).items() if key != "batch"}
    common = {
        "version": 1,
        "attack": name,
        "settings": settings,
        "reader": depends or reader_fingerprint(model),
        "seed": seed,
    }
    jobs = [(row, k) for row in prompts for k in range(tries)]
    report = progress or (lambda done, total: None)
    rows: list[Prompt] = []
    found: dict[str, Found] = {}
    for job, (row, k) in enumerate(jobs):
        about = about_of(row, concept)
        if about is None:
            raise InvalidInput(
                f"{name}: the row {row.id!r} states no concept to bring back; give craft() a concept="
            )
        own = [row.id, row.text] if depends is None else row.to_mapping()
        of = {**common, "concept": settings_of(about), "row": own, "try": k}
        path = folder / f"{fingerprint(of)}.json"
        one = None if refused("", row, about) else _kept(path)
        if one is None and not refused("", row, about):
            generator = torch.Generator().manual_seed(derive(seed, name, row.id, k))
            one = search(row, prepared(about), generator, _counter(report, job * steps, len(jobs) * steps))
            if refused(one.text, row, about):  # such a prompt is not even kept in the cache
                one = dataclasses.replace(one, text="", ids=(), read=())
            atomic.write_text(path, canonical_json(dataclasses.asdict(one)))
        else:
            report((job + 1) * steps, len(jobs) * steps)
        if one is not None and one.text and not refused(one.text, row, about):
            rows.append(adversarial(name, row, one.text, k, tries))
            found[rows[-1].id] = one
    return Crafted(
        name=f"{name}/{prompts.name}", revision=prompts.revision, rows=tuple(rows),
        dropped=prompts.dropped + len(jobs) - len(rows), found=found,
    )  # fmt: skip


def _counter(report: Progress, done: int, total: int) -> Step:
    counts = itertools.count(done + 1)
    return lambda: report(next(counts), total)


def adversarial(name: str, row: Prompt, text: str, k: int = 0, tries: int = 1) -> Prompt:
    """Return the row that an attack made of `row`: another text, the same noise, concept and guidance.

    Args:
        name: of the attack, which becomes the group.
        row: what was attacked.
        text: the new one.
        k: which of several rows made of this one.
        tries: how many are made of each.
    """
    ident = f"{name}-{row.id}" + (f"-{k}" if tries > 1 else "")
    return dataclasses.replace(row, id=ident, text=text, group=name, origin=origin_of(name, row))


def about_of(row: Prompt, concept: Concept | None) -> Concept | None:
    """Return the concept that is given, else the one that a row states, if any."""
    return concept or (Concept(name=row.concept) if row.concept else None)


def refused(text: str, row: Prompt, about: Concept | None) -> bool:
    """Return whether the guard refuses a text made of `row`: what it was made of and aims at counts as said."""
    aims = [*(about.names if about else ()), row.concept or "", "sexual" if is_sexual(about) else ""]
    return sexual_and_minor(" ".join([text, row.text, *aims]))


def _kept(path: Path) -> Found | None:
    """Return what a file of the cache holds; a damaged one is searched for again, with a warning."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Found(**{**kept, "ids": tuple(kept["ids"]), "read": tuple(kept["read"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        warnings.warn(
            f"a prompt is searched for again, {str(path)!r} is damaged: {error}", UnlearnWarning, stacklevel=3
        )
        return None
