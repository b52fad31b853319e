"""What the judge sees in the pictures of a model: each is drawn once, and asked about once per concept."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genmu_eval.judges import majority
from genmu_eval.prompts import Draw
from unlearn_bench.genmu.panel import judges_of
from unlearn_bench.genmu.plan import Plan
from unlearn_bench.genmu.protocol import Protocol, Seen
from unlearn_bench.genmu.worlds import World
from unlearn_bench.sd import runner
from unlearn_core.errors import InvalidInput
from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet

THRESHOLD = 0.5
"""Of detectors that state none of their own."""

Votes = dict[str, list[bool | None]]
"""Judge -> its answers, in the order in which they were asked for; None for a picture that it could not judge."""


def drawn_and_judged(
    plan: Plan,
    model: Any,
    asked: Protocol,
    out: Path,
    record: RunRecord,
    stage: str,
    progress: runner.Progress | None = None,
    *,
    votes: Votes | None = None,
) -> tuple[SampleSet, Seen]:
    """Return the pictures that `asked` wants of a model, drawing those that are missing, and what the judge saw."""
    check(plan.world, asked.draws)
    rows = dataclasses.replace(plan.first, prompts={"genmu": asked.prompts})
    samples = runner.draw(rows, model, out, record, stage, progress)
    with record.stage("judging"):
        return samples, judged(plan.world, asked.draws, samples, votes=votes)


def check(world: World, draws: Sequence[Draw]) -> None:
    """Check what can be checked of the judges before the first picture is drawn.

    Raises:
        UnlearnError: a concept that a judge does not know, a setting that it does not take, a package that is missing.
    """
    asked = dict.fromkeys(draw.question.asks for draw in draws)
    for asks in asked:
        for member in judges_of(world).values():
            member.judge(asks, tuple(sorted(asked)))


def judged(world: World, draws: Sequence[Draw], samples: SampleSet, *, votes: Votes | None = None) -> Seen:
    """Return whether the judge, or most of several, saw what `draws` ask about the pictures in `samples`.

    A picture on which the judges are divided evenly does not show it; a judge that could not tell has no vote.

    Args:
        world: of the judges.
        draws: what is asked.
        samples: the pictures.
        votes: takes the answers of every judge.

    Raises:
        InvalidInput: a picture is missing, or the judge could not tell: a score needs every answer.
    """
    by_id = {sample.prompt.id: sample for sample in samples}
    if missing := [d.prompt.id for d in draws if d.prompt.id not in by_id]:
        raise InvalidInput(
            f"{len(missing)} pictures are not in {str(samples.folder)!r}, first of all {missing[0]!r}; a score needs "
            "every one"
        )
    wanted: dict[str, dict[str, Any]] = {}
    for draw in draws:
        wanted.setdefault(draw.question.asks, {})[draw.prompt.id] = by_id[draw.prompt.id]
    against = tuple(sorted(wanted))
    seen: dict[tuple[str, str], bool] = {}
    for asks, shown in wanted.items():
        panel: Votes = {}
        why: dict[str, str] = {}
        for name, member in judges_of(world).items():
            panel[name], reasons = _answers(member.judge(asks, against), shown, remembered=member.remembered)
            why |= reasons
        silent = [which for which, *row in zip(shown, *panel.values(), strict=True) if set(row) == {None}]
        if silent:
            raise InvalidInput(
                f"the judge gave no answer about {asks!r} in {len(silent)} pictures, first {silent[0]!r}: "
                f"{why[silent[0]]}; a score needs every answer"
            )
        seen |= {(which, asks): bool(a) for which, a in zip(shown, majority(panel), strict=True)}
        for name, answers in panel.items() if votes is not None else ():
            votes.setdefault(name, []).extend(answers)  # type: ignore[union-attr]
    return seen


def _answers(
    judge: Any, shown: Mapping[str, Any], *, remembered: bool
) -> tuple[list[bool | None], Mapping[str, str]]:
    """Return what one judge saw in each picture, and prompt id -> why it could not tell."""
    from unlearn_metrics import verdict_cache, verdicts

    by = verdict_cache.identity(judge) if remembered else ""
    found = verdicts.ask(list(shown.values()), judge.presence, by=by)
    threshold = getattr(judge, "threshold", THRESHOLD)
    answers = ((which, found.answers[which]) for which in shown)
    return [
        None if which in found.why or a is None else bool(a >= threshold) for which, a in answers
    ], found.why
