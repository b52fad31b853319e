"""SAFREE: the official functions' numbers, projections and Fourier filters in closed form, and the drawn pictures."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnWarning
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.reattention import reattend, reattention_sites
from unlearn_techniques.diffusion.sampling import Sampler, denoise, initial_noise
from unlearn_techniques.diffusion.steps import Step
from unlearn_techniques.safree import PAPER, SAFREE, off, projector, trigger_tokens
from unlearn_techniques.sld import SLD
from unlearn_techniques.uce import UCE

SAMPLER = Sampler(steps=5, guidance_scale=7.5, batch=2)
ALWAYS = {"svf": "off"}


def guarded(tiny, **settings):
    return SAFREE(**settings).apply(tiny, [Concept(name="dog", phrases=("wolf",))], seed=0)


def hook(tiny, **settings):
    return guarded(tiny, **settings).conditions[0]


def latents(model, texts, sampler=SAMPLER, **start):
    noise = initial_noise(model, [torch.Generator().manual_seed(0) for _ in texts], sampler)
    with torch.no_grad():
        return denoise(model, noise, model.trajectory(texts, **start), sampler)


def at(index, total=50):
    return Step(index=index, total=total, t=torch.tensor(0), latents=torch.zeros(1))


def facts(x):
    """Three sums that no other tensor of these tests shares."""
    x = x.double().flatten()
    ramp = torch.arange(1, len(x) + 1, dtype=torch.float64) / len(x)
    return [x.sum().item(), x.abs().sum().item(), (x * ramp).sum().item()]


# ---- the official functions: jaehong31/SAFREE b8b2c3f, run on the same draws, torch 2.13 -------------------------


@pytest.fixture(scope="module")
def drawn():
    """Concepts (3, 32), masked prompts (5, 32) and embeddings (77, 32)."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for shape in ((3, 32), (5, 32), (77, 32))]


def test_projection_and_merge_of_the_official_code(drawn):
    """`safree_projection` and `projection_and_orthogonal` of models/modified_stable_diffusion_pipeline.py."""
    c, m, e = drawn
    matrix = off(c) @ projector(m)
    triggers = trigger_tokens((m.double() @ off(c)).norm(dim=1), 0.01)
    assert (triggers.nonzero().flatten() + 1).tolist() == [1, 5]
    safe = e.double() @ matrix.T
    assert facts(safe) == pytest.approx([-17.17946, 717.10365, -7.61264], abs=2e-3)
    merged = torch.where(
        torch.cat([triggers.new_zeros(1), triggers, triggers.new_zeros(71)])[:, None], safe, e
    )
    assert facts(merged) == pytest.approx([-5.25939, 1941.24242, -27.94281], abs=2e-3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, 0, 0, 2, 3, 5, 7, 9, 10, 10, 10]),
        (SAFREE.presets["style"], [0, 0, 0, 0, 1, 2, 5, 8, 10, 10, 10]),
    ],
)
def test_the_steps_of_the_official_code(tiny, settings, expected):
    """`f_beta` for nudity and for artists."""
    betas = [0, 0.2, 0.45, 0.5, 0.52, 0.5333, 0.55, 0.57, 0.6, 0.8, 1.0]
    assert [steps(tiny, beta, **settings) for beta in betas] == expected


def steps(tiny, beta, **settings):
    """Return t' of a row that the matrix turns until the cosine is 1 - beta."""
    turned = torch.tensor([[1 - beta, 0], [math.sqrt(1 - (1 - beta) ** 2), 0]], dtype=torch.float64)
    return hook(tiny, **settings).last_step(torch.tensor([[2.0, 0.0]]), turned)


def test_the_steps_of_the_paper_and_of_no_filter(tiny):
    assert steps(tiny, 0.3, svf="paper", up_t=8) == pytest.approx(8 / (1 + math.exp(-0.3)))
    assert steps(tiny, 0.0, svf="paper") == pytest.approx(5)  # at least half of them, for any prompt
    assert steps(tiny, 0.0, svf="off") == math.inf


