"""One run: load, unlearn, draw what is missing, measure, record.

    record, path = run(prepare(config), Path("runs"))

Everything is found again by what it depends on: pictures under `out/images` by model and sampler, edits under
`out/edits` by technique, settings and seed, the record under its own id. So the unmodified model is drawn once for all
techniques, a killed run goes on, and nothing is drawn twice. Prompts that attacks find are kept under `out/attacks`.
"""

import dataclasses
import functools
import hashlib
import inspect
import io
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unlearn_bench.sd.attacks import attacked
from unlearn_bench.sd.comparison import Measure, compared
from unlearn_bench.sd.experiment import Experiment
from unlearn_core import atomic
from unlearn_core.errors import InvalidInput, UnlearnError, UnlearnWarning
from unlearn_core.prompts import PromptSet
from unlearn_core.record import RunRecord, run_id
from unlearn_core.samples import SampleSet
from unlearn_core.spec import fingerprint, settings_of
from unlearn_metrics.errors import NotApplicable
from unlearn_metrics.verdict_cache import counted

Progress = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def run(
    experiment: Experiment,
    out: Path,
    *,
    base: Any = None,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[RunRecord, Path, bool]:
    """Return the record of an experiment, its path, and whether it was there already.

    Args:
        experiment: what to run.
        out: folder of all runs.
        base: the unmodified model where it is loaded already.
        force: whether to measure again what is on record.
        progress: called at every step of every stage.

    Raises:
        UnlearnError: the model cannot be loaded, the technique cannot be applied, nothing can be written.
    """
    check_out(out)
    base = base or load(experiment)
    spec = {**experiment.spec(base.fingerprint), "code": code_version(experiment)}
    folder = out / f"sd-{experiment.name}-{_slug(experiment.concept.name)}-{run_id(spec)}"
    path = folder / "record.json"
    if path.is_file() and not force:
        record = RunRecord.read(path)
        if not any("error" in score for score in record.scores.values()):
            return record, path, True
    record = RunRecord.of("sd", spec)
    record.environment["model_reason"] = experiment.why
    record.notes = [*experiment.notes, *_notes(experiment)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnlearnWarning)
        with record.stage("unlearn"):
            edited = unlearn(experiment, base, out / "edits", progress)
        before = draw(experiment, base, out, record, "baseline", progress)
        after = before if edited is base else draw(experiment, edited, out, record, "pictures", progress)
        rated = [*experiment.prompts.values()]
        if experiment.attacks:
            found = attacked(experiment, base, edited, before, after, out, record, progress)
            draw(found, base, out, record, "baseline", progress)
            if edited is not base:
                draw(found, edited, out, record, "pictures", progress)
            rated += found.prompts.values()
            rows = [*experiment.rows, *found.rows]
            before, after = (SampleSet(samples.folder).only(rows) for samples in (before, after))
        record.scores = measure(experiment, (edited, base), after, before, record, progress)
        record.scores |= {name: {"not_applicable": why} for name, why in experiment.not_applicable.items()}
    record.notes += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UnlearnWarning))
    record.environment["edited_fingerprint"] = edited.fingerprint
    record.environment["changes"] = changes(base, edited)
    record.files = {
        role: Path(os.path.relpath(samples.folder, folder)).as_posix()
        for role, samples in (("images", after), ("baseline_images", before))
    }
    with record.stage("sheet"):
        from unlearn_bench.sd.sheet import draw_sheet

        save_picture(draw_sheet(experiment, before, after), folder / "sheet.png")
    record.files |= {"sheet": "sheet.png", "prompts": "prompts.jsonl"}
    PromptSet.merge(*rated, name=experiment.name).save(folder / "prompts.jsonl")
    record.write(path)
    return record, path, False


def load(experiment: Experiment) -> Any:
    """Return the unmodified model on its device."""
    import torch

    from unlearn_techniques.diffusion.model import StableDiffusion

    dtype = getattr(torch, DTYPES[experiment.dtype])
    return StableDiffusion.load(experiment.model, dtype=dtype, device=experiment.device)


