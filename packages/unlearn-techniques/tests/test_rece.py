"""RECE: the closed form of c', the erasures in turn, and numbers of the official code."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.attention import parameter_group, text_projections
from unlearn_techniques.diffusion.weights import with_weights
from unlearn_techniques.rece import RECE, embeddings_that_restore
from unlearn_techniques.uce import UCE

MILD = {"lamb": 100.0, "uce": {"variant": "2023", "lamb": 10.0}}
"""Weak enough that a random model's matrices keep their size."""


def projections(model):
    return {
        name: linear.weight.detach().double().numpy() for name, linear in text_projections(model.unet).items()
    }


def rows(model, text):
    with torch.no_grad():
        return model.encode([text])[0].double().numpy()


def apply(model, *concepts, **settings):
    return projections(RECE(**settings).apply(model, concepts, seed=0))


def agree(found, expected, atol=2e-6):
    assert found.keys() == expected.keys()
    for name, matrix in found.items():
        np.testing.assert_allclose(matrix, expected[name], atol=atol)


# ---- c' --------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), regularizer=st.sampled_from([1e-3, 0.1, 10.0]))
def test_c_is_the_least_squares_solution(seed, regularizer):
    """Against numpy's least squares of the stacked matrices, which forms no normal equation."""
    numbers = np.random.default_rng(seed)
    new, old = ([numbers.normal(size=(size, 6)) for size in (4, 7, 5)] for _ in range(2))
    c = numbers.normal(size=(3, 6))
    left = np.concatenate([*new, np.sqrt(regularizer) * np.eye(6)])
    right = np.concatenate([*(w @ c.T for w in old), np.zeros((6, 3))])
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    found = embeddings_that_restore(
        [torch.from_numpy(w) for w in new],
        [torch.from_numpy(w) for w in old],
        torch.from_numpy(c),
        regularizer,
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)


def test_where_nothing_is_edited_c_is_the_concept_itself(tiny):
    weights = [linear.weight.detach() for linear in text_projections(tiny.unet).values()]
    c = torch.from_numpy(rows(tiny, "dog"))
    torch.testing.assert_close(embeddings_that_restore(weights, weights, c, 1e-12), c, atol=1e-8, rtol=0)
    shorter = embeddings_that_restore(weights, weights, c, 1.0)
    assert (shorter.norm(dim=1) < c.norm(dim=1)).all()


def test_an_edit_by_an_invertible_map_is_undone():
    """W_i = W_i^orig M leaves c' = M^-1 c, which the edited matrices read exactly as the original ones read c."""
    numbers = torch.Generator().manual_seed(0)
    old = [torch.randn(8, 5, generator=numbers).double() for _ in range(3)]
    m = torch.eye(5).double() + 0.3 * torch.randn(5, 5, generator=numbers).double()
    c = torch.randn(2, 5, generator=numbers).double()
    found = embeddings_that_restore([w @ m for w in old], old, c, 1e-13)
    torch.testing.assert_close(found, torch.linalg.solve(m, c.T).T, atol=1e-8, rtol=0)


# ---- the whole -------------------------------------------------------------------------------------------------


def stacked_by_hand(model, before, texts, instead, kept, *, epochs, regularizer, lamb, erase, preserve):
    """RECE as the sum of squares it minimises, by numpy's least squares, on all rows of the prompts."""
    original = projections(model)
    weights = dict(before)
    c, r, p = (np.concatenate([rows(model, text) for text in group]) for group in (texts, instead, kept))
    eye = np.eye(c.shape[1])
    for _ in range(epochs):
        left = np.concatenate([*weights.values(), np.sqrt(regularizer) * eye])
        right = np.concatenate([*(original[n] @ c.T for n in weights), np.zeros((c.shape[1], len(c)))])
        c_adv = np.linalg.lstsq(left, right, rcond=None)[0].T
        root = np.sqrt([erase, preserve, lamb])
        left = np.concatenate([root[0] * c_adv, root[1] * p, root[2] * eye])
        for name, w in weights.items():
            right = np.concatenate([root[0] * r @ w.T, root[1] * p @ w.T, root[2] * w.T])
            weights[name] = np.linalg.lstsq(left, right, rcond=None)[0].T
    return weights


