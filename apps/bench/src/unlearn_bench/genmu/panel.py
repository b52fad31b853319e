"""Several judges of the same pictures, how far they agree, and what a judge of known errors makes of the rates."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import harmonic_mean
from typing import Any, ClassVar

from genmu_eval.judges import Answers, Calibration, cohen_kappa, corrected, fleiss_kappa, majority
from genmu_eval.table import AXES, PRESERVED, Judgement
from unlearn_bench.genmu.protocol import Protocol as Asked
from unlearn_bench.genmu.worlds import Open, Pocket, World, world_of
from unlearn_bench.sd.config import ConceptConfig
from unlearn_core import tables
from unlearn_core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A world whose pictures several judges look at; what most of them see counts."""

    world: World
    """Of the prompts."""
    members: Mapping[str, World] = field(default_factory=dict)
    """Name of a judge -> the world that has it."""

    remembered: ClassVar[bool] = False

    @property
    def judged_by(self) -> dict[str, Any]:
        """All judges by name and settings."""
        return {"name": "+".join(self.members), "panel": [one.judged_by for one in self.members.values()]}

    def protocol(self, concepts: Sequence[str], *, images: int | None, limit: int | None) -> Asked:
        """Return what the world draws."""
        return self.world.protocol(concepts, images=images, limit=limit)

    def concept(self, target: str, asked: Asked) -> ConceptConfig:
        """Return the target as the world tells it."""
        return self.world.concept(target, asked)

    def judge(self, asks: str, against: Sequence[str]) -> Any:
        """Return the first judge; `judging.judged` asks every one."""
        return next(iter(self.members.values())).judge(asks, against)


def judges_of(world: World) -> Mapping[str, World]:
    """Return name -> world of each judge of a world."""
    return world.members if isinstance(world, Panel) else {str(world.judged_by["name"]): world}


def judged_world(
    model: str, csv: Path | str | None, judges: Sequence[str] | None, settings: Mapping[str, Any]
) -> World:
    """Return the world of a model with the judges that are asked for.

    Args:
        model: as `--model` has it.
        csv: see `world_of`.
        judges: names, each text one or several with commas between; empty for the model's own.
        settings: of the judge; of several, "JUDGE.NAME" -> value.

    Raises:
        InvalidInput: a setting of nobody, judges of pocket-sd's pictures without its own among them.
    """
    names = tuple(
        dict.fromkeys(name.strip() for text in judges or () for name in text.split(",") if name.strip())
    )
    if len(names) < 2:
        return world_of(model, csv, names[0] if names else None, dict(settings))
    own: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in settings.items():
        name, dot, rest = key.partition(".")
        if not dot or name not in own:
            raise InvalidInput(
                f"--judge-set {key}: of several judges write JUDGE.NAME=VALUE, JUDGE being {' or '.join(names)}"
            )
        own[name][rest] = value
    # Checks what one judge of this model may be.
    world = world_of(model, csv, None if "pocket" in names else names[0], {})
    if isinstance(world, Pocket) and own.get("pocket"):
        raise InvalidInput("--judge-set pocket: pocket-sd's own judge has no settings")
    members: dict[str, World] = {
        name: world
        if name == "pocket" and isinstance(world, Pocket)
        else Open(sheet=world.sheet, judge_name=name, judge_settings=chosen)  # type: ignore[attr-defined]
        for name, chosen in own.items()
    }
    return Panel(world=world, members=members)


def agreement(votes: Mapping[str, Answers]) -> dict[str, Any] | None:
    """Return how far several judges agree on the pictures that they saw; None of one judge.

    Fleiss' kappa of all and Cohen's of each pair (None where they answered no picture in common), the share of
    pictures on which all say the same, and the number of draws, which count as not showing the concept.
    """
    if len(votes) < 2:
        return None
    rows = list(zip(*votes.values(), strict=True))
    whole = [row for row in rows if None not in row]
    pairs = []
    for a, b in itertools.combinations(votes, 2):
        both = any(None not in pair for pair in zip(votes[a], votes[b], strict=True))
        pairs.append({"judges": [a, b], "kappa": cohen_kappa(votes[a], votes[b]) if both else None})
    return {
        "judges": list(votes),
        "shares": {name: _share(answers) for name, answers in votes.items()},
        "n": len(rows),
        "fleiss_kappa": fleiss_kappa(votes) if whole else None,
        "cohen_kappa": pairs,
        "unanimous": sum(len(set(row)) == 1 for row in whole) / len(whole) if whole else None,
        "draws": sum(answer is None for answer in majority(votes)),
    }


