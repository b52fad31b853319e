"""MACE: each stage against numpy's least squares on rows chosen by hand, its invariants, and the official numbers."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_techniques import mace
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.attention import parameter_group, text_projections
from unlearn_techniques.diffusion.weights import with_weights
from unlearn_techniques.mace import COCO, MACE, attention_loss, focal, fused_weight

LENGTH = 16
QUICK = {"iterations": 2, "lr": 1e-2, "images": 2, "sampling_steps": 2, "templates": ("a {}", "{} art")}


def weights_of(model):
    return {n: m.weight.detach().double().numpy() for n, m in text_projections(model.unet).items()}


def rows(model, text):
    with torch.no_grad():
        return model.encode([text])[0].double().numpy()


def given_changes(monkeypatch, *changes):
    """Put these in the place of stage 2."""
    left = iter(changes)
    monkeypatch.setattr(MACE, "_lora", lambda self, *arguments: next(left))


def nothing(model):
    return {n: torch.zeros_like(m.weight) for n, m in text_projections(model.unet).items()}


def random_changes(model, seed):
    numbers = np.random.RandomState(seed)
    found = sorted(text_projections(model.unet).items())
    return {n: torch.from_numpy(0.05 * numbers.randn(*m.weight.shape)).float() for n, m in found}


def solved(*parts):
    """Minimise the sum of weight |W x - y|^2 over parts (weight, x (n, d), y (n, out)), without a normal equation."""
    left = np.concatenate([np.sqrt(weight) * x for weight, x, _ in parts])
    right = np.concatenate([np.sqrt(weight) * y for weight, _, y in parts])
    return np.linalg.lstsq(left, right, rcond=None)[0].T


# ---- stages 1 and 3 --------------------------------------------------------------------------------------------


def test_refinement_and_fusion(tiny, monkeypatch):
    """One prompt, an anchor that is one token longer, one caption and one neighbour: every row is chosen by hand."""
    concept = Concept(name="dog", anchor="a cat", adjacent=("wolf",))
    change = random_changes(tiny, 0)
    given_changes(monkeypatch, change)
    technique = MACE(
        templates=("{} art",),
        captions=("a car",),
        refine_scale=2e-6,
        fuse_scale=5e-6,
        preserve_weight=1e5,
        lamb=0.7,
    )
    found = weights_of(technique.apply(tiny, [concept], seed=0))
    # <bos> dog art <eos> pad ... beside <bos> a cat art <eos> pad ...
    f = rows(tiny, "dog art")[[0, 2, 3, *range(4, LENGTH - 1)]]
    g = rows(tiny, "a cat art")[[0, 3, 4, *range(5, LENGTH)]]
    caption, near, all_f = rows(tiny, "a car"), rows(tiny, "wolf art"), rows(tiny, "dog art")
    one = np.eye(32)
    for name, w in weights_of(tiny).items():
        kept = [(COCO, caption, caption @ w.T), (1e5, near, near @ w.T)]
        refined = solved((1, f, g @ w.T), (0.7, one, w.T), *((2e-6 * k, x, y) for k, x, y in kept))
        student = refined + change[name].double().numpy()
        fused = solved(
            (1, all_f, all_f @ student.T), (0.7, one, refined.T), *((5e-6 * k, x, y) for k, x, y in kept)
        )
        np.testing.assert_allclose(found[name], fused, atol=2e-6)


def test_the_same_prompt_with_the_anchor_leaves_everything(tiny, dog, monkeypatch):
    given_changes(monkeypatch, nothing(tiny))
    found = weights_of(MACE(anchor="dog", vocabulary=3, templates=("a {}",)).apply(tiny, [dog], seed=0))
    for name, w in weights_of(tiny).items():
        np.testing.assert_allclose(found[name], w, atol=1e-7)


def test_a_heavy_lamb_leaves_everything(tiny, dog, monkeypatch):
    given_changes(monkeypatch, nothing(tiny))
    found = weights_of(MACE(lamb=1e9, vocabulary=3).apply(tiny, [dog], seed=0))
    for name, w in weights_of(tiny).items():
        np.testing.assert_allclose(found[name], w, atol=1e-5)


def test_a_heavy_prior_leaves_what_it_says(tiny, dog, monkeypatch):
    """On the captions themselves the model reads as before, although both stages pull elsewhere."""
    given_changes(monkeypatch, random_changes(tiny, 1), random_changes(tiny, 1))
    settings = {"captions": ("a car",), "preserve_adjacent": False, "lamb": 1e-6, "templates": ("a {}",)}
    caption, other = rows(tiny, "a car"), rows(tiny, "a dog")[2:]
    heavy, light = (
        weights_of(MACE(refine_scale=s, fuse_scale=s, **settings).apply(tiny, [dog], seed=0))
        for s in (1e3, 0.0)
    )
    for name, w in weights_of(tiny).items():
        np.testing.assert_allclose(caption @ heavy[name].T, caption @ w.T, atol=1e-3)
        assert np.abs(other @ light[name].T - other @ w.T).max() > 0.05


@given(seed=st.integers(0, 2**31), n=st.integers(1, 3), scale=st.floats(0, 2), lamb=st.floats(0.01, 2))
def test_the_normal_equation_of_fusion(seed, n, scale, lamb):
    numbers = np.random.RandomState(seed)
    w, refined = numbers.randn(2, 5, 6)
    changes, e = numbers.randn(n, 5, 6), numbers.randn(n, 8, 6)
    p = numbers.randn(4, 6)
    found = fused_weight(
        torch.from_numpy(w), torch.from_numpy(refined), list(torch.from_numpy(changes)),
        [torch.from_numpy(x.T @ x) for x in e], torch.from_numpy(p.T @ p), scale=scale, lamb=lamb,
    ).numpy()  # fmt: skip
    parts = [(1, x, x @ (refined + d).T) for x, d in zip(e, changes, strict=True)]
    expected = solved(*parts, (scale, p, p @ w.T), (lamb, np.eye(6), refined.T))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_one_concept_alone_is_its_own_lora():
    """Without a prior and lamb, and with tokens that span the space, fusion returns W' + dW, or W' for dW = 0."""
    numbers = torch.Generator().manual_seed(0)
    w, refined, change = torch.randn(3, 5, 6, generator=numbers, dtype=torch.float64)
    e = torch.randn(20, 6, generator=numbers, dtype=torch.float64)
    for d in (change, 0 * change):
        found = fused_weight(w, refined, [d], [e.T @ e], 0 * e.T @ e, scale=1.0, lamb=0.0)
        torch.testing.assert_close(found, refined + d)


# ---- stage 2 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(monkeypatch):
    """Record the LoRAs' arguments, losses and masks."""
    seen = SimpleNamespace(loras=[], losses=[], masks=[], texts=[])
    train, loss, masks, draw = mace.lora, mace.attention_loss, mace.concept_masks, mace.drawn_latents

    def lora(model, modules, *arguments, **settings):
        change = train(model, modules, *arguments, **settings)
        seen.loras.append((weights_of(model), modules, change))
        return change

    def attention_loss(maps, masks, tokens, **settings):
        seen.losses.append((loss(maps, masks, tokens, **settings).item(), masks, tokens))
        return loss(maps, masks, tokens, **settings)

    def concept_masks(*arguments, **settings):
        seen.masks.append(masks(*arguments, **settings))
        return seen.masks[-1]

    def drawn_latents(model, texts, *arguments, **settings):
        seen.texts.append((model, texts))
        return draw(model, texts, *arguments, **settings)

    for name, replaced in (("lora", lora), ("attention_loss", attention_loss), ("concept_masks", concept_masks),
                           ("drawn_latents", drawn_latents)):  # fmt: skip
        monkeypatch.setattr(mace, name, replaced)
    return seen