@pytest.mark.parametrize(
    ("rule", "expected", "first"),
    [
        ("low", [-10.70637, 294.49641, 0.1862], [-0.67464, -0.29917, 1.40528, -1.40576]),
        ("high", [12.03742, 239.74589, 13.89646], [0.36117, -0.50351, 1.31891, -0.62585]),
    ],
)
def test_the_helpers_of_the_official_code(rule, expected, first):
    """`SafeGuard_Low_Fourier_filter` and `SafeGuard_High_Fourier_filter` of free_lunch_utils.py, (x, 1, 0.9)."""
    x = torch.randn(3, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    found = reattend(x[1:2], x[2:3], 0.9, rule)
    assert facts(found) == pytest.approx(expected, abs=1e-3)
    assert found[0, 0, 0, :4].tolist() == pytest.approx(first, abs=1e-4)


# ---- projections ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 4))
def test_a_projector_is_symmetric_idempotent_and_its_trace_the_rank(seed, rank, copies):
    """Also where vectors nearly depend on each other, where the inverse of the Gram matrix is noise."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rank, 16))
    mixed = rng.normal(size=(copies, rank)) @ vectors
    p = projector(torch.from_numpy(np.concatenate([vectors, mixed])).float()).numpy()
    np.testing.assert_allclose(p, p.T, atol=1e-12)
    np.testing.assert_allclose(p @ p, p, atol=1e-12)
    assert np.trace(p) == pytest.approx(np.linalg.matrix_rank(vectors), abs=1e-9)
    np.testing.assert_allclose(p @ vectors.T, vectors.T, atol=2e-3)


def by_hand(tiny, text, alpha):
    """The trigger words of a prompt, one masked prompt at a time, in NumPy, with Gram matrices."""

    def pooled(ids):
        ids = torch.tensor(ids)
        end = ids.tolist().index(tiny.tokenizer.eos_token_id)
        return tiny.text_encoder(ids[None]).last_hidden_state[0, end].detach().double().numpy()

    c = np.stack([pooled(tiny.tokens([word])[0].tolist()) for word in ("dog", "wolf")], axis=1)
    p_c = c @ np.linalg.inv(c.T @ c) @ c.T
    ids = tiny.tokens([text])[0].tolist()
    n = ids.index(tiny.tokenizer.eos_token_id) - 1
    m = [pooled([*ids[:i], 0, *ids[i + 1 :]]) for i in range(1, n + 1)]
    d = [np.linalg.norm(p - p_c @ p) for p in m]
    found = [i + 1 for i in range(n) if not d[i] < (1 + alpha) * np.mean(d[:i] + d[i + 1 :])]
    return found, p_c, np.stack(m, axis=1), n


TEXTS = ["a photo of a dog", "a cat, blue", "wolf of a car, art style", "dog dog cat"]


@pytest.mark.parametrize("text", TEXTS)
def test_only_triggers_change_and_nothing_of_the_concept_is_left_of_them(tiny, text):
    found, p_c, m, n = by_hand(tiny, text, alpha=0.0)
    assert found
    e = tiny.encode([text]).detach()
    read = hook(tiny, alpha=0.0, **ALWAYS).prepare(tiny, [text], e)(e, at(0))
    changed = (read != e).any(dim=2)[0].nonzero().flatten().tolist()
    assert changed == found  # begin and end tokens and the padding are what they were, bit for bit
    rows = read[0, changed].double().numpy()
    assert np.abs(rows @ p_c).max() < 1e-5
    u = np.linalg.svd(m, full_matrices=False)[0]
    expected = (np.eye(32) - p_c) @ u @ u.T @ e[0, changed].double().numpy().T
    np.testing.assert_allclose(rows, expected.T, atol=1e-5)
    paper = hook(tiny, alpha=0.0, projection="paper", **ALWAYS).prepare(tiny, [text], e)(e, at(0))
    np.testing.assert_allclose(
        paper[0, changed].double().numpy(),
        (u @ u.T @ (np.eye(32) - p_c) @ e[0, changed].double().numpy().T).T,
        atol=1e-5,
    )
    assert np.abs(paper[0, changed].double().numpy() @ p_c).max() > 1e-3  # its order leaves some
    padded = hook(tiny, alpha=0.0, padding=True, **ALWAYS).prepare(tiny, [text], e)(e, at(0))
    changed = (padded != e).any(dim=2)[0].nonzero().flatten().tolist()
    assert changed == [*found, *range(n + 1, e.shape[1])]


def test_what_lies_in_the_prompt_and_off_the_concept_stays():
    """e in the span of M, M orthogonal to C: the two projections do nothing."""
    basis = torch.linalg.qr(torch.randn(32, 8, generator=torch.Generator().manual_seed(0)).double())[0].T
    c, m = basis[:3], basis[3:]
    e = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).double() @ m
    torch.testing.assert_close(e @ (off(c) @ projector(m)).T, e, atol=1e-9, rtol=0)


def test_one_token_no_token_and_too_many(tiny):
    remove = hook(tiny)
    e = tiny.encode(["car", "", "dog " * 40]).detach()
    read = hook(tiny, alpha=0.0, **ALWAYS).prepare(tiny, ["car", "", "dog " * 40], e)(e, at(0))
    changed = (read != e).any(dim=2)
    assert changed[0].nonzero().flatten().tolist() == [1]
    c = off(remove._concepts(tiny))
    torch.testing.assert_close(read[0, 1], (e[0, 1].double() @ c).float(), atol=1e-5, rtol=0)
    assert not changed[1].any()
    assert 0 < changed[2].sum() <= 14
    assert not changed[2][[0, -1]].any()  # the end token is the 16th
    assert read.isfinite().all()


def test_filtered_steps_are_those_of_fifty(tiny):
    """t' of a row is reached at the same part of the way with any number of steps."""
    text, condition = "a photo of a dog", hook(tiny, svf_midpoint=0.0)  # t' is up_t
    e = tiny.encode([text]).detach()
    for total, last in ((50, 10), (25, 5), (100, 20), (51, 10), (4, 0)):
        change = condition.prepare(tiny, [text], e)
        assert not torch.equal(change(e, at(last, total)), e)
        assert change(e, at(last + 1, total)) is e
    other = hook(tiny, svf_midpoint=9.0).prepare(tiny, [text], e)  # t' is 0
    assert not torch.equal(other(e, at(0)), e)
    assert torch.equal(other(e, at(1)), e)


# ---- gradients and embeddings without texts --------------------------------------------------------------------------


def test_the_filter_is_linear_in_the_embeddings(tiny):
    """The gradient of w e~ is w (I - P_C) P_I for triggers and w for the rest."""
    text = "a photo of a dog"
    condition = hook(tiny, **ALWAYS)
    e = tiny.encode([text]).detach().requires_grad_()
    w = torch.randn(e.shape, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad((w * condition.prepare(tiny, [text], e)(e, at(0))).sum(), e)
    matrix, triggers, _ = condition.read(tiny, text, off(condition._concepts(tiny)))
    expected = torch.where(triggers[:, None], w @ matrix.float(), w)
    torch.testing.assert_close(slope, expected, atol=1e-5, rtol=1e-4)


def test_embeddings_without_texts_are_defended(tiny):
    """Every row but the first loses the concept, as long as any prompt could be filtered; gradients go through."""
    condition = hook(tiny)
    e = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))
    read = condition.prepare(tiny, None, e)(e, at(10))
    concepts = condition._concepts(tiny)
    assert torch.equal(read[:, 0], e[:, 0])
    assert (read[:, 1:] @ concepts.T).abs().max() < 1e-3 < (e[:, 1:] @ concepts.T).abs().min(dim=0)[0].max()
    model, x = guarded(tiny), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    e = tiny.encode(["a dog"]).detach().requires_grad_()
    noise = [m.noise(x, 990, m.trajectory(embeddings=e), guidance_scale=7.5) for m in (tiny, model)]
    slopes = [torch.autograd.grad(n.square().sum(), e)[0] for n in noise]
    assert (noise[0] - noise[1]).abs().max() > 1e-3
    assert slopes[1].isfinite().all()
    assert slopes[1].abs().sum() > 0
    assert not torch.allclose(*slopes)


