"""The rows that a metric rates."""

from collections.abc import Sequence

from unlearn_core.errors import InvalidInput
from unlearn_core.samples import Sample, SampleSet


def of_groups(metric: str, samples: SampleSet, groups: Sequence[str]) -> list[Sample]:
    """Return the samples whose prompt is of one of `groups`, sorted by its id.

    Lines of a folder stand in the order in which processes made the images: no number may depend on it.

    Raises:
        InvalidInput: there are none; the message names the groups that there are.
    """
    found = [sample for sample in samples if sample.prompt.group in groups]
    if not found:
        there = ", ".join(sorted({sample.prompt.group for sample in samples})) or "no images at all"
        wanted = " or ".join(repr(group) for group in groups)
        raise InvalidInput(
            f"{metric} rates images of the group {wanted}; in {str(samples.folder)!r}: {there}"
        )
    return sorted(found, key=lambda sample: sample.prompt.id)


def first_of(metric: str, samples: SampleSet, groups: Sequence[str]) -> list[Sample]:
    """Return the samples of the first of `groups` of which there are any, and of no other; sorted by id.

    Raises:
        InvalidInput: there are none of any.
    """
    found = of_groups(metric, samples, groups)
    group = min((sample.prompt.group for sample in found), key=list(groups).index)
    return [sample for sample in found if sample.prompt.group == group]