def test_every_lora_begins_on_the_refined_model(tiny, watched):
    """LoRA q must not see LoRA q - 1 (issue 26 of the official repository); pictures are of the original model."""
    concepts = [Concept(name=name, anchor="cat") for name in ("dog", "car")]
    MACE(**QUICK).apply(tiny, concepts, seed=0)
    (one, modules, change), (other, _, _) = watched.loras
    assert modules == list(text_projections(tiny.unet))
    assert {n: tuple(d.shape) for n, d in change.items()} == {n: w.shape for n, w in weights_of(tiny).items()}
    for name, w in weights_of(tiny).items():
        assert np.array_equal(one[name], other[name])
        assert np.abs(one[name] - w).max() > 1e-4
    assert [texts for _, texts in watched.texts] == [["a photo of the dog"] * 2, ["a photo of the car"] * 2]
    assert all(model.unet is tiny.unet for model, _ in watched.texts)


def test_a_lora_lowers_the_attention(tiny, dog, watched):
    settings = {**QUICK, "iterations": 40, "lr": 3e-2, "templates": ("a {}",)}
    MACE(**settings, mask="none", pooler=False).apply(tiny, [dog], seed=0)
    values = [value for value, _, _ in watched.losses]
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])


def test_the_first_loss_is_that_of_the_refined_model(tiny, dog, watched):
    """What diffusers' plain attention computes, and the tokens of the concept, the end and the padding."""
    MACE(**{**QUICK, "iterations": 1, "templates": ("a {}, sketch style",)}).apply(tiny, [dog], seed=0)
    value, masks, tokens = watched.losses[0]
    assert tokens.tolist() == [
        [False, False, True, False, False, False] + [True] * 10
    ]  # a dog , sketch style <eos>
    assert masks.shape == (1, 1, 8, 8)
    assert any(torch.equal(masks[0], mask) for mask in watched.masks[0])
    assert value > 0


