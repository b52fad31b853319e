"""Verdicts on disk: the same numbers with and without, and nobody asked twice."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from unlearn_core.errors import Unavailable, UnlearnWarning
from unlearn_metrics import verdict_cache, verdicts
from unlearn_metrics.tifa import Tifa
from unlearn_metrics.ua_ira import UaIra
from unlearn_metrics.verdict_cache import Counts, counted, identity


@dataclass(frozen=True, kw_only=True)
class Green:
    """Its confidence is the green of the first pixel, as NumPy has it; 255 cannot be judged."""

    revision: str = "1"
    settings: dict = field(default_factory=dict)
    looked: ClassVar[list] = []

    def presence(self, images):
        Green.looked += list(images)
        return [None if i[0, 0, 1] == 255 else np.float32(i[0, 0, 1]) / np.float32(256) for i in images]


@pytest.fixture
def ask():
    """Return a function from samples to their verdicts; how many images were looked at is beside them."""

    def asked(samples, judge=None, **options):
        judge = judge or Green()
        Green.looked.clear()
        return verdicts.ask(list(samples), judge.presence, by=identity(judge), **options), len(Green.looked)

    return asked


@pytest.fixture
def samples(sample_set):
    images = np.full((6, 2, 2, 3), 1, np.uint8)
    images[:, 0, 0, 1] = (0, 77, 130, 255, 200, 201)
    images[0] = 0
    images[:, 1, 1, 2] = (0, 1, 2, 3, 4, 5)
    images[0] = 0
    return sample_set(images)


def test_an_image_is_judged_once(ask, samples):
    without = verdicts.ask(list(samples), Green().presence, skip_black=True)
    first, looked = ask(samples, skip_black=True)
    again, looked_again = ask(samples, skip_black=True)
    assert first == again == without
    assert (looked, looked_again) == (5, 1)  # what could not be judged may be another time
    assert [type(answer) for answer in again.answers.values() if answer is not None] == [float] * 4
    assert again.why == {"quality-0": verdicts.BLOCKED, "quality-3": verdicts.UNDECIDED}


def test_images_of_another_run_are_found_by_their_content(ask, samples, sample_set):
    ask(samples)
    images = [np.full((2, 2, 3), 9, np.uint8), np.array(_image(list(samples)[2]))]
    other = sample_set(images, group="target")
    found, looked = ask(other)
    assert looked == 1 and found.answers == {"target-0": 9 / 256, "target-1": 130 / 256}


def test_counts(ask, samples):
    with counted() as counts:
        ask(samples.select(group="none"))
        ask(samples, skip_black=True)
        with counted() as inner:
            ask(samples, skip_black=True)
    assert (counts, inner) == (Counts(reused=0, computed=5), Counts(reused=4, computed=1))
    ask(samples)  # nobody counts


def test_anything_that_changes_the_answer_is_another_folder(ask, samples):
    ask(samples, Green(settings={"a": Path("x")}))
    for judge in (Green(revision="2"), Green(settings={"a": 1}), Green(settings={"a": Path("y")})):
        assert ask(samples, judge)[1] == 6
    assert ask(samples, Green(settings={"a": Path("x")}))[1] == 1
    assert identity(Green(), "object") != identity(Green(), "style")
    assert (
        ask(samples, Green(settings={"a": Path("x")}), skip_black=True)[1] == 5
    )  # black ones are another matter


def test_the_score_is_the_same_and_a_second_metric_asks_nobody(plugs, drawn, monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class Named:
        revision: str = "1"
        domains: ClassVar[dict] = {"object": ("dog", "cat", "car")}

        def classify(self, images, domain):
            return [self.domains["object"][int(image[0, 0, 0]) % 3] for image in images]

    plugs["named"] = Named
    both = drawn([0, 300, 600, 10], concept="dog")
    drawn([0, 300, 600], group="retain", concept="cat", samples=both)
    with monkeypatch.context() as patch:
        patch.setattr(verdict_cache, "stored", lambda folder, wanted: {})
        plain = UaIra(classifier="named").measure(both)
    with counted() as counts:
        assert UaIra(classifier="named").measure(both) == plain
    assert counts == Counts(reused=7, computed=0)


def test_a_question_is_asked_once(plugs, sample_set, pictures, tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Says:
        revision: str = "1"
        asked: ClassVar[list] = []

        def answer(self, images, questions):
            Says.asked += [text for each in questions for text in each]
            return [["yes" if "a" in text else None for text in each] for each in questions]

    plugs["says"] = Says
    made = [
        {"id": str(i), "caption": "a", "question": q, "choices": ["yes", "no"], "answer": "yes",
         "element_type": "x"}
        for i, q in enumerate(("is a there?", "is b?"))
    ]  # fmt: skip
    both = json.dumps(made), json.dumps(made[:1])
    for name, text in zip(("both.json", "one.json"), both, strict=True):
        (tmp_path / name).write_text(text)
    samples = sample_set(pictures(2), ["a", "a"])
    with counted() as counts:
        one = Tifa(questions=str(tmp_path / "one.json"), vqa="says", sentences=None)
        first = one.measure(samples)
        assert one.measure(samples) == first and first.value == 1
    assert counts == Counts(reused=2, computed=2)
    assert Says.asked == ["is a there?"] * 4  # two images, and the blank one twice
    Says.asked.clear()
    Tifa(questions=str(tmp_path / "both.json"), vqa="says", sentences=None).measure(samples)
    assert (
        Says.asked.count("is b?") == 3
    )  # an image with a question that has no answer is asked all of them again


@pytest.mark.parametrize("damaged", [b"", b"{", b'{"answers": {}}', None])
def test_a_damaged_shard_is_given_again(ask, samples, damaged, tmp_path):
    first, _ = ask(samples)
    (shard,) = (tmp_path / "verdicts").rglob("*.json")
    text = json.loads(shard.read_text())
    text["answers"][next(iter(text["answers"]))] = 1.0
    shard.write_bytes(json.dumps(text).encode() if damaged is None else damaged)
    with pytest.warns(UnlearnWarning, match="given again"):
        found, looked = ask(samples)
    assert found == first and looked == 6
    assert ask(samples)[1] == 1


def test_every_batch_is_kept(ask, samples, monkeypatch):
    """A killed process loses no more than the batch it was at."""
    monkeypatch.setattr(verdicts, "BATCH", 2)

    class Stops:
        revision = "1"

        def presence(self, images):
            if len(Green.looked) >= 4:
                raise KeyboardInterrupt
            return Green().presence(images)

    with pytest.raises(KeyboardInterrupt):
        ask(samples, Stops())
    Green.looked.clear()
    found = verdicts.ask(list(samples), Green().presence, by=identity(Stops()))
    assert len(Green.looked) == 3 and found.answers["quality-1"] == 77 / 256


def test_a_cache_that_cannot_be_written_is_known_before_the_work(ask, samples, tmp_path):
    (tmp_path / "verdicts").write_text("a file")
    with pytest.raises(Unavailable, match="cannot write"):
        ask(samples)
    assert Green.looked == []


def _image(sample):
    from PIL import Image

    return Image.open(sample.path)
