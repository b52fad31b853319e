"""TIFA against the sample of its authors' repository, and with judges whose answers are known."""

import json
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from scipy import stats

from unlearn_core import spec
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.protocols import Metric
from unlearn_metrics import verdicts
from unlearn_metrics.choices import Snap, plain
from unlearn_metrics.questions import VQA, Asked, load_questions
from unlearn_metrics.tifa import UNASKED, Tifa

SURFER = "On a gray day a surfer carrying a white board walks on a beach."
CATS = "Three cats and two dogs sitting on the grass."
# Kind, choices, right answer, free answer of mPLUG, and the choice taken for it: sample/sample_question_answers.json
# and sample/sample_evaluation_result.json of github.com/Yushi-Hu/tifa at eb3a0fb (Apache-2.0), questions numbered.
SAMPLE = [
    (SURFER, "animal/human", "yes no", "yes", "yes", "yes"),
    (SURFER, "animal/human", "surfer swimmer diver skier", "surfer", "surfer", "surfer"),
    (SURFER, "object", "yes no", "yes", "yes", "yes"),
    (SURFER, "location", "yes no", "yes", "yes", "yes"),
    (SURFER, "location", "beach park forest mountain", "beach", "beach", "beach"),
    (SURFER, "activity", "yes no", "yes", "yes", "yes"),
    (SURFER, "activity", "yes no", "yes", "yes", "yes"),
    (SURFER, "color", "yes no", "yes", "yes", "yes"),
    (SURFER, "color", "gray black red blue", "gray", "gray", "gray"),
    (SURFER, "color", "yes no", "yes", "yes", "yes"),
    (SURFER, "color", "white black red blue", "white", "white", "white"),
    (CATS, "animal/human", "yes no", "yes", "yes", "yes"),
    (CATS, "animal/human", "yes no", "yes", "no", "no"),
    (CATS, "object", "yes no", "yes", "yes", "yes"),
    (CATS, "object", "grass leaves twigs sand", "grass", "grass", "grass"),
    (CATS, "activity", "yes no", "yes", "yes", "yes"),
    (CATS, "counting", "1 2 3 4", "3", "3", "3"),
    (CATS, "counting", "yes no", "yes", "no", "no"),
    (CATS, "counting", "1 2 3 4", "2", "0", "1"),
]
BY_KIND = {"animal/human": 0.75, "object": 1, "location": 1, "activity": 1, "color": 1, "counting": 1 / 3}


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """Gives the answer that stands under the question; a grey image (the blank one) is always "yes"."""

    answers: dict[str, str | None] = field(default_factory=dict)
    revision: str = "1"

    def answer(self, images, questions):
        return [
            ["yes" if (image == 128).all() else self.answers.get(q) for q in each]
            for image, each in zip(images, questions, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Embeds a number near its neighbours, and counts how often it is asked."""

    revision: str = "1"
    asked: ClassVar[list] = []

    def embed(self, texts):
        self.asked.append(texts)
        angles = np.array([float(t) if t.isdigit() else 60.0 for t in texts]) / 20
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def mapping(caption, number, choices, answer, kind="object", ident="x"):
    return {
        "id": ident, "caption": caption, "question": f"question {number}?", "choices": choices.split(),
        "answer": answer, "element_type": kind, "element": "ignored",
    }  # fmt: skip


@pytest.fixture
def questions(tmp_path):
    def write(*mappings, name="questions.json"):
        path = tmp_path / name
        path.write_text(json.dumps(list(mappings)), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def tifa(plugs):
    """Return a function from a question file and the judge's answers to the metric."""
    plugs |= {"lookup": Lookup, "digits": Digits}
    Digits.asked.clear()

    def make(path, answers, sentences="digits"):
        return Tifa(questions=path, vqa="lookup", vqa_settings={"answers": answers}, sentences=sentences)

    return make


def test_the_sample_of_its_authors(tifa, questions, sample_set, pictures):
    path = questions(*(mapping(s[0], i, s[2], s[3], s[1]) for i, s in enumerate(SAMPLE)))
    metric = tifa(path, {f"question {i}?": s[4] for i, s in enumerate(SAMPLE)})
    score = metric.measure(sample_set(pictures(2), [SURFER, CATS], group="tifa"))
    assert isinstance(metric, Metric) and isinstance(Lookup(), VQA)
    assert score.value == 0.8125
    assert score.parts["stdev"] == pytest.approx(0.2651650429449553)
    assert list(score.per_sample.values()) == [1, 0.625]
    assert {kind: score.parts[kind].value for kind in BY_KIND} == pytest.approx(BY_KIND)
    assert (score.parts["questions"], score.parts["snapped"]) == (19, 1)
    assert score.parts["micro"].value == pytest.approx(16 / 19)
    assert Digits.asked[0] == ["0", "1", "2", "3", "4"]
    assert all(
        texts[0] == "yes" for texts in Digits.asked[1:]
    )  # the blank image's; all other answers were choices


def test_captions_count_alike_whatever_their_number_of_questions(tifa, questions, sample_set, pictures):
    path = questions(
        mapping("a", 0, "yes no", "yes"), *(mapping("b", i, "yes no", "yes") for i in range(1, 10))
    )
    metric = tifa(path, {"question 0?": "yes", **{f"question {i}?": "no" for i in range(1, 10)}})
    score = metric.measure(sample_set(pictures(2), ["a", "b"]))
    assert (score.value, score.parts["micro"].value) == (0.5, 0.1)


@pytest.mark.parametrize(("said", "value"), [("yes", 1), ("no", 0)])
def test_an_oracle_and_its_contrary(tifa, questions, sample_set, pictures, said, value):
    path = questions(mapping("a", 0, "yes no", "yes"), mapping("a", 1, "yes no", "yes"))
    score = tifa(path, dict.fromkeys(["question 0?", "question 1?"], said)).measure(
        sample_set(pictures(1), ["a"])
    )
    assert score.value == value


def test_images_that_agree_are_not_certain(tifa, questions, sample_set, pictures):
    path = questions(mapping("a", 0, "yes no", "yes"), mapping("b", 0, "yes no", "yes"))
    score = tifa(path, {"question 0?": "yes"}).measure(sample_set(pictures(4), ["a", "b", "a", "b"]))
    expected = stats.binomtest(2, 2).proportion_ci(method="wilson")
    assert (score.interval.low, score.interval.high) == pytest.approx((expected.low, 1))


def test_what_a_blank_image_gets_is_reported(tifa, questions, sample_set, pictures):
    """A judge that sees nothing and says yes is right on most yes/no questions."""
    asked = [mapping("a", i, "yes no", "yes") for i in range(3)] + [mapping("a", 3, "blue red", "red")]
    score = tifa(questions(*asked), {"question 0?": "no"}).measure(sample_set(pictures(1), ["a"]))
    assert score.parts["blank"] == pytest.approx(3 / 4)
    assert score.parts["unanswered"] == 3 and score.value == 0


def test_an_answer_that_is_no_choice(tifa, questions, sample_set, pictures):
    path = questions(
        mapping("a", 0, "1 2 3", "2"), mapping("a", 1, "1 2 3", "2"), mapping("a", 2, "1 4", "4")
    )
    answers = {"question 0?": "Two.", "question 1?": "2", "question 2?": "5"}
    samples = sample_set(pictures(1), ["a"])
    assert tifa(path, answers).measure(samples).value == 1
    exact = tifa(path, answers, sentences=None).measure(samples)
    assert exact.value == pytest.approx(2 / 3) and exact.parts["snapped"] == 1


@pytest.mark.parametrize(
    ("text", "expected"), [(" Yes ", "yes"), ("two dogs", "2 dogs"), ("Twelve.", "12"), ("a.b", "a.b")]
)
def test_plain_texts(text, expected):
    assert plain(text) == expected


def test_what_cannot_be_judged_is_unscored(tifa, questions, sample_set, pictures, damage):
    images = [*pictures(3), np.zeros((8, 8, 3), np.uint8), *pictures(1, seed=9)]
    samples = damage(sample_set(images, ["a", "b", "nothing about it", "a", "a"]), 4)
    path = questions(mapping("a", 0, "yes no", "yes"), mapping("b", 1, "yes no", "yes"))
    score = tifa(path, {"question 0?": "yes"}).measure(samples)
    assert (score.value, score.n_scored) == (1, 1)
    assert score.reasons == {
        verdicts.UNDECIDED: 1, UNASKED: 1, verdicts.BLOCKED: 1, verdicts.UNREADABLE: 1,
    }  # fmt: skip
    with pytest.raises(InvalidInput, match="no sample could be judged"):
        tifa(path, {}).measure(samples)
    with pytest.raises(
        InvalidInput, match="no question of .* is about one of the 1 captions, such as 'other'"
    ):
        tifa(path, {}).measure(sample_set(pictures(1), ["other"]))


def test_a_judge_that_counts_wrongly_is_refused(tifa, questions, sample_set, pictures, monkeypatch):
    metric = tifa(questions(mapping("a", 0, "yes no", "yes")), {})
    monkeypatch.setattr(Lookup, "answer", lambda self, images, questions: [["yes", "no"]] * len(images))
    with pytest.raises(InvalidInput, match="one answer for each question"):
        metric.measure(sample_set(pictures(1), ["a"]))


def test_rows_of_its_own_stand_before_quality(tifa, questions, sample_set, pictures):
    path = questions(mapping("a", 0, "yes no", "yes"))
    samples = sample_set(pictures(1), ["a"], group="tifa")
    sample_set(pictures(2), ["a", "a"], folder=samples.folder)
    score = tifa(path, {"question 0?": "yes"}).measure(type(samples)(samples.folder))
    assert list(score.per_sample) == ["tifa-0"]


def test_questions_without_a_caption_are_about_the_row_of_their_id(tifa, questions, sample_set, pictures):
    path = questions(mapping("", 0, "yes no", "yes", ident="quality-1"))
    score = tifa(path, {"question 0?": "yes"}).measure(sample_set(pictures(2), ["a", "b"]))
    assert score.per_sample == {"quality-0": None, "quality-1": 1}


def test_a_plugin_brings_its_questions(plugs, tifa, sample_set, pictures):
    plugs["ours"] = lambda: [mapping("a", 0, "yes no", "yes")]
    assert tifa("ours", {"question 0?": "yes"}).measure(sample_set(pictures(1), ["a"])).value == 1
    (question,) = load_questions("ours")
    assert Asked([question, question]).about(sample_set(pictures(1), ["a"]).__iter__().__next__().prompt) == (
        question,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no questions"),
        ("{}", "a JSON list, got dict"),
        ("[1]", "question 1: a question is a mapping, got int"),
        ("[", "no JSON"),
        ('[{"id": 1, "question": "q", "choices": ["a", "b"]}]', "question 1: no 'answer'"),
        ('[{"id": 1, "question": "q", "choices": ["a", "b"], "answer": "c"}]', "got 'c' of 'a', 'b'"),
        ('[{"id": 1, "question": "q", "choices": "ab", "answer": "a"}]', "'choices' is a list"),
        ('[{"id": 1, "question": " ", "choices": ["a", "b"], "answer": "a"}]', "blank"),
        ('[{"id": 1, "question": "q", "choices": ["a"], "answer": "a"}]', "two or more choices"),
    ],
)
def test_files_that_hold_no_questions(tmp_path, content, message):
    path = tmp_path / "questions.json"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=message):
        load_questions(path)


def test_settings_are_checked_when_it_is_built(questions, tifa):
    with pytest.raises(InvalidInput, match="questions=FILE"):
        Tifa(vqa="lookup")
    with pytest.raises(Unavailable, match="nowhere.json"):
        load_questions("nowhere.json")
    with pytest.raises(InvalidInput, match="or a plugin"):
        load_questions("questions.txt")
    with pytest.raises(InvalidInput, match="unknown setting 'answer'; did you mean 'answers'"):
        Tifa(questions="x.json", vqa="lookup", vqa_settings={"answer": {}}, sentences=None)
    metric = tifa(questions(mapping("a", 0, "yes no", "yes")), {})
    assert spec.build(Tifa, spec.settings_of(metric)) == metric
    assert Snap.of(None, {}).snapped == 0