@pytest.mark.parametrize(("kind", "mask", "drawn"), [
    ("object", "attention", "a photo of the dog"), ("object", "none", "a photo of the dog"),
    ("style", "attention", "a photo in the style of dog"),
])  # fmt: skip
def test_styles_have_no_mask(tiny, watched, kind, mask, drawn):
    MACE(**QUICK, mask=mask).apply(tiny, [Concept(name="dog", anchor="art", kind=kind)], seed=0)
    assert len(watched.masks) == (kind == "object" and mask == "attention")
    assert watched.texts[0][1] == [drawn] * 2
    if not watched.masks:
        assert all(masks.all() for _, masks, _ in watched.losses)


def test_phrases_are_concepts_of_their_own(tiny, watched):
    concept = Concept(name="dog", phrases=("wolf", "cat style"), anchor="cat")
    MACE(**QUICK, phrases=True, pooler=False).apply(tiny, [concept], seed=0)
    assert [texts[0] for _, texts in watched.texts] == [f"a photo of the {w}" for w in concept.names]
    assert [tokens.sum().item() for _, _, tokens in watched.losses] == [1, 1, 1, 1, 2, 2]


def test_the_loss_and_its_invariants():
    numbers = torch.Generator().manual_seed(0)
    pixel = torch.rand(1, 2, 1, 16, generator=numbers)
    maps = {"a": pixel.expand(1, 2, 64, 16), "b": pixel.expand(1, 2, 16, 16)}
    one, half, empty = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    half[..., :4] = 1
    tokens = torch.zeros(1, 16, dtype=torch.bool)
    tokens[0, 3] = True
    norm = pixel[0, :, 0, 3].norm().item()
    for squared, power in ((False, 1), (True, 2)):

        def loss(mask, tokens=tokens, squared=squared):
            return attention_loss(maps, mask.bool(), tokens, squared=squared).item()

        assert loss(empty) == 0
        assert loss(one) == pytest.approx((8 * norm) ** power + (4 * norm) ** power)
        assert loss(one) == pytest.approx(2 ** (power / 2) * loss(half))  # twice the pixels
        both = tokens.clone()
        both[0, 5] = True
        if squared:
            alone = torch.zeros_like(tokens)
            alone[0, 5] = True
            assert loss(one, both) == pytest.approx(loss(one) + loss(one, alone))


