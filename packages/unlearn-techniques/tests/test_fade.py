"""FADE-style: its three losses by hand and at their minimum, the neighbourhood, and what is trained."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_techniques import fade
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.attention import parameter_group
from unlearn_techniques.diffusion.tokens import ids
from unlearn_techniques.fade import FADE, fade_terms, nearest

QUICK = {"iterations": 2, "lr": 1e-2, "images": 2, "sampling_steps": 2, "batch": 2}
CONCEPT = Concept(name="dog", anchor="cat", adjacent=("wolf", "cat"))


def tensors(seed, *shape):
    return torch.from_numpy(np.random.RandomState(seed).randn(*shape))


# ---- losses ----------------------------------------------------------------------------------------------------


def test_the_losses_by_hand():
    """Predictions that are constants: squares of differences."""
    one = torch.ones(2, 4, 3, 3)
    terms = fade_terms(
        3 * one, 1 * one, 0 * one, torch.stack([2 * one, 5 * one]), 7 * one, 4 * one, delta=0.5
    )
    # ((3-2)^2 + (3-5)^2) / 2 - (3-1)^2 + 0.5 = -1, below 0
    assert [t.item() for t in terms] == [0.0, 9.0, 9.0]
    terms = fade_terms(
        3 * one, 1 * one, 0 * one, torch.stack([2 * one, 5 * one]), 7 * one, 4 * one, delta=2.5
    )
    assert terms[0].item() == pytest.approx(1.0)


@given(seed=st.integers(0, 2**31), er=st.floats(0.1, 5), guid=st.floats(0.1, 5), k=st.integers(1, 4))
def test_the_best_prediction_while_the_triplet_is_above_zero(seed, er, guid, k):
    """The card's closed form: there the gradient is zero."""
    c, empty, neighbours = (
        tensors(seed, 2, 4, 3, 3),
        tensors(seed + 1, 2, 4, 3, 3),
        tensors(seed + 2, k, 2, 4, 3, 3),
    )
    best = (empty + er / guid * (neighbours.mean(0) - c)).requires_grad_()
    expungement, _, guidance = fade_terms(best, c, empty, neighbours, c, c, delta=1e4)
    gradient = torch.autograd.grad(er * expungement + guid * guidance, best)[0]
    assert gradient.abs().max() < 1e-5
    other = (best.detach() + 0.1).requires_grad_()
    expungement, _, guidance = fade_terms(other, c, empty, neighbours, c, c, delta=1e4)
    assert torch.autograd.grad(er * expungement + guid * guidance, other)[0].abs().max() > 1e-4


@pytest.fixture
def watched(monkeypatch):
    """Record the terms of each iteration and their arguments."""
    seen = SimpleNamespace(terms=[], texts=[])
    terms, draw = fade.fade_terms, fade.drawn_latents

    def fade_terms(*arguments, **settings):
        seen.terms.append((tuple(t.item() for t in terms(*arguments, **settings)), arguments))
        return terms(*arguments, **settings)

    def drawn_latents(model, texts, *arguments, **settings):
        seen.texts.append(texts)
        return draw(model, texts, *arguments, **settings)

    monkeypatch.setattr(fade, "fade_terms", fade_terms)
    monkeypatch.setattr(fade, "drawn_latents", drawn_latents)
    return seen


def test_the_adapter_begins_as_nothing(tiny, watched):
    """L_adj 0, L_er the mean gap and the margin, L_guid the guidance's direction."""
    FADE(**{**QUICK, "iterations": 1}, delta=0.3).apply(tiny, [CONCEPT], seed=0)
    (expungement, adjacency, guidance), (new, c, empty, neighbours, _, _) = watched.terms[0]
    torch.testing.assert_close(new.detach(), c, atol=1e-5, rtol=1e-4)
    assert neighbours.shape == (2, 2, 4, 8, 8)
    assert adjacency == pytest.approx(0, abs=1e-10)
    assert expungement == pytest.approx(np.square(c.numpy() - neighbours.numpy()).mean() + 0.3, rel=1e-4)
    assert guidance == pytest.approx(np.square(c.numpy() - empty.numpy()).mean(), rel=1e-3)
    assert guidance > 1e-7


def test_training_lowers_the_sum(tiny, watched):
    settings = {
        "iterations": 60,
        "lr": 1e-2,
        "images": 2,
        "sampling_steps": 2,
        "expungement": 0.3,
        "delta": 0.0,
    }
    FADE(**settings).apply(tiny, [CONCEPT], seed=0)
    gaps = [np.square((new.detach() - empty).numpy()).mean() for _, (new, _, empty, *_) in watched.terms]
    first = [np.square((c - empty).numpy()).mean() for _, (_, c, empty, *_) in watched.terms]
    assert np.mean(gaps[-6:]) < 0.8 * np.mean(first[-6:])


