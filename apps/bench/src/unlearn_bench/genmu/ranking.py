"""Submissions side by side: what was judged of each, read from their folders, and who came where."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from genmu_eval.rank import Entry, rank
from genmu_eval.submission import Strategy
from genmu_eval.table import Judgement, read_table
from unlearn_core.errors import InvalidInput, Unavailable, one_of
from unlearn_core.record import RunRecord


def ranking(
    folders: Sequence[Path], *, by: str = "err_pooled", over: str = "concepts", seed: int = 0
) -> dict[str, Any]:
    """Return the places of submissions and of the trivial baselines, and what to know of them.

    Single, multi and continual submissions are ranked apart, each beside the baselines: one strategy is easier than
    another, and what they were asked differs. Each place says its strategy; ranks begin anew with each.

    Args:
        folders: of runs or of evaluations: record.json, judged.csv and identity.csv.
        by: "err_pooled" or "err_macro".
        over: what the bootstrap draws anew.
        seed: of the bootstrap.

    Raises:
        Unavailable: a folder without these files.
        InvalidInput: within a strategy, other images or a name twice.
    """
    records = {folder: _record(folder) for folder in folders}
    held = {record.spec["strategy"] for record in records.values()}
    places: list[dict[str, Any]] = []
    for strategy in (name for name in get_args(Strategy) if name in held):
        chosen = [folder for folder in folders if records[folder].spec["strategy"] == strategy]
        entries = [
            Entry(name=_name(f), rows=read_table(f / "judged.csv"), weight_change=_change(records[f]))
            for f in chosen
        ]
        found = rank(entries, identity=_identity(chosen), by=by, over=over, seed=seed)  # type: ignore[arg-type]
        places += [{"strategy": strategy, **place.document()} for place in found]
    notes = [
        f"{_name(folder)}: scored by whoever made it; bench genmu evaluate --submission {folder} draws and judges anew"
        for folder, record in records.items()
        if record.kind != "genmu-evaluation"
    ]
    notes += [f"{_name(folder)}: {said}" for folder, record in records.items() for said in recognised(record)]
    return {"ranking": places, "by": by, "notes": notes}


def recognised(record: RunRecord) -> Iterator[str]:
    """Yield what the weights of a record's models give away: a copy of the original, noise."""
    said = {
        "identity": "is the unmodified model, weight for weight",
        "noise": "is as far from the model as noise is",
    }
    for name, change in ((record.scores.get("tie_break") or {}).get("models") or {}).items():
        if change["kind"] in said:
            yield f"the model {name} {said[change['kind']]}"


def _record(folder: Path) -> RunRecord:
    for name in ("record.json", "judged.csv", "identity.csv"):
        if not (folder / name).is_file():
            raise Unavailable(
                f"{str(folder)!r} has no {name}: name folders that bench genmu run or evaluate made"
            )
    record = RunRecord.read(folder / "record.json")
    if record.kind not in ("genmu", "genmu-evaluation"):
        raise InvalidInput(f"{str(folder)!r} is a run of the kind {record.kind!r}, not of bench genmu")
    if (strategy := record.spec.get("strategy")) not in get_args(Strategy):
        raise InvalidInput(f"{str(folder)!r}: {one_of('strategy', str(strategy), get_args(Strategy))}")
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
