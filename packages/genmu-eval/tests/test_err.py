"""ERR against the one table published in full, published harmonic means, statistics, and its own inequalities."""

import json
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmu_eval.cells import Cells
from genmu_eval.err import err, harmonic_mean
from genmu_eval.table import AXES, Judgement
from genmu_eval.testing import judged, table_of
from unlearn_core.errors import InvalidInput

ONE = dict.fromkeys(AXES, 1.0)


def test_both_statistics_of_the_published_table(published, published_rows):
    found = err(published_rows)
    assert found.err_pooled.value == pytest.approx(0.824, abs=5e-4)
    assert found.err_macro.value == pytest.approx(0.7245, abs=5e-5)
    means = {"fgt": 0.7575, "ret": 0.9462, "adj": 0.7633, "ind": 0.8100, "adv": 0.8725}
    for axis, mean in means.items():
        assert found.components[axis].value == pytest.approx(mean, abs=5e-5)
    for concept, row in published.items():
        assert found.concepts[concept].err == pytest.approx(row["err"], abs=2e-4)
    assert found.n == 20 * (20 + 380 + 60 + 20 + 20)


def test_intervals_of_the_published_table(published_rows):
    """They were worked out apart from this package: see section 5.2 of the fact sheet."""
    found = err(published_rows)
    for estimate, low, high in (
        (found.err_pooled, 0.763, 0.872),
        (found.err_macro, 0.607, 0.812),
    ):
        assert estimate.low == pytest.approx(low, abs=0.012)
        assert estimate.high == pytest.approx(high, abs=0.012)
    these = err(published_rows, over="images").err_pooled
    assert these.low == pytest.approx(0.808, abs=0.006) and these.high == pytest.approx(0.839, abs=0.006)


def test_published_harmonic_means():
    assert harmonic_mean(np.array([0.95, 0.9895, 0.933, 1, 1])) == pytest.approx(0.9737, abs=5e-5)
    assert harmonic_mean(np.array([0.1, 0.95, 1, 1, 1])) == pytest.approx(0.3558, abs=5e-5)
    # EraseBench, arXiv 2501.09833: the unmodified model and ESD.
    assert harmonic_mean(np.array([0.135, 0.098, 0.85])) == pytest.approx(0.1597, abs=5e-5)
    assert harmonic_mean(np.array([0.755, 0.495, 0.659])) == pytest.approx(0.6170, abs=5e-5)
    for wrong in ([], [0.5, -0.1], [1.1], [float("nan")]):
        with pytest.raises(InvalidInput):
            harmonic_mean(np.array(wrong))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_the_mean_is_that_of_statistics(values):
    found = float(harmonic_mean(np.array(values)))
    assert found == pytest.approx(statistics.harmonic_mean(values), rel=1e-9, abs=1e-300)
    assert found <= min(values) * len(values) * (1 + 1e-12)


rates = st.fixed_dictionaries({axis: st.integers(0, 4).map(lambda k: k / 4) for axis in AXES})


@given(st.lists(rates, min_size=1, max_size=5), st.randoms())
def test_macro_is_at_most_pooled_and_order_changes_nothing(concepts, shuffler):
    rows = table_of({f"c{i}": row for i, row in enumerate(concepts)}, dict.fromkeys(AXES, 4))
    found = err(rows, resamples=100)
    assert found.err_macro.value <= found.err_pooled.value + 1e-12
    for estimate in (found.err_pooled, found.err_macro, *found.components.values()):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    shuffler.shuffle(rows)
    assert err(rows, resamples=100) == found
    json.dumps(found.document(), allow_nan=False)


def test_a_component_of_zero_gives_zero_and_is_not_certain():
    rows = table_of({"a": ONE | {"adv": 0.0}}, dict.fromkeys(AXES, 20))
    found = err(rows)
    assert (found.err_pooled.value, found.err_pooled.low, found.err_macro.value) == (0, 0, 0)
    # Wilson's upper bound of 0 of 20 is 0.161.
    assert found.err_pooled.high == pytest.approx(5 / (4 + 1 / 0.1611), abs=1e-3)
    assert err(table_of({"a": ONE}, dict.fromkeys(AXES, 20))).err_pooled.low < 0.95
    two = err(table_of({"a": ONE | {"adv": 0.0, "ind": 0.0}}, dict.fromkeys(AXES, 20)))
    assert two.err_pooled.high > 0.2


@pytest.mark.parametrize("axis", AXES)
def test_a_missing_component_is_named(axis):
    rows = table_of({"a": ONE, "b": ONE}, dict.fromkeys(AXES, 2))
    with pytest.raises(InvalidInput, match=f"component {axis} is missing: no row"):
        err([r for r in rows if r.axis != axis])
    with pytest.raises(InvalidInput, match=f"component {axis} is missing for 'b'"):
        err([r for r in rows if (r.concept, r.axis) != ("b", axis)])


def test_one_retained_set_serves_all_targets():
    own = [r for c in "ab" for x in ("fgt", "ind", "adv", "adj") for r in judged(c, x, 3, 4)]
    shared = judged("tree", "ret", 4, 4) + judged("car", "ret", 1, 4)
    found = err(own + shared)
    assert found.components["ret"].value == pytest.approx((1 + 0.25) / 2)
    assert found.concepts["a"].components["ret"].value == found.components["ret"].value
    assert found.concepts["a"].err == pytest.approx(5 / (4 / 0.75 + 1 / 0.625))
    with pytest.raises(InvalidInput, match="'car' count for no target"):
        err(own + shared + judged("a", "ret", 1, 1) + judged("b", "ret", 1, 1))


def test_the_interval_covers_the_truth():
    random_state = np.random.default_rng(0)
    truth = {"fgt": 0.7, "ret": 0.9, "adj": 0.8, "ind": 0.6, "adv": 0.5}
    right = float(harmonic_mean(np.array(list(truth.values()))))
    inside = 0
    for _ in range(200):
        rows = [
            row
            for c in "abcd"
            for axis, p in truth.items()
            for row in judged(c, axis, random_state.binomial(20, p), 20)
        ]
        e = err(rows, resamples=200, over="images").err_pooled
        inside += e.low <= right <= e.high
    assert inside / 200 >= 0.91


def test_bad_tables():
    with pytest.raises(InvalidInput, match="without rows"):
        err([])
    row = Judgement(concept="a", axis="fgt", image="1", present=False)
    with pytest.raises(InvalidInput, match="judged twice"):
        err([row, row])
    with pytest.raises(InvalidInput, match="without a target"):
        err(judged("a", "ret", 1, 1))
    with pytest.raises(InvalidInput, match="at least 100"):
        err(table_of({"a": ONE}, dict.fromkeys(AXES, 1)), resamples=3)


def test_tables_of_other_images_are_not_compared():
    rows = table_of({"a": ONE}, dict.fromkeys(AXES, 2))
    with pytest.raises(InvalidInput, match="'a adv 001' is not in all"):
        Cells.of(rows, rows[:-1])
    random.Random(0).shuffle(rows)
    assert Cells.of(rows, rows).counts[0].tolist() == [[0, 0, 0, 2]]