def test_two_epochs_by_hand(tiny, dog):
    before = projections(
        UCE(variant="2023", edit="erase", lamb=10.0, templates=("a {}",)).apply(tiny, [dog], seed=0)
    )
    expected = stacked_by_hand(
        tiny, before, ["a dog"], [""], ["", "a wolf"],
        epochs=2, regularizer=0.01, lamb=100.0, erase=2.0, preserve=0.3,
    )  # fmt: skip
    found = apply(
        tiny,
        dog,
        **MILD,
        epochs=2,
        regularizer=0.01,
        erase_scale=2.0,
        preserve_scale=0.3,
        templates=("a {}",),
    )
    agree(found, expected)


def test_the_concepts_own_anchor_phrases_and_several_concepts(tiny):
    dog, car = Concept(name="dog", phrases=("wolf",), anchor="cat"), Concept(name="car", anchor="art")
    before = projections(UCE(variant="2023", lamb=10.0, phrases=True).apply(tiny, [dog, car], seed=0))
    expected = stacked_by_hand(
        tiny, before, ["dog", "wolf", "car"], ["cat", "cat", "art"], ["", "blue"],
        epochs=1, regularizer=0.1, lamb=100.0, erase=1.0, preserve=0.1,
    )  # fmt: skip
    settings = {**MILD, "uce": {**MILD["uce"], "preserve": ()}}
    found = apply(tiny, dog, car, **settings, epochs=1, anchor=None, phrases=True, preserve=("blue", "wolf"))
    agree(found, expected)


def test_without_an_epoch_it_is_uce(tiny, dog):
    uce = UCE(variant="2023", edit="erase").apply(tiny, [dog], seed=0)
    assert RECE(epochs=0).apply(tiny, [dog], seed=0).fingerprint == uce.fingerprint


def test_the_restoring_embedding_restores_less_after_its_erasure(tiny, dog):
    """How far the best embedding is from the original reading of the concept, in the mean over all matrices."""
    original = [linear.weight.detach() for linear in text_projections(tiny.unet).values()]
    c = torch.from_numpy(rows(tiny, "dog"))

    def distance(epochs):
        edited = RECE(epochs=epochs, **MILD).apply(tiny, [dog], seed=0)
        weights = [linear.weight.detach() for linear in text_projections(edited.unet).values()]
        best = embeddings_that_restore(weights, original, c, 0.1)
        return sum(
            ((best @ w.T.double() - c @ o.T.double()) ** 2).sum().item()
            for w, o in zip(weights, original, strict=True)
        )

    distances = [distance(epochs) for epochs in (0, 1, 3)]
    assert distances == sorted(distances)
    assert distances[2] > 1.1 * distances[0]


def test_the_order_of_concepts_is_irrelevant(tiny):
    concepts = [Concept(name=a, anchor=b, adjacent=("car",)) for a, b in [("dog", "cat"), ("wolf", "art")]]
    agree(apply(tiny, *concepts, **MILD), apply(tiny, *concepts[::-1], **MILD))


def test_progress_counts_epochs(tiny, dog):
    calls = []
    RECE(epochs=2, **MILD).apply(tiny, [dog], seed=0, progress=lambda *x: calls.append(x))
    assert calls == [(1, 2), (2, 2)]


@pytest.mark.parametrize("technique", [RECE(**MILD), RECE(anchor="art", epochs=1, **MILD)])
def test_conformance(tiny, dog, technique):
    names = {f"unet.{n}" for n in parameter_group(tiny.unet, "esd-x-strict")}
    idle = RECE(erase_scale=0.0, uce={"variant": "2023", "erase_scale": 0.0})
    check_technique(technique, tiny, dog, parameters=names, identity=idle)


