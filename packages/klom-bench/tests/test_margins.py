"""Margins against brute force in float64 and in exact arithmetic."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klom_bench.margins import margins, margins_from_log_probs


def brute_force(z, y):
    others = [v for j, v in enumerate(z) if j != y]
    top = max(others)
    return z[y] - top - math.log(math.fsum(math.exp(v - top) for v in others))


@given(
    z=st.lists(st.lists(st.floats(-300, 300), min_size=4, max_size=4), min_size=1, max_size=5), data=st.data()
)
def test_margins_equal_the_formula(z, data):
    y = [data.draw(st.integers(0, 3)) for _ in z]
    got = margins(torch.tensor(z, dtype=torch.float64), torch.tensor(y))
    np.testing.assert_allclose(got, [brute_force(*pair) for pair in zip(z, y, strict=True)], atol=1e-10)


def test_margins_are_the_logit_of_the_softmax():
    z = torch.randn(3, 50, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    y = torch.arange(50) % 10
    p = z.softmax(-1)[:, torch.arange(50), y]
    torch.testing.assert_close(margins(z, y), (p / (1 - p)).log())
    torch.testing.assert_close(margins_from_log_probs(p.log()), margins(z, y))


def test_two_classes_by_hand():
    z = torch.tensor([[3.0, 1.0], [3.0, 1.0]])
    assert margins(z, torch.tensor([0, 1])).tolist() == [2, -2]
    three = margins(torch.zeros(1, 3), torch.tensor([2]))
    assert three.item() == pytest.approx(-math.log(2))


@pytest.mark.parametrize("labels", [torch.uint8, torch.int32, torch.int64])
def test_shapes_dtypes_and_arguments(labels):
    z = torch.randn(4, 6, 10)
    before = z.clone()
    got = margins(z, torch.arange(6).to(labels))
    assert got.shape == (4, 6) and got.dtype == torch.float32 and torch.equal(z, before)
    torch.testing.assert_close(got[2], margins(z[2], torch.arange(6)))


def test_saturated_networks_keep_their_margins():
    z = torch.tensor([[1e4, 0.0, -5.0]])
    assert margins(z, torch.tensor([0])).item() == pytest.approx(1e4 - math.log1p(math.exp(-5)), rel=1e-6)
    assert margins(z, torch.tensor([2])).item() == pytest.approx(-1e4 - 5, rel=1e-6)


@given(st.floats(-700, -1e-12))
def test_log_probabilities(lp):
    got = margins_from_log_probs(torch.tensor(lp, dtype=torch.float64)).item()
    assert got == pytest.approx(lp - math.log(-math.expm1(lp)), abs=1e-12)


def test_a_certain_class_has_an_infinite_margin():
    assert margins_from_log_probs(torch.tensor([0.0])).item() == math.inf
    assert margins_from_log_probs(torch.tensor([-1e-30], dtype=torch.float64)).item() == pytest.approx(
        69.0776, abs=1e-3
    )  # log p - log(1 - p) with 1 - p computed as 1 - exp would be infinite
