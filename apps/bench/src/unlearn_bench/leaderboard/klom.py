"""Tables of `bench klom` records: methods of data unlearning on one forget set of one data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unlearn_bench.leaderboard.groups import Bounded, Group, labels, notes_of
from unlearn_bench.leaderboard.records import Run, finite
from unlearn_bench.leaderboard.section import Column, Section
from unlearn_core.errors import InvalidInput

SPLITS = ("forget", "retain", "val")
BASELINE, ORACLE = "do_nothing", "oracle"
NAMES = {BASELINE: "do nothing", ORACLE: "held-out oracle"}


@dataclass(frozen=True, kw_only=True)
class KlomRun:
    """A record of `bench klom run`: candidate -> split -> its score."""

    run: Run
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]]

    @classmethod
    def of(cls, run: Run) -> "KlomRun | str":
        """Return the run, or why it cannot be in a table.

        Raises:
            InvalidInput: a record that was edited or holds NaN.
        """
        scores: dict[str, dict[str, dict[str, Any]]] = {}
        for name, splits in run.record.scores.items():
            scores[name] = {}
            for split in SPLITS:
                entry = splits.get(split) if isinstance(splits, Mapping) else None
                if not isinstance(entry, Mapping) or "p95" not in entry:
                    raise InvalidInput(f"{str(run.path)!r}: {name} has no score of the split {split!r}")
                if entry["p95"] is None:
                    return f"{name}: every score of the split {split!r} is undefined"
                scores[name][split] = _checked(run, f"{name}, {split}", entry)
        for needed in (BASELINE, run.stated("method")):
            if needed not in scores:
                return f"it has no scores of {needed}"
        return cls(run=run, scores=scores)

    @property
    def conditions(self) -> dict[str, Any]:
        """Data set, forget set, number of models and variant of KLoM."""
        return {key: self.run.stated(key) for key in ("dataset", "forget_set", "n_models", "variant")}

    @property
    def anchor(self) -> dict[str, Bounded]:
        """What the run measured of the models before unlearning."""
        return {
            f"P95 on {split}": Bounded(score["p95"], score["low"], score["high"])
            for split, score in self.scores[BASELINE].items()
        }


def section(group: Group[KlomRun]) -> Section:
    """Return the table of runs that can be compared, best first.

    The score is the worst P95 of the three splits: whoever does nothing fails on what was to be forgotten, whoever
    destroys the model on the rest.
    """
    first = group.entries[0]
    shown = [entry for entry in group.entries if entry.run.stated("method") != BASELINE]
    names = labels([entry.run for entry in shown], "method")
    rows = [
        _row(name, entry.run, entry.scores[entry.run.stated("method")])
        for name, entry in zip(names, shown, strict=True)
    ]
    rows.sort(key=lambda row: (row["score"], row["technique"]))
    for row in rows:
        row["rank"] = 1 + sum(other["score"] < row["score"] for other in rows)
    beside = [
        {**_row(NAMES[name], first.run, first.scores[name]), "baseline": True, "seconds": None}
        for name in (BASELINE, ORACLE)
        if name in first.scores
    ]
    conditions = first.conditions
    data = conditions["dataset"]
    return Section(
        kind="klom",
        title=f"KLoM ({conditions['variant']}) on {data.get('name', data) if isinstance(data, Mapping) else data}, "
        f"forget set {conditions['forget_set']}, {conditions['n_models']} models; P95, lower is better",
        columns=[
            Column(key="rank", heading="#", better="down", digits=0),
            Column(key="technique", heading="method"),
            Column(key="score", heading="worst", better="down", digits=2),
            *(Column(key=split, heading=split, better="down", digits=2) for split in SPLITS),
            Column(key="seconds", heading="seconds", better="down", digits=1),
        ],
        rows=[*beside, *rows],
        conditions=conditions,
        apart=group.apart,
        notes=[*group.notes, *notes_of([entry.run for entry in group.entries])],
    )


def _row(name: str, run: Run, splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    cells = {split: {"value": score["p95"], **score} for split, score in splits.items()}
    stage = run.record.stages.get(run.record.spec["method"])
    return {
        "rank": None,
        "technique": name,
        "baseline": False,
        "score": max(cell["value"] for cell in cells.values()),
        **cells,
        "seconds": stage.seconds if stage else 0.0,
        "run_id": run.record.run_id,
        "record": str(run.path),
    }


def _checked(run: Run, what: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        key: value if value is None or isinstance(value, str) else finite(run, f"{what}: {key}", value)
        for key, value in entry.items()
    }
    low, high = (finite(run, f"{what}: {key}", entry.get(key)) for key in ("low", "high"))
    if not low <= found["p95"] <= high or found["p95"] < 0:
        raise InvalidInput(
            f"{str(run.path)!r}: {what}: P95 {found['p95']:g} is outside its interval [{low:g}, {high:g}]; it was "
            "edited after the run"
        )
    return found
