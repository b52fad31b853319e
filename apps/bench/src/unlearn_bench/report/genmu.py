"""Genμ submissions as the page shows them: one group per strategy, model, targets, prompts and judge."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench.leaderboard.genmu import (
    AXES,
    BASELINES,
    KINDS,
    GenmuRun,
    judge,
    names,
    score,
    targets,
    weight_change,
)
from unlearn_bench.leaderboard.groups import Group, grouped
from unlearn_bench.leaderboard.records import Run, finite
from unlearn_bench.report import reproduce
from unlearn_bench.report.files import file_of
from unlearn_bench.report.groups import between, shared_notes, written
from unlearn_bench.report.pictures import data_uri
from unlearn_core.errors import InvalidInput

__all__ = ["KINDS", "tables"]

FIGURES = {
    "heat_map": "the share of direct prompts that show each target, after each request",
    "components": "the five components and ERR, beside the unmodified model's",
    "sheet": "the same prompts before and after",
}
"""Role of a file in the record -> what it shows."""
STRATEGIES = {"single": "a model per concept", "multi": "one model for all", "continual": "one after another"}
WIDTH, HEIGHT = 1280, 4000
"""Of an embedded figure at most, in pixels."""
MOST_BYTES = 32 * 2**20
MOST_PIXELS = 64 * 10**6
"""A figure beyond either is left out: records may be others', and a page has to stay small."""


def tables(runs: Sequence[Run], root: Path, *, leave_out: bool) -> list[dict[str, Any]]:
    """Return the groups of some submissions.

    Args:
        runs: records of `KINDS`.
        root: folder outside of which no figure is looked for.
        leave_out: whether to leave out pictures of unsafe concepts.

    Raises:
        InvalidInput: a record without the scores it should have, a figure that lies elsewhere or is no picture.
    """
    groups = grouped([GenmuRun(run=run) for run in runs])
    return [_table(group, number, root, leave_out=leave_out) for number, group in enumerate(groups, 1)]


def _table(group: Group[GenmuRun], number: int, root: Path, *, leave_out: bool) -> dict[str, Any]:
    runs = [entry.run for entry in group.entries]
    first, spec = runs[0], runs[0].record.spec
    called = names(runs)
    rows: list[dict[str, Any]] = [
        {"id": f"e{number}-{key}", "name": name, "baseline": True, "cells": _cells(first, key)}
        for key, name in BASELINES.items()
    ]
    concepts: list[dict[str, Any]] = []
    figures: list[dict[str, Any]] = []
    unsafe = any(concept.get("kind") == "unsafe" for concept in spec["concepts"])
    for name, run in zip(called, runs, strict=True):
        cells = [*_cells(run, "submission")[:-1], _weight_change(run)]
        cells[0]["change"] = _gain(run)
        how = reproduce.row(run.record)
        rows.append({"id": run.record.run_id, "name": name, "baseline": False, "cells": cells, "how": how})
        concepts += _concepts(run, name)
        figures += _figures(run, name, root, unsafe=unsafe, leave_out=leave_out)
    changed = [row["cells"][-1]["value"] for row in rows if "value" in row["cells"][-1]]
    for row in rows:
        if changed and "value" in row["cells"][-1]:
            place = round(100 * row["cells"][-1]["value"] / (max(changed) or 1), 1)
            row["cells"][-1]["bar"] = [0, place, place]
    notes = shared_notes(
        {n: [*r.record.notes, *_spread(r), *_doubts(r)] for n, r in zip(called, runs, strict=True)}
    )
    return {
        "id": f"e{number}",
        "concepts": targets(first),
        "model": spec["model"].rstrip("/").rpartition("/")[2] or spec["model"],
        "judge": judge(spec["judge"]),
        "strategy": STRATEGIES.get(str(spec["strategy"]), "?"),
        "images": {AXES[axis]: n for axis, n in spec["prompts"]["images"].items() if axis in AXES},
        "rows": rows,
        "by_concept": concepts,
        "figures": figures,
        "apart": group.apart,
        "notes": [*group.notes, *notes],
    }


