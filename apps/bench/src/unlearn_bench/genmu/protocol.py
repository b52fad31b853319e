"""Which images decide a score: those of all targets, and of them those that a model which forgot some is asked for."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from genmu_eval.prompts import Draw
from genmu_eval.table import AXES, Judgement
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import PromptSet

Seen = Mapping[tuple[str, str], bool]
"""(prompt id, what was asked) -> whether the judge saw it."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Every image of a run, with what the judge is asked about it.

    Raises:
        InvalidInput: no target, a target without images on some axis, one id that stands for different prompts.
    """

    name: str
    """Of the prompts."""
    targets: tuple[str, ...]
    draws: tuple[Draw, ...]

    def __post_init__(self) -> None:
        if not self.targets:
            raise InvalidInput(f"{self.name}: there is nothing to forget")
        have = {(d.question.axis, "" if d.question.axis == "ret" else d.question.concept) for d in self.draws}
        for axis in AXES:
            for target in ("",) if axis == "ret" else self.targets:
                if (axis, target) not in have:
                    whose = f" of {target!r}" if target else ""
                    raise InvalidInput(f"{self.name} has no prompt for the component {axis}{whose}")
        _ = self.prompts

    @property
    def prompts(self) -> PromptSet:
        """What is to be drawn, each row once."""
        rows = dict.fromkeys(draw.prompt for draw in self.draws)
        return PromptSet(name=self.name, rows=tuple(rows))

    @property
    def counts(self) -> dict[str, int]:
        """Axis -> number of images."""
        return {axis: sum(d.question.axis == axis for d in self.draws) for axis in AXES}

    def only(self, forgotten: Collection[str], *, requested_later: Collection[str] = ()) -> "Protocol":
        """Return what a model that forgot some targets is asked for.

        Args:
            forgotten: the targets; all five axes of these.
            requested_later: targets of which the direct prompts are drawn too, to see them go too early.
        """
        kept = [
            d for d in self.draws
            if d.question.axis == "ret" or d.question.concept in forgotten
            or (d.question.axis == "fgt" and d.question.concept in requested_later)
        ]  # fmt: skip
        targets = tuple(t for t in self.targets if t in forgotten)
        return dataclasses.replace(self, targets=targets, draws=tuple(kept))

    def judgements(self, seen: Seen, *, alone: str = "") -> Iterator[Judgement]:
        """Yield the rows of the table.

        Args:
            seen: what the judge saw.
            alone: the target that a model of its own forgot: the retained images then count under it; by default they
                serve all targets.
        """
        for draw in self.draws:
            row = draw.judgement(seen[draw.prompt.id, draw.question.asks])
            yield dataclasses.replace(row, concept=alone) if alone and row.axis == "ret" else row
