"""A score beside that of the unmodified model: the paired difference, with its interval."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from unlearn_core.prompts import Prompt
from unlearn_core.samples import SampleSet
from unlearn_core.score import Score

Measure = Callable[[SampleSet, SampleSet | None], Score]


def compared(
    measure: Measure, after: SampleSet, before: SampleSet | None, *, baseline: Measure | None = None
) -> dict[str, Any]:
    """Return a metric's score as JSON, and beside it the unmodified model's and the paired difference.

    Args:
        measure: gives the score of pictures beside those of the unmodified model.
        after: what is rated.
        before: pictures of the unmodified model.
        baseline: gives the unmodified model's score where that is another function: of a metric that rates a model.
    """
    score = measure(after, before)
    found: dict[str, Any] = score.to_mapping()
    if before is not None:
        of_before = score if after is before else (baseline or measure)(before, before)
        found["baseline"] = of_before.to_mapping()
        found["difference"] = _differences(score, of_before, {s.prompt.id: s.prompt for s in after})
    return found


def _differences(score: Score, baseline: Score, prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    """Return name -> paired difference of the score ("value") and of each of its parts."""
    pairs = {"value": (score, baseline)}
    for name, part in score.parts.items():
        if isinstance(part, Score) and isinstance(other := baseline.parts.get(name), Score):
            pairs[name] = (part, other)
    return {name: found for name, (a, b) in pairs.items() if (found := _difference(a, b, prompts))}


def _difference(score: Score, baseline: Score, prompts: Mapping[str, Prompt]) -> dict[str, Any] | None:
    """Return the change of a value, with the interval of the paired images where their mean is that value.

    A value may be the plain mean of its images or, as the published accuracies are, the mean over concepts.
    """
    from unlearn_metrics.statistics import paired_difference

    a, b = score.per_sample, baseline.per_sample
    change = score.value - baseline.value
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        ids = [i for i, value in a.items() if value is not None and b.get(i) is not None]
        counts = Counter(prompts[i].concept for i in ids)
        by_concept = {i: len(ids) / (len(counts) * counts[prompts[i].concept]) for i in ids}
        for weights in (dict.fromkeys(ids, 1.0), by_concept):
            weighted = ({i: weights[i] * float(values[i] or 0) for i in ids} for values in (a, b))
            found = paired_difference(*weighted, clusters={i: prompts[i].text for i in ids})
            if math.isclose(found.value, change, rel_tol=1e-6, abs_tol=1e-9):
                return {field: getattr(found, field) for field in ("value", "low", "high", "n", "p")}
    elif score.per_sample is None:
        return None  # as of FID: the change is there to see, and its noise is not that of pairs
    return {"value": change, "low": None, "high": None, "n": score.n_scored, "p": None}