def test_pictures_are_of_the_concept_and_of_its_neighbours(tiny, watched):
    templates = ("a {}", "{} art")
    FADE(**QUICK, templates=templates, phrases=True).apply(
        tiny, [dataclasses.replace(CONCEPT, phrases=("car",))], seed=0
    )
    words = ("dog", "car", *nearest(tiny, "dog", ["wolf", "cat"], 5))
    assert watched.texts == [[t.format(w) for w in words for t in templates]]


# ---- the neighbourhood -----------------------------------------------------------------------------------------


def test_the_neighbourhood_is_by_cosine_of_the_end_token(tiny):
    words = ["cat", "wolf", "a car", "blue sketch", "photo of art"]

    def vector(text):
        return tiny.encode([text])[0, len(ids(tiny, text)) - 1].detach().double().numpy()

    far = {w: cosine(vector("dog"), vector(w)) for w in words}
    expected = sorted(words, key=far.get)
    for k in (1, 3, 5, 9):
        assert nearest(tiny, "dog", words, k) == expected[:k]


def test_planted_neighbours_are_found(tiny, monkeypatch):
    """Text embeddings with an angle of their own for each word; length does not count."""
    angles = {"dog": 0.0, "cat": 0.9, "wolf": -0.2, "car": 0.4, "art": 3.0}

    def encode(self, texts):
        rows = torch.zeros(len(texts), 16, 2)
        for i, text in enumerate(texts):
            rows[i, 2] = (1 + 10 * i) * torch.tensor([np.cos(angles[text]), np.sin(angles[text])])
        return rows

    monkeypatch.setattr(type(tiny), "encode", encode)
    assert nearest(tiny, "dog", ["art", "cat", "car", "wolf"], 3) == ["wolf", "car", "cat"]


def test_what_is_forgotten_is_no_neighbour(tiny, watched):
    concepts = [
        Concept(name="dog", phrases=("car",), adjacent=("wolf", "cat")),
        Concept(name="wolf", adjacent=("dog", "art")),
    ]
    FADE(**QUICK, preserve=("car", "wolf", "blue")).apply(tiny, concepts, seed=0)
    drawn = set(watched.texts[0])
    assert drawn == {"dog", "wolf", "cat", "blue", "art"}
    assert "car" not in drawn


# ---- as a whole ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"rank": 1, "templates": ("a {}",), "guidance": 0.0}])
def test_conformance(tiny, settings):
    names = [f"unet.{n}" for n in parameter_group(tiny.unet, "esd-x") if n.endswith("weight")]
    check_technique(FADE(**QUICK, **settings), tiny, CONCEPT, parameters=names)


def test_progress_counts_pictures_and_iterations(tiny):
    seen = []
    FADE(**QUICK).apply(tiny, [CONCEPT], seed=0, progress=lambda *x: seen.append(x))
    assert seen == sorted(seen)
    assert seen[-1] == (8, 8)  # three words of two pictures, two iterations
    assert {total for _, total in seen} == {8}


def test_the_modules_of_sd_v14():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    modules = fade.adapted_modules(unet)
    assert len(modules) == 64  # q, k, v, out of 16 blocks
    assert all(isinstance(unet.get_submodule(n), torch.nn.Linear) for n in modules)


def test_presets_are_settings():
    for preset in FADE.presets.values():
        FADE(**preset)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"neighbours": 0}, "neighbours"),
        ({"rank": 0}, "rank"),
        ({"lr": 0.0}, "lr is above 0"),
        ({"delta": -1.0}, "delta"),
        ({"templates": ()}, "each template has one {}"),
        ({"templates": ("dog",)}, "each template has one {}"),
    ],
)
def test_settings_that_make_no_sense(settings, hint):
    with pytest.raises(InvalidInput, match=hint):
        FADE(**settings)


def test_a_concept_without_neighbours(tiny):
    with pytest.raises(InvalidInput, match="the concept 'dog' has no neighbours; name some"):
        FADE().apply(tiny, [Concept(name="dog")], seed=0)
    FADE(preserve=("cat",)).check([Concept(name="dog")])
    with pytest.raises(InvalidInput, match="has no neighbours"):
        FADE(preserve=("dog",)).check([Concept(name="dog")])
