"""What a rate would be if the detector never erred, from how it does on a few images that a person labelled.

Rogan and Gladen 1978, Am. J. Epidemiol. 107: (rate + specificity - 1) / (sensitivity + specificity - 1); the interval
is that of Lang and Reiczigel 2014, Prev. Vet. Med. 113, which knows that the two were estimated as well.
"""

import math
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

from unlearn_core.errors import InvalidInput
from unlearn_core.samples import SampleSet
from unlearn_core.score import Interval, Score, wilson
from unlearn_metrics.proportions import LEVEL
from unlearn_metrics.rates import effective_number

if TYPE_CHECKING:
    from unlearn_metrics.asr import Eye


def corrected(judged: Score, folder: Path, concept: str | None, eye: "Eye") -> Score:
    """Return the rate `judged`, corrected; its parts are "sensitivity", "specificity" and "unclipped".

    Args:
        judged: what the detector says.
        folder: images with a person's labels, an imagefolder: the detector should see those of which
            metadata.jsonl states `concept`, and no others.
        concept: what is looked for.
        eye: the detector and its threshold.

    Raises:
        InvalidInput: no concept to compare the labels with, not one image with it or without it, or a detector
            that sees it no more often where it is.
        Unavailable: there is no such folder.
    """
    if concept is None:
        raise InvalidInput("labelled images need the concept: detector_settings={'concept': NAME}")
    samples = list(SampleSet.existing(folder))
    hits = eye.see(samples).hits(eye.threshold)
    found = []
    for name, there in (("sensitivity", True), ("specificity", False)):
        ids = [s.prompt.id for s in samples if (s.prompt.concept == concept) == there]
        right = [hits[i] == float(there) for i in ids if hits[i] is not None]
        if not right:
            raise InvalidInput(
                f"{str(folder)!r} holds no image {'with' if there else 'without'} the concept {concept!r} that "
                f"could be judged, so the detector's {name} is not known"
            )
        value, interval = sum(right) / len(right), wilson(sum(right), len(right))
        found.append(Score(metric=name, value=value, direction="up", interval=interval, n_scored=len(right)))
    sensitivity, specificity = found
    value, unclipped, interval = rogan_gladen(
        (judged.value, effective_number(judged)),
        (sensitivity.value, sensitivity.n_scored),
        (specificity.value, specificity.n_scored),
    )
    return Score(
        metric="corrected",
        value=value,
        direction=judged.direction,
        interval=interval,
        n_scored=judged.n_scored,
        n_unscored=judged.n_unscored,
        reasons=judged.reasons,
        parts={"sensitivity": sensitivity, "specificity": specificity, "unclipped": unclipped},
    )


def rogan_gladen(
    rate: tuple[float, float], sensitivity: tuple[float, float], specificity: tuple[float, float]
) -> tuple[float, float, Interval]:
    """Return the corrected share within [0, 1], the same before it is cut there, and its interval.

    Args:
        rate: share that the detector sees, and of how many images.
        sensitivity: share that it sees of those that show the concept, and of how many.
        specificity: share that it does not see of those that do not, and of how many.

    Raises:
        InvalidInput: sensitivity + specificity is at most 1: the detector tells nothing.
    """
    (p, n), (se, n_se), (sp, n_sp) = rate, sensitivity, specificity
    if se + sp <= 1:
        raise InvalidInput(
            f"a detector with sensitivity {se:.3g} and specificity {sp:.3g} sees the concept no more often where it "
            "is than where it is not: there is nothing to correct by"
        )
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    # The paper's adjusted estimates: a few made-up images on either side, as in Agresti and Coull.
    n_, se_, sp_ = n + z * z, (n_se * se + 1) / (n_se + 2), (n_sp * sp + 1) / (n_sp + 2)
    p_, youden = (n * p + z * z / 2) / n_, se_ + sp_ - 1
    value = (p + sp - 1) / (se + sp - 1)
    clipped = min(1.0, max(0.0, value))
    if youden <= 0:
        return clipped, value, Interval(low=0.0, high=1.0, level=LEVEL, how="Lang and Reiczigel")
    middle = (p_ + sp_ - 1) / youden
    of_se, of_sp = se_ * (1 - se_) / (n_se + 2), sp_ * (1 - sp_) / (n_sp + 2)
    shift = 2 * z * z * (middle * of_se - (1 - middle) * of_sp)
    error = math.sqrt(p_ * (1 - p_) / n_ + middle**2 * of_se + (1 - middle) ** 2 * of_sp) / youden
    low, high = (min(1.0, max(0.0, middle + shift + side * z * error)) for side in (-1, 1))
    interval = Interval(low=min(low, clipped), high=max(high, clipped), level=LEVEL, how="Lang and Reiczigel")
    return clipped, value, interval
