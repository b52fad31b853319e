"""What the judge sees in the pictures of a model: each is drawn once, and asked about once per concept."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genmu_eval.prompts import Draw
from unlearn_bench.genmu.plan import Plan
from unlearn_bench.genmu.protocol import Protocol, Seen
from unlearn_bench.genmu.worlds import World
from unlearn_bench.sd import runner
from unlearn_core.errors import InvalidInput
from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet

THRESHOLD = 0.5
"""Of detectors that state none of their own."""


def drawn_and_judged(
    plan: Plan,
    model: Any,
    asked: Protocol,
    out: Path,
    record: RunRecord,
    stage: str,
    progress: runner.Progress | None = None,
) -> tuple[SampleSet, Seen]:
    """Return the pictures that `asked` wants of a model, drawing those that are missing, and what the judge saw."""
    rows = dataclasses.replace(plan.first, prompts={"genmu": asked.prompts})
    samples = runner.draw(rows, model, out, record, stage, progress)
    with record.stage("judging"):
        return samples, judged(plan.world, asked.draws, samples)


def judged(world: World, draws: Sequence[Draw], samples: SampleSet) -> Seen:
    """Return whether the judge saw what `draws` ask about the pictures in `samples`.

    Raises:
        InvalidInput: a picture is missing, or the judge could not tell: a score needs every answer.
    """
    from unlearn_metrics import verdict_cache, verdicts

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
        judge = world.judge(asks, against)
        by = verdict_cache.identity(judge) if world.remembered else ""
        found = verdicts.ask(list(shown.values()), judge.presence, by=by)
        if found.why:
            (which, why), *others = found.why.items()
            raise InvalidInput(
                f"the judge gave no answer about {asks!r} in {1 + len(others)} pictures, first {which!r}: {why}; "
                "a score needs every answer"
            )
        threshold = getattr(judge, "threshold", THRESHOLD)
        seen |= {(which, asks): answer >= threshold for which, answer in found.answers.items()}
    return seen
