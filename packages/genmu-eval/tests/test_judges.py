"""Agreement on textbook tables, correction against its own simulation, and the fixed judge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmu_eval.judges import (
    Calibration,
    FixedJudge,
    answers,
    cohen_kappa,
    corrected,
    fleiss_kappa,
    majority,
    picture_key,
)
from unlearn_core.errors import InvalidInput
from unlearn_core.protocols import Detector


def test_cohens_kappa():
    # Two readers of 50 grant proposals: 20 both yes, 15 both no, 5 and 10 apart; 0.4 in every textbook.
    a = [True] * 25 + [False] * 25
    b = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert cohen_kappa([*a, None, True], [*b, True, None]) == pytest.approx(0.4)
    assert cohen_kappa([True] * 4, [True] * 4) == 1
    assert cohen_kappa([True, False], [False, True]) == -1
    with pytest.raises(InvalidInput, match="no picture in common"):
        cohen_kappa([None], [True])
    with pytest.raises(InvalidInput, match="a 1, b 2"):
        cohen_kappa([True], [True, True])


def test_fleiss_kappa():
    # Four judges, yes votes 4, 0, 2, 3: P = (1 + 1 + 1/3 + 1/2) / 4, p = 9/16.
    votes = np.array([[1, 0, 1, 1], [1, 0, 1, 1], [1, 0, 0, 1], [1, 0, 0, 0]], bool)
    chance = (9 / 16) ** 2 + (7 / 16) ** 2
    right = ((1 + 1 + 1 / 3 + 1 / 2) / 4 - chance) / (1 - chance)
    panel = {f"j{i}": row.tolist() for i, row in enumerate(votes)}
    assert fleiss_kappa(panel) == pytest.approx(right)
    assert fleiss_kappa({"a": [True, False], "b": [True, False]}) == 1
    assert majority(panel) == [True, False, None, True]
    assert majority({"a": [None, True], "b": [None, None]}) == [None, True]
    for wrong in ({}, {"a": [True]}, {"a": [None], "b": [True]}):
        with pytest.raises(InvalidInput):
            fleiss_kappa(wrong)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_kappa_is_symmetric_and_at_most_one(pairs):
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    assert cohen_kappa(a, b) == pytest.approx(cohen_kappa(b, a))
    assert -1 - 1e-9 <= cohen_kappa(a, b) <= 1 and cohen_kappa(a, a) == 1


def test_rogan_gladen():
    judge = Calibration(seen=90, with_concept=100, clear=80, without_concept=100)
    assert corrected(41, 100, judge).value == pytest.approx((0.41 + 0.8 - 1) / 0.7)
    assert corrected(0, 50, judge).value == 0 and corrected(50, 50, judge).value == 1
    perfect = Calibration(seen=10**6, with_concept=10**6, clear=10**6, without_concept=10**6)
    # With a perfect judge, the interval is Agresti and Coull's.
    n, z = 100, 1.959964
    p = (30 + z * z / 2) / (n + z * z)
    half = z * (p * (1 - p) / (n + z * z)) ** 0.5
    found = corrected(30, n, perfect)
    assert (found.low, found.high) == pytest.approx((p - half, p + half), abs=1e-4)
    with pytest.raises(InvalidInput, match="no better than chance"):
        corrected(1, 2, Calibration(seen=1, with_concept=2, clear=1, without_concept=2))
    for wrong in ((-1, 2), (3, 2), (0, 0)):
        with pytest.raises(InvalidInput):
            corrected(*wrong, judge)
    with pytest.raises(InvalidInput):
        Calibration(seen=3, with_concept=2, clear=1, without_concept=1)


@pytest.mark.parametrize("truth", [0.05, 0.4, 0.9])
def test_the_corrected_interval_covers(truth):
    rng, se, sp, n, m = np.random.default_rng(0), 0.9, 0.85, 200, 80
    inside = 0
    for _ in range(400):
        judge = Calibration(
            seen=int(rng.binomial(m, se)), with_concept=m, clear=int(rng.binomial(m, sp)), without_concept=m
        )
        found = corrected(int(rng.binomial(n, truth * se + (1 - truth) * (1 - sp))), n, judge)
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 400 <= 0.995


def test_the_fixed_judge():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    judge = FixedJudge(known={picture_key(white): 0.7, picture_key(black[:1]): None}, otherwise=0.2)
    assert isinstance(judge, Detector)
    assert answers(judge, [white, black, black[:1]]) == [True, False, None]
    assert answers(judge, [white], threshold=0.8) == [False]
    with pytest.raises(InvalidInput):
        answers(judge, [white], threshold=0)
    judge = type("Short", (), {"revision": "1", "presence": lambda self, images: []})()
    with pytest.raises(InvalidInput, match="0 answers to 1 images"):
        answers(judge, [white])
