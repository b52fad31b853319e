"""The records below some folders, each read once and checked: whatever was edited or belongs elsewhere is named."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.record import RunRecord
from unlearn_core.score import Score

NAME = "record.json"
BESIDE = ("baseline", "difference")
"""What stands in an entry of a record beside the fields of its score."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A record and where it lies."""

    path: Path
    record: RunRecord

    def stated(self, *keys: str) -> Any:
        """Return what the spec says under `keys`, one below the other.

        Raises:
            InvalidInput: it says nothing.
        """
        found: Any = self.record.spec
        for key in keys:
            if not isinstance(found, Mapping) or key not in found:
                raise InvalidInput(f"{str(self.path)!r}: the spec lacks {'.'.join(keys)!r}; run it again")
            found = found[key]
        return found


def read_runs(places: Iterable[Path]) -> list[Run]:
    """Return the runs at and below `places`, oldest first; copies of a run count once.

    Raises:
        Unavailable: there is no such folder, or a record cannot be read.
        InvalidInput: a folder without a record, a record of another schema or that was edited, and two runs with one
            id that say different things.
    """
    found: dict[str, Run] = {}
    for path in _paths(places):
        run = read_run(path)
        other = found.setdefault(run.record.run_id, run)
        if other.record.scores != run.record.scores:
            raise InvalidInput(
                f"{str(other.path)!r} and {str(path)!r} are both run {run.record.run_id}, with different scores; "
                "give the folder of only one of them, or run it again"
            )
    return sorted(found.values(), key=lambda run: (run.record.created, run.record.run_id))


def read_run(place: Path) -> Run:
    """Return the run whose record is `place` or lies in it.

    Raises:
        Unavailable: it cannot be read.
        InvalidInput: it is no record, or one that was edited.
    """
    path = place / NAME if place.is_dir() else place
    if place.is_dir() and not path.is_file():
        raise InvalidInput(
            f"{str(place)!r} holds no {NAME}: give the folder of one run, such as runs/sd-uce-…"
        )
    try:
        return Run(path=path, record=RunRecord.read(path))
    except InvalidInput as error:
        # What hashing the spec says does not know the file.
        raise InvalidInput(str(error) if str(path) in str(error) else f"{str(path)!r}: {error}") from None


def scores_of(run: Run, entry: Any, metric: str) -> Score:
    """Return an entry of a record as a score.

    Raises:
        InvalidInput: it is none, holds NaN, or its value is not that of its pictures.
    """
    where = f"{str(run.path)!r}: {metric}"
    if not isinstance(entry, Mapping):
        raise InvalidInput(f"{where}: a score is a mapping, got {entry!r}")
    try:
        score = Score.from_mapping({key: value for key, value in entry.items() if key not in BESIDE})
    except (InvalidInput, TypeError) as error:
        raise InvalidInput(f"{where}: {error}") from None
    _check_mean(where, metric, score)
    return score


def finite(run: Run, what: str, value: Any) -> float:
    """Return a number of a record.

    Raises:
        InvalidInput: it is none, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInput(f"{str(run.path)!r}: {what} is no finite number: {value!r}; run it again")
    return float(value)


def _paths(places: Iterable[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for place in places:
        if not place.exists():
            raise Unavailable(f"there is no folder {str(place)!r}")
        below = [place] if place.is_file() else sorted(place.rglob(NAME))
        if not below:
            raise InvalidInput(
                f"{str(place)!r} holds no {NAME}: give a folder that `bench sd` or `bench klom run` wrote, such as runs"
            )
        found |= {path.resolve(): path for path in below if path.is_file()}
    return list(found.values())


def _check_mean(where: str, metric: str, score: Score) -> None:
    """Refuse a value that its own pictures contradict.

    Rates and CLIP score are the plain mean of their pictures; accuracies are means over labels, so between the ends.
    """
    if not isinstance(score.per_sample, Mapping):
        return
    values = [value for value in score.per_sample.values() if value is not None]
    if len(values) != score.n_scored:
        raise InvalidInput(
            f"{where}: n_scored is {score.n_scored}, but {len(values)} pictures have a value; it was edited"
        )
    mean = math.fsum(values) / len(values)
    plain = metric.startswith("asr_") or metric in ("clip_score", "tifa")
    low, high = (mean, mean) if plain and metric != "asr_worst" else (min(values), max(values))
    slack = 1e-6 * max(1.0, abs(mean))
    if not low - slack <= score.value <= high + slack:
        raise InvalidInput(
            f"{where}: the value is {score.value:g}, that of its {len(values)} pictures {mean:g}; it was edited after "
            "the run"
        )
