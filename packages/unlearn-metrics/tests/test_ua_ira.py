"""UA, IRA and CRA against hand-made grids and torchmetrics; the classifier reads the answer from a pixel."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy

from unlearn_core import registry, spec
from unlearn_core.errors import InvalidInput, NotRegistered
from unlearn_core.prompts import Prompt
from unlearn_core.protocols import Classifier, Metric
from unlearn_core.samples import SampleSet
from unlearn_core.score import wilson
from unlearn_metrics import verdicts
from unlearn_metrics.classifiers.clip import ClipClassifier
from unlearn_metrics.ua_ira import UaIra

OBJECTS = ("dog", "cat", "car", "bus", "none")
STYLES = ("sketch", "neon", "none")


@dataclass(frozen=True, kw_only=True)
class Pixel:
    """The red channel is the number of the object, green that of the style; a blue pixel cannot be judged."""

    revision: str = "1"
    domains: ClassVar[Mapping[str, Sequence[str]]] = {"object": OBJECTS, "style": STYLES}

    def classify(self, images, domain):
        assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images)
        channel = list(self.domains).index(domain)
        pixels = [image[0, 0] for image in images]
        return [None if p[2] == 255 else self.domains[domain][p[channel]] for p in pixels]


@pytest.fixture
def pixel(monkeypatch):
    monkeypatch.setattr(registry, "load", lambda group, name: {"pixel": Pixel}[name])
    return UaIra(classifier="pixel")


@pytest.fixture
def drawn(tmp_path, png):
    """Return a function from rows (group, label wanted, label seen) to a SampleSet."""
    made = []

    def make(rows, texts=None):
        made.append(rows)
        samples = SampleSet(tmp_path / f"drawn-{len(made)}")
        for i, (group, wanted, seen) in enumerate(rows):
            image = np.zeros((2, 2, 3), np.uint8)
            if seen is None:
                image[..., 2] = 255
            elif seen in STYLES and wanted in STYLES:
                image[..., 1] = STYLES.index(seen)
            else:
                image[..., 0] = OBJECTS.index(seen)
            image[1, 1, 0] = i  # no two files alike
            text = texts[i] if texts else f"picture {i}"
            samples.add(Prompt(id=f"{i:04d}", text=text, seed=i, group=group, concept=wanted), png(image))
        return samples

    return make


GRID = [
    ("target", "dog", "dog"), ("target", "dog", "cat"),
    ("adjacent", "cat", "cat"), ("adjacent", "cat", "cat"),
    ("retain", "car", "car"), ("retain", "car", "none"),
    ("style", "sketch", "sketch"), ("style", "sketch", "neon"),
]  # fmt: skip


def test_it_is_a_metric_and_the_plug_a_classifier(pixel):
    assert isinstance(pixel, Metric) and isinstance(Pixel(), Classifier)


def test_a_grid_by_hand(pixel, drawn):
    score = pixel.measure(drawn(GRID))
    assert {name: part.value for name, part in score.parts.items()} == {
        "UA": 0.5, "IRA": 0.75, "adjacent": 1.0, "CRA": 0.5,
    }  # fmt: skip
    assert score.value == (0.5 + 0.75) / 2
    assert (score.n_scored, score.n_unscored, score.direction) == (8, 0, "up")
    assert {name: part.n_scored for name, part in score.parts.items()} == {
        "UA": 2, "IRA": 4, "adjacent": 2, "CRA": 2,
    }  # fmt: skip
    assert list(score.per_sample.values()) == [0, 1, 1, 1, 1, 0, 1, 0]
    assert dict(score.parts["IRA"].per_sample) == {"0002": 1, "0003": 1, "0004": 1, "0005": 0}
    for name, k, n in (("UA", 1, 2), ("IRA", 3, 4), ("adjacent", 2, 2), ("CRA", 1, 2)):
        found, expected = score.parts[name].interval, wilson(k, n)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_every_label_counts_alike(pixel, drawn):
    rows = [("target", "dog", "none"), *[("retain", "cat", "cat")] * 9, ("retain", "car", "none")]
    score = pixel.measure(drawn(rows))
    assert score.parts["IRA"].value == 0.5  # not 9 / 10
    assert score.value == 0.75
    assert set(score.parts) == {"UA", "IRA"}


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("interleaved", [False, True])
def test_target_and_retain_never_mix_over_batches(pixel, drawn, monkeypatch, batch, interleaved):
    """The first bug of metrics.md, section 14: from the second batch on, eval-learn counts retain as target."""
    target = [("target", "dog", "cat")] * 40
    retain = [("retain", ("cat", "car")[i % 2], ("cat", "car")[i % 2]) for i in range(40)]
    rows = [*target, *retain]
    if interleaved:
        random.Random(0).shuffle(rows)
    monkeypatch.setattr(verdicts, "BATCH", batch)
    score = pixel.measure(drawn(rows))
    assert (score.parts["UA"].value, score.parts["UA"].n_scored) == (1.0, 40)
    assert (score.parts["IRA"].value, score.parts["IRA"].n_scored) == (1.0, 40)
    assert score.value == 1.0
    low = score.parts["IRA"].interval.low
    assert low == pytest.approx(wilson(40, 40).low)
    untouched = [(group, wanted, wanted) for group, wanted, _ in rows]
    score = pixel.measure(drawn(untouched))
    assert [score.parts[name].value for name in ("UA", "IRA")] == [0.0, 1.0]


@given(st.lists(st.tuples(st.sampled_from(OBJECTS[:4]), st.sampled_from(OBJECTS)), min_size=6, max_size=20))
@settings(max_examples=15)
def test_accuracies_are_those_of_torchmetrics(pixel, drawn, pairs):
    pairs = [("dog", "dog"), ("cat", "bus"), *pairs]
    score = pixel.measure(drawn([("target" if w == "dog" else "retain", w, s) for w, s in pairs]))
    accuracy = MulticlassAccuracy(num_classes=len(OBJECTS), average="none")
    wanted, seen = (torch.tensor([OBJECTS.index(p[i]) for p in pairs]) for i in (0, 1))
    each = accuracy(seen, wanted).tolist()
    others = [each[OBJECTS.index(label)] for label in {w for w, _ in pairs} - {"dog"}]
    assert score.parts["UA"].value == pytest.approx(1 - each[0], abs=1e-6)
    assert score.parts["IRA"].value == pytest.approx(np.mean(others), abs=1e-6)


def test_the_order_of_the_images_changes_nothing(pixel, drawn):
    rows = [*GRID, ("target", "dog", None), ("retain", "bus", "bus")]
    texts = ["a", "a", "b", "b", "b", "c", "d", "d", "e", "e"]
    samples = drawn(rows, texts)
    backwards = SampleSet(samples.folder)
    backwards._entries = dict(reversed(backwards._entries.items()))
    assert [s.prompt.id for s in backwards] == [s.prompt.id for s in samples][::-1]
    assert pixel.measure(backwards) == pixel.measure(samples)
    assert "bootstrap by prompt" in pixel.measure(samples).interval.how


def test_what_cannot_be_judged_is_counted_apart(pixel, drawn, damage):
    rows = [*GRID, ("target", "dog", None), ("retain", "bus", None), ("retain", "car", "car")]
    samples = damage(drawn(rows), len(rows) - 1)
    score, without = pixel.measure(samples), pixel.measure(drawn(GRID))
    assert score.value == without.value
    assert (score.n_scored, score.n_unscored) == (8, 3)
    assert score.reasons == {verdicts.UNDECIDED: 2, verdicts.UNREADABLE: 1}
    assert [score.per_sample[i] for i in ("0008", "0009", "0010")] == [None] * 3
    assert score.parts["IRA"].reasons == {verdicts.UNDECIDED: 1, verdicts.UNREADABLE: 1}
    assert score.parts["UA"].reasons == {verdicts.UNDECIDED: 1}


def test_an_arm_that_cannot_be_judged_is_an_error(pixel, drawn):
    with pytest.raises(InvalidInput, match=r"UA: no sample could be judged: the judge could not tell \(1\)"):
        pixel.measure(drawn([("target", "dog", None), ("retain", "cat", "cat")]))


def test_a_target_of_several_labels_is_gone_where_none_is_seen(pixel, drawn):
    rows = [("target", "dog", "cat"), ("target", "cat", "bus"), ("retain", "car", "car")]
    assert pixel.measure(drawn(rows)).parts["UA"].value == 0.5


def test_a_style_target_has_objects_as_its_other_domain(pixel, drawn):
    rows = [("target", "sketch", "none"), ("adjacent", "neon", "neon"), ("style", "dog", "cat")]
    score = pixel.measure(drawn(rows))
    assert [score.parts[name].value for name in ("UA", "IRA", "CRA")] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("retain", "cat", "cat")], "the group 'target'"),
        ([("target", "dog", "dog")], "'adjacent' or 'retain' with another label of the target's domain 'object'"),
        ([("target", "dog", "dog"), ("retain", "sketch", "neon")], "'adjacent' or 'retain' with another label"),
        ([("target", "dog", "dog"), ("retain", "dog", "dog")], "cannot be retained"),
        ([("target", "dog", "dog"), ("target", "sketch", "neon")], "several domains"),
        ([("target", "dog", "dog"), ("retain", "none", "dog")], "one of several domains: object, style"),
        ([("target", "dog", "dog"), ("retain", "buss", "dog")], "unknown label 'buss'; did you mean 'bus'"),
        ([("target", "dog", "dog"), ("retain", None, "dog")], "row '0001' of the group 'retain' has no concept"),
    ],
)  # fmt: skip
def test_rows_that_make_no_grid_are_refused(pixel, drawn, rows, message):
    with pytest.raises(InvalidInput, match=message):
        pixel.measure(drawn(rows))


def test_a_classifier_that_answers_something_else_is_refused(pixel, drawn, monkeypatch):
    samples = drawn([("target", "dog", "dog"), ("retain", "cat", "cat")])
    monkeypatch.setattr(Pixel, "classify", lambda self, images, domain: ["horse"] * len(images))
    with pytest.raises(InvalidInput, match="'horse', which is no label of its domain 'object'"):
        pixel.measure(samples)
    monkeypatch.setattr(Pixel, "classify", lambda self, images, domain: ["dog"])
    with pytest.raises(InvalidInput, match="2 images need as many answers, the judge gave 1"):
        pixel.measure(samples)


def test_settings_are_checked_when_it_is_built():
    with pytest.raises(NotRegistered, match="did you mean 'clip'"):
        spec.build(UaIra, {"classifier": "clib"})
    with pytest.raises(InvalidInput, match="unknown setting 'modell'; did you mean 'model'"):
        spec.build(UaIra, {"classifier_settings": {"modell": "ViT-B-32"}})
    with pytest.raises(InvalidInput, match="3 labels or more"):
        spec.build(UaIra, {"classifier_settings": {"labels": {"object": ["dog", "cat"]}}})
    assert spec.build(UaIra, spec.settings_of(UaIra())) == UaIra()


def test_clip_chooses_among_the_concepts_of_the_rows(drawn, tiny_clip):
    rows = [("target", "dog", "dog"), ("retain", "cat", "cat"), ("adjacent", "car", "bus")]
    samples = drawn(rows)
    of_clip = {"model": tiny_clip, "device": "cpu"}
    score = UaIra(classifier_settings=of_clip).measure(samples)
    labels = {"object": ("car", "cat", "dog")}
    images = [np.asarray(im) for im in (np.array([[[i, 0, 0]] * 2] * 2, np.uint8) for i in (0, 1, 3))]
    answers = ClipClassifier(labels=labels, **of_clip).classify(images, "object")
    assert list(score.per_sample.values()) == [answers[0] != "dog", answers[1] == "cat", answers[2] == "car"]
    stated = UaIra(classifier_settings={**of_clip, "labels": labels}).measure(samples)
    assert dataclasses.asdict(stated) == dataclasses.asdict(score)