# ---- latent re-attention ---------------------------------------------------------------------------------------------


def test_reattention_in_closed_form():
    """A constant is one coefficient, at frequency 0."""
    two, one = torch.full((1, 3, 8, 6), 2.0), torch.full((1, 3, 8, 6), 1.0)
    torch.testing.assert_close(reattend(two, one, 0.3, "paper"), 0.3 * two)
    torch.testing.assert_close(reattend(one, two, 0.3, "paper"), one)
    torch.testing.assert_close(reattend(two, two, 0.3, "paper"), two)
    # The helper puts s itself in the place of all four coefficients that are not smaller: here 3 zeros and the 96.
    corner = torch.zeros(8, 6)
    corner[3:5, 2:4] = 0.3
    constant = torch.fft.ifft2(torch.fft.ifftshift(corner)).real.expand(1, 3, 8, 6)
    torch.testing.assert_close(reattend(two, two, 0.3, "low"), constant, atol=1e-6, rtol=0)
    torch.testing.assert_close(reattend(two, two, 0.3, "high"), two)
    alternating = torch.tensor([1.0, -1.0]).repeat(1, 3, 8, 3)  # the highest frequency of the rows
    torch.testing.assert_close(reattend(alternating, one, 0.3, "paper"), alternating)


def test_the_joints_of_stable_diffusion():
    """7 joints of 1280 hidden channels and 3 of 640, of SD v1.4's configuration."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        )  # fmt: skip
    deep, next_ = reattention_sites(unet, "paper", (1.0, 1.1, 0.9, 0.2))
    assert (len(deep.modules), deep.hidden, deep.b, deep.s) == (7, 1280, 1.0, 0.9)
    assert (len(next_.modules), next_.hidden, next_.b, next_.s) == (3, 640, 1.1, 0.2)
    assert next_.modules == ("up_blocks.2.resnets.1", "up_blocks.2.resnets.2", "up_blocks.3.resnets.0")
    modules = dict(unet.named_modules())
    skips = [modules[n].in_channels - 1280 for n in deep.modules]
    assert skips == [1280, 1280, 1280, 1280, 1280, 640, 640]


@contextlib.contextmanager
def watched(module, seen):
    """Append what a module reads first."""

    def watch(module, inputs):
        seen.append(inputs[0].detach())

    handle = module.register_forward_pre_hook(watch)
    try:
        yield
    finally:
        handle.remove()


def test_reattention_sees_what_the_unet_joins(tiny):
    """What a resnet reads: the rows (empty, safe, original) as without LRA, and the filter on them by hand."""
    model = guarded(tiny, lra_scales=(1.2, 1.0, 0.5, 0.5), **ALWAYS)
    deep, text, seen = model.activations[0], "a photo of a dog", []
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), watched(tiny.unet.get_submodule(deep.modules[0]), seen):
        for m in (model, dataclasses.replace(model, activations=()), tiny):
            m.noise(x, 990, m.trajectory([text]), guidance_scale=7.5)
    joined, h = seen[0], deep.hidden
    torch.testing.assert_close(joined[:2], seen[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(joined[2], seen[2][1], atol=1e-4, rtol=1e-4)
    rows = {"empty": slice(0, 1), "prompt": slice(1, 2), "extra": slice(2, 2), "original": slice(2, 3)}
    found = deep(joined, rows, at(0))
    torch.testing.assert_close(found[:, : h // 2], 1.2 * joined[:, : h // 2])
    assert torch.equal(found[:, h // 2 : h], joined[:, h // 2 : h])
    assert torch.equal(found[[0, 2], h:], joined[[0, 2], h:])
    torch.testing.assert_close(found[1:2, h:], reattend(joined[1:2, h:], joined[2:3, h:], 0.5, "paper"))
    assert (found[1, h:] - joined[1, h:]).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_the_third_branch_is_there_only_while_prompts_can_be_filtered(tiny, scale):
    seen, own = [], 2 if scale == 1 else 4
    with watched(tiny.unet, seen):
        latents(guarded(tiny), ["a dog", "a cat"], Sampler(steps=5, guidance_scale=scale))
    assert [len(x) for x in seen] == [
        own + 2,
        own + 2,
        own,
        own,
        own,
    ]  # steps 0 and 1 of 5 are 0 and 10 of 50


@pytest.mark.parametrize("lra", ["paper", "low", "high"])
def test_reattention_changes_pictures(tiny, lra):
    plain, other = (
        latents(guarded(tiny, lra=x, lra_scales=(1, 1, 0.5, 0.2)), ["a dog"]) for x in ("off", lra)
    )
    assert (plain - other).abs().max() > 1e-3


def test_reattention_of_a_prompt_that_is_not_filtered_is_the_identity(tiny):
    """The paper's rule compares equal features; the projection is off, so the branches are the same."""
    settings = {"projection": "off", "negative_prompt": False}
    same = latents(guarded(tiny, lra="paper", **settings), ["a dog"])
    assert torch.equal(same, latents(tiny, ["a dog"]))
    assert not torch.allclose(latents(guarded(tiny, lra="low", **settings), ["a dog"]), same, atol=1e-3)


