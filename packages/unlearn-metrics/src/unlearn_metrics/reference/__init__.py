"""Numbers that others published, and those of a model that draws noise, each with its source."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.score import Score, wilson
from unlearn_metrics.benchscore import AXES, Row

TABLES = {"eval-learn-0.1.6": "eval_learn_0_1_6.json"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A line of a published leaderboard."""

    rank: int
    row: Row
    """Shares with Wilson's intervals of the few pictures they rest on; CLIP score and FID are bare numbers."""
    ua_ira: float
    """(UA + IRA) / 2 as printed."""
    benchscore_s: float
    benchscore_q: float
    average: float
    paper: str


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A published leaderboard."""

    name: str
    source: str
    concept: str
    model: str
    notes: tuple[str, ...]
    lines: tuple[Published, ...]

    @property
    def rows(self) -> list[Row]:
        """What was measured, in the published order."""
        return [line.row for line in self.lines]


def published(name: str = "eval-learn-0.1.6") -> PublishedTable:
    """Return a published leaderboard.

    Raises:
        InvalidInput: there is none of this name.
    """
    if name not in TABLES:
        raise InvalidInput(one_of("published leaderboard", name, TABLES))
    table = _read(TABLES[name])
    lines = []
    for cells in table["rows"]:
        line = dict(zip(table["columns"], cells, strict=True))
        scores = {axis: _score(axis, line[axis], table["n"].get(axis)) for axis in AXES}
        rest = {key: value for key, value in line.items() if key not in AXES and key != "technique"}
        lines.append(Published(row=Row(technique=line["technique"], scores=scores), **rest))
    about = {key: table[key] for key in ("source", "concept", "model")}
    return PublishedTable(name=name, **about, notes=tuple(table["notes"]), lines=tuple(lines))


def noise(metric: str, settings: Mapping[str, Any]) -> float | None:
    """Return what `metric` with these settings gives to pictures of noise; None where nobody measured it."""
    for found in _read("noise.json")["measured"]:
        if found["metric"] == metric and found["settings"] == dict(settings):
            return float(found["value"])
    return None


def _score(axis: str, value: float, n: int | None) -> Score | float:
    if n is None:
        return value
    interval = wilson(int(value), n)
    return Score(metric=axis, value=value / n, direction=AXES[axis], interval=interval, n_scored=n)


def _read(name: str) -> Any:
    return json.loads((files(__package__) / name).read_text(encoding="utf-8"))
