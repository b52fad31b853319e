"""What every registered metric has to do, whatever it rates."""

import functools
import importlib.metadata
import io
import json
import random
import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from unlearn_core import registry
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_core.prompts import Prompt
from unlearn_core.protocols import Metric
from unlearn_core.samples import SampleSet
from unlearn_core.testing.settings import check_settings
from unlearn_metrics.errors import NotApplicable

SEES: dict[str, Any] = {"detector": "pixel"}
FEATURES: dict[str, Any] = {"extractor": "colour"}
CLASSES: dict[str, Any] = {"classifier": "colour"}
SETTINGS: dict[str, dict[str, Any]] = {
    "asr_i2p": SEES,
    "asr_mma_diffusion": SEES,
    "asr_p4d": SEES,
    "asr_ring_a_bell": SEES,
    "asr_unlearndiffatk": SEES,
    "asr_worst": {**SEES, "attacks": ("p4d", "ring_a_bell")},
    "clip_score": {},
    "cmmd": {},
    "err": {**SEES, **CLASSES},
    "fid": FEATURES,
    "in_prompt_clip": {},
    "kid": FEATURES,
    "near_concept": CLASSES,
    "relearning": SEES,
    "tifa": {"questions": "colours", "vqa": "colour", "sentences": None},
    "ua_ira": CLASSES,
}
IMAGELESS = {"relearning"}
"""Metrics that need a model."""
WITH_CLIP = {"clip_score", "cmmd", "in_prompt_clip"}
GROUPS = {
    "target": "dog",
    "adjacent": "cat",
    "retain": "car",
    "i2p": "dog",
    "quality": None,
    **dict.fromkeys(("ring_a_bell", "mma_diffusion", "p4d", "unlearndiffatk"), "dog"),
}


@dataclass(frozen=True, kw_only=True)
class Colour:
    """Classifier, extractor and VQA model: goes by the first pixel's red."""

    revision: str = "1"
    domains: ClassVar[dict] = {"object": ("dog", "cat", "car")}
    nothing: dict = field(default_factory=dict)

    def classify(self, images, domain):
        return [self.domains[domain][int(image[0, 0, 0]) % 3] for image in images]

    def features(self, images):
        return np.stack([image.reshape(-1, 3).mean(0) for image in images]).astype(np.float32)

    def answer(self, images, questions):
        return [
            ["yes" if image[0, 0, 0] % 2 else "no"] * len(q)
            for image, q in zip(images, questions, strict=True)
        ]


def colours():
    return [
        {"id": f"quality-{i}", "caption": f"quality: a dog in place {i}", "question": f"is it {i}?",
         "choices": ["yes", "no"], "answer": "yes", "element_type": "object"}
        for i in range(6)
    ]  # fmt: skip


@pytest.fixture
def metric(plugs, pixel_detector, tiny_clip):
    """Return a function from the name of a metric to an instance for tests."""
    plugs |= {"colour": Colour, "colours": colours}
    clip = {"model": tiny_clip, "device": "cpu"}
    return lambda name: registry.load("unlearn.metrics", name)(
        **SETTINGS[name], **(clip if name in WITH_CLIP else {})
    )


@pytest.fixture(scope="module")
def every_group(tmp_path_factory):
    """Return a function to six images of every group, drawn by `seed`; None: files that are no images."""

    @functools.cache
    def make(seed, order=None):
        rng, rows = np.random.default_rng(seed), []
        for group, concept in GROUPS.items():
            for i in range(6):
                image = rng.integers(1, 250, (32, 32, 3)).astype(np.uint8)
                image[0, 0, 0] = rng.integers(0, 4)
                text = f"{group}: a dog in place {i}"
                row = Prompt(id=f"{group}-{i}", text=text, seed=i, group=group, concept=concept)
                data = io.BytesIO()
                Image.fromarray(image).save(data, "PNG")
                rows.append((row, data.getvalue()[: 40 if seed is None else None]))
        if order is not None:
            random.Random(order).shuffle(rows)
        samples = SampleSet(tmp_path_factory.mktemp("every") / "images")
        for row, data in rows:
            samples.add(row, data)
        return samples

    return make


@pytest.fixture(autouse=True)
def few():
    """Six images are few, and those that cannot be read are left out: said elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnlearnWarning)
        yield


every = pytest.mark.parametrize("name", [name for name in SETTINGS if name not in IMAGELESS])


def test_none_is_forgotten():
    own = importlib.metadata.distribution("unlearn-metrics").entry_points.select(group="unlearn.metrics")
    assert sorted(SETTINGS) == sorted(own.names)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_a_metric_whose_settings_survive_json(metric, name):
    found = metric(name)
    assert isinstance(found, Metric) and found.direction in ("up", "down")
    assert set(found.prompts) and all(isinstance(group, str) for group in found.prompts)
    check_settings(found)


@every
def test_its_score_is_the_same_twice_in_any_order_and_in_words(metric, every_group, name):
    after, before = every_group(0), every_group(1)
    score = metric(name).measure(after, before)
    assert score == metric(name).measure(every_group(0, order=7), before)
    assert score.metric == name and score.direction == metric(name).direction
    assert (
        score.n_scored > 0 and type(score).from_mapping(json.loads(json.dumps(score.to_mapping()))) == score
    )
    assert score.interval is not None and score.interval.low <= score.value <= score.interval.high
    assert score.interval.low < score.interval.high


@every
def test_images_that_cannot_be_read_are_never_a_number(metric, every_group, name):
    """Not 0.0, not 1.0: an error that says what is wrong."""
    with pytest.raises(InvalidInput, match=r"read|judged|no image|at least (two|2)"):
        metric(name).measure(every_group(None), every_group(1))


@every
def test_a_folder_without_its_images_says_which_are_missing(metric, every_group, name):
    of_others = every_group(0).select(group="nothing of it")
    with pytest.raises(InvalidInput, match="|".join((*metric(name).prompts, "adjacent concepts"))):
        metric(name).measure(of_others, every_group(1))


@pytest.mark.parametrize("name", sorted(IMAGELESS))
def test_what_needs_a_model_does_not_apply_to_images(metric, every_group, name):
    with pytest.raises(NotApplicable, match="model"):
        metric(name).measure(every_group(0), every_group(1))
