"""Tables and judges whose score is known beforehand, for tests here and in what builds on this package."""

from collections.abc import Mapping

from genmu_eval.table import AXES, PRESERVED, Judgement


def judged(concept: str, axis: str, successes: int, images: int) -> list[Judgement]:
    """Return `images` judgements of which the first `successes` succeed."""
    kept = axis in PRESERVED
    return [
        Judgement(concept=concept, axis=axis, image=f"{i:03}", present=(i < successes) == kept)
        for i in range(images)
    ]


def table_of(rates: Mapping[str, Mapping[str, float]], images: Mapping[str, int]) -> list[Judgement]:
    """Return judgements with the success rates concept -> axis -> rate, `images` (by axis) of each."""
    return [
        row
        for concept, by_axis in rates.items()
        for axis in AXES
        for row in judged(concept, axis, round(by_axis[axis] * images[axis]), images[axis])
    ]
