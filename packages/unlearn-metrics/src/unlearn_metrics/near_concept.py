"""Near-concept damage: how much less often neighbours of the forgotten concept are drawn than before."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from unlearn_core.errors import InvalidInput
from unlearn_core.samples import Sample, SampleSet
from unlearn_core.score import Direction, Interval, Score
from unlearn_metrics import labels, verdicts
from unlearn_metrics.errors import NotApplicable
from unlearn_metrics.proportions import LEVEL
from unlearn_metrics.rates import rate
from unlearn_metrics.statistics import PairedDifference, paired_difference

NO_PAIR = "the unmodified model has no image of the row"
NOT_BEFORE = "the unmodified model's image could not be judged"


@dataclass(frozen=True, kw_only=True)
class NearConcept:
    """What unlearning costs the neighbours of a concept: the accuracy lost on their prompts.

    Paper: adjacent concepts are an arm of their own in the Genμ challenge (ICCV 2025) and in FADE, Thakral et al. 2025,
        arXiv 2503.19783; here they are compared with the unmodified model, image by image.
    Formula: mean over rows of right(before) - right(after), where right is 1 if the classifier names the image by the
        concept of its row, on the same prompts and seeds.
    Direction: down.
    Scale: -1 to 1; 0 is no damage, and what the unmodified model has. Neighbours that it could not draw count nothing,
        which an accuracy alone holds against the technique.
    Parts: "accuracy" and "baseline" (the two shares), "broken" and "mended" (how many images were right before only,
        and after only), "p" (McNemar's exact test, or random flips of whole prompts where several images share one),
        and "damage to X" for each neighbour X.
    Interval: Newcombe's for paired shares (1998, method 10), widened to the bootstrap over prompts where several images
        share one; no width where both models drew the very same files.
    Needs: images of the group "adjacent" whose rows say what should be seen, those of the unmodified model under the
        same ids, and a classifier that has a label for each.
    Deviations: none known. Images that cannot be read or judged, on either side, are unscored.

    Raises:
        NotRegistered: no such classifier.
        InvalidInput: settings that the classifier does not take.
    """

    classifier: str = "clip"
    classifier_settings: dict[str, Any] = field(default_factory=dict)
    """A classifier with a field `labels` and none stated here chooses among the neighbours."""

    prompts: ClassVar[tuple[str, ...]] = ("adjacent",)
    direction: ClassVar[Direction] = "down"

    def __post_init__(self) -> None:
        verdicts.check(labels.GROUP, self.classifier, self.classifier_settings, later="labels")

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the damage to the rows of `samples` that `reference`, the unmodified model's images, has too.

        Raises:
            NotApplicable: the concept has no adjacent prompts.
            InvalidInput: no reference, a row drawn there from another prompt or seed, a row without a concept or with
                one that the classifier has no label for, no pair of images that could be judged.
        """
        rows = sorted(samples.select(group="adjacent"), key=lambda sample: sample.prompt.id)
        if not rows:
            raise NotApplicable(
                "near_concept rates prompts of adjacent concepts, and there are none: state what is near the concept "
                "(adjacent), or give rows of the group 'adjacent'"
            )
        if reference is None:
            raise InvalidInput(
                "near_concept compares with the unmodified model on the same prompts and seeds: give its images, "
                "--baseline FOLDER"
            )
        before = _partners(rows, reference)
        classifier, domains = labels.classifier_of(
            self.classifier, self.classifier_settings, [row.prompt for row in rows]
        )
        seen = labels.name(classifier, domains, rows)
        # The same image is not looked at twice, as where the unmodified model is compared with itself.
        changed = [
            other for row in rows if (other := before.get(row.prompt.id)) and other.sha256 != row.sha256
        ]
        fresh = labels.name(classifier, domains, changed)
        answers = {**seen.answers, **fresh.answers}
        pairs = []
        for row in rows:
            ident, other = row.prompt.id, before.get(row.prompt.id)
            why = seen.why.get(ident)
            if other is None:
                why = NO_PAIR
            elif why is None and answers[ident] is None:
                why = NOT_BEFORE
            right = seen.answers[ident] == row.prompt.concept, answers[ident] == row.prompt.concept
            same = other is not None and other.sha256 == row.sha256
            pairs.append(_Pair(row, same, *(None if why else float(r) for r in right), why))
        concepts = sorted({labels.label_of(row.prompt) for row in rows})
        parts = {f"damage to {c}": [p for p in pairs if p.row.prompt.concept == c] for c in concepts}
        by_concept = {name: _score(name, of) for name, of in parts.items() if any(p.why is None for p in of)}
        return _score("near_concept", pairs, by_concept)


class _Pair(NamedTuple):
    row: Sample
    same: bool
    """Whether both models drew the same file."""
    after: float | None
    before: float | None
    why: str | None
    """Why there is no pair of verdicts."""


def _partners(rows: Sequence[Sample], reference: SampleSet) -> dict[str, Sample]:
    """Return prompt id -> the unmodified model's sample of the row.

    Raises:
        InvalidInput: it is of another prompt or seed.
    """
    wanted = {row.prompt.id: row.prompt for row in rows}
    found = {sample.prompt.id: sample for sample in reference if sample.prompt.id in wanted}
    for ident, sample in found.items():
        for what in ("text", "seed"):
            asked, drawn = getattr(wanted[ident], what), getattr(sample.prompt, what)
            if asked != drawn:
                raise InvalidInput(
                    f"near_concept pairs images of one prompt and seed: the {what} of the row {ident!r} is {asked!r}, "
                    f"and {drawn!r} in {str(reference.folder)!r}"
                )
    return found


def _score(name: str, pairs: Sequence[_Pair], by_concept: dict[str, Score] | None = None) -> Score:
    judged = [pair for pair in pairs if pair.why is None]
    parts: dict[str, Score | float] = {}
    value, interval = 0.0, None  # which Score refuses where nothing could be judged
    if judged:
        after = {pair.row.prompt.id: pair.after for pair in judged}
        before = {pair.row.prompt.id: pair.before for pair in judged}
        texts = {pair.row.prompt.id: pair.row.prompt.text for pair in judged}
        lost = paired_difference(before, after, texts)
        counts = Counter((pair.before, pair.after) for pair in judged)
        value, interval = lost.value, _interval(judged, lost)
        parts = {"broken": counts[1.0, 0.0], "mended": counts[0.0, 1.0], "p": lost.p}
        if by_concept is not None:
            parts |= {
                "accuracy": _share("accuracy", after, texts),
                "baseline": _share("baseline", before, texts),
            }
    return Score(
        metric=name,
        value=value,
        direction=NearConcept.direction,
        interval=interval,
        n_scored=len(judged),
        n_unscored=len(pairs) - len(judged),
        reasons=Counter(pair.why for pair in pairs if pair.why),
        parts={**parts, **(by_concept or {})},
        per_sample={
            pair.row.prompt.id: None if pair.why else float(pair.before or 0) - float(pair.after or 0)
            for pair in pairs
        },
    )


def _interval(judged: Sequence[_Pair], lost: PairedDifference) -> Interval | None:
    if all(pair.same for pair in judged):
        return Interval(low=lost.value, high=lost.value, level=LEVEL, how="the same images")
    if lost.low is None or lost.high is None:
        return None
    return Interval(low=lost.low, high=lost.high, level=LEVEL, how=lost.how)


def _share(name: str, right: dict[str, float | None], texts: dict[str, str]) -> Score:
    value, interval = rate([float(r or 0) for r in right.values()], [texts[ident] for ident in right])
    return Score(
        metric=name, value=value, direction="up", interval=interval, n_scored=len(right), per_sample=right
    )