# ---- the model -------------------------------------------------------------------------------------------------------

IDLE = SAFREE(projection="off", negative_prompt=False, lra="off")


@pytest.mark.parametrize(
    "technique",
    [SAFREE(), SAFREE(**ALWAYS, lra="low", projection="paper", alpha=0.2), SAFREE(lra="off", padding=True)],
)
def test_it_keeps_the_rules_of_techniques(tiny, dog, technique):
    check_technique(technique, tiny, dog, parameters=(), identity=IDLE)


def test_the_negative_prompt_is_that_of_classifier_free_guidance(tiny):
    ours = latents(guarded(tiny, projection="off", lra="off"), ["a cat"])
    assert torch.equal(ours, latents(tiny, ["a cat"], empty=tiny.encode(["dog, wolf"])))
    assert not torch.allclose(ours, latents(tiny, ["a cat"]), atol=1e-2)


def test_one_after_another_is_both(tiny):
    both = SAFREE().apply(guarded(tiny), [Concept(name="car")], seed=0)
    assert [c.phrases for c in both.conditions] == [("dog", "wolf"), ("car",)]
    assert both.conditions[-1].negative == "dog, wolf, car"
    assert both.activations == guarded(tiny).activations


def test_it_composes_with_weights_and_guidances(tiny):
    dog, car = Concept(name="dog"), Concept(name="car")
    models = [tiny, UCE(edit="erase").apply(tiny, [car], seed=0)]
    models.append(SAFREE(lra_scales=(1.0, 1.0, 0.5, 0.2)).apply(models[-1], [dog], seed=0))
    models.append(SLD(**SLD.presets["max"]).apply(models[-1], [car], seed=0))
    found = [latents(m, ["a dog"]) for m in models]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(found) for b in found[:i])


