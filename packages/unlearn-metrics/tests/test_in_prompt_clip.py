"""The in-prompt CLIP score: what is left of a prompt, and the cosine with just that."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unlearn_core import registry
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.protocols import Metric
from unlearn_core.spec import build
from unlearn_metrics.clip_score import ClipScore
from unlearn_metrics.errors import NotApplicable
from unlearn_metrics.in_prompt_clip import NOT_NAMED, NOTHING_ELSE, InPromptClip, without
from unlearn_metrics.open_clip_model import load
from unlearn_metrics.statistics import paired_difference


@pytest.fixture
def metric(tiny_clip):
    return InPromptClip(model=tiny_clip, device="cpu")


@pytest.mark.parametrize(
    ("text", "words", "rest"),
    [
        ("a photo of a dog on a beach", ["dog"], "a photo on a beach"),
        ("a dog, sketch style, blue background", ["dog"], "sketch style, blue background"),
        ("a house, sketch style, blue background", ["sketch"], "a house, blue background"),
        ("A DOG and a cat", ["dog"], "a cat"),
        ("a cat and two dogs", ["dog"], "a cat"),
        ("a bridge in the style of Van Gogh", ["van gogh"], "a bridge"),
        ("a painting by  Van  Gogh, at night", ["van gogh"], "a painting, at night"),
        ("the dog's red ball", ["dog"], "red ball"),
        ("a hot dog", ["hot dog", "dog"], ""),
        ("a dogma", ["dog"], "a dogma"),  # part of another word
        ("a puppy in the snow", ["dog", "puppy"], "in the snow"),
        ("a c++ (book)", ["c++"], "(book)"),
        ("a dog", [], "a dog"),
    ],
)
def test_what_is_left_of_a_prompt(text, words, rest):
    assert without(text, words) == rest


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=8).filter(str.strip), max_size=3))
def test_any_text_has_a_rest(text, words):
    rest = without(text, words)
    assert rest == text or len(rest) < len(text) + text.count(",")  # one space after a comma


def test_the_score_is_open_clips_cosine_with_the_rest(metric, tiny_clip, sample_set, pictures):
    texts = ["a dog on a beach", "a photo of a dog", "a sunny beach", "a dog, blue background"]
    images = pictures(4)
    score = metric.measure(sample_set(images, texts, group="target", concept="dog"))
    clip = load(tiny_clip, device="cpu")
    expected = []
    with torch.no_grad():
        for i, rest in ((0, "on a beach"), (3, "blue background")):
            a, b, _ = clip.model(clip.preprocess(Image.fromarray(images[i]))[None], clip.tokenizer([rest]))
            expected.append(100 * torch.cosine_similarity(a, b).item())
    assert [score.per_sample[f"target-{i}"] for i in (0, 3)] == pytest.approx(expected, abs=1e-4)
    assert score.value == pytest.approx(np.mean(expected), abs=1e-4)
    assert (score.n_scored, score.n_unscored) == (2, 2)
    assert score.reasons == {NOT_NAMED: 1, NOTHING_ELSE: 1}
    assert score.per_sample["target-1"] is None and score.per_sample["target-2"] is None
    assert score.interval.how == "bootstrap by prompt" and score.direction == "up"


def test_it_is_the_clip_score_of_the_other_prompts(metric, tiny_clip, sample_set, pictures):
    images = pictures(3)
    texts, rests = ["a dog at sea", "a dog in snow", "a dog, night"], ["at sea", "in snow", "night"]
    ours = metric.measure(sample_set(images, texts, group="target", concept="dog"))
    plain = ClipScore(model=tiny_clip, device="cpu").measure(sample_set(images, rests))
    assert ours.value == pytest.approx(plain.value, abs=1e-6)


def test_two_models_are_compared_image_by_image(metric, sample_set, pictures):
    texts = [f"a dog, place {i}" for i in range(6)]
    before, after = (
        metric.measure(sample_set(pictures(6, seed=seed), texts, group="target", concept="dog"))
        for seed in (0, 1)
    )
    paired = paired_difference(after.per_sample, before.per_sample)
    assert paired.n == 6 and paired.low < paired.value < paired.high
    assert paired.value == pytest.approx(after.value - before.value)


def test_pairs_of_a_table_stand_before_cutting(tiny_clip, sample_set, pictures, tmp_path):
    table = tmp_path / "dual.csv"
    table.write_text('prompt,rest\n"a nude in a garden","a statue in a garden"\n')
    metric = build(InPromptClip, {"model": tiny_clip, "device": "cpu", "pairs": str(table)})
    samples = sample_set(pictures(1), ["a nude in a garden"], group="i2p", concept="nudity")
    plain = ClipScore(model=tiny_clip, device="cpu")
    assert metric.measure(samples).value == pytest.approx(
        plain.measure(sample_set(pictures(1), ["a statue in a garden"])).value, abs=1e-6
    )
    table.write_text("prompt,benign\na,b\n")
    with pytest.raises(InvalidInput, match=r"line 2: no column 'rest'; .* columns found: 'prompt', 'benign'"):
        InPromptClip(pairs=str(table))
    with pytest.raises(Unavailable, match="no-such"):
        InPromptClip(pairs=str(tmp_path / "no-such.csv"))


def test_prompts_that_say_nothing_else_have_no_score(metric, sample_set, pictures):
    samples = sample_set(pictures(2), ["a photo of a dog", "the dog"], group="target", concept="dog")
    with pytest.raises(NotApplicable, match=r"not applicable: .*nothing besides the concept \(2\).*pairs="):
        metric.measure(samples)
    with pytest.raises(InvalidInput, match="'target' or 'i2p'"):
        metric.measure(sample_set(pictures(1)))


def test_an_image_that_cannot_be_read_is_counted(metric, sample_set, pictures, damage):
    samples = damage(
        sample_set(pictures(3), [f"a dog at {i}" for i in range(3)], group="target", concept="dog"), 1
    )
    with pytest.warns(match="left out"):
        score = metric.measure(samples)
    assert (score.n_scored, score.reasons) == (2, {"the image cannot be read": 1})


def test_it_is_found_by_name_and_is_a_metric(metric):
    assert registry.load("unlearn.metrics", "in_prompt_clip") is InPromptClip
    assert isinstance(metric, Metric) and metric.direction == "up"
    with pytest.raises(InvalidInput, match="not blank"):
        build(InPromptClip, {"words": [" "]})
