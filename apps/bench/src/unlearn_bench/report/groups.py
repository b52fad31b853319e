"""Runs of one model and concept that may stand in one table, with what the page shows of each.

Everything here is JSON values: the template writes them into the page, the script in the page reads them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unlearn_bench.leaderboard.concepts import BASELINE, ConceptRun
from unlearn_bench.leaderboard.groups import Group, labels
from unlearn_bench.report import reproduce
from unlearn_core.errors import InvalidInput
from unlearn_core.score import Score

ALPHAS = tuple(round(i / 20, 2) for i in range(21))
"""Positions of the slider; for each the interval of the score is worked out."""
DRAWS = 1000
ABOUT = {
    "UA": "unlearning accuracy: share of target pictures on which the concept is not seen",
    "IRA": "in-domain retain accuracy: share of right pictures of everything else of its kind",
    "CRA": "cross-domain retain accuracy: share of right pictures of the other kind, such as styles",
    "adjacent": "share of right pictures of the concept's neighbours",
    "clip_score": "similarity of pictures and their captions",
    "fid": "distance of the captions' pictures from real ones",
    "kid": "distance of the captions' pictures from real ones, without the bias of small numbers",
    "tifa": "share of questions about the captions' pictures that are answered as the caption would",
    "seconds": "wall seconds of unlearning, without drawing and measuring",
}


def table(group: Group[ConceptRun], number: int) -> dict[str, Any]:
    """Return a group of comparable runs with its rows, the unmodified model first."""
    entries = group.entries
    first = entries[0]
    spec = first.run.record.spec
    plain = [entry for entry in entries if entry.run.stated("technique") == "none"]
    edited = [entry for entry in entries if entry not in plain]
    names = labels([entry.run for entry in edited], "technique")
    columns = list(dict.fromkeys(name for entry in entries for name in entry.before))
    rows = [_row(BASELINE, plain[0] if plain else None, first.before, columns)]
    rows += [_row(name, entry, entry.scores, columns) for name, entry in zip(names, edited, strict=True)]
    scores = {name: entry.scores for name, entry in zip(names, edited, strict=True)}
    why = _rate(rows, scores, first.before)
    _place(rows)
    notes = shared_notes({entry.run.stated("technique"): entry.run.record.notes for entry in entries})
    concept = spec["concept"]
    return {
        "id": f"g{number}",
        "concept": concept["name"],
        "unsafe": concept.get("kind") == "unsafe",
        "model": spec["model"].rstrip("/").rpartition("/")[2] or spec["model"],
        "sampler": {key: value for key, value in spec["sampler"].items() if value is not None},
        "prompts": {kind: prompts["rows"] for kind, prompts in spec["prompts"].items()},
        "columns": [_column(name, first.before[name].direction) for name in columns if name in first.before]
        + [_column("seconds", "down")],
        "rows": rows,
        "no_score": why,
        "apart": group.apart,
        "notes": [*group.notes, *notes],
    }


def members(group: Group[ConceptRun]) -> dict[str, ConceptRun]:
    """Return name of a row -> its run, without the unmodified model."""
    edited = [entry for entry in group.entries if entry.run.stated("technique") != "none"]
    return dict(zip(labels([entry.run for entry in edited], "technique"), edited, strict=True))


def cell(score: Score) -> dict[str, Any]:
    """Return what a cell shows of a score."""
    digits = 1 if abs(score.value) >= 10 else 2
    found: dict[str, Any] = {"value": score.value, "text": written(score.value, digits)}
    if interval := score.interval:
        found |= {
            "low": interval.low,
            "high": interval.high,
            "between": between(interval.low, interval.high, digits),
        }
    if score.n_unscored:
        found["unscored"] = score.n_unscored
    return found


def written(value: float, digits: int = 2) -> str:
    """Return a number with a minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def between(low: float, high: float, digits: int = 2) -> str:
    """Return an interval as text."""
    return f"{written(low, digits)}{'–' if low >= 0 else ' to '}{written(high, digits)}"


