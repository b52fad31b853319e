"""Judges: who says whether a concept is in a picture, how far several agree, and what their errors do to a rate.

A judge is any `unlearn_core.protocols.Detector`, found by its entry point `unlearn.detectors`: the yes/no question to a
vision-language model, CLIP, a classifier, pocket-sd's judge.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from genmu_eval.err import LEVEL, Estimate
from unlearn_core.errors import InvalidInput
from unlearn_core.protocols import Detector

Answers = Sequence[bool | None]
"""Present or not, by picture; None where it could not be judged."""


def answers(judge: Detector, images: Sequence[Any], *, threshold: float = 0.5) -> list[bool | None]:
    """Return whether the judge's concept is in each image: its confidence is at least `threshold`.

    Raises:
        InvalidInput: a threshold outside (0, 1], not one answer per image.
    """
    if not 0 < threshold <= 1:
        raise InvalidInput(f"a threshold is in (0, 1], got {threshold}")
    found = judge.presence(images)
    if len(found) != len(images):
        raise InvalidInput(f"the judge gave {len(found)} answers to {len(images)} images")
    return [None if confidence is None else confidence >= threshold for confidence in found]


def majority(panel: Mapping[str, Answers]) -> list[bool | None]:
    """Return what most judges of a panel saw in each picture; None without an answer or on a draw.

    Raises:
        InvalidInput: no judge, or not as many answers.
    """
    votes = [[a for a in row if a is not None] for row in zip(*_table(panel), strict=True)]
    return [None if 2 * sum(v) == len(v) else 2 * sum(v) > len(v) for v in votes]


def cohen_kappa(a: Answers, b: Answers) -> float:
    """Return the agreement of two judges beyond chance, on the pictures both answered; 1 is full agreement.

    ``(p_o - p_e) / (1 - p_e)`` (J. Cohen, Educational and Psychological Measurement 20, 1960). Judges who both always
    say the same one thing agree fully and prove nothing: that is 1 here, where the formula is 0 / 0.

    Raises:
        InvalidInput: not as many answers, or none in common.
    """
    rows = zip(*_table({"a": a, "b": b}), strict=True)
    pairs = np.array([row for row in rows if None not in row], np.float64).reshape(-1, 2)
    if not len(pairs):
        raise InvalidInput("the two judges answered no picture in common")
    observed, (p, q) = float((pairs[:, 0] == pairs[:, 1]).mean()), pairs.mean(0)
    chance = float(p * q + (1 - p) * (1 - q))
    return 1.0 if chance == 1 else (observed - chance) / (1 - chance)


def fleiss_kappa(panel: Mapping[str, Answers]) -> float:
    """Return the agreement of a panel beyond chance, on the pictures that all answered.

    J. L. Fleiss, Psychological Bulletin 76, 1971.

    Raises:
        InvalidInput: fewer than two judges, not as many answers, no picture that all answered.
    """
    table = _table(panel)
    n = len(table)
    yes = np.array([sum(row) for row in zip(*table, strict=True) if None not in row], np.float64)
    if n < 2 or not len(yes):
        raise InvalidInput(
            f"agreement takes two judges and a picture that all answered, got {n} and {len(yes)}"
        )
    within = (yes * (yes - 1) + (n - yes) * (n - yes - 1)) / (n * (n - 1))
    p = float(yes.mean()) / n
    chance = p * p + (1 - p) * (1 - p)
    return 1.0 if chance == 1 else (float(within.mean()) - chance) / (1 - chance)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a judge said of pictures whose content is known.

    Raises:
        InvalidInput: counts that cannot be.
    """

    seen: int
    """Of the pictures with the concept, those it saw it in."""
    with_concept: int
    clear: int
    """Of the pictures without, those it did not see it in."""
    without_concept: int

    def __post_init__(self) -> None:
        for hits, n in ((self.seen, self.with_concept), (self.clear, self.without_concept)):
            if not 0 <= hits <= n or n < 1:
                raise InvalidInput(f"a calibration has 0 <= right answers <= pictures > 0, got {hits} of {n}")

    @property
    def sensitivity(self) -> float:
        """Share of the pictures with the concept that it saw it in."""
        return self.seen / self.with_concept

    @property
    def specificity(self) -> float:
        """Share of the pictures without that it did not see it in."""
        return self.clear / self.without_concept


