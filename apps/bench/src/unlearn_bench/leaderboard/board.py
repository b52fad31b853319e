"""A leaderboard: records in, tables of what can be compared out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench.leaderboard import concepts, genmu, klom, published
from unlearn_bench.leaderboard.groups import grouped
from unlearn_bench.leaderboard.records import read_runs
from unlearn_bench.leaderboard.section import Section, sort
from unlearn_core.errors import InvalidInput
from unlearn_metrics.benchscore import Version


def leaderboard(
    folders: Sequence[Path],
    *,
    reference: str | None = None,
    version: Version | None = None,
    alpha: float = 0.5,
    collapsed: Mapping[str, float] | None = None,
    sort_by: str | None = None,
) -> tuple[list[Section], list[dict[str, str]]]:
    """Return the tables, and which records stand in none of them and why.

    Args:
        folders: with records at or below them.
        reference: name of a published table to show besides.
        version: of BenchScore; None for "corrected", and for the published table the one it was published with.
        alpha: weight of safety, in [0, 1].
        collapsed: axis -> value of a model that draws noise, for "absolute".
        sort_by: a column; None for the rank.

    Raises:
        UnlearnError: a record that was edited or cannot be read, or nothing to show.
    """
    if not 0 <= alpha <= 1:
        raise InvalidInput(f"--alpha is the weight of safety, in [0, 1], got {alpha}")
    found: dict[type, list[Any]] = {concepts.ConceptRun: [], genmu.GenmuRun: [], klom.KlomRun: []}
    of = {
        "sd": concepts.ConceptRun.of,
        "klom": klom.KlomRun.of,
        **dict.fromkeys(genmu.KINDS, genmu.GenmuRun.of),
    }
    left_out = []
    for run in read_runs(folders):
        make = of.get(run.record.kind)
        entry = make(run) if make else f"there is no leaderboard of the kind {run.record.kind!r}"
        if isinstance(entry, str):
            left_out.append({"record": str(run.path), "reason": entry})
        else:
            found[type(entry)].append(entry)
    sections = [
        concepts.section(group, alpha, version, collapsed) for group in grouped(found[concepts.ConceptRun])
    ]
    sections += [genmu.section(group) for group in grouped(found[genmu.GenmuRun])]
    sections += [klom.section(group) for group in grouped(found[klom.KlomRun])]
    if reference is not None:
        sections.append(published.section(reference, alpha, version))
    if not sections:
        why = "; ".join(f"{one['record']}: {one['reason']}" for one in left_out)
        raise InvalidInput(why or "give folders of runs, or --reference eval-learn-0.1.6")
    return (sort(sections, sort_by) if sort_by else sections), left_out
