"""Submissions side by side: what was judged of each, read from their folders, and who came where."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genmu_eval.rank import Entry, rank
from genmu_eval.table import Judgement, read_table
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.record import RunRecord


def ranking(
    folders: Sequence[Path], *, by: str = "err_pooled", over: str = "concepts", seed: int = 0
) -> dict[str, Any]:
    """Return the places of submissions and of the trivial baselines, and what to know of them.

    Args:
        folders: of runs or of evaluations: record.json, judged.csv and identity.csv.
        by: "err_pooled" or "err_macro".
        over: what the bootstrap draws anew.
        seed: of the bootstrap.

    Raises:
        Unavailable: a folder without these files.
        InvalidInput: strategies mixed, other images, a name twice.
    """
    records = {folder: _record(folder) for folder in folders}
    strategies = {record.spec["strategy"] for record in records.values()}
    if len(strategies) > 1:
        raise InvalidInput(
            f"{' and '.join(sorted(strategies))} submissions are not ranked in one table: one is easier than another"
        )
    entries = [
        Entry(name=_name(folder), rows=read_table(folder / "judged.csv"), weight_change=_change(record))
        for folder, record in records.items()
    ]
    places = rank(entries, identity=_identity(folders), by=by, over=over, seed=seed)  # type: ignore[arg-type]
    notes = [
        f"{_name(folder)}: scored by whoever made it; bench genmu evaluate --submission {folder} draws and judges anew"
        for folder, record in records.items()
        if record.kind != "genmu-evaluation"
    ]
    return {"ranking": [place.document() for place in places], "by": by, "notes": notes}


def _record(folder: Path) -> RunRecord:
    for name in ("record.json", "judged.csv", "identity.csv"):
        if not (folder / name).is_file():
            raise Unavailable(
                f"{str(folder)!r} has no {name}: name folders that bench genmu run or evaluate made"
            )
    record = RunRecord.read(folder / "record.json")
    if record.kind not in ("genmu", "genmu-evaluation"):
        raise InvalidInput(f"{str(folder)!r} is a run of the kind {record.kind!r}, not of bench genmu")
    return record


def _identity(folders: Sequence[Path]) -> tuple[Judgement, ...]:
    """Return the unmodified model's table, which all folders have in common.

    Raises:
        InvalidInput: they were judged beside different models, or by different judges.
    """
    first, *others = folders
    rows = read_table(first / "identity.csv")
    for other in others:
        if set(read_table(other / "identity.csv")) != set(rows):
            raise InvalidInput(
                f"{_name(first)} and {_name(other)} were not judged beside the same unmodified model on the same images"
            )
    return rows


def _change(record: RunRecord) -> float | None:
    found = record.scores.get("tie_break")
    return None if not found or found.get("hooks") else float(found["value"])


def _name(folder: Path) -> str:
    return folder.resolve().name
