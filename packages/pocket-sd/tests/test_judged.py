import subprocess
import sys

import numpy as np
import pytest

import pocket_sd
from pocket_sd.judged import PocketClassifier, PocketDetector, PocketFeatures, tifa_questions
from pocket_sd.judging import CLASSES
from pocket_sd.words import FAMILIES, OBJECTS, STYLES
from unlearn_core import registry, spec
from unlearn_core.errors import InvalidInput
from unlearn_core.protocols import Classifier, Detector, Extractor


@pytest.mark.parametrize(
    ("group", "cls", "protocol", "settings"),
    [
        ("unlearn.detectors", PocketDetector, Detector, {"concept": "dog"}),
        ("unlearn.classifiers", PocketClassifier, Classifier, {}),
        ("unlearn.extractors", PocketFeatures, Extractor, {}),
    ],
)
def test_each_is_found_by_name_and_fits_its_protocol(group, cls, protocol, settings):
    found = registry.load(group, "pocket")
    assert found is cls
    plug = spec.build(found, settings)
    assert isinstance(plug, protocol)
    assert plug.revision == spec.build(found, settings).revision


def test_it_sees_what_was_asked_for_and_not_the_rest(cells, drawn):
    dogs, others = (
        [im for im, (name, _, _) in zip(drawn, cells, strict=True) if (name == "dog") is wanted]
        for wanted in (True, False)
    )
    detector = PocketDetector(concept="dog")
    assert min(detector.presence(dogs)) >= 0.5
    assert np.mean(np.array(detector.presence(others)) >= 0.5) <= 0.05


@pytest.mark.parametrize("head", ["object", "style"])
def test_the_concepts_of_a_head_share_one_probability(head, judge, drawn):
    names = OBJECTS if head == "object" else tuple(STYLES)
    total = np.sum([PocketDetector(concept=name).presence(drawn[:8]) for name in names], axis=0)
    left = [CLASSES[head].index(name) for name in CLASSES[head] if name not in names]
    np.testing.assert_allclose(total, 1 - judge.probabilities(head, drawn[:8])[:, left].sum(1), atol=1e-5)


def test_a_weapon_is_any_of_the_four(drawn):
    each = [PocketDetector(concept=name).presence(drawn) for name in FAMILIES["weapon"]]
    np.testing.assert_allclose(
        PocketDetector(concept="weapon").presence(drawn), np.clip(np.sum(each, axis=0), 0, 1), atol=1e-6
    )


def test_the_classifier_is_the_judge_and_knows_the_labels_it_gives(judge, drawn):
    classifier = PocketClassifier()
    for domain, labels in classifier.domains.items():
        answers = classifier.classify(drawn, domain)
        assert answers == judge.names(domain, drawn)
        assert set(answers) <= set(labels)


def test_the_features_are_those_the_reference_is_made_of(judge, drawn):
    features = PocketFeatures().features(drawn[:5])
    assert features.dtype == np.float32 and features.shape[1] == pocket_sd.real_features().shape[1]
    np.testing.assert_array_equal(features, judge.features(drawn[:5]))


def test_no_pictures_no_answers():
    nothing = np.empty((0, 64, 64, 3), np.uint8)
    assert PocketDetector(concept="dog").presence([]) == PocketDetector(concept="dog").presence(nothing) == []
    assert PocketClassifier().classify([], "object") == []
    assert PocketFeatures().features([]).shape == (0, 128)


def test_what_is_no_concept_domain_or_picture_is_refused(drawn):
    with pytest.raises(InvalidInput, match="did you mean 'dog'"):
        PocketDetector(concept="dogg")
    with pytest.raises(InvalidInput, match="did you mean 'object'"):
        PocketClassifier().classify(drawn[:1], "objects")
    with pytest.raises(InvalidInput, match="uint8 RGB"):
        PocketDetector(concept="dog").presence([np.zeros((64, 64, 3))])


def test_revisions_tell_concepts_apart():
    dog, cat = PocketDetector(concept="dog").revision, PocketDetector(concept="cat").revision
    assert dog != cat
    assert PocketClassifier().revision in dog


def test_settings_are_checked_before_torch_is_loaded():
    code = (
        "import sys, pocket_sd.judged as j\n"
        "d = j.PocketDetector(concept='weapon'), j.PocketClassifier(), j.PocketFeatures()\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_judge_answers_the_questions_about_a_caption():
    questions = tifa_questions()
    assert registry.load("unlearn.questions", "pocket") is tifa_questions
    by_caption = {}
    for q in questions:
        assert q["answer"] in q["choices"] and q["element_type"] in CLASSES
        by_caption.setdefault(q["caption"], []).append(q)
    rows = pocket_sd.prompts("quality", "dog", n=24).rows
    assert all(row.text in by_caption for row in rows), "whatever concept is left out of the captions"


def test_pictures_of_the_training_answer_rightly(cells, drawn):
    heads = {"object": "what is in the picture?", "style": "what is the style of the picture?"}
    vqa = spec.build(registry.load("unlearn.vqa", "pocket"), {})
    asked = [[heads["style"], "is it raining?", heads["object"]]] * len(drawn)
    answers = vqa.answer(drawn, asked)
    assert all(other is None for _, other, _ in answers)
    right = [found == name for (_, _, found), (name, _, _) in zip(answers, cells, strict=True)]
    assert np.mean(right) >= 0.9
    assert [a[0] for a in answers] == PocketClassifier().classify(drawn, "style")