def unlearn(experiment: Experiment, base: Any, folder: Path, progress: Progress | None) -> Any:
    """Return the model after every technique of the chain; weights that were trained before are read again."""
    from unlearn_techniques.diffusion.delta import Delta

    edited = base
    for chosen in experiment.chain:
        made_by = {
            "technique": chosen.name,
            "config": settings_of(chosen.technique),
            "concept": dataclasses.asdict(experiment.concept),
            "seed": experiment.seed,
        }
        key = fingerprint([made_by, edited.fingerprint, _source(chosen.technique)])[:12]
        path = folder / f"{chosen.name}-{_slug(experiment.concept.name)}-{key}.safetensors"
        if path.is_file():
            edited = Delta.load(path).apply(edited)
            continue
        report = None if progress is None else functools.partial(progress, f"unlearning {chosen.name}")
        before = edited
        edited = chosen.technique.apply(before, [experiment.concept], seed=experiment.seed, progress=report)
        if edited is not before and edited.hooks == before.hooks:
            Delta.between(before, edited, record=made_by).save(path)
    return edited


def changes(base: Any, edited: Any) -> dict[str, Any]:
    """Return what an edit changed: tensors and weights of each part, and the hooks that act while it draws."""
    found: dict[str, Any] = {"hooks": [type(hook).__name__ for hook in edited.hooks]}
    for part in ("unet", "text_encoder", "vae"):
        if not hasattr(edited, part):  # a technique that draws with a model of its own shows none
            continue
        old, new = (dict(getattr(model, part).named_parameters()) for model in (base, edited))
        # What an edit leaves alone is shared with the model it was given.
        other = [n for n, p in new.items() if p.data_ptr() != old[n].data_ptr() and not p.equal(old[n])]
        if other:
            weights = sum(old[n].numel() for n in other)
            found[part] = {
                "tensors": len(other),
                "weights": weights,
                "of": sum(p.numel() for p in old.values()),
            }
    return found


def draw(
    experiment: Experiment, model: Any, out: Path, record: RunRecord, stage: str, progress: Progress | None
) -> SampleSet:
    """Return the pictures of all rows, drawing those that are not there yet; each is stored as soon as it is."""
    sampler = experiment.sampler
    drawn_by = {**settings_of(sampler), "batch": sampler.batch_for(model)}
    key = fingerprint([model.fingerprint, drawn_by, experiment.dtype, model.device.type])[:12]
    samples = SampleSet(out / "images" / key)
    rows = experiment.rows.rows
    missing = samples.missing(rows)
    counts = record.environment.setdefault("images", {"generated": 0, "reused": 0})
    with record.stage(stage):
        report = None if progress is None else lambda done, total: progress(stage, done, total)
        pictures = model.generate(missing, sampler, progress=report) if missing else iter(())
        for row, picture in zip(missing, pictures, strict=True):
            samples.add(row, png(picture))
    counts["generated"] += len(missing)
    counts["reused"] += len(rows) - len(missing)
    return samples.only(rows)


def measure(
    experiment: Experiment,
    models: tuple[Any, Any],
    after: SampleSet,
    before: SampleSet,
    record: RunRecord,
    progress: Progress | None,
) -> dict[str, Any]:
    """Return the scores of every metric with those of the unmodified model; a failure is an entry like any other.

    Args:
        experiment: whose metrics are measured.
        models: the one under test, and the unmodified one.
        after: pictures of the first.
        before: those of the second.
        record: notes the time, and how many verdicts were found on disk.
        progress: called at every metric.
    """
    found: dict[str, Any] = {}
    with counted() as verdicts:
        for index, (name, metric) in enumerate(experiment.metrics.items()):
            if progress:
                progress("measuring", index, len(experiment.metrics))
            with record.stage(f"measure {name}"):
                try:
                    of_model, of_base = (_measure(metric, model, models[1], experiment) for model in models)
                    found[name] = compared(of_model, after, before, baseline=of_base)
                except NotApplicable as error:
                    found[name] = {"not_applicable": str(error).removeprefix("not applicable: ")}
                except Exception as error:
                    # Foreign metrics may raise anything; the others' results must not be lost with it.
                    found[name] = {"error": f"{type(error).__name__}: {error}"}
                    if not isinstance(error, UnlearnError):
                        found[name]["traceback"] = traceback.format_exc()
    record.environment["verdicts"] = dataclasses.asdict(verdicts)
    if progress:
        progress("measuring", len(experiment.metrics), len(experiment.metrics))
    return found


