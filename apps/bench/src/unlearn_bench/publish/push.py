"""What of a run is published, and where it lies in the repository.

Runs keep their layout, so that what is pulled is a folder of runs again: ``sd-…/record.json``, and the pictures in
``images/…`` with a metadata.jsonl beside them, which is what the Hub's viewer reads.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from unlearn_bench.leaderboard.concepts import ConceptRun
from unlearn_bench.leaderboard.records import Run, read_runs
from unlearn_bench.publish import cards
from unlearn_bench.publish.hub import check_inside
from unlearn_bench.report.files import file_of, root_of
from unlearn_core.errors import InvalidInput
from unlearn_core.samples import SampleSet

Files = dict[str, bytes | Path]
"""Path in the repository -> what lies there."""


def dataset(folder: Path, repo: str) -> Files:
    """Return the files of a data set: every record below `folder`, its pictures, and a card.

    Raises:
        UnlearnError: no record, a damaged one, pictures that were changed after they were drawn.
    """
    root = root_of(folder)
    runs = read_runs([folder])
    files: Files = {}
    splits: dict[str, str] = {}
    for run in runs:
        place = _inside(run.path, root)
        files[place] = run.path
        for role in run.record.files:
            path = file_of(run, role, root)
            if path is not None and path.is_file():
                files[_inside(path, root)] = path
        for role in ("baseline_images", "images"):
            path = file_of(run, role, root)
            if path is not None and path.is_dir():
                name = (
                    "unmodified"
                    if role == "baseline_images"
                    else f"{run.stated('technique')}-{run.record.run_id}"
                )
                splits.setdefault(_inside(path, root), name)
    for place in splits:
        files |= _pictures(SampleSet(root / place), place)
    files["README.md"] = cards.dataset(repo, runs, splits, n_pictures=_count(files)).encode()
    return files


def model(edit: Path, repo: str) -> Files:
    """Return the files of a model repository: a weight delta, the record of its run, and a card with its results.

    Args:
        edit: ``edits/….safetensors`` of a folder of runs.
        repo: for the card.

    Raises:
        UnlearnError: no delta, or no record beside it of the run that it comes from.
    """
    from unlearn_techniques.diffusion.delta import Delta

    delta = Delta.load(edit)
    run = _run_of(edit, delta.record)
    entry = ConceptRun.of(run)
    if isinstance(entry, str):
        raise InvalidInput(f"{str(run.path)!r}: {entry}; a card needs the results")
    text = cards.model(repo, entry, edit.name, tensors=len(delta.tensors))
    return {edit.name: edit, "record.json": run.path, "README.md": text.encode()}


def space(page: str | Path, title: str) -> Files:
    """Return the files of a static Space that shows a report, given as HTML or as its file."""
    content = page.encode() if isinstance(page, str) else page
    return {"index.html": content, "README.md": cards.space(title).encode()}


def _inside(path: Path, root: Path) -> str:
    name = path.resolve().relative_to(root.resolve()).as_posix()
    check_inside(name, root, str(root))
    return name


def _pictures(samples: SampleSet, place: str) -> Files:
    """Return the pictures of a folder and their metadata, without rows that the guard refuses.

    Raises:
        InvalidInput: a picture is not the one that was drawn.
    """
    if changed := samples.verify():
        raise InvalidInput(
            f"{str(changed[0].path)!r} is not the picture whose hash its metadata.jsonl states"
            + (f", nor are {len(changed) - 1} others" if len(changed) > 1 else "")
            + ": draw it again, or leave this run out"
        )
    files: Files = {}
    lines = []
    for sample in samples:
        name = sample.path.relative_to(samples.folder).as_posix()
        files[f"{place}/{name}"] = sample.path
        lines.append({"file_name": name, **sample.prompt.to_mapping(), "sha256": sample.sha256})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return files | {f"{place}/metadata.jsonl": text.encode()}


def _count(files: Mapping[str, bytes | Path]) -> int:
    return sum(name.startswith("images/") and not name.endswith(".jsonl") for name in files)


def _run_of(edit: Path, made_by: Mapping[str, object]) -> Run:
    """Return the run whose technique, settings, concept and seed made a delta."""
    folder = edit.resolve().parent.parent
    for run in read_runs([folder]):
        spec = run.record.spec
        if all(spec.get(key) == made_by.get(key) for key in ("technique", "config", "concept", "seed")):
            return run
    raise InvalidInput(
        f"{str(folder)!r} holds no record of the run that made {edit.name!r}; push the delta from the folder of its run"
    )
