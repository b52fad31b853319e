"""Unlearning, in-domain retaining and cross-domain retaining accuracy: UA, IRA, CRA."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt
from unlearn_core.samples import SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics import labels, verdicts
from unlearn_metrics.groups import of_groups
from unlearn_metrics.rates import weighted_rate


@dataclass(frozen=True, kw_only=True)
class UaIra:
    """Whether a classifier sees what should be there, and not what was unlearned.

    Paper: Zhang et al. 2024, UnlearnCanvas: A Stylized Image Dataset to Benchmark Machine Unlearning for
        Diffusion Models, arXiv 2402.11846.
    Formula: (UA + IRA) / 2 with UA = 1 - accuracy on images of the target, and IRA the mean over the other
        labels of its domain of the accuracy on theirs.
    Direction: up.
    Scale: 0 to 1; the unmodified model has about 0.5. UA alone rewards noise.
    Parts: "UA", "IRA", "adjacent" (those rows of IRA that show near concepts) and "CRA" (the mean over the
        labels of other domains), the last two where there are such rows. Each is a mean over labels with its
        own Wilson interval, counts and per-sample values; counts and values of the whole are of all rows.
    Needs: images of the group "target" and of "adjacent" or "retain", whose rows say what should be seen; a
        classifier that has a label for each.
    Deviations: a target of several labels (pocket's "weapon") is unlearned where none of them is seen. Rows
        are any prompts with a label, not the full grid of 51 styles and 20 objects. An image that cannot be
        read or judged is unscored. 1.0 of a sample means as it should be.

    Raises:
        NotRegistered: no such classifier.
        InvalidInput: settings that the classifier does not take.
    """

    classifier: str = "clip"
    classifier_settings: dict[str, Any] = field(default_factory=dict)
    """A classifier with a field `labels` and none stated here chooses among the concepts of the rows."""

    prompts: ClassVar[tuple[str, ...]] = ("target", "adjacent", "retain", "style")
    """Only the target and one of adjacent and retain must be there."""
    direction: ClassVar[Direction] = "up"

    def __post_init__(self) -> None:
        verdicts.check(labels.GROUP, self.classifier, self.classifier_settings, later="labels")

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the score of `samples`, whose order changes nothing; no reference is needed.

        Raises:
            InvalidInput: no target rows, or none to retain in their domain; a row without a concept, or with one
                that the classifier has no label for; a part none of whose images could be judged.
        """
        of_groups("ua_ira", samples, ("target",))
        found = sorted(of_groups("ua_ira", samples, self.prompts), key=lambda sample: sample.prompt.id)
        prompts = [sample.prompt for sample in found]
        classifier, domains = labels.classifier_of(self.classifier, self.classifier_settings, prompts)
        targets = {labels.label_of(prompt) for prompt in prompts if prompt.group == "target"}
        if len(own := {domains[label] for label in targets}) > 1:
            raise InvalidInput(f"the target's labels {sorted(targets)} lie in several domains: {sorted(own)}")
        arms = [_arm(prompt, targets, domains[labels.label_of(prompt)] in own) for prompt in prompts]
        if "IRA" not in arms:
            raise InvalidInput(
                "ua_ira needs images of the group 'adjacent' or 'retain' with another label of the target's "
                f"domain {own.pop()!r}; there are none"
            )
        answers, why = labels.name(classifier, domains, found)
        rows = []
        for prompt, arm in zip(prompts, arms, strict=True):
            answer = answers[prompt.id]
            right = answer not in targets if arm == "UA" else answer == prompt.concept
            rows.append(_Row(prompt, arm, None if answer is None else float(right), why.get(prompt.id)))
        parts = {arm: [row for row in rows if row.arm == arm] for arm in ("UA", "IRA", "CRA")}
        parts["adjacent"] = [row for row in parts["IRA"] if row.prompt.group == "adjacent"]
        scores = {name: _score(name, part, arms=1) for name, part in parts.items() if part}
        return _score("ua_ira", rows, arms=2, parts=scores)


class _Row(NamedTuple):
    prompt: Prompt
    arm: str
    right: float | None
    """1.0: as it should be; None: could not be judged."""
    why: str | None


def _score(name: str, rows: Sequence[_Row], *, arms: int, parts: Mapping[str, Score] | None = None) -> Score:
    """Return the mean over `arms` arms of the mean over labels of the accuracy; that of two leaves out CRA.

    A label none of whose images could be judged is in no mean, only among the reasons.
    """
    judged = [row for row in rows if row.right is not None]
    counted = [row for row in judged if arms == 1 or row.arm != "CRA"]
    n_labels = Counter(arm for arm, _ in {(row.arm, row.prompt.concept) for row in counted})
    value, interval = 0.0, None  # which Score refuses where nothing could be judged
    if counted:
        value, interval = weighted_rate(
            [row.right for row in counted],
            [row.prompt.text for row in counted],
            [f"{row.arm} {row.prompt.concept}" for row in counted],
            {f"{row.arm} {row.prompt.concept}": 1 / arms / n_labels[row.arm] for row in counted},
        )
    return Score(
        metric=name,
        value=value,
        direction=UaIra.direction,
        interval=interval,
        n_scored=len(judged),
        n_unscored=len(rows) - len(judged),
        reasons=Counter(row.why for row in rows if row.why),
        parts=parts or {},
        per_sample={row.prompt.id: row.right for row in rows},
    )


def _arm(prompt: Prompt, targets: set[str], same_domain: bool) -> str:
    if prompt.group == "target":
        return "UA"
    if prompt.concept in targets:
        raise InvalidInput(
            f"the row {prompt.id!r} of the group {prompt.group!r} has the target's label {prompt.concept!r}: "
            "what is unlearned cannot be retained"
        )
    return "IRA" if same_domain else "CRA"
