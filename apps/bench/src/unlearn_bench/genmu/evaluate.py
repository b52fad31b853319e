"""An organiser's look at a submission: its weights on our model, our prompts, our judge.

Nothing of what the submission says of itself enters the score; where it brings a judged table, the two are compared.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genmu_eval.err import err
from genmu_eval.fingerprint import check_delta
from genmu_eval.hostile import MAX_JSON
from genmu_eval.names import usual
from genmu_eval.questions import key
from genmu_eval.safetensors_file import wide
from genmu_eval.submission import Submission, SubmittedModel, check_base, open_submission
from genmu_eval.table import read_table
from genmu_eval.weights import Weights, open_weights
from unlearn_bench.genmu import folder as folders
from unlearn_bench.genmu.models import Forgot
from unlearn_bench.genmu.plan import Plan
from unlearn_bench.genmu.ranking import recognised
from unlearn_bench.genmu.run import finish, measure
from unlearn_bench.genmu.scores import Taken, local_folder
from unlearn_bench.sd import runner
from unlearn_core.errors import InvalidInput
from unlearn_core.record import RunRecord, run_id
from unlearn_core.samples import SampleSet

MOST_STATED = 1000
"""Pictures or steps that a submission can ask for by its own record; an organiser can ask for more."""


def opened(path: Path, concepts: Sequence[str], out: Path) -> Submission:
    """Return the submission in a folder or an archive, which is unpacked below `out`.

    Raises:
        UnlearnError: there is none, it holds what no submission may, or it forgot other concepts than `concepts`.
    """
    if path.is_file():
        from genmu_eval.hostile import unpack

        if path.suffix == ".safetensors":
            raise InvalidInput(
                f"{str(path)!r} is a model; a submission is a folder or an archive: put it in one"
            )

        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        into = out / "submissions" / f"{path.name.partition('.')[0]}-{digest}"
        held = list(into.iterdir()) if into.is_dir() else []
        path = (held[0] if len(held) == 1 and held[0].is_dir() else into) if held else unpack(path, into)
    found = open_submission(path, concepts=concepts)
    wanted, have = ({key(name) for name in names} for names in (concepts, found.concepts))
    if concepts and wanted != have:
        missing, more = sorted(wanted - have), sorted(have - wanted)
        said = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"adds {', '.join(more)}"] * bool(more)
        raise InvalidInput(
            f"the submission is not of the concepts that are asked for: it {' and '.join(said)}"
        )
    return found


def asked_with(submission: Submission) -> dict[str, int | None]:
    """Return how many pictures and steps a submission says it was made with; None for what it does not say.

    None too for what no run would ask for, which would keep the machine busy for ever.
    """
    record = submission.record
    places = {"images": record.get("asked"), "limit": record.get("asked"), "steps": record.get("sampler")}
    values = {name: place.get(name) if isinstance(place, dict) else None for name, place in places.items()}
    return {
        n: v if isinstance(v, int) and not isinstance(v, bool) and 0 < v <= MOST_STATED else None
        for n, v in values.items()
    }


def technique(submission: Submission) -> str:
    """Return the technique that a submission says made it, or its name."""
    said = submission.record.get("technique")
    plain = isinstance(said, str) and said.isprintable() and 0 < len(said) <= 40
    return str(said) if plain else submission.folder.resolve().name


def evaluate(
    submission: Submission,
    plan: Plan,
    out: Path,
    *,
    pictures: bool = False,
    force: bool = False,
    progress: runner.Progress | None = None,
) -> tuple[RunRecord, Path, bool]:
    """Return the record of an evaluation, its path, and whether it was there already.

    Args:
        submission: what is evaluated.
        plan: of the same concepts, doing nothing: model, prompts, sampler, judge. Its strategy is "single" for a model
            per concept, else "multi".
        out: folder of all runs.
        pictures: whether to judge the pictures that the submission brings, in place of drawing with its weights.
        force: whether to score again what is on record.
        progress: called at every step of every stage.

    Raises:
        UnlearnError: weights of another architecture, a delta of another model, a technique that no weights can hold,
            no pictures.
    """
    runner.check_out(out)
    original = open_weights(local_folder(plan.first.model))
    check_base(submission, original)
    said = submission.record.get("hooks")
    hooks = sorted(map(str, said)) if isinstance(said, list) else []
    if hooks and not pictures:
        raise InvalidInput(
            f"{', '.join(hooks)} acts while the model draws, which weights cannot hold; --pictures judges "
            "the pictures that the submission brings"
        )
    base = runner.load(plan.first)
    for model in submission.models:
        if (weights := open_weights(model.path)).is_delta:
            check_delta(original, weights, known=base.fingerprint)
    spec = {
        **plan.spec(base.fingerprint),
        "strategy": submission.strategy,
        "technique": technique(submission),
        "submission": {model.name: _digest(model) for model in submission.final},
        "source": "pictures" if pictures else "weights",
    }
    place = out / f"genmu-evaluation-{submission.folder.resolve().name[:60]}-{run_id(spec)}"
    path = place / folders.RECORD
    if path.is_file() and not force:
        return RunRecord.read(path), path, True
    record = RunRecord.of("genmu-evaluation", spec)
    names = {key(target): target for target in plan.asked.targets}
    models = _models(submission, base, names, pictures=pictures)
    taken = measure(plan, base, models, out, record, progress)
    taken.hooks = hooks
    with record.stage("score"):
        finish(plan, taken, record, {model.name: model.path for model in submission.final})
        record.scores["claimed"] = _claimed(submission, taken)
    record.notes += _notes(record, pictures=pictures)
    record.files |= folders.write_tables(place, taken)
    folders.draw_pictures(plan, record, place, taken, technique(submission))
    record.write(path)
    return record, path, False


def _models(submission: Submission, base: Any, names: dict[str, str], *, pictures: bool) -> Iterator[Forgot]:
    for submitted in submission.final:
        targets = tuple(names[key(concept)] for concept in submitted.concepts)
        if pictures:
            images = submission.folder / "images"
            if Path(submitted.name).name != submitted.name or submitted.name == "..":
                raise InvalidInput(f"{submitted.name!r} is no name of a folder of pictures")
            brought = SampleSet.existing(images / submitted.name)
            yield Forgot(model=None, targets=targets, pictures=brought)
        else:
            yield Forgot(model=with_weights_of(base, open_weights(submitted.path)), targets=targets)


def with_weights_of(base: Any, weights: Weights) -> Any:
    """Return the model with the parameters that lie in `weights`; those that are not there stay.

    Raises:
        InvalidInput: parameters that the model lacks, such as adapters, or of another shape.
    """
    import torch

    from unlearn_techniques.diffusion.delta import Delta

    own: dict[str, str] = {}
    for part in base.parts:
        own |= {usual(name := f"{part}.{rest}"): name for rest, _ in getattr(base, part).named_parameters()}
    tensors = {}
    for name, stored in weights.tensors.items():
        if name.partition(".")[0] not in base.parts or not stored.floating:
            continue
        if name not in own:
            raise InvalidInput(
                f"{str(weights.source)!r} holds {name!r}, which the model lacks: merge adapters into the weights"
            )
        numbers = torch.from_numpy(wide(stored.raw(), stored.dtype)).reshape(stored.shape)
        tensors[own[name]] = numbers.to(base.dtype)
    return Delta(tensors=tensors, base="").apply(base, any_base=True)


def _digest(model: SubmittedModel) -> str:
    files = sorted({tensor.path for tensor in open_weights(model.path).tensors.values()} | {model.path})
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _claimed(submission: Submission, taken: Taken) -> dict[str, Any] | None:
    """Return what the submission's own table says, and where it differs from what was seen here; None without one."""
    table = submission.folder / "judged.csv"
    if not table.is_file():
        return None
    if table.stat().st_size > MAX_JSON:
        return {"error": f"judged.csv is larger than {MAX_JSON:,} bytes"}
    try:
        rows = read_table(table)
        score = err(rows).err_pooled.document()
    except InvalidInput as error:
        return {"error": str(error)}
    here, theirs = {row.key: row.present for row in taken.rows}, {row.key: row.present for row in rows}
    shared = here.keys() & theirs.keys()
    return {
        "err_pooled": score,
        "images": len(rows),
        "shared": len(shared),
        "different": sum(here[image] != theirs[image] for image in shared),
    }


def _notes(record: RunRecord, *, pictures: bool) -> Iterator[str]:
    if pictures:
        yield "the pictures are the submitter's own: nothing shows that the weights draw them"
    yield from recognised(record)
    claimed = record.scores["claimed"]
    if claimed and "error" not in claimed:
        shared, images, different = claimed["shared"], claimed["images"], claimed["different"]
        if shared < images:
            yield f"the submission's table is of other images: {shared} of its {images} were asked for here"
        elif different:
            yield f"{different} of {images} answers in the submission's table differ from those here"
