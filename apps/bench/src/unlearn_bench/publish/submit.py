"""Is a record that somebody sends in complete, and as honest as can be checked from outside?

What is checked: the record's schema and hash, the hash of every picture, that the pictures are those of the prompt sets
whose fingerprints the record states, that every score has an interval and the unmodified model's beside it, and that
the scores come out again when the pictures are rated here. Of a Genμ record, that its numbers are those of its tables
of judged images; `bench genmu evaluate` draws and judges them anew. What no check can see: whether the model that the
record names drew the pictures.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.leaderboard import genmu
from unlearn_bench.leaderboard.concepts import ConceptRun
from unlearn_bench.leaderboard.klom import KlomRun
from unlearn_bench.leaderboard.records import NAME, Run, read_run
from unlearn_bench.publish.recompute import recomputed, unrated
from unlearn_bench.report.files import file_of, root_of
from unlearn_core.errors import InvalidInput, Unavailable, UnlearnError
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.samples import SampleSet

ROLES = {"images": "pictures after unlearning", "baseline_images": "pictures of the unmodified model"}
CHECKS = ("record", "pictures", "prompts", "baseline", "intervals", "scores")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    record: str
    """Name of the run's folder."""
    check: str
    """One of `CHECKS`."""
    problem: str
    """What is missing or wrong; "" if nothing is."""
    note: str = ""
    """What this check could not see."""


def submission(folder: Path, *, sample: int | None = 8, seed: int = 0) -> list[Finding]:
    """Return what was found of every record below `folder`, in the order of `CHECKS`.

    Args:
        folder: of one run or of many.
        sample: pictures of each group that are rated again, the same here and there; None for all, 0 for none.
        seed: of that choice; it should not be known to whoever sends the record in.

    Raises:
        Unavailable: there is no such folder.
        InvalidInput: it holds no record.
    """
    if not folder.is_dir():
        raise Unavailable(f"there is no folder {str(folder)!r}")
    paths = sorted(folder.rglob(NAME))
    if not paths:
        raise InvalidInput(f"{str(folder)!r} holds no {NAME}: give the folder of one run, or of several")
    root = root_of(folder)
    found = []
    for path in paths:
        found += _checked(path, root, sample, seed)
    return found


def damaged(folder: Path) -> list[str]:
    """Return what is wrong with the records and pictures below `folder`, without rating anything."""
    found: list[str] = []
    for path in sorted(folder.rglob(NAME)):
        try:
            run = read_run(path)
            found += [p for p in _pictures(run, root_of(folder), needed=False).values() if p]
        except UnlearnError as error:
            found.append(str(error))
    return found


def _checked(path: Path, root: Path, sample: int | None, seed: int) -> Iterator[Finding]:
    """Yield what was found of one record; what cannot be read ends the checks."""
    about = functools.partial(Finding, path.parent.name)
    try:
        run = read_run(path)
        kinds = {"sd": ConceptRun, "klom": KlomRun, **dict.fromkeys(genmu.KINDS, genmu.GenmuRun)}
        kind = kinds.get(run.record.kind)
        if kind is None:
            raise InvalidInput(f"there is no leaderboard of the kind {run.record.kind!r}")
        entry = kind.of(run)
        conditions = (
            {} if isinstance(entry, str) else entry.conditions
        )  # read, so that what is missing is named
    except UnlearnError as error:
        yield about("record", str(error))
        return
    yield about("record", "" if conditions else str(entry))
    if isinstance(entry, KlomRun):
        yield about("baseline", "")
        return
    if isinstance(entry, genmu.GenmuRun):
        yield about(
            "scores", _other_tables(run, root), "pictures, which bench genmu evaluate draws and judges"
        )
        return
    if isinstance(entry, str):
        return
    pictures = _pictures(run, root, needed=True)
    yield about("pictures", "; ".join(problem for problem in pictures.values() if problem))
    found = {role: _samples(run, role, root) for role, problem in pictures.items() if not problem}
    samples = {role: one for role, one in found.items() if one is not None}
    yield about(
        "prompts", _other_prompts(run, samples, root) if samples else "there are no pictures to compare with"
    )
    yield about("baseline", _without(run.record.scores, "baseline"))
    yield about("intervals", _without(run.record.scores, "interval"))
    after, before = samples.get("images"), samples.get("baseline_images")
    if sample == 0:
        return
    if after is None or before is None:
        yield about("scores", "cannot be computed again without the pictures")
    else:
        problem = "; ".join(recomputed(run, after, before, sample=sample, seed=seed))
        yield about("scores", problem, note="; ".join(unrated(run)))


