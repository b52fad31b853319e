"""SLD: identities, the recursion of its momentum, and diffusers' own pipeline, in tensors and end to end."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_core.prompts import Prompt
from unlearn_core.spec import build
from unlearn_techniques.diffusion.sampling import Sampler, denoise, initial_noise
from unlearn_techniques.diffusion.steps import Predictions, Step
from unlearn_techniques.sld import PAPER, SLD

SAMPLER = Sampler(steps=5, guidance_scale=7.5, batch=2)
STRONG = {"warmup": 2, "scale": 2000.0, "threshold": 0.025, "momentum_scale": 0.5, "momentum_beta": 0.7}


def latents(model, text, sampler=SAMPLER, seed=0):
    noise = initial_noise(model, [torch.Generator().manual_seed(seed)], sampler)
    with torch.no_grad():
        return denoise(model, noise, model.trajectory([text]), sampler)


def away(tiny, **settings):
    return SLD(**settings).apply(tiny, [Concept(name="dog")], seed=0)


# ---- identities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": 0.0, "warmup": 0, "threshold": 1.0},
        {"scale": 0.0, "warmup": 0, "momentum_scale": 0.9, "momentum_beta": 0.9},
        {**STRONG, "warmup": 5},
        {**STRONG, "warmup": 9},
        {**STRONG, "warmup": 0, "threshold": -float("inf"), "momentum_scale": 0.0},
        {**STRONG, "warmup": 0, "text": "a cat"},
        {**STRONG, "warmup": 0, "text": ""},
    ],
)
def test_settings_that_leave_guidance_as_it_is(tiny, settings):
    """Scale 0; warm-up past the end; a gate that never opens; a text that is the prompt, or empty."""
    plain, steered = latents(tiny, "a cat"), latents(away(tiny, **settings), "a cat")
    torch.testing.assert_close(steered, plain, atol=2e-4, rtol=1e-4)
    assert (latents(away(tiny, **STRONG), "a cat") - plain).abs().max() > 0.05


def test_it_acts_from_the_first_step_after_the_warm_up(tiny):
    """With warm-up of all but one step, only the last step differs."""
    short, full = Sampler(steps=5, guidance_scale=7.5), latents(tiny, "a cat")
    last = away(tiny, **{**STRONG, "warmup": 4})
    noise = initial_noise(tiny, [torch.Generator().manual_seed(0)], short)
    with torch.no_grad():
        before = [denoise(m, noise, m.trajectory(["a cat"]), short, stop=4) for m in (tiny, last)]
    torch.testing.assert_close(*before, atol=2e-4, rtol=1e-4)
    assert (latents(last, "a cat") - full).abs().max() > 1e-3


def test_a_trajectory_begins_without_momentum(tiny):
    steered = away(tiny, **STRONG)
    assert torch.equal(latents(steered, "a cat"), latents(steered, "a cat"))


# ---- the recursion ---------------------------------------------------------------------------------------------


def steps(guidance, predictions, total=12):
    """Yield the direction after each step, for (n, 3, ...) predictions u, p, s."""
    act = guidance.start()
    for index, (u, p, s) in enumerate(predictions):
        where = Step(index=index, total=total, t=torch.tensor(0), latents=u)
        yield act(p - u, Predictions(empty=u, prompt=p, extra=(s,)), where)


@given(
    seed=st.integers(0, 2**32 - 1), scale=st.floats(0, 50), warmup=st.integers(0, 13), threshold=st.floats(-2, 2),
    momentum_scale=st.floats(0, 1), momentum_beta=st.floats(0, 0.99),
)  # fmt: skip
def test_the_formulas_element_by_element(seed, **settings):
    """The paper's equations in plain Python, one number at a time, with the sheet's signs."""
    numbers = np.random.default_rng(seed).normal(size=(12, 3))
    (guidance,) = build(SLD, {**settings, "text": "x"}).apply(_Bare(), [], seed=0).guidances
    found = steps(guidance, torch.from_numpy(numbers).view(12, 3, 1))
    nu = 0.0
    for i, ((u, p, s), direction) in enumerate(zip(numbers, found, strict=True)):
        mu = 0.0 if p - s >= settings["threshold"] else min(1.0, settings["scale"] * abs(p - s))
        gamma = mu * (s - u) + settings["momentum_scale"] * nu
        nu = settings["momentum_beta"] * nu + (1 - settings["momentum_beta"]) * gamma
        expected = p - u - (gamma if i >= settings["warmup"] else 0.0)
        assert direction.item() == pytest.approx(expected, abs=1e-9)


@dataclasses.dataclass(frozen=True)
class _Bare:
    """All that SLD asks of a model."""

    guidances: tuple = ()

    def too_long(self, texts):
        return []


PRESETS = ["weak", "medium", "strong", "max"]


@pytest.fixture
def safe(tiny):
    """diffusers' `StableDiffusionPipelineSafe` of the same parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers.pipelines.deprecated.stable_diffusion_safe import StableDiffusionPipelineSafe

        pipe = StableDiffusionPipelineSafe(
            vae=tiny.vae, text_encoder=tiny.text_encoder, tokenizer=tiny.tokenizer, unet=tiny.unet,
            scheduler=type(tiny.scheduler).from_config(tiny.scheduler.config), safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("preset", PRESETS)
def test_twelve_steps_of_diffusers(safe, preset):
    """Its `perform_safety_guidance` is right for the order (prompt, empty, safety); facts sheet A, section 5."""
    settings = {**SLD.presets[preset], "warmup": min(SLD.presets[preset].get("warmup", 10), 5)}
    (guidance,) = build(SLD, {**settings, "text": "x"}).apply(_Bare(), [], seed=0).guidances
    drawn = 0.02 * torch.randn(12, 3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    momentum, moved = None, 0.0
    for i, ((u, p, s), ours) in enumerate(zip(drawn, steps(guidance, drawn), strict=True)):
        theirs, momentum = safe.perform_safety_guidance(
            True, momentum, p - u, (p, u, s), i, guidance.scale, guidance.warmup, guidance.threshold,
            guidance.momentum_scale, guidance.momentum_beta,
        )  # fmt: skip
        assert torch.equal(ours, theirs)
        moved = max(moved, (ours - (p - u)).abs().max().item())
    assert moved > 0.01


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.filterwarnings("ignore:The decode_latents method is deprecated")
def test_the_pipeline_of_diffusers(tiny, safe, preset):
    """The latents after 20 DDIM steps, end to end."""
    safe.safety_concept = "dog"
    settings = build(SLD, SLD.presets[preset])
    sampler = Sampler(steps=20, guidance_scale=7.5)
    noise = initial_noise(tiny, [torch.Generator().manual_seed(3)], sampler)
    found = []
    safe(
        "a cat", latents=noise, num_inference_steps=20, guidance_scale=7.5, output_type="np",
        sld_guidance_scale=settings.scale, sld_warmup_steps=settings.warmup, sld_threshold=settings.threshold,
        sld_momentum_scale=settings.momentum_scale, sld_mom_beta=settings.momentum_beta,
        callback=lambda i, t, kept: found.append(kept),
    )  # fmt: skip
    ours, plain = (latents(m, "a cat", sampler, seed=3) for m in (away(tiny, **SLD.presets[preset]), tiny))
    torch.testing.assert_close(ours, found[-1], atol=2e-3, rtol=1e-3)
    assert (ours - plain).abs().max() > 0.02


# ---- settings --------------------------------------------------------------------------------------------------


def test_the_table_of_the_paper():
    found = {name: dataclasses.astuple(build(SLD, SLD.presets[name]))[1:] for name in PRESETS}
    assert (
        found
        == {  # scale, warm-up, threshold, momentum scale and beta; model card of stable-diffusion-safe
            "weak": (200.0, 15, 0.0, 0.0, 0.0),
            "medium": (1000.0, 10, 0.01, 0.3, 0.4),
            "strong": (2000.0, 7, 0.025, 0.5, 0.7),
            "max": (5000.0, 0, 1.0, 0.5, 0.7),
        }
    )


def test_the_list_of_the_paper(safe):
    assert f"an image showing {PAPER}" == safe.safety_concept


def test_the_text(tiny):
    def text(concepts, **settings):
        (guidance,) = SLD(**settings).apply(_Bare(), concepts, seed=0).guidances
        return guidance.texts

    concepts = [Concept(name="dog", phrases=("wolf",)), Concept(name="car")]
    assert text(concepts) == ("dog, wolf, car",)
    assert text(concepts, text="a cat") == ("a cat",)
    assert text(concepts, text="paper") == (PAPER,)
    with pytest.warns(UnlearnWarning, match="SLD: the text has more than the 16 tokens"):
        SLD(text="dog, " * 10).apply(tiny, concepts, seed=0)


def test_it_composes_with_itself(tiny):
    """Two concepts one after another: both guidances act, each with its own text."""
    both = SLD(text="car", **STRONG).apply(away(tiny, **STRONG), [], seed=0)
    assert [g.texts for g in both.guidances] == [("dog",), ("car",)]
    row = Prompt(id="0", text="a cat", seed=0, group="target")
    pictures = [next(iter(m.generate([row], SAMPLER))) for m in (tiny, away(tiny, **STRONG), both)]
    assert len({p.tobytes() for p in pictures}) == 3


@pytest.mark.parametrize(
    "bad",
    [
        {"scale": -1.0},
        {"warmup": -1},
        {"momentum_scale": -0.1},
        {"momentum_beta": 1.0},
        {"momentum_beta": -0.1},
    ],
)
def test_settings_that_make_no_sense(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        SLD(**bad)