def corrected(present: int, n: int, calibration: Calibration) -> Estimate:
    """Return the share of pictures that do show the concept, where a judge of known errors saw it in `present` of `n`.

    ``(p + Sp - 1) / (Se + Sp - 1)``, kept within [0, 1] (W. J. Rogan, B. Gladen, American Journal of Epidemiology 107,
    1978), with the interval of Z. Lang and J. Reiczigel (Preventive Veterinary Medicine 113, 2014), which also counts
    how uncertain sensitivity and specificity are.

    Raises:
        InvalidInput: counts that cannot be, or a judge no better than chance (Se + Sp <= 1).
    """
    if not 0 <= present <= n or n < 1:
        raise InvalidInput(f"a rate has 0 <= present <= n and n > 0, got {present} of {n}")
    c, z = calibration, NormalDist().inv_cdf((1 + LEVEL) / 2)
    if c.sensitivity + c.specificity <= 1:
        raise InvalidInput(
            f"a judge with sensitivity {c.sensitivity:.2f} and specificity {c.specificity:.2f} is no better than "
            "chance; its answers cannot be corrected"
        )
    value = (present / n + c.specificity - 1) / (c.sensitivity + c.specificity - 1)
    # Lang and Reiczigel add z²/2 to each half of the prevalence counts and one to each half of the calibration's.
    n_, p_ = n + z * z, (present + z * z / 2) / (n + z * z)
    se, sp = (c.seen + 1) / (c.with_concept + 2), (c.clear + 1) / (c.without_concept + 2)
    youden = se + sp - 1
    clipped = min(1.0, max(0.0, value))
    if youden <= 0:
        return Estimate(value=clipped, low=0.0, high=1.0)
    middle = (p_ + sp - 1) / youden
    of_se, of_sp = se * (1 - se) / (c.with_concept + 2), sp * (1 - sp) / (c.without_concept + 2)
    shift = 2 * z * z * (middle * of_se - (1 - middle) * of_sp)
    half = z * math.sqrt(p_ * (1 - p_) / n_ + middle**2 * of_se + (1 - middle) ** 2 * of_sp) / youden
    low, high = (min(1.0, max(0.0, middle + shift + side * half)) for side in (-1, 1))
    return Estimate(value=clipped, low=min(low, clipped), high=max(high, clipped))


@dataclass(frozen=True, kw_only=True)
class FixedJudge:
    """A judge for tests: says what it was told to say of a picture, and `otherwise` of any other."""

    known: Mapping[str, float | None] = field(default_factory=dict)
    """`picture_key` -> confidence."""
    otherwise: float | None = 0.0
    revision: str = "fixed"

    def presence(self, images: Sequence[Any]) -> list[float | None]:
        """Return the confidence of each image (h, w, 3) uint8."""
        return [self.known.get(picture_key(image), self.otherwise) for image in images]


def picture_key(image: Any) -> str:
    """Return the sha256 of the shape and the bytes of an image."""
    array = np.ascontiguousarray(image)
    return hashlib.sha256(f"{array.shape} {array.dtype} ".encode() + array.tobytes()).hexdigest()


def _table(panel: Mapping[str, Answers]) -> list[Answers]:
    table = list(panel.values())
    if not table or len({len(answers) for answers in table}) != 1:
        lengths = ", ".join(f"{name} {len(answers)}" for name, answers in panel.items())
        raise InvalidInput(f"a panel has an answer per judge and picture, got {lengths or 'no judge'}")
    return table
