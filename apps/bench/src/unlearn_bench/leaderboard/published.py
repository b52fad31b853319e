"""The table of a published leaderboard: its scores, ours from the same numbers, and the corrected ranking beside it."""

from typing import Any

from unlearn_bench.leaderboard.scoring import HIDDEN, score_fields
from unlearn_bench.leaderboard.section import Column, Section
from unlearn_core.score import Score
from unlearn_metrics import reference
from unlearn_metrics.benchscore import AXES, Version, benchscore, rankings
from unlearn_metrics.benchscore_spread import spread

APART = (
    "published elsewhere: prompts, detectors and pictures are not on record, and no row of the unmodified model, so no "
    "run of yours can stand in this table"
)


def section(name: str, alpha: float, version: Version | None) -> Section:
    """Return the table; `version` (None: that of the table, 0.1.6) is what its rows are ranked by.

    Raises:
        InvalidInput: no such table, or "absolute", for which it lacks the unmodified model.
    """
    table, version = reference.published(name), version or "0.1.6"
    scores, spreads = benchscore(table.rows, alpha, version), spread(table.rows, alpha, version)
    same, right = benchscore(table.rows, version="0.1.6"), benchscore(table.rows, version="corrected")
    rows: list[dict[str, Any]] = []
    worst = 0.0
    for line, score, one, ours, fixed in zip(table.lines, scores, spreads, same, right, strict=True):
        theirs = {key: getattr(line, key) for key in ("rank", "benchscore_s", "benchscore_q", "average")}
        reproduced = {key: getattr(ours, key) for key in theirs}
        worst = max(worst, *(abs(reproduced[key] - theirs[key]) for key in theirs if key != "rank"))
        rows.append({
            "rank": score.rank,
            "technique": line.row.technique,
            "baseline": False,
            **score_fields(score, one),
            "published": theirs,
            "reproduced": reproduced,
            "corrected": {key: getattr(fixed, key) for key in theirs},
            **{axis: _cell(line.row.scores[axis]) for axis in AXES},
            "ua_ira": line.ua_ira,
            "paper": line.paper,
        })  # fmt: skip
    rows.sort(key=lambda row: (row["rank"], row["technique"]))
    return Section(
        kind="published",
        title=f"{name}, {table.concept} taken out of {table.model}; ranked by {version}, alpha {alpha:g}",
        columns=_columns(),
        rows=rows,
        hidden=[
            *(
                Column(key=key, heading=key, better="up")
                for key in ("benchscore_s", "benchscore_q", "average")
            ),
            *HIDDEN,
            *(Column(key=axis, heading=axis, better=better) for axis, better in AXES.items()),
        ],
        apart=APART,
        notes=[
            f"source: {table.source}",
            f"published, ours from the same numbers (largest difference {worst:.5f}), and corrected: UA counts as "
            "implemented and documented, more is better",
            "95 % and P(1st): every share drawn again from the few pictures it rests on; FID and CLIP score as printed",
            *table.notes,
        ],
        more={
            "version": version,
            "alpha": alpha,
            "largest_difference": worst,
            "rankings": [{"from": a, "to": b, "order": list(order)} for a, b, order in rankings(scores)],
        },
    )


def _columns() -> list[Column]:
    return [
        Column(key="rank", heading="#", better="down", digits=0),
        Column(key="technique", heading="technique"),
        *(
            Column(key=f"{who}.{key}", heading=f"{heading} {letter}", better="up", digits=4)
            for who, heading in (("published", "published"), ("reproduced", "ours"))
            for key, letter in (("benchscore_s", "S"), ("benchscore_q", "Q"), ("average", "avg"))
        ),
        Column(key="corrected.average", heading="corrected avg", better="up", digits=4),
        Column(key="corrected.rank", heading="corrected #", better="down", digits=0),
        Column(key="ranks", heading="rank 95 %"),
        Column(key="p_first", heading="P(1st)", better="up", digits=2),
    ]


def _cell(score: Score | float) -> dict[str, Any]:
    if not isinstance(score, Score):
        return {"value": score, "low": None, "high": None, "n": None}
    assert score.interval is not None
    return {"value": score.value, "low": score.interval.low, "high": score.interval.high, "n": score.n_scored}
