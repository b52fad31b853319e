"""Detectors made of others: a VQA question, an ensemble, an image classifier."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core import spec
from unlearn_core.errors import InvalidInput, NotRegistered
from unlearn_core.protocols import Detector
from unlearn_metrics.classifiers.clip import ClipClassifier
from unlearn_metrics.detectors.classifier import ClassifierDetector
from unlearn_metrics.detectors.clip import ClipDetector
from unlearn_metrics.detectors.ensemble import Ensemble
from unlearn_metrics.detectors.vqa import VqaDetector

IMAGES = [np.full((2, 2, 3), i, np.uint8) for i in range(4)]
LABELS = ("dog", "cat", "car", "tree")


@dataclass(frozen=True, kw_only=True)
class Said:
    """Answers the images in turn, and keeps what it was asked."""

    answers: list = field(default_factory=list)
    revision: str = "1"
    asked: ClassVar[list] = []

    def answer(self, images, questions):
        self.asked.append(questions)
        return [[answer] for answer in self.answers]


class TestVqa:
    @pytest.fixture(autouse=True)
    def by_name(self, plugs):
        plugs["said"] = Said
        Said.asked.clear()

    def test_yes_is_seen_and_no_is_not(self):
        answers = ["Yes", "no, there is none", "yes.", "maybe"]
        detector = VqaDetector(concept="a dog", vqa="said", vqa_settings={"answers": answers})
        assert isinstance(detector, Detector)
        assert detector.presence(IMAGES) == [1.0, 0.0, 1.0, None]
        assert Said.asked == [[["Is there a dog in this image?"]] * 4]

    @pytest.mark.parametrize(
        ("answer", "expected"), [(None, None), ("", None), ("yesterday", None), ("NO", 0.0)]
    )
    def test_anything_else_is_no_verdict(self, answer, expected):
        detector = VqaDetector(concept="x", vqa="said", vqa_settings={"answers": [answer]})
        assert detector.presence(IMAGES[:1]) == [expected]

    def test_the_question_is_part_of_the_revision(self):
        one = VqaDetector(concept="x", vqa="said")
        other = VqaDetector(concept="x", vqa="said", question="Do you see {}?")
        assert one.revision != other.revision
        with pytest.raises(InvalidInput, match="at most one {}"):
            VqaDetector(concept="x", vqa="said", question="{} or {}?")
        with pytest.raises(NotRegistered):
            VqaDetector(concept="x", vqa="sayd")

    def test_a_model_that_counts_wrongly_is_refused(self):
        with pytest.raises(InvalidInput, match="one answer"):
            VqaDetector(concept="x", vqa="said", vqa_settings={"answers": ["yes"]}).presence(IMAGES)


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Gives these confidences, whatever the images."""

    concept: str
    confidences: list = field(default_factory=list)
    revision: str = "1"

    def presence(self, images):
        return self.confidences


@dataclass(frozen=True, kw_only=True)
class Strict(Fixed):
    threshold: ClassVar[float] = 0.6


class TestEnsemble:
    @pytest.fixture(autouse=True)
    def by_name(self, plugs):
        plugs |= {"fixed": Fixed, "strict": Strict}

    def make(self, *confidences, rule="any", thresholds=None):
        thresholds = thresholds or [0.5] * len(confidences)
        members = [
            {"detector": "fixed", "settings": {"confidences": c}, "threshold": t}
            for c, t in zip(confidences, thresholds, strict=True)
        ]
        return spec.build(Ensemble, {"concept": "dog", "members": members, "rule": rule})

    @given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=5))
    def test_the_rules(self, rows):
        columns = [list(column) for column in zip(*rows, strict=True)]
        thresholds = [0.45, 0.6, 1.0]
        images = [IMAGES[0]] * len(rows)
        votes = [[c >= t for c, t in zip(row, thresholds, strict=True)] for row in rows]
        for rule, rule_of in (("any", any), ("all", all), ("most", lambda v: sum(v) >= 2)):
            found = self.make(*columns, rule=rule, thresholds=thresholds).presence(images)
            assert [c >= 0.5 for c in found] == [rule_of(v) for v in votes]
            assert all(0 <= c <= 1 for c in found)

    @pytest.mark.parametrize(
        ("rule", "known", "expected"),
        [
            ("any", [0.9, None], 0.9),
            ("any", [0.1, None], None),
            ("all", [0.1, None], 0.1),
            ("all", [0.9, None], None),
            ("most", [0.9, 0.8, None], 0.8),
            ("most", [0.1, 0.2, None], 0.2),
            ("most", [0.9, 0.1, None], None),
            ("any", [None, None], None),
        ],
    )
    def test_a_member_that_cannot_tell(self, rule, known, expected):
        (found,) = self.make(*([c] for c in known), rule=rule).presence(IMAGES[:1])
        assert found == (None if expected is None else pytest.approx(expected))

    def test_a_member_has_its_own_threshold_unless_one_is_stated(self):
        settings = {"confidences": [0.55]}
        members = [
            {"detector": "strict", "settings": settings},
            {"detector": "fixed", "settings": {"confidences": [0]}},
        ]
        build = lambda: spec.build(Ensemble, {"concept": "x", "members": members})  # noqa: E731
        assert build().presence(IMAGES[:1])[0] < 0.5
        members[0]["threshold"] = 0.5
        assert build().presence(IMAGES[:1])[0] > 0.5
        assert isinstance(build(), Detector) and "from 0.5; " in build().revision

    def test_settings(self):
        with pytest.raises(InvalidInput, match="two or more members, got 1"):
            self.make([0.1])
        with pytest.raises(InvalidInput, match="threshold of 'fixed' is above 0"):
            self.make([0.1], [0.2], thresholds=[0.5, 0])
        with pytest.raises(NotRegistered):
            Ensemble(concept="x", members=[*self.make([0.1], [0.2]).members[:1], spec_member("nope")])
        made = self.make([0.1], [0.2])
        assert spec.build(Ensemble, spec.settings_of(made)) == made


