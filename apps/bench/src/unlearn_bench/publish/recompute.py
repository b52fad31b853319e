"""Scores computed again from the pictures of a record, as far as they are there."""

import math
import random
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from unlearn_bench.leaderboard.records import Run
from unlearn_core import registry
from unlearn_core.errors import InvalidInput, UnlearnError, UnlearnWarning
from unlearn_core.prompts import Prompt
from unlearn_core.samples import SampleSet
from unlearn_core.seeds import derive

TOLERANCE = 0.01
"""Of a picture's value: other processors round otherwise. A verdict is 0 or 1 and has to be the same."""


def recomputed(
    run: Run, after: SampleSet, before: SampleSet, *, sample: int | None, seed: int
) -> Iterator[str]:
    """Yield what differs from the record, or could not be computed, for each metric.

    Args:
        run: whose scores are in question.
        after: its pictures.
        before: those of the unmodified model.
        sample: pictures of each group, None for all. Values of single pictures are compared; scores that have none,
            such as FID, are compared as a whole, and so only where all are rated.
        seed: of the choice.
    """
    for name, stated in run.record.scores.items():
        if "value" not in stated or _trains(name):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnlearnWarning)
                yield from _differences(run, name, stated, after, before, sample, seed)
        except UnlearnError as error:
            yield f"{name} cannot be computed here: {error}"


def unrated(run: Run) -> list[str]:
    """Return what pictures do not hold of a record, in words."""
    return [
        f"{name} needs the model"
        for name, one in run.record.scores.items()
        if "value" in one and _trains(name)
    ]


def _trains(name: str) -> bool:
    group = "unlearn.metrics"  # somebody's record may name a metric that is not here
    return name in registry.names(group) and hasattr(registry.load(group, name), "measure_model")


def _differences(
    run: Run,
    name: str,
    stated: Mapping[str, Any],
    after: SampleSet,
    before: SampleSet,
    sample: int | None,
    seed: int,
) -> Iterator[str]:
    by_picture = isinstance(stated.get("per_sample"), Mapping)
    if sample is not None and not by_picture:
        return
    metric = _metric(run, name)
    rows = _rows(run, name, stated, after)
    if sample is not None:
        rows = _chosen(rows, sample, derive(seed, "submit", name))
    for what, samples, other, record in (
        ("", after.only(rows), before.only(rows), stated),
        (" of the unmodified model", before.only(rows), before.only(rows), stated.get("baseline", {})),
    ):
        score = metric.measure(samples, other)
        if sample is None and not _close(score.value, record["value"]):
            yield f"{name}{what}: the record says {record['value']:.4g}, the pictures {score.value:.4g}"
        elif by_picture:
            mine, theirs = score.per_sample, record["per_sample"]
            wrong = [i for i, value in mine.items() if not _same(value, theirs.get(i))]
            if wrong:
                yield f"{name}{what}: {len(wrong)} of {len(mine)} pictures have another value, such as {wrong[0]!r}"


def _metric(run: Run, name: str) -> Any:
    """Return a metric with the settings of a record; files that lay elsewhere there are those of this machine."""
    from unlearn_bench.sd.config import ConceptConfig
    from unlearn_bench.sd.worlds import Open, world_of
    from unlearn_core.spec import build

    spec = run.record.spec
    settings = dict(run.stated("metrics", name))
    concept = {key: value for key, value in spec["concept"].items() if value not in ("", [], None)}
    try:
        world = world_of(spec["model"])
    except InvalidInput:  # a folder that is not on this machine
        world = Open()
    here = world.settings(world.concept(ConceptConfig(**concept))).get(name, {})
    for key, value in settings.items():
        if isinstance(value, str) and "/" in value and value.startswith(("/", "local-dir:/")) and key in here:
            settings[key] = here[key]
    return build(registry.load("unlearn.metrics", name), settings)


def _rows(run: Run, name: str, stated: Mapping[str, Any], samples: SampleSet) -> list[Prompt]:
    """Return the rows that a score is of: those with a value, else those of the groups that the metric rates."""
    if isinstance(stated.get("per_sample"), Mapping):
        return [sample.prompt for sample in samples if sample.prompt.id in stated["per_sample"]]
    prompts = run.stated("prompts")
    groups = [group for group in _metric(run, name).prompts if group in prompts]
    return [s.prompt for group in groups for s in list(samples.select(group=group))[: prompts[group]["rows"]]]


def _chosen(rows: list[Prompt], n: int, seed: int) -> list[Prompt]:
    """Return at most `n` rows of each group, so that no arm of a metric is without a picture."""
    rng = random.Random(seed)
    groups: dict[str, list[Prompt]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return [row for group in groups.values() for row in rng.sample(group, min(n, len(group)))]


def _same(mine: float | None, theirs: float | None) -> bool:
    return mine == theirs if mine is None or theirs is None else _close(mine, theirs)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
