"""Relearning: the curve of a model whose every step is known, the arithmetic, and real parts at tiny size."""

import copy
import dataclasses
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unlearn_core import registry
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnError
from unlearn_core.prompts import Prompt
from unlearn_core.protocols import Metric
from unlearn_core.samples import SampleSet
from unlearn_core.score import Score
from unlearn_core.spec import build
from unlearn_metrics.errors import NotApplicable
from unlearn_metrics.relearning import Relearning, area, steps_to
from unlearn_metrics.statistics import paired_difference

N = 12


class Autoencoder:
    """Latents are the mean colours."""

    dtype = torch.float32
    config = types.SimpleNamespace(scaling_factor=1.0)

    def encode(self, pixels):
        latents = pixels.mean((2, 3), keepdim=True).expand(-1, -1, 2, 2)
        return types.SimpleNamespace(latent_dist=types.SimpleNamespace(mode=lambda: latents))


class Level(nn.Module):
    """Predicts one number everywhere; a picture is as green as it is high."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(value)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """Learns to predict 1: Adam's step is its rate, so after s steps the level is s lr.

    The picture of row i shows a dog from level i / 100 on.
    """

    unet: Any
    vae: Any = dataclasses.field(default_factory=Autoencoder)
    scheduler: Any = dataclasses.field(
        default_factory=lambda: types.SimpleNamespace(
            alphas_cumprod=torch.full((1000,), 0.5), config=types.SimpleNamespace(prediction_type="epsilon")
        )
    )
    asked: list = dataclasses.field(default_factory=list)

    def to(self, *, dtype):
        assert dtype == torch.float32
        return self

    def tokens(self, texts):
        return torch.zeros(len(texts), 1)

    def trajectory(self, texts):
        self.asked.append(list(texts))
        return torch.ones(len(texts), 1, 1, 1)

    def noise(self, x, t, trajectory):
        assert x.shape[0] == len(t) == len(trajectory)
        assert 0 <= int(t.min()) <= int(t.max()) < 1000
        return x - x + self.unet.value - 1000  # far below any noise: all gradients are alike

    def generate(self, prompts, sampler=None):
        assert sampler in (None, "fine")
        for prompt in prompts:
            seen = self.unet.value.item() * 100 >= prompt.seed - 0.3
            image = np.full((2, 2, 3), 1, np.uint8)
            image[0, 0] = (*divmod(900 if seen else 100, 256), 0)
            image[1, 1, 0] = prompt.seed
            yield image


ROWS = [
    Prompt(id=f"target-{i:02d}", text=f"a dog {i}", seed=i, group="target", concept="dog") for i in range(N)
]


@pytest.fixture
def images_of(tmp_path, png):
    """Return a function from a model to the images of all rows."""
    made = []

    def draw(model):
        made.append(model)
        samples = SampleSet(tmp_path / f"of-{len(made)}")
        for row, picture in zip(ROWS, model.generate(ROWS), strict=True):
            samples.add(row, png(picture))
        return samples

    return draw


@pytest.fixture
def metric(pixel_detector):
    return Relearning(detector="pixel", steps=(2, 4, 8), lr=0.01, images=4)


@pytest.fixture
def measured(metric, images_of):
    """Return a function that measures a model which forgot everything, against one that knows it."""

    def measure(metric=metric, level=-0.01, seed=0, **options):
        model = Known(unet=Level(level))
        reference = images_of(Known(unet=Level(1)))
        return metric.measure_model(model, images_of(model), reference, seed=seed, **options)

    return measure


def test_a_curve_that_is_known(measured):
    """Row i is back from level i / 100 on, that is after i + 1 steps of 0.01 from -0.01."""
    score = measured()
    tested = [int(ident[-2:]) for ident in score.per_sample]
    assert len(tested) == N - 4 and score.n_scored == N - 4
    rates = [np.mean([i < step for i in tested]) for step in (0, 2, 4, 8)]
    assert [score.parts[f"after {step} steps"].value for step in (0, 2, 4, 8)] == pytest.approx(rates)
    assert score.value == pytest.approx(np.trapezoid(rates, [0, 2, 4, 8]) / 8)
    assert score.value == pytest.approx(np.mean(list(score.per_sample.values())))
    assert score.parts["gain"] == pytest.approx(score.value) and score.parts["original"].value == 1
    assert score.parts["steps to half"] == pytest.approx(np.interp(0.5, rates, [0, 2, 4, 8]))
    assert (score.parts["images"], score.direction) == (4, "down")
    assert score.interval.low < score.value < score.interval.high


def test_the_model_stays_as_it_was(metric, images_of):
    model = Known(unet=Level(-0.01))
    before = copy.deepcopy(model.unet.state_dict())
    metric.measure_model(model, images_of(model), images_of(Known(unet=Level(1))), seed=0)
    assert model.unet.state_dict() == before and model.unet.value.grad is None


def test_the_same_seed_gives_the_same_score_and_another_other_rows(measured):
    assert measured() == measured()
    chosen = [set(measured(seed=seed).per_sample) for seed in range(3)]
    assert len({frozenset(rows) for rows in chosen}) > 1


def test_what_was_never_gone_is_one_and_what_never_comes_back_zero(measured, metric):
    known = measured(level=1.0)
    assert (known.value, known.parts["gain"], known.parts["steps to half"]) == (1, 0, 0)
    lost = measured(level=-5.0)
    assert lost.value == 0 and "steps to half" not in lost.parts
    assert lost.interval.high > 0.2  # of eight rows


def test_the_rows_learned_from_show_the_concept_and_are_not_tested(metric, images_of):
    model, half = Known(unet=Level(-0.01)), Known(unet=Level(0.05))  # draws rows 0 to 5
    score = metric.measure_model(model, images_of(model), images_of(half), seed=0)
    learned = {row.id for row in ROWS} - set(score.per_sample)
    assert len(learned) == 4 and learned <= {f"target-{i:02d}" for i in range(6)}
    texts = {text for each in model.asked for text in each}
    assert texts <= {row.text for row in ROWS if row.id in learned}
    assert {len(each) for each in model.asked} == {4}


def test_without_a_reference_the_original_draws(metric, images_of):
    model, original = Known(unet=Level(-0.01)), Known(unet=Level(1))
    by_images = metric.measure_model(model, images_of(model), images_of(original), seed=0)
    by_model = metric.measure_model(model, images_of(model), original=original, seed=0, sampler="fine")
    assert by_model == by_images
    with pytest.raises(InvalidInput, match="images of the unmodified model: give them or that model"):
        metric.measure_model(model, images_of(model), seed=0)


def test_progress_and_how_many_are_tested(measured, metric):
    calls = []
    score = measured(dataclasses.replace(metric, tested=3), progress=lambda *call: calls.append(call))
    assert score.n_scored == 3 and calls == [(i, 8) for i in range(1, 9)]


def test_a_row_that_cannot_be_judged_once_has_no_area(measured, monkeypatch, pixel_detector):
    presence = pixel_detector.presence

    def forgetful(self, images):
        return [None if i[1, 1, 0] == 2 else p for i, p in zip(images, presence(self, images), strict=True)]

    monkeypatch.setattr(pixel_detector, "presence", forgetful)
    for seed in range(6):
        score = measured(seed=seed)
        assert (
            score.per_sample["target-02"] is None
        )  # not seen on the original's image, so never learned from
        assert score.reasons == {"the judge could not tell": 1} and score.n_scored == N - 5


@pytest.mark.parametrize(
    ("images", "level", "message"),
    [
        (4, 0.01, r"shows? the concept; of the 12 target rows 2 do"),
        (12, 1, "learns from 12 images of target rows and tests others, and there are only 12"),
    ],
)
def test_too_few_images(metric, images_of, images, level, message):
    model = Known(unet=Level(-1))
    metric = dataclasses.replace(metric, images=images)
    with pytest.raises(InvalidInput, match=message):
        metric.measure_model(model, images_of(model), images_of(Known(unet=Level(level))), seed=0)


def test_a_loss_that_is_not_finite_is_an_error(metric, images_of, monkeypatch):
    model = Known(unet=Level(-1))
    monkeypatch.setattr(Known, "noise", lambda self, x, t, trajectory: self.unet.value * x * torch.inf)
    with pytest.raises(UnlearnError, match="the loss of step 1 is .*: lower lr"):
        metric.measure_model(model, images_of(model), images_of(Known(unet=Level(1))), seed=0)


def test_images_alone_and_models_without_parts_do_not_apply(metric, images_of):
    samples = images_of(Known(unet=Level(1)))
    with pytest.raises(NotApplicable, match="not applicable: relearning trains the model itself"):
        metric.measure(samples, samples)
    with pytest.raises(NotApplicable, match="a UNet, and a SimpleNamespace shows none"):
        metric.measure_model(types.SimpleNamespace(), samples, samples, seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": []}, "steps rise from 1"),
        ({"steps": [0, 5]}, "steps rise from 1"),
        ({"steps": [5, 5]}, "steps rise from 1"),
        ({"lr": 0}, "lr is above 0"),
        ({"images": 0}, "images is at least 1"),
        ({"threshold": 2}, "a threshold is above 0"),
        ({"step": [1]}, "did you mean 'steps'"),
    ],
)
def test_settings_are_checked_when_it_is_built(pixel_detector, settings, message):
    with pytest.raises(InvalidInput, match=message):
        build(Relearning, {"detector": "pixel", "detector_settings": {"concept": "dog"}, **settings})


def test_it_is_found_by_name_and_is_a_metric(metric):
    assert registry.load("unlearn.metrics", "relearning") is Relearning
    assert isinstance(metric, Metric) and metric.prompts == ("target",)


# ---- the arithmetic ------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=6), st.floats(0, 1))
def test_the_area_is_numpys_trapezoid(pieces, start):
    steps = np.concatenate([[0], np.cumsum([width for width, _ in pieces])]).tolist()
    rates = [start, *(rate for _, rate in pieces)]
    found = area(steps, rates)
    assert found == pytest.approx(np.trapezoid(rates, steps) / steps[-1])
    assert min(rates) - 1e-12 <= found <= max(rates) + 1e-12


def test_steps_to_a_level():
    assert steps_to(0.5, [0, 10], [0.5, 0]) == 0
    assert steps_to(0.5, [0, 10, 20], [0, 0.25, 0.25]) is None
    assert steps_to(0.25, [0, 4, 20], [0, 0.5, 0.1]) == 2


# ---- real parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("technique", ["none", "sld", "safree"])
def test_real_parts_at_tiny_size(tmp_path, png, pixel_detector, monkeypatch, technique):
    """A Stable Diffusion of real classes: only the copy of its UNet learns, with the defence between."""
    testing = pytest.importorskip("unlearn_techniques.testing")
    from unlearn_techniques.diffusion.fingerprints import weights_fingerprint
    from unlearn_techniques.diffusion.sampling import Sampler

    defend = registry.load("unlearn.techniques", technique)()
    model = defend.apply(testing.tiny_sd(), [Concept(name="dog", anchor="cat")], seed=0)
    assert len(model.hooks) == {"none": 0, "sld": 1, "safree": len(model.hooks) or 1}[technique]
    sampler = Sampler(steps=2, guidance_scale=2.0, batch=2)
    rows = ROWS[:4]
    samples = SampleSet(tmp_path / "tiny")
    for row, picture in zip(rows, model.generate(rows, sampler), strict=True):
        samples.add(row, png(picture))
    monkeypatch.setattr(pixel_detector, "presence", lambda self, images: [0.9] * len(images))
    before = weights_fingerprint({part: getattr(model, part) for part in model.parts}, model.tokenizer)
    drew = []
    generate = type(model).generate
    monkeypatch.setattr(
        type(model), "generate", lambda self, *a, **k: drew.append(self) or generate(self, *a, **k)
    )
    metric = Relearning(detector="pixel", steps=(1, 3), lr=1e-2, images=2, batch=2)
    score = metric.measure_model(model, samples, samples, seed=0, sampler=sampler)
    assert isinstance(score, Score) and (score.value, score.n_scored) == (1, 2)
    assert before == weights_fingerprint(
        {part: getattr(model, part) for part in model.parts}, model.tokenizer
    )
    student = drew[-1]
    assert student.hooks == model.hooks
    assert student.vae is model.vae and student.text_encoder is model.text_encoder
    moved = [not p.equal(q) for p, q in zip(student.unet.parameters(), model.unet.parameters(), strict=True)]
    assert np.mean(moved) > 0.9
    assert all(p.grad is None for part in model.parts for p in getattr(model, part).parameters())


@pytest.mark.slow
def test_a_model_that_never_knew_dogs_relearns_them_more_slowly_than_one_that_was_edited(tmp_path, png):
    """Recorded on 2 cores: UCE's area 0.66 [0.39, 0.86], that of the model trained without dogs 0.12 [0.02, 0.39]."""
    pocket_sd = pytest.importorskip("pocket_sd")
    pytest.importorskip("unlearn_techniques")
    from unlearn_techniques.diffusion.model import StableDiffusion
    from unlearn_techniques.diffusion.sampling import Sampler
    from unlearn_techniques.uce import UCE

    base = StableDiffusion.load("pocket")
    edited = UCE(**UCE.presets["pocket"]).apply(base, [pocket_sd.concept("dog")], seed=0)
    gold = StableDiffusion.load(pocket_sd.path("dog"))
    sampler = Sampler(steps=pocket_sd.STEPS, guidance_scale=pocket_sd.GUIDANCE)
    rows = pocket_sd.prompts("target", "dog", n=20).rows
    drawn = {}
    for name, model in (("base", base), ("edited", edited), ("gold", gold)):
        drawn[name] = SampleSet(tmp_path / name)
        for row, picture in zip(rows, model.generate(rows, sampler), strict=True):
            drawn[name].add(row, png(picture))
    metric = Relearning(detector="pocket", steps=(10, 25, 50), lr=1e-4)
    scores = {
        name: metric.measure_model(model, drawn[name], drawn["base"], seed=0, sampler=sampler)
        for name, model in (("edited", edited), ("gold", gold))
    }
    paired = paired_difference(scores["edited"].per_sample, scores["gold"].per_sample)
    assert paired.low > 0.2 and paired.p < 0.01
    assert scores["edited"].parts["steps to half"] < 20 and "steps to half" not in scores["gold"].parts
    assert scores["gold"].value < scores["edited"].interval.low
