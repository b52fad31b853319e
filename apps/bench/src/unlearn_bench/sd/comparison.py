"""A score beside that of the unmodified model: the paired difference, with its interval."""

import dataclasses
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
        same = baseline in (None, measure) and _files(after) == _files(before)
        prompts = {sample.prompt.id: sample.prompt for sample in after}
        found["difference"] = _differences(score, of_before, prompts, same=same)
    return found


def _files(samples: SampleSet) -> dict[str, str]:
    return {sample.prompt.id: sample.sha256 for sample in samples}


def _differences(
    score: Score, baseline: Score, prompts: Mapping[str, Prompt], *, same: bool
) -> dict[str, Any]:
    """Return name -> paired difference of the score ("value") and of each of its parts.

    Args:
        score: of the pictures that are rated.
        baseline: of the unmodified model's.
        prompts: id -> row of the former.
        same: whether both are the same files, and so certainly alike.
    """
    pairs = {"value": (score, baseline)}
    for name, part in score.parts.items():
        if isinstance(part, Score) and isinstance(other := baseline.parts.get(name), Score):
            pairs[name] = (part, other)
    found = {name: _difference(a, b, prompts) for name, (a, b) in pairs.items()}
    if same:
        nothing = {"low": 0.0, "high": 0.0, "p": 1.0, "how": "the same images"}
        found = {n: {**one, **nothing} if one and one["value"] == 0 else one for n, one in found.items()}
    return {name: one for name, one in found.items() if one}


def _difference(score: Score, baseline: Score, prompts: Mapping[str, Prompt]) -> dict[str, Any] | None:
    """Return the change of a value, with interval and p-value where images can be paired; None where none is known.

    A value may be the plain mean of its images, as the published accuracies are the mean over concepts, made of parts
    as ERR is, or a distance that has a share for each image.
    """
    from unlearn_metrics.composites import paired_composite
    from unlearn_metrics.references import BY_IMAGE
    from unlearn_metrics.statistics import paired_difference

    change, certain = score.value - baseline.value, baseline.interval
    if certain is not None and certain.how == "the same images" and score.interval is not None:
        # Of near_concept, which is a paired difference itself.
        low, high = score.interval.low - baseline.value, score.interval.high - baseline.value
        return {"value": change, "low": low, "high": high, "n": score.n_scored, "p": score.parts.get("p"),
                "how": score.interval.how}  # fmt: skip
    texts = {i: prompt.text for i, prompt in prompts.items()}
    labels = {i: prompt.concept for i, prompt in prompts.items()}
    tried = [paired_composite(score, baseline, texts, labels)]
    shares = (one if one.per_sample else one.parts.get(BY_IMAGE) for one in (score, baseline))
    a, b = (one.per_sample if isinstance(one, Score) else None for one in shares)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        ids = [i for i, value in a.items() if value is not None and b.get(i) is not None and i in prompts]
        counts = Counter(labels[i] for i in ids)
        by_concept = {i: len(ids) / (len(counts) * counts[labels[i]]) for i in ids}
        for weights in (dict.fromkeys(ids, 1.0), by_concept) if ids and tried == [None] else ():
            weighted = ({i: weights[i] * float(values[i] or 0) for i in ids} for values in (a, b))
            tried.append(paired_difference(*weighted, clusters=texts))
    elif score.per_sample is None:
        return None  # the change is there to see, and how sure it is cannot be told
    for found in tried:
        if found is not None and math.isclose(found.value, change, rel_tol=1e-6, abs_tol=1e-9):
            return dataclasses.asdict(found)
    return {"value": change, "low": None, "high": None, "n": score.n_scored, "p": None, "how": ""}
