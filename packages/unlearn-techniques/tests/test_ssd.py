"""SSD: both rules against their formulas and the official code, the importances, what is selected, what is asked."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_techniques import ssd
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.attention import parameter_group
from unlearn_techniques.diffusion.fisher import fisher
from unlearn_techniques.diffusion.weights import with_weights
from unlearn_techniques.ssd import PEOPLE_AND_THINGS, SSD, eval_learn, foster, is_inner
from unlearn_techniques.testing import tiny_sdxl

QUICK = {"samples": 4, "pictures": 1, "sampling_steps": 2, "retain_prompts": ("", "a photo", "a car")}


# ---- the rules -------------------------------------------------------------------------------------------------


def test_foster_is_the_official_code_bit_for_bit():
    """`ParameterPerturber.modify_weight` (head cdfdc0e), run once: lambda 0.7, alpha 0.5, one of 4 betas above 1."""
    numbers = np.random.RandomState(0)
    theta, f_d, f_f = numbers.randn(12), numbers.rand(12) ** 4, numbers.rand(12) ** 4
    found = foster(*(torch.from_numpy(x).float() for x in (theta, f_d, f_f)), 0.5, 0.7)
    assert [x.hex() for x in found.tolist()] == RECORDED


RECORDED = [
    "0x1.c398f00000000p+0", "0x1.99c2d00000000p-2", "0x1.52682e0000000p-5", "0x1.dc1f040000000p-14",
    "0x1.8b5bf00000000p-19", "-0x1.f45dc40000000p-1", "0x1.e671fe0000000p-1", "-0x1.35fac40000000p-3",
    "-0x1.a6c8d00000000p-4", "0x1.a473f00000000p-2", "0x1.2700500000000p-3", "0x1.744b440000000p+0",
]  # fmt: skip

importance = arrays(np.float32, 8, elements=st.just(0.0) | st.floats(2**-20, 2**10, width=32))
weights = arrays(np.float32, 8, elements=st.floats(-8, 8, width=32))
positive = st.floats(0.125, 64)


def tensors(*found):
    return [torch.from_numpy(np.array(x)) for x in found]


@given(theta=weights, f_d=importance, f_f=importance, alpha=positive, lamb=st.floats(0, 8))
def test_foster_shrinks_what_is_selected_and_nothing_else(theta, f_d, f_f, alpha, lamb):
    theta, f_d, f_f = tensors(theta, f_d, f_f)
    new, selected = foster(theta, f_d, f_f, alpha, lamb), f_f > alpha * f_d
    assert torch.equal(new[~selected], theta[~selected])
    assert (new.abs() <= theta.abs()).all() and (new * theta >= 0).all()
    beta = (lamb * f_d.double() / f_f.double().clamp(min=1e-300)).clamp(max=1)
    torch.testing.assert_close(new[selected].double(), (beta * theta)[selected], rtol=1e-5, atol=1e-30)


@given(theta=weights, f=importance, other=importance, alpha=st.floats(1, 64), lamb=st.floats(0, 8))
def test_limits_of_foster(theta, f, other, alpha, lamb):
    theta, f, other = tensors(theta, f, other)
    assert torch.equal(foster(theta, f, f, alpha, lamb), theta)  # the concept is no different from everything
    assert torch.equal(foster(theta, 4 * other, 4 * f, alpha, lamb), foster(theta, other, f, alpha, lamb))
    selected = f > alpha * other
    assert not foster(theta, other, f, alpha, 0.0)[selected].any()
    if (other[selected] > 0).all():
        assert torch.equal(foster(theta, other, f, alpha, 1e30), theta)


@given(theta=weights, f_r=importance, f_f=importance, alpha=positive, d=st.floats(0, 2))
def test_eval_learn_shrinks_everything_that_matters(theta, f_r, f_f, alpha, d):
    theta, f_r, f_f = tensors(theta, f_r, f_f)
    new = eval_learn(theta, f_r, f_f, alpha, d)
    assert torch.isfinite(new).all()
    assert torch.equal(new[f_f == 0], theta[f_f == 0])  # 0/0 included
    gone = (f_r == 0) & (f_f > 0)
    torch.testing.assert_close(new[gone], max(0.0, 1 - d) * theta[gone])
    torch.testing.assert_close(eval_learn(theta, f_r, f_r, alpha, 1.0)[f_r > 0], theta[f_r > 0] / (1 + alpha))


def test_alpha_means_the_opposite():
    theta, f_r, f_f = torch.ones(3), torch.tensor([1.0, 1.0, 1.0]), torch.tensor([3.0, 6.0, 20.0])
    strength = [
        [(1 - rule(theta, f_r, f_f, alpha, 1.0)).sum() for alpha in (2.0, 10.0)]
        for rule in (foster, eval_learn)
    ]
    assert strength[0][0] > strength[0][1] and strength[1][0] < strength[1][1]
    assert (SSD()._alpha, SSD(rule="eval_learn")._alpha, SSD(rule="eval_learn", alpha=3.0)._alpha) == (
        10.0,
        0.1,
        3.0,
    )


# ---- the importances -------------------------------------------------------------------------------------------


@pytest.fixture
def samples(tiny):
    g = torch.Generator().manual_seed(0)
    eps, t = torch.randn(4, *tiny.latent_shape(), generator=g), torch.tensor([3, 250, 600, 990])
    return torch.randn(2, 3, *tiny.latent_shape(), generator=g), eps, t


@pytest.mark.parametrize("batch", [1, 2])
def test_fisher_is_the_mean_of_squared_gradients(tiny, samples, batch):
    """Against `backward` through diffusers' own UNet, noise added by its own scheduler."""
    latents, eps, t = samples
    names = [
        "conv_in.weight",
        "mid_block.resnets.0.norm1.bias",
        *parameter_group(tiny.unet, "esd-x-strict")[:2],
    ]
    found = fisher(tiny, names, ["a dog", "blue"], latents, eps, t, batch=batch)
    unet = with_weights(tiny.unet, {}).requires_grad_(True)
    sums = dict.fromkeys(names, 0.0)
    for text, x_0 in zip(("a dog", "blue"), latents, strict=True):
        for start in range(0, 4, batch):
            js = list(range(start, start + batch))
            x_t = tiny.scheduler.add_noise(x_0[[j % 3 for j in js]], eps[js], t[js])
            unet.zero_grad()
            seen = unet(x_t, t[js], encoder_hidden_states=tiny.encode([text] * batch).detach()).sample
            torch.nn.functional.mse_loss(seen, eps[js]).backward()
            for name in names:
                sums[name] = sums[name] + unet.get_parameter(name).grad.square()
    for name in names:
        torch.testing.assert_close(found[name], sums[name] / (8 // batch), rtol=1e-3, atol=1e-12)
    assert all(p.grad is None for p in tiny.unet.parameters())


def test_batches_are_whole(tiny, samples):
    with pytest.raises(InvalidInput, match="a multiple of the batch, got 4 and 3"):
        fisher(tiny, ["conv_in.weight"], ["a", "b"], *samples, batch=3)


def test_half_precision_is_left_behind(tiny, samples):
    half = tiny.to(dtype=torch.bfloat16)
    (found,) = fisher(half, ["conv_in.weight"], ["a dog", "blue"], *samples).values()
    (exact,) = fisher(tiny, ["conv_in.weight"], ["a dog", "blue"], *samples).values()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.2, atol=float(exact.max()) / 50)


# ---- the technique ---------------------------------------------------------------------------------------------


@pytest.fixture
def watched(monkeypatch):
    """Record the calls of `fisher`: (texts, latents, eps, t), and what it found."""
    calls = []

    def spy(model, names, texts, latents, eps, t, **more):
        found = fisher(model, names, texts, latents, eps, t, **more)
        calls.append(((texts, latents, eps, t), dict(found)))
        return found

    monkeypatch.setattr(ssd, "fisher", spy)
    return calls


def test_exactly_the_selected_weights_change(tiny, dog, watched):
    edited = SSD(alpha=2.0, share=0.1, group="esd-x", **QUICK).apply(tiny, [dog], seed=0)
    (_, f_f), (_, f_r) = watched
    for name in parameter_group(tiny.unet, "esd-x"):
        old, new = tiny.unet.get_parameter(name), edited.unet.get_parameter(name)
        f_d = 0.1 * f_f[name] + 0.9 * f_r[name]
        # Where beta is next to 1 or the weight is 0 the product may be the weight itself.
        assert not ((old != new) & ~(f_f[name] > 2 * f_d)).any()
        torch.testing.assert_close(new, torch.where(f_f[name] > 2 * f_d, f_d / f_f[name] * old, old))


def test_concept_and_rest_meet_the_same_noise(tiny, dog, watched):
    SSD(alpha=2.0, **QUICK | {"pictures": 2}).apply(tiny, [dog], seed=0)
    ((forget, x, *draws), _), ((retain, y, *others), _) = watched
    assert forget == ["dog"] and retain == ["", "a photo", "a car", "wolf"]
    assert x.shape == (1, 2, 4, 8, 8) and y.shape == (4, 2, 4, 8, 8)
    assert all(torch.equal(a, b) for a, b in zip(draws, others, strict=True))
    assert len({p.sum().item() for p in torch.cat([x, y]).flatten(0, 1)}) == 10  # every picture is another


def test_timesteps_and_noise_alone(tiny, dog, watched):
    SSD(alpha=2.0, **QUICK | {"pictures": 0, "timesteps": (200, 203), "samples": 9}).apply(
        tiny, [dog], seed=0
    )
    (_, x, _, t), _ = watched[0]
    assert not x.any()
    assert set(t.tolist()) == {200, 201, 202}


def test_the_same_prompts_select_nothing(tiny):
    """A trailing space is no token: forgotten and retained are the same, and no F_f is above alpha F_D."""
    same = SSD(
        alpha=1.0, **QUICK | {"pictures": 0, "forget_prompts": ("a dog",), "retain_prompts": ("a dog ",)}
    )
    with pytest.warns(UnlearnWarning, match="alpha=1 changes no weight"):
        assert same.apply(tiny, [Concept(name="dog")], seed=0).fingerprint == tiny.fingerprint


def test_prompts():
    concepts = [Concept(name="dog", phrases=("hound",), adjacent=("cat", "car")), Concept(name="cat")]
    technique = SSD(
        templates=("a {}", "{}, blue"), preserve=("apple", "dog"), retain_prompts=("a car", "a dog")
    )
    forget, retain = technique._prompts(concepts)
    assert forget == ["a dog", "dog, blue", "a hound", "hound, blue", "a cat", "cat, blue"]
    assert retain == ["a car", "car, blue", "a apple", "apple, blue"]
    assert SSD(forget_prompts=("x", "y", "x"))._prompts(concepts)[0] == ["x", "y"]
    assert len(PEOPLE_AND_THINGS) == len(set(PEOPLE_AND_THINGS)) == 24


def test_an_alpha_that_can_select_nothing_is_said(dog):
    with pytest.raises(InvalidInput, match=r"no F_f is above 5 F_D, and alpha=10 selects nothing"):
        SSD(share=None, retain_prompts=("", "a photo", "a car")).check([dog])  # dog of five: wolf is retained
    SSD(share=None, alpha=4.9, retain_prompts=("", "a photo", "a car")).check([dog])
    SSD(rule="eval_learn", share=None, alpha=100.0).check([dog])
    with pytest.raises(InvalidInput, match="nothing is retained"):
        SSD(retain_prompts=()).check([Concept(name="dog")])


def test_progress_is_of_the_whole(tiny, dog):
    seen = []
    SSD(alpha=2.0, **QUICK).apply(
        tiny, [dog], seed=0, progress=lambda done, total: seen.append((done, total))
    )
    done, totals = zip(*seen, strict=True)
    assert set(totals) == {(2 * 2 + 3 * 4) * 5}
    assert list(done) == sorted(done) and done[-1] == totals[0]


def test_half_precision_stays(tiny, dog):
    edited = SSD(alpha=2.0, **QUICK).apply(tiny.to(dtype=torch.bfloat16), [dog], seed=0)
    assert edited.dtype == torch.bfloat16


def test_on_xl(dog):
    model = tiny_sdxl()
    edited = SSD(alpha=2.0, lamb=0.5, **QUICK).apply(model, [dog], seed=0)
    old = dict(model.unet.named_parameters())
    assert any(not torch.equal(p, old[n]) for n, p in edited.unet.named_parameters())


def test_inner_on_sd_v14():
    """Counted apart: all 2- and 4-dimensional tensors less the five named (facts sheet A, 0.1: 686 tensors in all)."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    spared = [n for n, _ in unet.named_parameters() if not is_inner(unet, n)]
    matrices = [n for n in spared if unet.get_parameter(n).ndim > 1]
    assert matrices == [
        "conv_in.weight", "time_embedding.linear_1.weight", "time_embedding.linear_2.weight", "conv_out.weight",
    ]  # fmt: skip
    assert all(n.endswith(".bias") or "norm" in n for n in set(spared) - set(matrices))


@pytest.mark.parametrize(
    "bad",
    [
        {"samples": 0}, {"samples": 5, "batch": 2}, {"pictures": -1}, {"sampling_steps": 0}, {"timesteps": (5, 5)},
        {"timesteps": (0, 1001)}, {"lamb": -1.0}, {"alpha": -1.0}, {"dampening": -0.1}, {"share": 1.0},
        {"templates": ("dog",)}, {"group": "esd-z"},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(bad):
    words = {"templates": "each template", "group": "did you mean 'esd-x'"}
    with pytest.raises(InvalidInput, match=words.get(next(iter(bad)), next(iter(bad)))):
        SSD(**bad)


@pytest.mark.parametrize("rule", ["foster", "eval_learn"])
def test_conformance(tiny, dog, rule):
    group = {"rule": rule, "group": "esd-x-strict", "alpha": 1.5 if rule == "foster" else 5.0, **QUICK}
    identity = {"foster": {"lamb": 1e9}, "eval_learn": {"dampening": 0.0}}[rule]
    technique = SSD(**group, lamb=0.1 if rule == "foster" else 1.0)
    names = [f"unet.{n}" for n in parameter_group(tiny.unet, "esd-x-strict")]
    check_technique(technique, tiny, dog, parameters=names)
    with pytest.warns(UnlearnWarning, match="changes no weight"):
        same = dataclasses.replace(technique, **identity).apply(tiny, [dog], seed=0)
    assert same.fingerprint == tiny.fingerprint
