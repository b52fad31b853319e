"""The prompts and the judge that belong to a model: pocket-sd's own, the package's, or those of a file."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from genmu_eval.concepts import target as target_of
from genmu_eval.prompts import Draw, Question, Sheet, own, sheet_of
from genmu_eval.questions import key
from genmu_eval.table import PRESERVED
from unlearn_bench.genmu.protocol import Protocol as Asked
from unlearn_bench.sd import worlds
from unlearn_bench.sd.config import ConceptConfig
from unlearn_core.errors import InvalidInput
from unlearn_core.spec import fingerprint

KINDS: dict[str, Any] = {"Artistic Styles": "style"}
"""Type of the challenge -> kind of concept, which chooses the settings of techniques; scenes and actions have none of
their own and take those of objects."""

LLAVA: dict[str, Any] = {
    "question": "Is there {} in this picture? Answer yes or no.",
    "vqa": "chat",
    "vqa_settings": {"model": "llava-hf/llava-1.5-7b-hf", "instruction": "{}"},
}
"""The judge of both participants whose code or paper is public: a yes/no question to LLaVA."""


class World(Protocol):
    """What a run asks of it."""

    remembered: ClassVar[bool]
    """Whether the judge's answers are kept on disk."""

    @property
    def judged_by(self) -> dict[str, Any]:
        """The judge by name and settings."""
        ...

    def protocol(self, concepts: Sequence[str], *, images: int | None, limit: int | None) -> Asked:
        """Return what is drawn for these targets, by default for its own; see `Asked`."""
        ...

    def concept(self, target: str, asked: Asked) -> ConceptConfig:
        """Return the target as techniques are told it."""
        ...

    def judge(self, asks: str, against: Sequence[str]) -> Any:
        """Return the detector that looks for `asks`, told what else the pictures may show."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pocket:
    """pocket-sd: prompts for any of its concepts, and its judge."""

    sheet: Sheet | None = None
    """In place of its own prompts; those retained are its own where the sheet has none."""

    remembered: ClassVar[bool] = False

    @property
    def judged_by(self) -> dict[str, Any]:
        """pocket-sd's judge."""
        return {"name": "pocket"}

    def protocol(self, concepts: Sequence[str], *, images: int | None, limit: int | None) -> Asked:
        """Return what is drawn: 8 images of each target and axis, by default of dog, apple and car, 24 retained."""
        from pocket_sd.genmu import TARGETS, genmu_prompts

        targets = tuple(concepts) or (self.sheet.targets if self.sheet else TARGETS)
        n = images or 8
        found = genmu_prompts(targets, images=n, adjacent=n, retained=3 * n)
        draws = []
        for axis, by_target in found.items():
            for target, rows in by_target.items():
                for row in rows.rows[:limit]:
                    asks = (row.concept or "") if axis in ("ret", "adj") else target
                    question = Question(
                        concept=target or asks, axis=axis, asks=asks, text=row.text, source=row.origin
                    )
                    draws.append(Draw(prompt=row, question=question))
        if self.sheet is None:
            return Asked(name="pocket-sd", targets=targets, draws=tuple(draws))
        sheet = self.sheet.only(targets)
        theirs = _drawn(sheet, n, limit)
        have, near = {_cell(d) for d in theirs}, {d.question.asks for d in theirs if d.question.axis == "adj"}
        filled = (
            d for d in draws if _cell(d) not in have and (_cell(d)[0] != "ret" or d.question.asks not in near)
        )
        return Asked(name=sheet.name, targets=sheet.targets, draws=(*theirs, *filled))

    def concept(self, target: str, asked: Asked) -> ConceptConfig:
        """Return the target by its name: its words, anchor and neighbours are known."""
        return ConceptConfig(name=target)

    def judge(self, asks: str, against: Sequence[str]) -> Any:
        """Return pocket-sd's judge."""
        from pocket_sd.judged import PocketDetector

        return PocketDetector(concept=asks)


