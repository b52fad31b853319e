"""KLoM runs as the page shows them: one group per data set, forget set, number of models and variant."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench.leaderboard.groups import Group, labels
from unlearn_bench.leaderboard.klom import BASELINE, NAMES, KlomRun
from unlearn_bench.report import reproduce
from unlearn_bench.report.files import file_of
from unlearn_bench.report.groups import between, written
from unlearn_bench.report.pictures import data_uri

SPLITS = {"forget": "forget set", "retain": "retained", "val": "validation"}
PICTURE_SIDE = 1240  # pixels; the record's picture is as wide


def table(group: Group[KlomRun], number: int, root: Path) -> dict[str, Any]:
    """Return a group of comparable runs with a row per method, beside doing nothing and held-out oracles."""
    first = group.entries[0]
    rows = [
        {"id": name, "name": label, "baseline": True, "cells": _cells(first.scores[name])}
        for name, label in NAMES.items()
        if name in first.scores
    ]
    methods = [entry for entry in group.entries if entry.run.stated("method") != BASELINE]
    plots = []
    for name, entry in zip(labels([entry.run for entry in methods], "method"), methods, strict=True):
        record = entry.run.record
        cells = _cells(entry.scores[record.spec["method"]])
        how = reproduce.row(record)
        rows.append({"id": record.run_id, "name": name, "baseline": False, "cells": cells, "how": how})
        plot = file_of(entry.run, "plot", root)
        if plot is not None and plot.is_file():
            plots.append({"name": name, "src": data_uri(plot, PICTURE_SIDE)})
    _place(rows)
    spec = first.run.record.spec
    splits = [
        {"name": label, "n": int(first.scores[BASELINE][split]["n_samples"])}
        for split, label in SPLITS.items()
    ]
    return {
        "id": f"k{number}",
        "dataset": spec["dataset"]["name"],
        "forget_set": spec["forget_set"],
        "n_models": spec["n_models"],
        "variant": spec["variant"],
        "splits": splits,
        "rows": rows,
        "plots": plots,
        "notes": [*group.notes, *dict.fromkeys(n for e in methods for n in e.run.record.notes)],
    }


def _cells(splits: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return P95 and mean of each split, in their order."""
    cells = []
    for split in SPLITS:
        score = splits[split]
        for value, low, high, floor in (
            ("p95", "low", "high", "floor"),
            ("mean", "mean_low", "mean_high", "mean_floor"),
        ):
            cells.append(_cell(score, value, low, high, floor))
    return cells


def _cell(score: Mapping[str, Any], value: str, low: str, high: str, floor: str) -> dict[str, Any]:
    if score[value] is None:  # public variants leave samples undefined
        return {"failed": "undefined"}
    cell = {"value": score[value], "text": written(score[value]), "floor": score[floor]}
    if score[low] is not None:
        cell |= {"low": score[low], "high": score[high],
                 "between": between(score[low], score[high])}  # fmt: skip
    return cell


def _place(rows: Sequence[dict[str, Any]]) -> None:
    """Give every cell with an interval its place (percent) between 0 and the largest value of its kind."""
    for kind in (0, 1):
        cells = [cell for row in rows for cell in row["cells"][kind::2] if "low" in cell]
        top = max((cell["high"] for cell in cells), default=1.0) or 1.0
        for cell in cells:
            cell["bar"] = [round(100 * max(cell[key], 0.0) / top, 1) for key in ("low", "high", "value")]
            if cell["floor"] is not None:
                cell["floor_at"] = round(100 * min(max(cell["floor"], 0.0) / top, 1.0), 1)