def _measure(metric: Any, model: Any, base: Any, experiment: Experiment) -> Measure:
    """Return what rates the pictures of a model, or the model itself where the metric needs more than pictures."""
    if not hasattr(metric, "measure_model"):
        return metric.measure  # type: ignore[no-any-return]
    return functools.partial(
        metric.measure_model, model, original=base, seed=experiment.seed, sampler=experiment.sampler
    )


def code_version(experiment: Experiment) -> str:
    """Return a hash of the techniques' own files: other code, another result."""
    sources = [_source(chosen.technique) for chosen in experiment.chain]
    return sources[0] if len(sources) == 1 else fingerprint(sources)[:12]


def _source(technique: Any) -> str:
    return hashlib.sha256(Path(inspect.getfile(type(technique))).read_bytes()).hexdigest()[:12]


def check_out(out: Path) -> None:
    """Check that runs can be written below `out`.

    Raises:
        InvalidInput: it is the folder of one run.
        Unavailable: it cannot be written.
    """
    if (out / "record.json").is_file():
        raise InvalidInput(
            f"--out {str(out)!r} is the folder of a run that is done; give the folder above it, {str(out.parent)!r}"
        )
    if (out / "metadata.jsonl").is_file():
        raise InvalidInput(f"--out {str(out)!r} is a folder of images; give another one, such as runs")
    atomic.make_folder(out)


def save_picture(picture: Any, path: Path) -> None:
    """Write a PIL image to `path` (.png), atomically."""
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    with atomic.replacing(path) as file:
        file.write(data.getvalue())


def png(picture: Any) -> bytes:
    """Return a uint8 RGB picture (h, w, 3) as PNG."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


def document(record: RunRecord, path: Path, *, reused: bool) -> dict[str, Any]:
    """Return what `--json` prints of a run."""
    images = dict(record.environment["images"])
    if reused:
        images = {"generated": 0, "reused": images["generated"] + images["reused"]}
    memory = [stage.peak_memory for stage in record.stages.values()]
    return {
        "run_id": record.run_id,
        "technique": record.spec["technique"],
        "config": record.spec["config"],
        "model": record.spec["model"],
        "concept": record.spec["concept"]["name"],
        "seed": record.spec["seed"],
        "scores": {name: _short(score) for name, score in record.scores.items()},
        "images": {**images, "folder": os.path.normpath(path.parent / record.files["images"])},
        "seconds": {name: stage.seconds for name, stage in record.stages.items()},
        "peak_memory_mb": max(memory, default=0.0),
        "notes": record.notes,
        "reused": reused,
        "sheet": str(path.parent / record.files["sheet"]),
        "record": str(path),
    }


def _short(score: Mapping[str, Any]) -> dict[str, Any]:
    for instead in ("error", "not_applicable"):
        if instead in score:
            return {instead: score[instead]}
    interval = score["interval"] or {"low": None, "high": None}
    short = {
        "value": score["value"], "low": interval["low"], "high": interval["high"], "n_scored": score["n_scored"],
        "n_unscored": score["n_unscored"], "direction": score["direction"],
        "parts": {k: _short(v) if isinstance(v, Mapping) else v for k, v in score["parts"].items()},
    }  # fmt: skip
    if "baseline" in score:
        short["baseline"] = _short(score["baseline"])
        short["difference"] = score["difference"].get("value")
    return short


def _notes(experiment: Experiment) -> Iterator[str]:
    for chosen in experiment.chain:
        if chosen.preset.startswith("pocket"):
            yield f"{chosen.name}: settings of the preset {chosen.preset!r}, chosen on pocket-sd itself"
    for group, rows in experiment.prompts.items():
        if rows.dropped:
            yield f"{rows.dropped} prompts of the group {group!r} were dropped: sexual and about minors, or empty"


def _slug(name: str) -> str:
    letters = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return letters[:24] or "concept"