def test_settings_that_make_no_sense():
    for bad, hint in [
        ({"epochs": -1}, "epochs is at least 0"),
        ({"regularizer": 0.0}, "regularizer and lamb are above 0"),
        ({"lamb": -1.0}, "regularizer and lamb are above 0"),
        ({"preserve_scale": -1.0}, "at least 0"),
        ({"templates": ("dog",)}, "each template has one {}"),
        ({"uce": {"lam": 1.0}}, "unknown setting 'lam'; did you mean 'lamb'"),
    ]:
        with pytest.raises(InvalidInput, match=hint):
            RECE(**bad)
    with pytest.raises(InvalidInput, match="the concept 'dog' has no anchor"):
        RECE(anchor=None).check([Concept(name="dog")])
    RECE().check([Concept(name="dog")])


# ---- the official code -----------------------------------------------------------------------------------------


class Table(torch.nn.Module):
    """A text encoder of fixed numbers: a row is the mean of the vectors of the tokens so far, plus its place's."""

    def __init__(self, words):
        super().__init__()
        numbers = np.random.RandomState(0)
        self.tokens = torch.from_numpy(numbers.randn(words, 32) * 3).float()
        self.places = torch.from_numpy(numbers.randn(16, 32)).float()

    def forward(self, ids):
        means = self.tokens[ids].cumsum(1) / torch.arange(1, 17)[:, None]
        return SimpleNamespace(last_hidden_state=means + self.places)


@pytest.fixture
def fixed(tiny):
    """The tiny model with text and matrices from numpy's frozen RandomState, as in test_uce."""
    numbers = np.random.RandomState(1)
    values = {
        f"{name}.weight": torch.from_numpy(numbers.randn(*linear.weight.shape) * 0.1).float()
        for name, linear in sorted(text_projections(tiny.unet).items())
    }
    words = Table(len(tiny.tokenizer))
    return dataclasses.replace(tiny, unet=with_weights(tiny.unet, values), text_encoder=words)


DOG = Concept(name="a photo of a dog", anchor="cat", adjacent=("wolf",))
CAR = Concept(name="car", anchor="art", adjacent=("a blue car",))

# Entries [0, 0], [5, 7] and [-1, -1], sum and sum of squares of two matrices after `edit_model` of
# erase_methods/train_uce.py (lamb 0.5) and, in each epoch, `close_form_emb_regzero` and `edit_model_adversarial`
# (lamb 0.1, preserve_scale 0.1) of CharlesGong12/RECE at 403a67f, run once on this model in float64. The largest
# difference to ours over all eight matrices was 6.2e-7, float32's.
OFFICIAL = [
    ({"epochs": 3, "preserve_adjacent": False}, [DOG],
     (-0.065874, 0.453291, 0.342555, -35.493864, 1178.078106),
     (-0.782623, -0.439878, 0.187694, 7.735452, 483.893231)),
    ({"epochs": 2}, [DOG, CAR],
     (-0.033565, 0.162937, -0.354402, 9.84248, 320.498734),
     (-0.837499, -0.354732, -0.218897, -2.896614, 142.013298)),
    ({"epochs": 1, "regularizer": 1e-3, "anchor": None}, [DOG, dataclasses.replace(CAR, adjacent=())],
     (-0.020173, -0.089076, 0.068115, 1.368153, 48.70226),
     (-0.268346, -0.116187, -0.044247, 5.113735, 20.391609)),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "concepts", "mid", "up"), OFFICIAL)
def test_the_matrices_of_the_official_code(fixed, settings, concepts, mid, up):
    edited = apply(fixed, *concepts, **settings)
    for name, recorded in [
        ("mid_block.attentions.0.transformer_blocks.0.attn2.to_k", mid),
        ("up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_v", up),
    ]:
        m = edited[name]
        found = [m[0, 0], m[5, 7], m[-1, -1], m.sum(), (m**2).sum()]
        np.testing.assert_allclose(found, recorded, rtol=1e-5, atol=2e-5)
