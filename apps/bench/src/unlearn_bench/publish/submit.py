"""Is a record that somebody sends in complete, and as honest as can be checked from outside?

What is checked: the record's schema and hash, the hash of every picture, that the pictures are those of the prompt sets
whose fingerprints the record states, that every score has an interval and the unmodified model's beside it, and that
the scores come out again when the pictures are rated here. What no check can see: whether the model that the record
names drew the pictures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.leaderboard.concepts import ConceptRun
from unlearn_bench.leaderboard.klom import KlomRun
from unlearn_bench.leaderboard.records import NAME, Run, read_run
from unlearn_bench.publish.recompute import recomputed
from unlearn_bench.report.files import file_of, root_of
from unlearn_core.errors import InvalidInput, Unavailable, UnlearnError
from unlearn_core.prompts import PromptSet
from unlearn_core.samples import SampleSet

ROLES = {"images": "pictures after unlearning", "baseline_images": "pictures of the unmodified model"}
CHECKS = ("record", "pictures", "prompts", "baseline", "intervals", "scores")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    record: str
    """Name of the run's folder."""
    check: str
    """One of `CHECKS`."""
    problem: str
    """What is missing or wrong; "" if nothing is."""


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
        name = path.parent.name
        for check, problem in _checked(path, root, sample, seed):
            found.append(Finding(record=name, check=check, problem=problem))
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


def _checked(path: Path, root: Path, sample: int | None, seed: int) -> Iterator[tuple[str, str]]:
    """Yield (check, problem or "") for one record; what cannot be read ends the checks."""
    try:
        run = read_run(path)
        kind = {"sd": ConceptRun, "klom": KlomRun}.get(run.record.kind)
        if kind is None:
            raise InvalidInput(f"there is no leaderboard of the kind {run.record.kind!r}")
        entry = kind.of(run)
        conditions = (
            {} if isinstance(entry, str) else entry.conditions
        )  # read, so that what is missing is named
    except UnlearnError as error:
        yield "record", str(error)
        return
    yield "record", "" if conditions else str(entry)
    if isinstance(entry, KlomRun):
        yield "baseline", ""
        return
    if isinstance(entry, str):
        return
    pictures = _pictures(run, root, needed=True)
    yield "pictures", "; ".join(problem for problem in pictures.values() if problem)
    samples = {role: _samples(run, role, root) for role, problem in pictures.items() if not problem}
    problems = [_other_prompts(run, role, found) for role, found in samples.items() if found is not None]
    yield (
        "prompts",
        "; ".join(filter(None, problems)) or ("" if samples else "there are no pictures to compare with"),
    )
    yield "baseline", _without(run.record.scores, "baseline")
    yield "intervals", _without(run.record.scores, "interval")
    after, before = samples.get("images"), samples.get("baseline_images")
    if sample == 0:
        return
    if after is None or before is None:
        yield "scores", "cannot be computed again without the pictures"
    else:
        yield "scores", "; ".join(recomputed(run, after, before, sample=sample, seed=seed))


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


def _other_prompts(run: Run, role: str, samples: SampleSet) -> str:
    """Return which prompt sets of the record the pictures are not of, or ""."""
    rated = {
        ident
        for score in run.record.scores.values()
        for ident in (score.get("per_sample") if isinstance(score.get("per_sample"), Mapping) else ())
    }
    wrong = []
    for group, stated in run.stated("prompts").items():
        rows = [sample.prompt for sample in samples.select(group=group)]
        # A folder may hold the rows of other runs as well: other concepts, or a larger number of them.
        choices = ([row for row in rows if row.id in rated], rows[: stated["rows"]])
        if all(PromptSet(name=group, rows=tuple(c)).fingerprint != stated["fingerprint"] for c in choices):
            wrong.append(f"{group} ({len(choices[0])} of {stated['rows']} rows)")
    return f"{ROLES[role]}: not those of the record's prompts: {', '.join(wrong)}" if wrong else ""


def _without(scores: Mapping[str, Any], key: str) -> str:
    lacking = [name for name, score in scores.items() if "not_applicable" not in score and not score.get(key)]
    return f"missing of {', '.join(lacking)}" if lacking else ""