def test_the_gradient_of_an_empty_mask_is_a_number():
    maps = {"a": torch.rand(1, 2, 16, 8, requires_grad=True)}
    value = attention_loss(maps, torch.zeros(1, 1, 4, 4).bool(), torch.ones(1, 8).bool(), squared=False)
    assert not torch.autograd.grad(value, maps["a"])[0].any()


def test_the_loss_of_a_batch_is_the_mean_of_its_rows():
    numbers = np.random.RandomState(0)
    maps = {"a": torch.from_numpy(numbers.rand(3, 2, 16, 8))}
    masks, tokens = (
        torch.from_numpy(numbers.rand(3, 1, 8, 8) > 0.5),
        torch.from_numpy(numbers.rand(3, 8) > 0.5),
    )
    alone = [
        attention_loss({"a": maps["a"][i : i + 1]}, masks[i : i + 1], tokens[i : i + 1], squared=False).item()
        for i in range(3)
    ]
    assert attention_loss(maps, masks, tokens, squared=False).item() == pytest.approx(np.mean(alone))


def test_focal_timesteps():
    """Sheet, section 4: 86 % of the mass in 200 to 400, mean 300; the values are importance_sampling_fn's."""
    p = focal(1000)
    t = torch.arange(1000)
    assert (p[200:401].sum() / p.sum()).item() == pytest.approx(0.86, abs=0.01)
    assert ((p * t).sum() / p.sum()).item() == pytest.approx(300, abs=0.1)
    recorded = [
        4.53958075488162e-05,
        0.07585445338195936,
        0.9866142981514304,
        0.26892471994814715,
        9.836576e-14,
    ]
    np.testing.assert_allclose(p[[0, 150, 300, 420, 999]], recorded, rtol=1e-6)


# ---- as a whole ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"squared": True, "pooler": False, "mask": "none", "timesteps": "uniform"}]
)
def test_conformance(tiny, dog, settings):
    names = [f"unet.{n}" for n in parameter_group(tiny.unet, "esd-x-strict")]
    check_technique(MACE(**QUICK, **settings), tiny, dog, parameters=names)


def test_progress_counts_pictures_and_iterations(tiny):
    concepts, seen = [Concept(name="dog", anchor="cat"), Concept(name="car", anchor="cat")], []
    MACE(**QUICK).apply(tiny, concepts, seed=0, progress=lambda *x: seen.append(x))
    assert seen == sorted(seen)
    assert seen[-1] == (8, 8)
    assert {total for _, total in seen} == {8}


def test_hooks_stay_and_are_not_trained_against(tiny, dog):
    """A model that forgets by a hook has its weights edited as if it had none, and keeps the hook."""
    from unlearn_techniques.sld import SLD

    hooked = SLD(warmup=0).apply(tiny, [dog], seed=0)
    technique = MACE(**QUICK)
    one, other = technique.apply(hooked, [dog], seed=0), technique.apply(tiny, [dog], seed=0)
    assert one.guidances == hooked.guidances
    assert all(np.array_equal(w, weights_of(other)[n]) for n, w in weights_of(one).items())


def test_the_modules_of_sd_v14():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    modules = list(text_projections(unet))
    assert len(modules) == 32
    assert sum(sum(unet.get_submodule(n).weight.shape) for n in modules) == 49_536  # scalars of rank 1


def test_presets_are_settings():
    for preset in MACE.presets.values():
        MACE(**preset)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"rank": 0}, "rank"),
        ({"images": 0}, "images"),
        ({"lamb": 0.0}, "lamb and lr are above 0"),
        ({"lr": 0.0}, "lamb and lr are above 0"),
        ({"fuse_scale": -1.0}, "the scales"),
        ({"threshold": 1.5}, "threshold"),
        ({"vocabulary": -1}, "vocabulary"),
        ({"templates": ("dog",)}, "each template has one {}"),
        ({"image_templates": ("{} {}",)}, "each template has one {}"),
    ],
)
def test_settings_that_make_no_sense(settings, hint):
    with pytest.raises(InvalidInput, match=hint):
        MACE(**settings)


