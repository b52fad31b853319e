"""The closed form against its normal equation, its closed solution for one pair, and what it must leave alone."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_techniques.diffusion.ridge import change_of_reading, ridge_edit

sizes = st.integers(1, 6)
weights = st.floats(0.01, 10)


def draw(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@given(seed=st.integers(0, 2**32 - 1), n=sizes, m=st.integers(0, 6), d=st.integers(2, 12), out=sizes,
       lamb=weights, erase=weights, preserve=weights)  # fmt: skip
def test_the_normal_equation(seed, n, m, d, out, lamb, erase, preserve):
    """numpy's least squares on the stacked problem is the same minimum, for both forms."""
    w, c, r, p = draw(seed, out, d), draw(seed + 1, n, d), draw(seed + 2, n, d), draw(seed + 3, m, d)
    scales = {"lamb": lamb, "erase": erase, "preserve": preserve}
    root = [np.sqrt(x) for x in (erase, preserve, lamb)]
    left = np.concatenate([root[0] * c.numpy(), root[1] * p.numpy(), root[2] * np.eye(d)])
    right = np.concatenate([root[0] * (r @ w.T).numpy(), root[1] * (p @ w.T).numpy(), root[2] * w.T.numpy()])
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    np.testing.assert_allclose(w @ change_of_reading(c, r, p, **scales), expected, atol=1e-8)
    np.testing.assert_allclose(ridge_edit(w, c, r @ w.T, p, **scales), expected, atol=1e-8)


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(2, 12), lamb=weights, erase=weights)
def test_one_pair_in_closed_form(seed, d, lamb, erase):
    """W'c = W (lamb c + e |c|^2 r) / (lamb + e |c|^2), and a direction orthogonal to c is not touched."""
    c, r, w = draw(seed, 1, d), draw(seed + 1, 1, d), draw(seed + 2, 3, d)
    edited = w @ change_of_reading(c, r, c[:0], lamb=lamb, erase=erase, preserve=1.0)
    square = float((c @ c.T).item())
    wanted = (lamb * c + erase * square * r) / (lamb + erase * square)
    torch.testing.assert_close(edited @ c[0], w @ wanted[0], atol=1e-9, rtol=1e-9)
    other = draw(seed + 3, d)
    orthogonal = other - (other @ c[0]) / square * c[0]
    torch.testing.assert_close(edited @ orthogonal, w @ orthogonal, atol=1e-9, rtol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), n=sizes, lamb=weights)
def test_nothing_to_edit_changes_nothing(seed, n, lamb):
    c = draw(seed, n, 8)
    one = torch.eye(8, dtype=torch.float64)
    for edited, read, kept in [(c[:0], c[:0], c), (c, c, c[:0]), (c, c, c)]:
        m = change_of_reading(edited, read, kept, lamb=lamb, erase=1.0, preserve=1.0)
        torch.testing.assert_close(m, one, atol=1e-11, rtol=0)


def test_what_is_preserved_and_orthogonal_stays_exactly():
    c, p = torch.eye(6)[:2], torch.eye(6)[2:4]
    w = draw(0, 5, 6)
    edited = w @ change_of_reading(c, p.flip(0), p, lamb=0.5, erase=1.0, preserve=1.0)
    assert torch.equal(edited @ p.double().T, w @ p.double().T)
    assert not torch.allclose(edited @ c.double().T, w @ c.double().T)


def test_float64_where_padding_dominates():
    """Sheet A, 0.4: 2,000 near-duplicates cost a float32 inverse percents of the weights; an identity stays one."""
    tokens = draw(0, 1, 96) + 1e-3 * draw(1, 2000, 96)
    tokens = (28 / 96**0.5 * torch.cat([tokens, draw(2, 60, 96)])).float()
    one = torch.eye(96)
    ours = change_of_reading(tokens, tokens, tokens[:0], lamb=1e-4, erase=1.0, preserve=1.0)
    square = tokens.T @ tokens + 1e-4 * one
    assert (square @ torch.inverse(square) - one).abs().max() > 1e-3
    assert (ours - one).abs().max() < 1e-9