@dataclass(frozen=True, kw_only=True)
class Open:
    """Any other Stable Diffusion: the package's prompts for the 20 concepts, or a file's, and a judge by name."""

    sheet: Sheet | None = None
    judge_name: str = "llava"
    judge_settings: dict[str, Any] = field(default_factory=dict)

    remembered: ClassVar[bool] = True

    @property
    def judged_by(self) -> dict[str, Any]:
        """The detector by name and settings."""
        return {"name": self.judge_name, "settings": self.judge_settings}

    def protocol(self, concepts: Sequence[str], *, images: int | None, limit: int | None) -> Asked:
        """Return what is drawn: 20 images of a concept and axis; what the file lacks is taken from the package."""
        ours = own()
        sheet = self.sheet or ours
        sheet = sheet.only(concepts) if concepts else sheet
        questions = list(sheet.questions)
        for name in sheet.targets:
            if not sheet.adjacent(name):
                known = target_of(name)
                near_it = ours.of(axis="adj", concept=known.name if known else name)
                questions += [dataclasses.replace(q, concept=name) for q in near_it]
        if not sheet.of(axis="ret"):
            near = {q.asks for q in questions if q.axis == "adj"}
            questions += [
                q for q in ours.of(axis="ret") if q.asks not in near and q.asks not in sheet.targets
            ]
        filled = dataclasses.replace(sheet, questions=tuple(questions))
        most = max(len(sheet.of(axis="fgt", concept=name)) for name in sheet.targets)
        draws = _drawn(filled, images or max(1, 20 // most), limit)
        return Asked(name=sheet.name, targets=sheet.targets, draws=draws)

    def concept(self, target: str, asked: Asked) -> ConceptConfig:
        """Return the target with its type and neighbours."""
        sheet = self.sheet or own()
        near = {
            d.question.asks for d in asked.draws
            if (d.question.axis, d.question.concept) == ("adj", target) and d.question.asks not in asked.targets
        }  # fmt: skip
        kind = KINDS.get(sheet.types.get(target, ""), "object")
        return ConceptConfig(name=target, kind=kind, adjacent=sorted(near))

    def judge(self, asks: str, against: Sequence[str]) -> Any:
        """Return the detector of that name, looking for `asks`."""
        from unlearn_metrics.verdicts import plug

        if self.judge_name == "llava":
            return plug("unlearn.detectors", "vqa", {**LLAVA, **self.judge_settings}, concept=asks)
        others = tuple(name for name in against if name != asks)
        return plug("unlearn.detectors", self.judge_name, self.judge_settings, concept=asks, against=others)


def world_of(model: str, csv: Path | str | None, judge: str | None, settings: dict[str, Any]) -> World:
    """Return the world of a model.

    Args:
        model: as `--model` has it.
        csv: a sheet in the challenge's columns or the package's, or a data set of the Hub.
        judge: name of a detector; pocket-sd has its own.
        settings: of that detector.

    Raises:
        InvalidInput: a sheet that cannot be read as one, another judge for pocket-sd.
    """
    sheet = sheet_of(csv) if csv is not None else None
    if isinstance(worlds.world_of(model), worlds.Pocket):
        if judge not in (None, "pocket") or settings:
            raise InvalidInput(
                "--judge: pocket-sd's pictures are emoji, which its own judge alone can tell apart"
            )
        return Pocket(sheet=sheet)
    return Open(sheet=sheet, judge_name=judge or "llava", judge_settings=settings)


def _drawn(sheet: Sheet, images: int, limit: int | None) -> tuple[Draw, ...]:
    """Return the images of a sheet, at most `limit` of each target and axis and of all that is retained.

    What is a target is neither adjacent nor retained.
    """
    targets = {key(name) for name in sheet.targets}
    counts: dict[tuple[str, str], int] = {}
    found = []
    for draw in sheet.draws(images=images):
        q, cell = draw.question, _cell(draw)
        if (q.axis in PRESERVED and key(q.asks) in targets) or counts.get(cell, 0) == limit:
            continue
        counts[cell] = counts.get(cell, 0) + 1
        found.append(by_text(draw))
    return tuple(found)


def by_text(draw: Draw) -> Draw:
    """Return the image under an id that holds a hash of its text: after an edit of its sheet it is another image."""
    ident = f"{draw.prompt.id}-{fingerprint([draw.question.text, draw.prompt.seed])[:8]}"
    return dataclasses.replace(draw, prompt=dataclasses.replace(draw.prompt, id=ident))


def _cell(draw: Draw) -> tuple[str, str]:
    """Return (axis, target); "" for all that is retained, which serves all targets."""
    axis = draw.question.axis
    return axis, "" if axis == "ret" else draw.question.concept
