"""BenchScore of the rows of a table, and the models that "absolute" is measured between."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearn_bench.leaderboard.records import BESIDE
from unlearn_bench.leaderboard.section import Column
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.score import Score
from unlearn_metrics import reference
from unlearn_metrics.benchscore import (
    AXES,
    QUALITY,
    SAFETY,
    UNBOUNDED,
    BenchScore,
    Row,
    Version,
    benchscore,
    rankings,
    value_of,
)
from unlearn_metrics.benchscore_spread import Spread, spread

BASELINE = "unmodified"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What BenchScore says of a table."""

    fields: Sequence[Mapping[str, Any]]
    """Of each row, the unmodified model's last."""
    note: str
    axes: Sequence[str] = ()
    """That went into it; none where there is no BenchScore."""
    rankings: Sequence[Mapping[str, Any]] = field(default=())


def score_rows(
    scores: Mapping[str, Mapping[str, Score]],
    before: Mapping[str, Score],
    alpha: float,
    version: Version,
    noise: Mapping[str, float] | None,
) -> Scored:
    """Return the BenchScore of techniques, or why there is none.

    Args:
        scores: technique -> column -> score.
        before: column -> score of the unmodified model.
        alpha: weight of safety.
        version: of BenchScore.
        noise: axis -> value of a model that draws noise.
    """
    axes, dropped = [axis for axis in AXES if axis in before], []
    anchors: dict[str, Any] = {}
    if version == "absolute":
        ends = {axis: float(axis == "UA") for axis in axes if axis not in UNBOUNDED} | dict(noise or {})
        dropped = [axis for axis in axes if before[axis].value == ends.get(axis)]
        axes = [axis for axis in axes if axis not in dropped]
        anchors["collapsed"] = {axis: ends[axis] for axis in axes if axis in ends}
    try:
        rows = [
            Row(technique=name, scores={axis: of_one[axis] for axis in axes})
            for name, of_one in [*scores.items(), (BASELINE, before)]
        ]
        unmodified = rows.pop()
        found = benchscore(rows, alpha, version, unmodified=unmodified, **anchors)
        spreads = spread(rows, alpha, version, unmodified=unmodified, **anchors)
    except InvalidInput as error:
        return Scored(fields=[{} for _ in [*scores, BASELINE]], note=f"no BenchScore: {error}")
    orders = [{"from": a, "to": b, "order": list(order)} for a, b, order in rankings(found)]
    return Scored(
        fields=[score_fields(score, one) for score, one in zip(found, spreads, strict=True)],
        note=_meaning(axes, dropped, anchors.get("collapsed")),
        axes=axes,
        rankings=orders,
    )


def known_noise(columns: Sequence[str], conditions: Mapping[str, Any]) -> dict[str, float]:
    """Return axis -> value on record of a model that draws noise, for those that have no natural end.

    Raises:
        InvalidInput: nobody measured it with the settings of this table.
    """
    found = {}
    for axis in UNBOUNDED:
        if axis in columns:
            value = reference.noise(axis, conditions[f"metric {axis}"])
            if value is None:
                raise InvalidInput(
                    f"absolute BenchScore needs {axis} of a model that draws noise, and with these settings it is not "
                    "on record: rate a folder of noise with `bench score FOLDER --metrics clip_score,fid "
                    "--json` and give what that prints as --collapsed FILE, or use --version corrected"
                )
            found[axis] = value
    return found


def score_columns(alpha: float) -> list[Column]:
    """Return the columns of rank, technique and BenchScore; that of alpha where it is no other's."""
    columns = [
        Column(key="rank", heading="#", better="down", digits=0),
        Column(key="technique", heading="technique"),
        Column(key="benchscore_s", heading="S", better="up"),
        Column(key="benchscore_q", heading="Q", better="up"),
        Column(key="average", heading="average", better="up"),
    ]
    if alpha not in (0.4, 0.5, 0.6):
        columns.append(Column(key="score", heading=f"score {alpha:g}", better="up"))
    return [
        *columns,
        Column(key="interval", heading="95 %"),
        Column(key="ranks", heading="rank 95 %"),
        Column(key="p_first", heading="P(1st)", better="up", digits=2),
    ]


HIDDEN = [Column(key=key, heading=key, better="up") for key in ("score", "safety", "quality")]
"""What a row says of its BenchScore and no column shows."""


def score_fields(score: BenchScore, one: Spread) -> dict[str, Any]:
    """Return what a row says of a BenchScore."""
    return {
        "rank": score.rank,
        **{name: getattr(score, name) for name in ("benchscore_s", "benchscore_q", "average", "score")},
        "safety": score.safety,
        "quality": score.quality,
        "interval": {"low": one.low, "high": one.high, "of": "score"},
        "rank_low": one.rank_low if score.rank else None,
        "rank_high": one.rank_high if score.rank else None,
        "p_first": one.rank_probabilities[0] if one.rank_probabilities else None,
        "rank_probabilities": list(one.rank_probabilities),
    }


def noise_of(path: Path) -> dict[str, float]:
    """Return axis -> value from what `bench score FOLDER --json` printed of pictures of noise.

    Raises:
        Unavailable: the file cannot be read.
        InvalidInput: it is not such a document, or says nothing of any axis.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["scores"]
        scores = {
            name: Score.from_mapping({key: value for key, value in entry.items() if key not in BESIDE})
            for name, entry in entries.items()
            if "value" in entry
        }
    except OSError as error:
        raise Unavailable(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{str(path)!r} is not what `bench score FOLDER --json` prints of pictures of noise: {error!r}"
        ) from None
    parts = {
        name: part for score in scores.values() for name, part in score.parts.items() if name in ("UA", "IRA")
    }
    every = {**scores, **parts}
    found = {axis: value_of(score) for axis, score in every.items() if axis in AXES}
    if not found:
        raise InvalidInput(f"{str(path)!r} says nothing of {', '.join(AXES)}")
    return found


def _meaning(axes: Sequence[str], dropped: Sequence[str], collapsed: Mapping[str, float] | None) -> str:
    safety, quality = (", ".join(axis for axis in part if axis in axes) for part in (SAFETY, QUALITY))
    note = f"BenchScore here: safety is {safety}; quality is {quality}"
    if missing := [axis for axis in AXES if axis not in axes and axis not in dropped]:
        note += f"; eval-learn's also has {', '.join(missing)}"
    if collapsed is not None:
        ends = ", ".join(f"{axis} {value:g}" for axis, value in collapsed.items())
        note += f"; from the unmodified model to one that draws noise ({ends})"
    if dropped:
        note += f"; without {', '.join(dropped)}, where the unmodified model already is at the other end"
    return note
