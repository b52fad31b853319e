"""Scores of images that somebody else made: no model, no spec, only a folder."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn_bench.sd.comparison import compared
from unlearn_core.errors import UnlearnError, UnlearnWarning
from unlearn_core.samples import SampleSet
from unlearn_metrics.errors import NotApplicable


def score(
    folder: Path,
    metrics: Mapping[str, Any],
    *,
    table: Path | None = None,
    group: str = "target",
    concept: str | None = None,
    baseline: Path | None = None,
) -> dict[str, Any]:
    """Return the scores of a folder as JSON values: {"folder", "images", "dropped", "scores", "notes"}.

    Args:
        folder: of images.
        metrics: name -> metric.
        table: what each image shows, where no metadata.jsonl lies beside them.
        group: of the images that state none.
        concept: of the images that state none.
        baseline: images of the unmodified model, under the same ids.

    Raises:
        UnlearnError: a folder that cannot be read or holds nothing.
    """
    samples = SampleSet.existing(folder, group=group, concept=concept, table=table)
    before = SampleSet.existing(baseline, group=group, concept=concept, table=table) if baseline else None
    scores: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnlearnWarning)
        for name, metric in metrics.items():
            try:
                scores[name] = compared(metric.measure, samples, before)
            except NotApplicable as error:
                scores[name] = {"not_applicable": str(error).removeprefix("not applicable: ")}
            except UnlearnError as error:
                scores[name] = {"error": str(error)}
    notes = dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UnlearnWarning))
    return {
        "folder": str(folder), "images": len(samples), "dropped": samples.dropped, "scores": scores,
        "notes": list(notes),
    }  # fmt: skip
