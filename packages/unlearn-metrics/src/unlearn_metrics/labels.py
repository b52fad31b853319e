"""What a classifier calls the images of rows that say what should be seen."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.prompts import Prompt
from unlearn_core.samples import Sample
from unlearn_metrics import verdict_cache, verdicts

GROUP = "unlearn.classifiers"


def classifier_of(
    name: str, settings: Mapping[str, Any], prompts: Sequence[Prompt]
) -> tuple[Any, dict[str, str]]:
    """Return the classifier `name`, and label -> its domain for every label of `prompts`.

    One with a setting `labels` that is not stated chooses among the labels of the rows.

    Raises:
        InvalidInput: a row without a concept, one that the classifier has no label for, settings it does not take.
    """
    sets = _label_sets(prompts)
    classifier = verdicts.plug(GROUP, name, settings, labels=sets)
    every = sorted({label for labels in sets.values() for label in labels})
    return classifier, _domains(classifier.domains, every)


def name(classifier: Any, domains: Mapping[str, str], samples: Sequence[Sample]) -> verdicts.Verdicts[str]:
    """Return what `classifier` calls the image of each of `samples`, in the domain of the row's own label.

    Raises:
        InvalidInput: it answers with what is no label of the domain.
    """
    found: verdicts.Verdicts[str] = verdicts.Verdicts({}, {})
    for domain in sorted(set(domains.values())):
        here = [sample for sample in samples if domains[label_of(sample.prompt)] == domain]
        by = verdict_cache.identity(classifier, domain)
        verdict = verdicts.ask(here, functools.partial(_names, classifier, domain), by=by)
        found.answers.update(verdict.answers)
        found.why.update(verdict.why)
    return found


def label_of(prompt: Prompt) -> str:
    """Return what should be seen.

    Raises:
        InvalidInput: the row does not say.
    """
    if prompt.concept is None:
        raise InvalidInput(
            f"the row {prompt.id!r} of the group {prompt.group!r} has no concept: what should be seen?"
        )
    return prompt.concept


def _names(classifier: Any, domain: str, images: list[Any]) -> Sequence[str | None]:
    answers: Sequence[str | None] = classifier.classify(images, domain)
    for answer in answers:
        if answer is not None and answer not in classifier.domains[domain]:
            raise InvalidInput(
                f"the classifier answers {answer!r}, which is no label of its domain {domain!r}"
            )
    return answers


def _label_sets(prompts: Iterable[Prompt]) -> dict[str, tuple[str, ...]]:
    """Return the labels of the rows, those of the group "style" as a domain of their own."""
    found: dict[str, set[str]] = {}
    for prompt in prompts:
        found.setdefault("style" if prompt.group == "style" else "concept", set()).add(label_of(prompt))
    return {domain: tuple(sorted(labels)) for domain, labels in found.items()}


def _domains(domains: Mapping[str, Sequence[str]], labels: Iterable[str]) -> dict[str, str]:
    """Return the domain of each of `labels`."""
    found = {}
    for label in labels:
        having = [domain for domain, known in domains.items() if label in known]
        if not having:
            known = sorted({label for labels in domains.values() for label in labels})
            raise InvalidInput("the classifier cannot name a row's concept: " + one_of("label", label, known))
        if len(having) > 1:
            raise InvalidInput(f"the label {label!r} is one of several domains: {', '.join(having)}")
        found[label] = having[0]
    return found