def spec_member(name):
    from unlearn_metrics.detectors.ensemble import Member

    return Member(detector=name)


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names every image a dog, and knows styles, too; it tells no probabilities."""

    revision: str = "1"
    domains: ClassVar[dict] = {"object": LABELS, "style": ("sketch", "photo")}

    def classify(self, images, domain):
        return ["dog", None, "cat", "dog"][: len(images)]


@dataclass(frozen=True, kw_only=True)
class Odds(Names):
    def probabilities(self, images, domain):
        table = [[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.0, 0.9, 0.1, 0.0], [np.nan] * 4]
        return np.array(table[: len(images)])


class TestClassifier:
    @pytest.fixture(autouse=True)
    def by_name(self, plugs):
        plugs |= {"names": Names, "odds": Odds}

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({}, [0.4, 0.1, 0.0, None]),
            ({"labels": ("dog", "cat")}, [0.7, 0.3, 0.9, None]),
            ({"top": 1}, [1, 0, 0, None]),
            ({"top": 2, "labels": ("cat",)}, [1, 0, 1, None]),
            ({"top": 3, "labels": ("cat",)}, [1, 1, 1, None]),
        ],
    )
    def test_probability_or_rank(self, settings, expected):
        found = ClassifierDetector(concept="dog", classifier="odds", **settings).presence(IMAGES)
        assert found[:3] == pytest.approx(expected[:3]) and found[3] is None

    def test_a_classifier_without_probabilities(self):
        assert ClassifierDetector(concept="dog", classifier="names", top=1).presence(IMAGES) == [
            1,
            None,
            0,
            1,
        ]
        with pytest.raises(InvalidInput, match="no probabilities: top=1"):
            ClassifierDetector(concept="dog", classifier="names").presence(IMAGES)

    def test_labels_that_are_not_there(self):
        with pytest.raises(InvalidInput, match="unknown label 'dgo'; did you mean 'dog'"):
            ClassifierDetector(concept="dgo", classifier="odds").presence(IMAGES)
        with pytest.raises(InvalidInput, match="unknown label 'photo'"):
            ClassifierDetector(concept="x", classifier="odds", labels=("dog", "photo")).presence(IMAGES)
        with pytest.raises(InvalidInput, match="unknown domain 'objects'; did you mean 'object'"):
            ClassifierDetector(concept="dog", classifier="odds", domain="objects").presence(IMAGES)
        with pytest.raises(InvalidInput, match="top is at least 1"):
            ClassifierDetector(concept="dog", classifier="odds", top=0)

    def test_over_clip_it_is_the_clip_detector(self, tiny_clip, pictures):
        images, of = list(pictures(5)), {"model": tiny_clip, "device": "cpu"}
        expected = ClipDetector(concept="dog", against=LABELS[1:], **of).presence(images)
        detector = ClassifierDetector(
            concept="dog", classifier="clip", classifier_settings={"labels": {"object": LABELS}, **of}
        )
        assert detector.presence(images) == pytest.approx(expected, abs=1e-6)
        assert isinstance(detector, Detector) and detector.presence([]) == []
        classifier = ClipClassifier(labels={"object": LABELS}, **of)
        odds = classifier.probabilities(images, "object")
        assert odds.sum(1) == pytest.approx(1)
        assert [LABELS[i] for i in odds.argmax(1)] == classifier.classify(images, "object")
