"""ESD: the published loss in both conventions, where x_t comes from, what is trained, and the official numbers."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_techniques import esd
from unlearn_techniques.diffusion.attention import GROUPS, parameter_group
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.weights import with_weights
from unlearn_techniques.esd import ESD, esd_loss

QUICK = {"iterations": 3, "lr": 1e-2, "sampling_steps": 5}


@pytest.fixture
def watched(monkeypatch):
    """Record what `apply` does: noises, draws of x_t (model, stop, x), predictions (x, t), losses and their terms."""
    seen = SimpleNamespace(noises=[], draws=[], predictions=[], losses=[], texts=[])
    noise, draw, predict, loss = esd.initial_noise, esd.denoise, StableDiffusion.noise, esd.esd_loss
    begin = StableDiffusion.trajectory
    inside = []

    def initial_noise(*arguments):
        seen.noises.append(noise(*arguments))
        return seen.noises[-1]

    def denoise(model, *arguments, stop):
        inside.append(stop)
        x = draw(model, *arguments, stop=stop)
        inside.pop()
        weights = {n: p.detach().clone() for n, p in model.unet.named_parameters()}
        seen.draws.append(SimpleNamespace(weights=weights, stop=stop, x=x))
        return x

    def predicted(model, x, t, *arguments, **settings):
        if not inside:
            seen.predictions.append((x, int(t)))
        return predict(model, x, t, *arguments, **settings)

    def esd_loss(*terms):
        seen.losses.append((loss(*terms), terms))
        return seen.losses[-1][0]

    def trajectory(model, texts, **settings):
        seen.texts.append(texts)
        return begin(model, texts, **settings)

    monkeypatch.setattr(esd, "initial_noise", initial_noise)
    monkeypatch.setattr(esd, "denoise", denoise)
    monkeypatch.setattr(esd, "esd_loss", esd_loss)
    monkeypatch.setattr(StableDiffusion, "noise", predicted)
    monkeypatch.setattr(StableDiffusion, "trajectory", trajectory)
    return seen


# ---- the loss --------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), eta=st.floats(0, 10))
def test_the_flag_of_2025_is_eta_plus_one(seed, eta):
    """The 2025 script: MSE(student, concept - flag (concept - empty))."""
    student, concept, empty = torch.randn(
        3, 1, 4, 4, 4, generator=torch.Generator().manual_seed(seed)
    ).double()
    theirs = torch.nn.MSELoss()(student, concept - (eta + 1) * (concept - empty))
    torch.testing.assert_close(esd_loss(student, concept, empty, empty, eta), theirs.float())


@pytest.mark.parametrize("eta", [0.0, 1.0, 3.0])
def test_the_first_loss(tiny, dog, watched, eta):
    """Student and teacher are equal: (1 + eta)^2 mse(concept, empty), of what diffusers' UNet predicts itself."""
    ESD(eta=eta, batch=2, **{**QUICK, "iterations": 1}).apply(tiny, [dog], seed=0)
    x, t = watched.predictions[-1]
    with torch.no_grad():
        concept, empty = (
            tiny.unet(x, t, encoder_hidden_states=tiny.encode([text] * 2)).sample for text in ("dog", "")
        )
    expected = (1 + eta) ** 2 * torch.nn.functional.mse_loss(concept, empty)
    assert x.shape == (2, 4, 8, 8)
    assert expected > 1e-6
    assert watched.losses[0][0].item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_first_loss_where_a_wider_prompt_is_kept(tiny, dog, watched):
    """eta is not shifted there: the student and the base are the same prediction, which leaves eta^2 mse."""
    ESD(eta=3.0, erase_from="a photo", **{**QUICK, "iterations": 1}).apply(tiny, [dog], seed=0)
    x, t = watched.predictions[-1]
    with torch.no_grad():
        concept, empty, wide = (
            tiny.unet(x, t, encoder_hidden_states=tiny.encode([text])).sample
            for text in ("dog", "", "a photo")
        )
    value, (student, _, _, base, _) = watched.losses[0]
    torch.testing.assert_close(student.detach(), wide, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(base, wide, atol=1e-5, rtol=1e-4)
    assert value.item() == pytest.approx(9 * torch.nn.functional.mse_loss(concept, empty).item(), rel=1e-3)
    assert watched.texts[0] == ["a photo"]  # x_t is of the wider prompt


def test_the_empty_prompt_has_nothing_to_erase(tiny, watched):
    nothing = SimpleNamespace(name="", names=("",))
    ESD(**{**QUICK, "iterations": 1}).apply(tiny, [nothing], seed=0)
    assert watched.losses[0][0].item() < 1e-10


def test_training_comes_near_the_target(tiny, dog, watched):
    """Against what the untrained student would lose at the same x_t, which is the teacher's prediction."""
    ESD(iterations=25, lr=3e-3, sampling_steps=2, batch=2).apply(tiny, [dog], seed=0)
    ratios = [value.item() / esd_loss(concept, concept, empty, base, eta).item()
              for value, (_, concept, empty, base, eta) in watched.losses]  # fmt: skip
    assert ratios[0] == pytest.approx(1.0, rel=1e-3)
    assert np.mean(ratios[-5:]) < 0.5


# ---- x_t -------------------------------------------------------------------------------------------------------


def grid_points(model, text, noise, steps):
    """Latents before each of the steps of diffusers' own pipeline at guidance 3, and its timesteps."""
    pipe = model.to_pipeline()
    pipe.set_progress_bar_config(disable=True)
    found = [noise]
    pipe(
        text, latents=noise, num_inference_steps=steps, guidance_scale=3.0, output_type="latent",
        callback_on_step_end=lambda _, i, t, kept: found.append(kept["latents"]) or kept,
    )  # fmt: skip
    return found, pipe.scheduler.timesteps.tolist()


@pytest.mark.parametrize("sampled_by", ["student", "teacher"])
def test_x_t_is_a_point_of_the_samplers_grid(tiny, dog, watched, sampled_by):
    ESD(sampled_by=sampled_by, **QUICK).apply(tiny, [dog], seed=1)
    drawn, predictions = list(watched.draws), list(watched.predictions)
    assert len(drawn) == 3
    assert len({draw.stop for draw in drawn}) > 1
    for i, draw in enumerate(drawn):
        same = all(torch.equal(p, draw.weights[n]) for n, p in tiny.unet.named_parameters())
        assert same == (sampled_by == "teacher" or i == 0)
        drawer = dataclasses.replace(tiny, unet=with_weights(tiny.unet, draw.weights))
        latents, timesteps = grid_points(drawer, "dog", watched.noises[i], 5)
        torch.testing.assert_close(draw.x, latents[draw.stop], atol=1e-4, rtol=1e-4)
        x, t = predictions[2 * i + 1]
        assert torch.equal(x, draw.x)
        assert t == timesteps[draw.stop]


def test_jitter_stays_in_the_bin(tiny, dog, watched):
    ESD(jitter=True, sampling_steps=5, iterations=8, lr=1e-9).apply(tiny, [dog], seed=0)
    grid = [801, 601, 401, 201, 1]
    offsets = [
        t - grid[draw.stop] for draw, (_, t) in zip(watched.draws, watched.predictions[1::2], strict=True)
    ]
    assert min(offsets) >= 0
    assert 100 < max(offsets) < 200


def test_words_and_templates_are_drawn_in_turn(tiny, watched):
    dog, car = Concept(name="dog", phrases=("wolf",)), Concept(name="car")
    ESD(iterations=30, sampling_steps=1, lr=1e-9, phrases=True, templates=("{}", "a {}, sketch style")).apply(
        tiny, [dog, car], seed=0
    )
    asked = {texts[0] for texts in watched.texts if len(texts) == 1}
    words = ("dog", "wolf", "car")
    assert asked == {*words, *(f"a {word}, sketch style" for word in words)}


# ---- what is trained -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS)
def test_exactly_the_group_changes(tiny, dog, group):
    """Every selected tensor moves, so every one has a gradient; teacher and all others keep their bits."""
    before = {n: p.detach().clone() for n, p in tiny.unet.named_parameters()}
    edited = ESD(train_method=group, iterations=2, lr=1e-2, sampling_steps=2).apply(tiny, [dog], seed=0)
    changed = [n for n, p in edited.unet.named_parameters() if not torch.equal(p, before[n])]
    assert changed == parameter_group(tiny.unet, group)
    assert all(torch.equal(p, before[n]) for n, p in tiny.unet.named_parameters())


def test_another_seed_is_another_model(tiny, dog):
    one, other = (ESD(**QUICK).apply(tiny, [dog], seed=seed).fingerprint for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"batch": 0},
        {"sampling_steps": 0},
        {"lr": 0.0},
        {"eta": -1.0},
        {"templates": ("dog",)},
    ],
)
def test_settings_that_make_no_sense(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad)).removesuffix("s")):
        ESD(**bad)