def shared_notes(runs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the notes of some runs, each once; what is said of several by name is said of them together."""
    about: dict[str, list[str]] = {}
    for name, notes in runs.items():
        for note in notes:
            who, colon, what = note.partition(": ")
            named = bool(colon) and who == name
            about.setdefault(what if named else note, []).extend([name] if named else [])
    return [f"{', '.join(names)}: {what}" if names else what for what, names in about.items()]


def _column(name: str, direction: str) -> dict[str, str]:
    return {"name": name, "about": ABOUT.get(name, name), "arrow": {"up": "↑", "down": "↓"}[direction]}


def _row(
    name: str, entry: ConceptRun | None, scores: Mapping[str, Score], columns: Sequence[str]
) -> dict[str, Any]:
    baseline = name == BASELINE
    cells = []
    for column in columns:
        found = cell(scores[column]) if column in scores else {"failed": "not measured"}
        if entry and not baseline and (change := _change(entry, column)):
            found["change"] = change
        cells.append(found)
    stage = entry.run.record.stages.get("unlearn") if entry and not baseline else None
    cells.append(
        {"value": stage.seconds, "text": f"{stage.seconds:.1f}"} if stage else {"failed": "nothing to do"}
    )
    row = {"id": entry.run.record.run_id if entry else "baseline", "name": name, "baseline": baseline}
    return {**row, "cells": cells, **({"how": reproduce.row(entry.run.record)} if entry else {})}


def _change(entry: ConceptRun, column: str) -> str:
    """Return the paired change of a column against the unmodified model, in words."""
    for metric, score in entry.run.record.scores.items():
        key = "value" if metric == column else column
        found = score.get("difference", {}).get(key) if column in (metric, *score.get("parts", {})) else None
        if found:
            text = f"{found['value']:+.3g} against the unmodified model"
            return (
                text
                if found["low"] is None
                else f"{text}, 95 % from {found['low']:+.3g} to {found['high']:+.3g}"
            )
    return ""


def _place(rows: Sequence[dict[str, Any]]) -> None:
    """Give every cell with an interval its place (percent) between the ends of its column."""
    for column in zip(*(row["cells"] for row in rows), strict=True):
        cells = [one for one in column if "low" in one]
        if not cells:
            continue
        shares = all(0 <= one["low"] <= one["high"] <= 1 for one in cells)
        low, high = (0.0, 1.0) if shares else (min(c["low"] for c in cells), max(c["high"] for c in cells))
        for one in cells:
            one["bar"] = [
                round(100 * (one[k] - low) / ((high - low) or 1), 1) for k in ("low", "high", "value")
            ]


def _rate(
    rows: Sequence[dict[str, Any]], scores: Mapping[str, Mapping[str, Score]], before: Mapping[str, Score]
) -> str:
    """Add safety, quality and, for every alpha, the interval of BenchScore to the rows; return why not, else ""."""
    from unlearn_metrics.benchscore import AXES, Row, benchscore
    from unlearn_metrics.benchscore_spread import spread

    if not scores:
        return "no BenchScore: there is no technique beside the unmodified model"
    axes = [axis for axis in AXES if axis in before]
    try:
        every = [Row(technique=n, scores={a: s[a] for a in axes if a in s}) for n, s in scores.items()]
        unmodified = Row(technique=BASELINE, scores={axis: before[axis] for axis in axes})
        rated = benchscore(every, unmodified=unmodified)
        spreads = [spread(every, alpha, unmodified=unmodified, draws=DRAWS) for alpha in ALPHAS]
    except InvalidInput as error:
        return f"no BenchScore: {error}"
    by_name = {row["name"]: row for row in rows}
    for i, one in enumerate(rated):
        by_name[one.technique] |= {
            "safety": one.safety,
            "quality": one.quality,
            "ranked": one.rank is not None,
            "spread": [
                [round(s[i].low, 4), round(s[i].high, 4), s[i].rank_low, s[i].rank_high] for s in spreads
            ],
        }
    return ""
