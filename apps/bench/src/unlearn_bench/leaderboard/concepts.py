"""Tables of `bench sd` records: techniques that forget a concept, ranked by BenchScore."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unlearn_bench.leaderboard.groups import Bounded, Group, labels, notes_of, portable
from unlearn_bench.leaderboard.records import Run, scores_of
from unlearn_bench.leaderboard.scoring import BASELINE, HIDDEN, known_noise, score_columns, score_rows
from unlearn_bench.leaderboard.section import Column, Section
from unlearn_core.score import Score
from unlearn_metrics.benchscore import AXES, Version

COMPOSED = ("ua_ira",)
"""Metrics shown by their parts."""


@dataclass(frozen=True, kw_only=True)
class ConceptRun:
    """A record of `bench sd`, its scores by column: a metric, or a part of one that is shown by its parts."""

    run: Run
    scores: Mapping[str, Score]
    before: Mapping[str, Score]
    """Of the unmodified model."""
    conditions: Mapping[str, Any]

    @classmethod
    def of(cls, run: Run) -> "ConceptRun | str":
        """Return the run, or why it cannot be in a table.

        Raises:
            InvalidInput: a record that was edited or holds NaN.
        """
        scores, before = {}, {}
        for metric, entry in run.record.scores.items():
            if isinstance(entry, Mapping) and "not_applicable" in entry:
                continue
            if isinstance(entry, Mapping) and "error" in entry:
                return f"{metric} failed: {entry['error']}"
            if not isinstance(entry, Mapping) or "baseline" not in entry:
                return f"{metric} was not measured of the unmodified model"
            scores[metric] = scores_of(run, entry, metric)
            before[metric] = scores_of(run, entry["baseline"], metric)
        if not scores:
            return "nothing was measured"
        return cls(
            run=run, scores=columns_of(scores), before=columns_of(before), conditions=_conditions(run, scores)
        )

    @property
    def anchor(self) -> dict[str, Bounded]:
        """What the run measured of the unmodified model."""
        return {name: _bounded(score) for name, score in self.before.items()}


def section(
    group: Group[ConceptRun],
    alpha: float,
    version: Version | None,
    noise: Mapping[str, float] | None,
) -> Section:
    """Return the table of runs that can be compared.

    Args:
        group: of runs.
        alpha: weight of safety.
        version: of BenchScore; None for "corrected".
        noise: axis -> value of a model that draws noise, for "absolute"; None for those on record.

    Raises:
        InvalidInput: "absolute" without the numbers of a model that draws noise.
    """
    version, first = version or "corrected", group.entries[0]
    # What changes nothing is the row of the unmodified model.
    shown = [entry for entry in group.entries if entry.run.stated("technique") != "none"]
    names = labels([entry.run for entry in shown], "technique")
    rows = [_row(name, entry.scores, entry.run) for name, entry in zip(names, shown, strict=True)]
    baseline = {**_row(BASELINE, first.before, first.run), "baseline": True, "seconds": None}
    if version == "absolute" and noise is None:
        noise = known_noise(list(first.before), first.conditions)
    scored = score_rows(
        {name: entry.scores for name, entry in zip(names, shown, strict=True)},
        first.before,
        alpha,
        version,
        noise,
    )
    for row, fields in zip([*rows, baseline], scored.fields, strict=True):
        row |= fields
    rows.sort(key=lambda row: (row["rank"] or 0, row["technique"]))
    title = f"{first.conditions['concept']} taken out of {first.run.stated('model')}"
    return Section(
        kind="sd",
        title=f"{title}; BenchScore {version}, alpha {alpha:g}" if scored.axes else title,
        columns=[
            *(score_columns(alpha) if scored.axes else [Column(key="technique", heading="technique")]),
            *_axis_columns(first.before),
            Column(key="seconds", heading="seconds", better="down", digits=1),
        ],
        rows=[baseline, *rows],
        hidden=HIDDEN if scored.axes else (),
        conditions=first.conditions,
        apart=group.apart,
        notes=[*group.notes, scored.note, *notes_of([entry.run for entry in group.entries])],
        more={"version": version, "alpha": alpha, "axes": scored.axes, "rankings": scored.rankings},
    )


def columns_of(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Return the scores by column: a metric that is shown by its parts as these."""
    found: dict[str, Score] = {}
    for metric, score in scores.items():
        parts = {name: part for name, part in score.parts.items() if isinstance(part, Score)}
        found |= parts if metric in COMPOSED else {metric: score}
    return found


def _conditions(run: Run, scores: Mapping[str, Score]) -> dict[str, Any]:
    sampler = dict(run.stated("sampler"))
    sampler.pop("batch", None)  # decides the last bits of a picture, not what is on it
    settings, prompts = run.stated("metrics"), run.stated("prompts")
    return {
        "concept": run.stated("concept", "name"),
        "model": run.stated("model_fingerprint"),
        "sampler": sampler,
        "dtype": run.stated("dtype"),
        **{f"prompts {group}": f"{run.stated('prompts', group, 'rows')} rows "
           f"({run.stated('prompts', group, 'fingerprint')[:12]})" for group in prompts},
        **{f"metric {metric}": portable(settings.get(metric, {})) for metric in scores},
    }  # fmt: skip


def _row(name: str, scores: Mapping[str, Score], run: Run) -> dict[str, Any]:
    record = run.record
    seconds = sum(
        stage.seconds for stage_name, stage in record.stages.items() if stage_name in ("unlearn", "pictures")
    )
    return {
        "rank": None,
        "technique": name,
        "baseline": False,
        **{column: _cell(score) for column, score in scores.items()},
        "seconds": round(seconds, 1),
        "run_id": record.run_id,
        "record": str(run.path),
    }


def _cell(score: Score) -> dict[str, Any]:
    bounds = score.interval
    return {
        "value": score.value,
        "low": bounds.low if bounds else None,
        "high": bounds.high if bounds else None,
        "n": score.n_scored,
        "n_unscored": score.n_unscored,
    }


def _bounded(score: Score) -> Bounded:
    if score.interval is None:
        return Bounded(score.value, score.value, score.value)
    return Bounded(score.value, score.interval.low, score.interval.high)


def _axis_columns(scores: Mapping[str, Score]) -> list[Column]:
    ordered = [axis for axis in AXES if axis in scores] + [name for name in scores if name not in AXES]
    return [Column(key=name, heading=name, better=scores[name].direction) for name in ordered]
