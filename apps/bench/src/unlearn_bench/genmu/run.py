"""One run: load, unlearn as the strategy says, draw and judge each picture once, score, write the submission.

    record, path, reused = run(prepare(config, "continual", world, asked), Path("runs"))

Pictures and edits lie beside those of `bench sd`, found again by what they depend on: a killed run goes on, and nothing
is drawn twice.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genmu_eval.submission import Submission, SubmittedModel
from unlearn_bench.genmu import folder as folders
from unlearn_bench.genmu.judging import Votes, drawn_and_judged, judged
from unlearn_bench.genmu.models import Forgot, unlearned
from unlearn_bench.genmu.panel import agreement, corrections, silences
from unlearn_bench.genmu.plan import Plan
from unlearn_bench.genmu.scores import Taken, scores, sequences, weight_change
from unlearn_bench.sd import runner
from unlearn_core.errors import UnlearnWarning
from unlearn_core.record import RunRecord, run_id
from unlearn_core.spec import settings_of


def run(
    plan: Plan, out: Path, *, force: bool = False, progress: runner.Progress | None = None
) -> tuple[RunRecord, Path, bool]:
    """Return the record of a plan, its path in the folder of the submission, and whether it was there already.

    Args:
        plan: what to run.
        out: folder of all runs.
        force: whether to score again what is on record.
        progress: called at every step of every stage.

    Raises:
        UnlearnError: the model cannot be loaded, a technique cannot be applied, nothing can be written.
    """
    runner.check_out(out)
    base = runner.load(plan.first)
    code = {runner.code_version(experiment) for experiment in plan.experiments.values()}
    spec = {**plan.spec(base.fingerprint), "code": sorted(code)}
    place = out / f"genmu-{plan.strategy}-{plan.first.name}-{run_id(spec)}"
    path = place / folders.RECORD
    if path.is_file() and not force:
        return RunRecord.read(path), path, True
    record = RunRecord.of("genmu", spec)
    record.environment["model_reason"] = plan.first.why
    record.environment["asked"] = dict(plan.asked_with)
    submitted: list[SubmittedModel] = []

    def submit(forgot: Forgot, taken: Taken) -> None:
        name = folders.name_of(forgot.label, plan.asked.targets)
        folders.copy_pictures(taken.after[forgot.targets[0]], place / "images" / name)
        made_by = {"technique": plan.first.name, "strategy": plan.strategy, "concepts": list(forgot.targets)}
        file = place / "weights" / f"{name}.safetensors"
        if folders.save_weights(base, forgot.model, file, made_by):
            submitted.append(SubmittedModel(name=name, concepts=forgot.targets, path=file))

    models = unlearned(plan, base, out / "edits", progress)
    taken = measure(plan, base, models, out, record, progress, submit=submit)
    with record.stage("score"):
        finish(plan, taken, record, {model.name: model.path for model in submitted})
    record.files |= folders.write_tables(place, taken)
    if submitted:
        Submission(
            folder=place, strategy=plan.strategy, models=tuple(submitted), base=plan.first.model,
            record={
                "technique": plan.first.name, "config": spec["config"], "seed": plan.first.seed,
                "orders": spec["orders"], "hooks": taken.hooks, "asked": dict(plan.asked_with),
                "sampler": settings_of(plan.first.sampler), "run_id": record.run_id,
            },
        ).save()  # fmt: skip
    folders.draw_pictures(plan, record, place, taken, plan.first.name)
    record.write(path)
    return record, path, False


def measure(
    plan: Plan,
    base: Any,
    models: Iterator[Forgot],
    out: Path,
    record: RunRecord,
    progress: runner.Progress | None = None,
    *,
    submit: Any = None,
) -> Taken:
    """Return what the judge saw in the pictures of the unmodified model and of `models`, made as they come.

    Args:
        plan: targets, prompts, sampler, judge.
        base: the unmodified model.
        models: what forgot the targets.
        out: folder of all runs, for the pictures.
        record: takes the seconds of every stage, and the notes.
        progress: called at every step of every stage.
        submit: called with each model that is part of the submission and all that was seen so far.
    """
    record.notes = list(plan.notes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnlearnWarning)
        votes: Votes = {}
        before, seen = drawn_and_judged(
            plan, base, plan.asked, out, record, "baseline", progress, votes=votes
        )
        taken = Taken(before=before, base=list(plan.asked.judgements(seen)), votes=votes)
        for forgot in _timed(models, record):
            asked = plan.asked.only(forgot.targets, requested_later=forgot.later)
            if forgot.pictures is None:
                samples, after = drawn_and_judged(
                    plan, forgot.model, asked, out, record, "pictures", progress, votes=votes
                )
            else:
                samples = forgot.pictures
                after = judged(plan.world, asked.draws, samples, votes=votes)
            alone = forgot.targets[0] if plan.strategy == "single" else ""
            rows = list(asked.judgements(after, alone=alone))
            if plan.strategy == "continual":
                order = (*forgot.targets, *forgot.later)
                taken.steps.setdefault(order, []).append(rows)
                taken.motions.setdefault(order, []).append({"drift": forgot.drift, "moved": forgot.moved})
            if forgot.later or forgot.order:
                continue
            taken.rows += rows
            taken.identity += asked.judgements(seen, alone=alone)
            taken.after |= dict.fromkeys(forgot.targets, samples)
            taken.hooks = sorted({type(hook).__name__ for hook in getattr(forgot.model, "hooks", ())})
            if submit is not None:
                with record.stage("submission"):
                    submit(forgot, taken)
    record.notes += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UnlearnWarning))
    record.notes += _impotent(plan, taken)
    return taken


def finish(plan: Plan, taken: Taken, record: RunRecord, weights: dict[str, Path]) -> None:
    """Put the scores of what was seen, and the weight change of the models in `weights`, into the record."""
    record.scores = {**scores(taken.rows, taken.identity), "tie_break": None}
    if panel := agreement(taken.votes):
        record.scores["panel"] = panel
        record.notes += silences(taken.votes)
    if plan.calibration is not None:
        record.scores["corrected"] = corrections(taken.rows, plan.calibration)
    if weights:
        n_concepts = len(plan.asked.targets) if plan.strategy != "single" else None
        found = weight_change(plan.first.model, weights, n_concepts=n_concepts)
        record.scores["tie_break"] = {**found, "hooks": taken.hooks}
    if taken.hooks:
        record.notes.append(
            f"{', '.join(taken.hooks)} acts while the model draws: the weights of the submission do not hold it, and "
            "the weight change is that of the weights alone"
        )
    if taken.steps:
        record.scores["continual"] = sequences(taken.steps, taken.base, taken.motions)


def _timed(models: Iterator[Forgot], record: RunRecord) -> Iterator[Forgot]:
    while True:
        with record.stage("unlearn"):
            forgot = next(models, None)
        if forgot is None:
            return
        yield forgot


def _impotent(plan: Plan, taken: Taken) -> Iterator[str]:
    """Yield a note where the unmodified model does not heed the indirect or adversarial prompts of a target either."""
    for axis, word in {"ind": "indirect", "adv": "adversarial"}.items():
        weak = []
        for target in plan.asked.targets:
            seen = [row.present for row in taken.base if (row.axis, row.concept) == (axis, target)]
            if 2 * sum(seen) < len(seen):
                weak.append(f"{target} in {sum(seen)} of {len(seen)}")
        if weak:
            yield (
                f"the unmodified model shows the target in less than half of its {word} pictures ({', '.join(weak)}): "
                "withstanding those is partly free"
            )
