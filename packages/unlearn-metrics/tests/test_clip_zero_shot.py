"""Zero-shot CLIP against open_clip called by hand, on a tiny CLIP with random weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_core import registry, spec
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.protocols import Classifier, Detector
from unlearn_metrics.classifiers.clip import ClipClassifier
from unlearn_metrics.detectors.clip import ClipDetector

OBJECTS = ("dog", "glass", "bird", "tree")


@pytest.fixture
def of_clip(tiny_clip):
    return {"model": tiny_clip, "device": "cpu"}


def by_hand(name, images, texts):
    """Return the softmax over `texts`, as in open_clip's README."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(name)
    model.eval()
    tokens = open_clip.get_tokenizer(name)(texts)
    with torch.no_grad():
        x = torch.stack([transform(Image.fromarray(image)) for image in images])
        image, text = model.encode_image(x), model.encode_text(tokens)
        image, text = (f / f.norm(dim=-1, keepdim=True) for f in (image, text))
        return (model.logit_scale.exp() * image @ text.T).softmax(-1).numpy()


def test_they_are_found_by_name_and_fit_the_protocols(of_clip):
    assert registry.load("unlearn.detectors", "clip") is ClipDetector
    assert registry.load("unlearn.classifiers", "clip") is ClipClassifier
    assert isinstance(ClipDetector(concept="dog", against=OBJECTS[1:], **of_clip), Detector)
    assert isinstance(ClipClassifier(labels={"object": OBJECTS}, **of_clip), Classifier)


def test_probabilities_are_those_of_open_clip(of_clip, pictures):
    images = pictures(12)
    expected = by_hand(of_clip["model"], images, [f"a photo of a {label}" for label in OBJECTS])
    found = ClipDetector(concept="dog", against=OBJECTS[1:], **of_clip).presence(list(images))
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-5)
    names = ClipClassifier(labels={"object": OBJECTS}, **of_clip).classify(list(images), "object")
    assert names == [OBJECTS[i] for i in expected.argmax(1)]
    assert len(set(names)) > 1


def test_all_labels_together_are_certain(of_clip, pictures):
    images = list(pictures(5))
    each = [
        ClipDetector(concept=label, against=tuple(o for o in OBJECTS if o != label), **of_clip).presence(
            images
        )
        for label in OBJECTS
    ]
    np.testing.assert_allclose(np.sum(each, axis=0), 1, atol=1e-6)


def test_every_domain_has_its_labels_and_description(of_clip, pictures):
    images = list(pictures(6))
    labels = {"object": OBJECTS, "style": ("sketch", "neon", "sepia")}
    template = {"object": "a photo of a {}", "style": "a picture in {} style"}
    classifier = ClipClassifier(labels=labels, template=template, **of_clip)
    assert classifier.domains == labels
    expected = by_hand(of_clip["model"], images, [f"a picture in {style} style" for style in labels["style"]])
    assert classifier.classify(images, "style") == [labels["style"][i] for i in expected.argmax(1)]
    with pytest.raises(InvalidInput, match="unknown domain 'styles'; did you mean 'style'"):
        classifier.classify(images, "styles")


@pytest.mark.parametrize("batch", [1, 4])
def test_batches_change_nothing(of_clip, pictures, batch):
    images = [*pictures(5), *pictures(2, size=64)]
    detector = ClipDetector(concept="dog", against=OBJECTS[1:], **of_clip)
    small = ClipDetector(concept="dog", against=OBJECTS[1:], batch=batch, **of_clip)
    np.testing.assert_allclose(small.presence(images), detector.presence(images), atol=1e-5)
    assert small.revision == detector.revision
    assert detector.presence([]) == ClipClassifier(labels={"o": OBJECTS}, **of_clip).classify([], "o") == []


def test_what_is_not_finite_is_not_judged(of_clip, pictures, monkeypatch):
    from unlearn_metrics.open_clip_model import OpenClip

    encode = OpenClip.encode_images

    def half_nan(self, images, batch=64):
        found = encode(self, images, batch)
        found[0] = np.nan
        return found

    monkeypatch.setattr(OpenClip, "encode_images", half_nan)
    images = list(pictures(2))
    found = ClipDetector(concept="dog", against=OBJECTS[1:], **of_clip).presence(images)
    names = ClipClassifier(labels={"object": OBJECTS}, **of_clip).classify(images, "object")
    assert found[0] is None and 0 < found[1] < 1
    assert names[0] is None and names[1] in OBJECTS


def test_the_revision_tells_labels_and_descriptions_apart(of_clip):
    def revisions(**settings):
        others = settings.pop("against", OBJECTS[1:])
        detector = ClipDetector(concept="dog", against=others, **of_clip, **settings)
        classifier = ClipClassifier(labels={"object": ("dog", *others)}, **of_clip, **settings)
        return detector.revision, classifier.revision

    found = [*revisions(), *revisions(against=("glass", "bird")), *revisions(template="{}")]
    assert len(set(found)) == 6


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ((), "3 labels or more, got 'dog'"),
        (("cat",), "3 labels or more"),
        (("cat", "without a dog"), "does not understand 'without a dog'"),
        (("no dog", "cat"), "does not understand 'no dog'"),
        (("cat", "dog"), "'dog' stands there twice"),
        (("cat", " "), "blank"),
    ],
)
def test_label_sets_that_mean_nothing_are_refused(against, message):
    with pytest.raises(InvalidInput, match=message):
        spec.build(ClipDetector, {"concept": "dog", "against": against})
    with pytest.raises(InvalidInput, match=message):
        spec.build(ClipClassifier, {"labels": {"object": ("dog", *against)}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "a photo"}, "has one {}"),
        ({"template": "{} and {}"}, "has one {}"),
        ({"template": "{} {0}"}, "has one {}"),
        ({"batch": 0}, "at least one image"),
        ({"labels": {}}, "a domain with its labels"),
        ({"template": {"style": "{}"}}, "'object' has none"),
        ({"template": {"object": "{}", "styl": "{}"}}, "unknown domain 'styl'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InvalidInput, match=message):
        spec.build(ClipClassifier, {"labels": {"object": OBJECTS}, **settings})
    if "labels" not in settings and not isinstance(settings.get("template"), dict):
        with pytest.raises(InvalidInput, match=message):
            spec.build(ClipDetector, {"concept": "dog", "against": OBJECTS[1:], **settings})


def test_a_model_that_is_not_there_is_said(pictures, tmp_path):
    detector = ClipDetector(concept="dog", against=OBJECTS[1:], model=f"local-dir:{tmp_path}")
    with pytest.raises((InvalidInput, Unavailable), match="open_clip_config.json"):
        detector.presence(list(pictures(1)))