def _other_tables(run: Run, root: Path) -> str:
    """Return which numbers of a Genμ record are not those of its judged images, or ""."""
    from genmu_eval.table import read_table
    from unlearn_bench.genmu.scores import scores

    try:
        paths = [file_of(run, role, root) for role in ("table", "identity")]
        if any(path is None or not path.is_file() for path in paths):
            return "cannot be computed again without the tables of judged images"
        found = scores(*(read_table(path) for path in paths if path))
    except UnlearnError as error:
        return str(error)
    wrong = [name for name, one in found.items() if not _alike(one, run.record.scores.get(name))]
    return f"other than those of the judged images: {', '.join(wrong)}" if wrong else ""


def _alike(found: Any, stated: Any) -> bool:
    """Return whether all that was found is stated, numbers to 1e-9."""
    if isinstance(found, Mapping):
        return isinstance(stated, Mapping) and all(_alike(one, stated.get(key)) for key, one in found.items())
    if isinstance(found, float) and isinstance(stated, int | float):
        return math.isclose(found, stated, rel_tol=1e-9, abs_tol=1e-12)
    return bool(found == stated)


def _pictures(run: Run, root: Path, *, needed: bool) -> dict[str, str]:
    """Return role -> what is wrong with its pictures, or ""."""
    found = {}
    for role, what in ROLES.items():
        if not needed and role not in run.record.files:
            continue
        try:
            samples = _samples(run, role, root)
            if samples is None:
                found[role] = f"{what}: there are none"
            elif changed := samples.verify():
                names = ", ".join(sample.path.name for sample in changed[:3])
                found[role] = f"{what}: {len(changed)} differ from the hash in metadata.jsonl: {names}"
            else:
                found[role] = ""
        except UnlearnError as error:
            found[role] = str(error)
    return found


def _samples(run: Run, role: str, root: Path) -> SampleSet | None:
    folder = file_of(run, role, root)
    if folder is None or not (folder / "metadata.jsonl").is_file():
        return None
    samples = SampleSet(folder)
    return samples if len(samples) else None


def _other_prompts(run: Run, samples: Mapping[str, SampleSet], root: Path) -> str:
    """Return which prompts are not those of the record, or have no picture that says so, or ""."""
    try:
        path = file_of(run, "prompts", root)
        if path is None or not path.is_file():
            return "the record comes without its prompts; bench sd --force measures again and writes them"
        rows = PromptSet.load(path)
    except UnlearnError as error:
        return str(error)
    drawn = {role: {one.prompt.id: _drawn(one.prompt) for one in found} for role, found in samples.items()}
    wrong = []
    for group, stated in run.stated("prompts").items():
        own = rows.select(group=group)
        # What an attack finds depends on the model; the fingerprint is that of the prompts that it attacked.
        if "attack" not in stated and own.fingerprint != stated["fingerprint"]:
            wrong.append(f"{path.name}: {group} ({len(own)} of {stated['rows']} rows)")
        for role, found in drawn.items():
            if others := sum(found.get(row.id) != _drawn(row) for row in own):
                wrong.append(f"{ROLES[role]}: {group} ({others} of {len(own)} rows)")
    return f"not those of the record's prompts: {', '.join(wrong)}" if wrong else ""


def _drawn(row: Prompt) -> tuple[str, int, float | None]:
    """Return what a picture depends on; runs that share it may call the row otherwise."""
    return row.text, row.seed, row.guidance


def _without(scores: Mapping[str, Any], key: str) -> str:
    lacking = [name for name, score in scores.items() if "not_applicable" not in score and not score.get(key)]
    return f"missing of {', '.join(lacking)}" if lacking else ""