def _cells(run: Run, whose: str) -> list[dict[str, Any]]:
    """Return ERR pooled and macro, the components, and an empty place for the weight change."""
    places = [("err_pooled",), ("err_macro",), *(("components", axis) for axis in AXES)]
    cells: list[dict[str, Any]] = []
    for place in places:
        found = score(run, whose, *place)
        bar = [round(100 * min(max(found[end], 0.0), 1.0), 1) for end in ("low", "high", "value")]
        cells.append(
            {**found, "text": written(found["value"]), "between": between(found["low"], found["high"]), "bar": bar}
        )  # fmt: skip
    return [*cells, {"failed": "nothing was submitted"}]


def _weight_change(run: Run) -> dict[str, Any]:
    value = weight_change(run)
    if value is None:
        return {"failed": "the submission holds no weights"}
    return {"value": value, "text": f"{value:.3g}".replace("-", "−")}


def _gain(run: Run) -> str:
    found = score(run, "gain")
    return (
        f"{found['value']:+.3f} against doing nothing, 95 % from {found['low']:+.3f} to {found['high']:+.3f}"
    )


def _spread(run: Run) -> Iterator[str]:
    """Yield how much the order of the requests matters, where there were several."""
    found = (run.record.scores.get("continual") or {}).get("spread")
    if found:
        ends = {end: finite(run, f"continual.spread.final.{end}", found["final"].get(end))
                for end in ("mean", "low", "high")}  # fmt: skip
        yield (
            f"{len(found['orders'])} orders of the requests end at ERR {ends['mean']:.3f} on average, from "
            f"{ends['low']:.3f} to {ends['high']:.3f}"
        )


def _doubts(run: Run) -> Iterator[str]:
    """Yield how far several judges agree, and what is left of ERR without a judge's errors, where that is known."""
    if panel := run.record.scores.get("panel"):
        kappa = panel["fleiss_kappa"]
        said = "unknown" if kappa is None else written(finite(run, "panel.fleiss_kappa", kappa))
        yield (
            f"the judges {', '.join(map(str, panel['judges']))} decided by majority; their agreement beyond chance, "
            f"Fleiss' kappa, is {said} on {panel['n']} answers, and {panel['draws']} draws count as not shown"
        )
    if corrected := run.record.scores.get("corrected"):
        found = {
            name: score(run, "corrected", *name)
            for name in (("err_pooled",), *(("components", a) for a in AXES))
        }
        parts = ", ".join(
            f"{AXES[name[1]]} {written(found[name]['value'])}" for name in found if len(name) > 1
        )
        whole = found["err_pooled",]
        rates = [
            finite(run, f"corrected.{key}", corrected.get(key)) for key in ("sensitivity", "specificity")
        ]
        yield (
            f"corrected for a judge of sensitivity {written(rates[0])} and specificity {written(rates[1])}, ERR pooled "
            f"is {written(whole['value'])} ({between(whole['low'], whole['high'])}): {parts}"
        )


def _concepts(run: Run, name: str) -> Iterator[dict[str, Any]]:
    for concept, row in run.record.scores["submission"].get("concepts", {}).items():
        cells = []
        for axis in AXES:
            found = score(run, "submission", "concepts", concept, axis)
            said = f"{between(found['low'], found['high'])} of {row[axis].get('n', '?')} pictures"
            cells.append({"share": found["value"], "title": said})
        err = finite(run, f"concepts.{concept}.err", row.get("err"))
        cells.insert(0, {"share": err, "title": "harmonic mean of the five"})
        yield {"name": name, "concept": concept, "cells": cells}


def _figures(run: Run, name: str, root: Path, *, unsafe: bool, leave_out: bool) -> Iterator[dict[str, Any]]:
    for role, what in FIGURES.items():
        risky = unsafe and role == "sheet"
        path = file_of(run, role, root)
        if path is None or not path.is_file() or (risky and leave_out):
            continue
        figure = {"name": name, "role": role.replace("_", " "), "what": what, "unsafe": risky}
        why = _too_large(path)
        yield {**figure, "why": why} if why else {**figure, "src": data_uri(path, WIDTH, HEIGHT)}


def _too_large(path: Path) -> str:
    """Return why a figure is left out, else "".

    Raises:
        InvalidInput: it is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    if path.stat().st_size > MOST_BYTES:
        return f"left out: {path.stat().st_size / 2**20:.0f} MiB"
    try:
        with Image.open(path) as image:
            width, height = image.size
            image.verify()
    except Image.DecompressionBombError:
        return "left out: too many pixels"
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InvalidInput(f"{str(path)!r} is no picture: {error}") from None
    return f"left out: {width} x {height} pixels" if width * height > MOST_PIXELS else ""