def test_an_anchor_is_needed(tiny):
    with pytest.raises(InvalidInput, match="the concept 'dog' has no anchor; set anchor=WORDS"):
        MACE().apply(tiny, [Concept(name="dog")], seed=0)
    MACE(anchor="cat").check([Concept(name="dog")])


def test_templates_end_where_the_model_stops_reading(tiny, dog):
    with pytest.raises(InvalidInput, match="is longer than the 16 tokens read"):
        MACE(**{**QUICK, "templates": ("a " * 20 + "{}",)}).apply(tiny, [dog], seed=0)


# ---- the official code -----------------------------------------------------------------------------------------


class Table(torch.nn.Module):
    """A text encoder of fixed numbers: a row is the mean of the vectors of the tokens so far, plus its place's."""

    def __init__(self, words):
        super().__init__()
        numbers = np.random.RandomState(0)
        self.tokens = torch.from_numpy(numbers.randn(words, 32) * 3).float()
        self.places = torch.from_numpy(numbers.randn(LENGTH, 32)).float()

    def forward(self, ids):
        means = self.tokens[ids].cumsum(1) / torch.arange(1, LENGTH + 1)[:, None]
        return SimpleNamespace(last_hidden_state=means + self.places)


def test_the_matrices_of_the_official_code(tiny, monkeypatch):
    """prepare_k_v and closed_form_refinement (src/cfr_utils.py, head 057e7a6), run once on this model in float64.

    First for stage 1, then as src/fuse_lora_close_form.py calls them for stage 3, with these changes as its LoRAs and
    these captions as its cache. The recorded numbers are entries [0, 0], [5, 7] and [-1, -1], the sum and the sum of
    squares. No entry of the eight matrices differs from ours by more than 4.1e-6, of moves of up to 1.2: ours reads the
    text in float32.
    """
    numbers = np.random.RandomState(1)
    values = {
        f"{name}.weight": torch.from_numpy(numbers.randn(*linear.weight.shape) * 0.1).float()
        for name, linear in sorted(text_projections(tiny.unet).items())
    }
    model = dataclasses.replace(
        tiny, unet=with_weights(tiny.unet, values), text_encoder=Table(len(tiny.tokenizer))
    )
    numbers = np.random.RandomState(2)
    given_changes(monkeypatch, *(
        {n: torch.from_numpy(0.05 * numbers.randn(*m.weight.shape)).float()
         for n, m in sorted(text_projections(tiny.unet).items())}
        for _ in range(2)
    ))  # fmt: skip
    concepts = [
        Concept(name="dog", anchor="a cat", adjacent=("wolf",)),
        Concept(name="car", anchor="art style"),
    ]
    technique = MACE(
        templates=("{} art", "a {}, sketch style", "photo of {}", "a blue {}"),
        captions=("a photo of art", "blue sketch", "a cat style", "wolf art of a car"),
        lamb=0.3, refine_scale=1e-6, fuse_scale=2e-6, preserve_weight=3e5,
    )  # fmt: skip
    found = weights_of(technique.apply(model, concepts, seed=0))
    recorded = {
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (
            0.049868, 0.045626, 0.142723, 8.825812, 96.140399,
        ),
        "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v": (
            0.222114, -0.108575, 0.149823, 1.871538, 46.042973,
        ),
    }  # fmt: skip
    for name, numbers in recorded.items():
        w = found[name]
        ours = (w[0, 0], w[5, 7], w[-1, -1], w.sum(), np.square(w).sum())
        np.testing.assert_allclose(ours, numbers, atol=1e-5, rtol=5e-5)


def test_the_loss_of_the_official_code():
    """AttnController with a mask (the same file), on these numbers."""
    numbers = np.random.RandomState(3)
    maps = {f"l{p}": torch.from_numpy(numbers.rand(1, 2, p, 16)).float() for p in (64, 16)}
    mask, tokens = (
        torch.from_numpy(numbers.rand(1, 1, 8, 8) > 0.5),
        torch.from_numpy(numbers.rand(1, 16) > 0.6),
    )
    assert attention_loss(maps, mask, tokens, squared=False).item() == pytest.approx(14.58914566, rel=1e-6)