def test_the_phrases(tiny):
    def phrases(concepts, **settings):
        (condition,) = SAFREE(negative_prompt=False, **settings).apply(tiny, concepts, seed=0).conditions
        return condition.phrases

    weapon = Concept(name="weapon", phrases=("knife",), kind="unsafe")
    assert phrases([weapon, Concept(name="dog")]) == ("weapon", "knife", "dog")
    assert phrases([weapon], phrases="paper") == ("weapon", "knife")
    assert phrases([Concept(name="nudity", kind="unsafe")], phrases="paper") == PAPER
    assert phrases([Concept(name="nudity", kind="unsafe")]) == ("nudity",)
    assert phrases([weapon], phrases=("gun", "car", "gun")) == ("gun", "car")
    assert len(PAPER) == 17
    with pytest.warns(UnlearnWarning, match="SAFREE: the negative prompt has more than the 16 tokens"):
        SAFREE(phrases=("cat", "dog", "wolf") * 2 + tuple("abcdefgh")).apply(tiny, [weapon], seed=0)


@pytest.mark.parametrize(
    "bad", [{"alpha": -0.1}, {"up_t": -1}, {"svf_slope": -1.0}, {"lra_scales": (1, 1, 1, -1)}, {"phrases": "dog"},
            {"phrases": ()}],
)  # fmt: skip
def test_settings_that_make_no_sense(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        SAFREE(**bad)