def silences(votes: Mapping[str, Answers]) -> list[str]:
    """Return a note about each of several judges that left answers to the others."""
    silent = {name: sum(answer is None for answer in answers) for name, answers in votes.items()}
    return [
        f"the judge {name} gave no answer in {n} of {len(votes[name])} cases, which the others decided"
        for name, n in silent.items()
        if n and len(votes) > 1
    ]


def _share(answers: Answers) -> float | None:
    known = [answer for answer in answers if answer is not None]
    return sum(known) / len(known) if known else None


def corrections(rows: Sequence[Judgement], calibration: Calibration) -> dict[str, Any]:
    """Return the components of a submission as they would be without the judge's errors, and ERR pooled of them.

    Each rate is that of all pictures of its axis, with the interval of `genmu_eval.judges.corrected`; ERR is the
    harmonic mean of the five, its ends that of theirs, which is wider than 95 %.

    Raises:
        InvalidInput: a judge no better than chance.
    """
    components: dict[str, dict[str, float]] = {}
    for axis in AXES:
        seen = [row.present for row in rows if row.axis == axis]
        found = corrected(sum(seen), len(seen), calibration).document()
        if axis not in PRESERVED:
            found = {"value": 1 - found["value"], "low": 1 - found["high"], "high": 1 - found["low"]}
        components[axis] = found
    ends = {
        end: float(harmonic_mean([components[axis][end] for axis in AXES]))
        for end in ("value", "low", "high")
    }
    return {
        "sensitivity": calibration.sensitivity,
        "specificity": calibration.specificity,
        "err_pooled": ends,
        "components": components,
    }


EXACT = 10**6
"""Pictures that a rate given without its counts stands for: its own uncertainty is not to be seen."""


def calibration_of(
    sensitivity: str | None, specificity: str | None, labelled: Path | None
) -> Calibration | None:
    """Return how often the judge errs, None where nothing is said of it.

    Args:
        sensitivity: a rate, or SEEN/PICTURES, of pictures that show the concept; counts widen the interval.
        specificity: the same of pictures without: NOT SEEN/PICTURES.
        labelled: a table with the columns truth and present, 0 or 1, a row per picture.

    Raises:
        UnlearnError: one rate without the other, both ways at once, no rate, a table that cannot be read, a judge no
            better than chance.
    """
    if sensitivity is None and specificity is None and labelled is None:
        return None
    if labelled is not None and (sensitivity or specificity):
        raise InvalidInput(
            "--calibration says how often the judge errs; leave --sensitivity and --specificity out"
        )
    if labelled is not None:
        counts = _labelled(labelled)
    elif sensitivity is None or specificity is None:
        raise InvalidInput("a correction takes both --sensitivity and --specificity")
    else:
        counts = (*_counts("--sensitivity", sensitivity), *_counts("--specificity", specificity))
    found = Calibration(
        **dict(zip(("seen", "with_concept", "clear", "without_concept"), counts, strict=True))
    )
    corrected(0, 1, found)  # known now, not after the work
    return found


def _counts(option: str, text: str) -> tuple[int, int]:
    try:
        hits, slash, n = text.partition("/")
        if slash:
            return int(hits), int(n)
        if not 0 <= float(text) <= 1:
            raise ValueError
        return round(float(text) * EXACT), EXACT
    except ValueError:
        raise InvalidInput(f"{option} is a rate such as 0.92 or counts such as 46/50, got {text!r}") from None


def _labelled(path: Path) -> tuple[int, int, int, int]:
    counts = {(truth, present): 0 for truth in "01" for present in "01"}
    for place, cells in tables.read(path):
        cell = tuple(str(cells.get(column, "")).strip() for column in ("truth", "present"))
        if cell not in counts:
            raise InvalidInput(f"{place}: truth and present are 0 or 1, got {cell[0]!r} and {cell[1]!r}")
        counts[cell] += 1
    with_concept, without = (sum(n for (t, _), n in counts.items() if t == truth) for truth in "10")
    return counts["1", "1"], with_concept, counts["0", "0"], without
