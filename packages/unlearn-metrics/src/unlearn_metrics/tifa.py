"""TIFA: do images hold what their captions say, asked question by question?"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from unlearn_core.errors import InvalidInput
from unlearn_core.samples import Sample, SampleSet
from unlearn_core.score import Direction, Interval, Score
from unlearn_metrics import verdict_cache, verdicts
from unlearn_metrics.choices import Snap
from unlearn_metrics.groups import first_of
from unlearn_metrics.images import Array, batches
from unlearn_metrics.proportions import LEVEL, wilson_bounds
from unlearn_metrics.questions import Asked, Question, load_questions
from unlearn_metrics.rates import rate
from unlearn_metrics.statistics import mean_interval

GROUP = "unlearn.vqa"
BLANK = np.full((224, 224, 3), 128, np.uint8)
UNASKED = "no question is about this caption"

Answers = dict[str, dict[Question, str | None]]
"""Prompt id -> question -> the choice that was taken."""


@dataclass(frozen=True, kw_only=True)
class Tifa:
    """Share of questions about a caption that a VQA model answers rightly from the image.

    Paper: Hu et al. 2023, TIFA: Accurate and Interpretable Text-to-Image Faithfulness Evaluation with Question
        Answering, arXiv 2303.11897.
    Formula: mean over images of the mean over their questions of 1[choice taken = answer]; a free answer that is no
        choice takes the one whose sentence embedding is nearest.
    Direction: up.
    Scale: 0 to 1. Numbers of different VQA models or question files do not compare.
    Parts: "blank" (the same questions asked of a grey image: what guessing yields, much above 0 as most yes/no
        questions are answered by yes), "stdev" over images, "micro" and one for every kind of question (shares of
        questions), "questions", "snapped" (answers that were no choice) and "unanswered".
    Needs: images of the group "tifa" or, without these, "quality", whose texts the questions are about.
    Interval: bootstrap over captions; Wilson's where all images agree.
    Deviations: the paper prefers mPLUG-large, which today's libraries do not load; the default is BLIP, one of its
        other models. Numbers are compared as digits ("two" is "2"). Black images are unscored: they get every "no"
        right. An image without questions is unscored, too.

    Raises:
        NotRegistered: no such VQA model or sentence encoder.
        InvalidInput: settings that they do not take; no questions in the file.
        Unavailable: the question file cannot be read.
    """

    questions: str = ""
    """A file in TIFA v1.0's format, or a plugin of `unlearn.questions`."""
    vqa: str = "blip"
    vqa_settings: dict[str, Any] = field(default_factory=dict)
    sentences: str | None = "sbert"
    """What compares an answer with the choices; None: an answer that is no choice is wrong."""
    sentences_settings: dict[str, Any] = field(default_factory=dict)

    prompts: ClassVar[tuple[str, ...]] = ("tifa", "quality")
    """The first of these groups of which there are images is rated, and no other."""
    direction: ClassVar[Direction] = "up"

    def __post_init__(self) -> None:
        if not self.questions:
            raise InvalidInput(
                "tifa needs questions=FILE in TIFA v1.0's format, such as tifa_v1.0_question_answers.json of "
                "github.com/Yushi-Hu/tifa, or the name of a plugin such as pocket"
            )
        verdicts.check(GROUP, self.vqa, self.vqa_settings, later="")
        if self.sentences is not None:
            verdicts.check(Snap.GROUP, self.sentences, self.sentences_settings, later="")

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the score of `samples`, whose order changes nothing; no reference is needed.

        Raises:
            InvalidInput: no rows of either group, none that a question is about, a VQA model that does not give an
                answer for each question, none of the images could be judged.
            Unavailable: the model cannot be loaded.
            MissingExtra: its package is not installed.
        """
        rows = first_of("tifa", samples, self.prompts)
        asked = Asked(load_questions(self.questions))
        about = {row.prompt.id: asked.about(row.prompt) for row in rows}
        if not any(about.values()):
            raise InvalidInput(
                f"no question of {self.questions!r} is about one of the {len(rows)} captions, such as "
                f"{rows[0].prompt.text!r}"
            )
        vqa = verdicts.plug(GROUP, self.vqa, self.vqa_settings)
        snap = Snap.of(self.sentences, self.sentences_settings)
        free, why = _ask(vqa, [row for row in rows if about[row.prompt.id]], about)
        why |= {ident: UNASKED for ident, questions in about.items() if not questions}
        taken = {ident: snap(each) for ident, each in free.items()}
        snapped = snap.snapped  # without those on the blank image
        return _score(rows, taken, why, _blank(vqa, snap, taken), snapped)


def _ask(
    vqa: Any, rows: Sequence[Sample], about: Mapping[str, Sequence[Question]]
) -> tuple[Answers, dict[str, str]]:
    """Return the free answers by prompt id, and why there are none for others; those on disk are not asked for."""
    keys = {row.prompt.id: {q: f"{row.sha256} {q.text}" for q in about[row.prompt.id]} for row in rows}
    folder = verdict_cache.folder_of(verdict_cache.identity(vqa))
    kept = verdict_cache.stored(folder, {key for each in keys.values() for key in each.values()})
    found: Answers = {
        ident: {question: kept[key] for question, key in each.items()}
        for ident, each in keys.items()
        if kept.keys() >= set(each.values())
    }
    verdict_cache.count(reused=sum(map(len, found.values())))
    rows = [row for row in rows if row.prompt.id not in found]
    unreadable: dict[str, str] = {}
    why: dict[str, str] = {}
    for part, images in batches(rows, verdicts.BATCH, unreadable):
        shown = [(s.prompt.id, image) for s, image in zip(part, images, strict=True) if image.any()]
        why |= dict.fromkeys({s.prompt.id for s in part} - {i for i, _ in shown}, verdicts.BLOCKED)
        if shown:
            questions = [about[ident] for ident, _ in shown]
            answers = _answers(vqa, [image for _, image in shown], questions)
            new = {ident: answer for (ident, _), answer in zip(shown, answers, strict=True)}
            verdict_cache.count(computed=sum(map(len, new.values())))
            verdict_cache.store(folder, {keys[i][q]: a for i, each in new.items() for q, a in each.items()})
            found |= new
    why |= dict.fromkeys(unreadable, verdicts.UNREADABLE)
    return found, why


def _answers(
    vqa: Any, images: list[Array], questions: Sequence[Sequence[Question]]
) -> list[dict[Question, str | None]]:
    answers = vqa.answer(images, [[question.text for question in each] for each in questions])
    if [len(each) for each in answers] != [len(each) for each in questions]:
        raise InvalidInput("a VQA model gives one answer for each question of each image")
    return [dict(zip(q, a, strict=True)) for q, a in zip(questions, answers, strict=True)]


def _blank(vqa: Any, snap: Snap, taken: Answers) -> float:
    """Return what the questions of the images in `taken` yield on an image that shows nothing."""
    every = list(dict.fromkeys(question for each in taken.values() for question in each))
    if not every:
        return 0.0
    (free,) = _answers(vqa, [BLANK], [every])
    blank = snap(free)
    means = [_mean({q: blank[q] for q in each}) for each in taken.values()]
    judged = [mean for mean in means if mean is not None]
    return statistics.fmean(judged) if judged else 0.0


def _mean(answers: Mapping[Question, str | None]) -> float | None:
    right = _right(answers)
    return statistics.fmean(right) if right else None


def _right(answers: Mapping[Question, str | None]) -> list[float]:
    return [float(choice == question.answer) for question, choice in answers.items() if choice is not None]


def _score(
    rows: Sequence[Sample], taken: Answers, why: Mapping[str, str], blank: float, snapped: int
) -> Score:
    values = {row.prompt.id: _mean(taken.get(row.prompt.id, {})) for row in rows}
    judged = {row.prompt.id: row.prompt.text for row in rows if values[row.prompt.id] is not None}
    means = [value for ident in judged if (value := values[ident]) is not None]
    reasons = Counter(why.get(i, verdicts.UNDECIDED) for i, value in values.items() if value is None)
    every = [(q, taken[i][q], text) for i, text in judged.items() for q in taken[i]]
    parts: dict[str, Score | float] = {
        "blank": blank,
        "stdev": statistics.stdev(means) if len(means) > 1 else 0.0,
        "questions": len(every),
        "snapped": snapped,
        "unanswered": sum(choice is None for _, choice, _ in every),
    }
    if every:
        parts["micro"] = _share("micro", every)
    for kind in sorted({question.kind for question, _, _ in every}):
        of_kind = [each for each in every if each[0].kind == kind]
        if any(choice is not None for _, choice, _ in of_kind):
            parts[kind] = _share(kind, of_kind)
    return Score(
        metric="tifa",
        value=statistics.fmean(means) if means else 0.0,  # Score refuses a value of no images
        direction=Tifa.direction,
        interval=_interval(means, list(judged.values())) if means else None,
        n_scored=len(means),
        n_unscored=len(rows) - len(means),
        reasons=reasons,
        parts=parts,
        per_sample=values,
    )


def _interval(means: list[float], texts: list[str]) -> Interval | None:
    if min(means) < max(means):
        return mean_interval(means, texts)
    # The bootstrap of images that agree claims certainty; a score in [0, 1] spreads no more than hits do.
    low, high = wilson_bounds(means[0], len(set(texts)))
    return Interval(low=low, high=high, level=LEVEL, how="wilson, as all images agree")


def _share(name: str, asked: Iterable[tuple[Question, str | None, str]]) -> Score:
    """Return the share of questions with the right answer; those about one caption vary together."""
    asked = list(asked)
    judged = [(float(choice == q.answer), text) for q, choice, text in asked if choice is not None]
    value, interval = rate(*zip(*judged, strict=True))
    n_unscored = len(asked) - len(judged)
    return Score(
        metric=name, value=value, direction=Tifa.direction, interval=interval, n_scored=len(judged),
        n_unscored=n_unscored, reasons={verdicts.UNDECIDED: n_unscored} if n_unscored else {},
    )  # fmt: skip