# ---- the official code -----------------------------------------------------------------------------------------


UP = "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v.weight"
CONV = "down_blocks.0.resnets.0.conv1.weight"

# What esd_sd.py (head 25613d2) added to UP or CONV: flat entries 0, 7 and -1, and the sum of squares. It was
# run once on this model at 16 pixels, in float32 and with DDIM, from the noises and stops that ours draws for
# seed 0: four iterations at 1e-3, x_t from the teacher on ten steps. No entry of any trained tensor differs
# from ours by more than 2.1e-5, 8.2e-5 and 7.2e-6, of moves of up to 4e-3: Adam's first steps magnify the
# rounding of the smallest gradients.
OFFICIAL = [
    ({"train_method": "esd-x", "eta": 1.0}, UP, (0.0033423, -0.0034551, 0.0032639, 0.0104143)),
    ({"train_method": "esd-u-2025", "eta": 1.0}, CONV, (-0.0003036, 0.0002215, 0.0031015, 0.0486119)),
    ({"train_method": "esd-x-strict", "eta": 3.0, "erase_from": "a photo"}, UP,
     (0.0032305, -0.0033138, 0.0034812, 0.0105714)),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "name", "recorded"), OFFICIAL)
def test_the_weights_of_the_official_code(fixed, dog, settings, name, recorded):
    """Its --negative_guidance is 2, 2 and 3: eta + 1, but eta itself where there is a wider prompt."""
    edited = ESD(iterations=4, lr=1e-3, sampling_steps=10, sampled_by="teacher", **settings).apply(
        fixed, [dog], seed=0
    )
    moved = (edited.unet.get_parameter(name) - fixed.unet.get_parameter(name)).double().flatten()
    found = [moved[0].item(), moved[7].item(), moved[-1].item(), moved.square().sum().item()]
    np.testing.assert_allclose(found, recorded, atol=5e-5)
