"""Intervals and paired differences, against SciPy, closed forms and how often they hold the truth."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearn_core.errors import InvalidInput
from unlearn_metrics.proportions import difference_bounds
from unlearn_metrics.statistics import mcnemar, mean_interval, paired_difference

numbers = st.floats(-1e6, 1e6)


def test_bootstrap_equals_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=60)
    ours = mean_interval(values)
    scipy = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((scipy.low, scipy.high), abs=0.03)  # 2,000 resamples
    assert ours.how == "bootstrap" and ours.level == 0.95
    narrower = mean_interval(values, level=0.5)
    half = stats.norm.ppf(0.75) * values.std() / len(values) ** 0.5
    assert narrower.high - narrower.low == pytest.approx(2 * half, rel=0.08)


def test_images_of_one_prompt_count_as_one():
    rng = np.random.default_rng(0)
    means = rng.normal(size=40)
    copies, prompts = np.repeat(means, 8), np.repeat(np.arange(40), 8)
    clustered, alone, naive = (
        mean_interval(copies, list(prompts)),
        mean_interval(means),
        mean_interval(copies),
    )
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert naive.high - naive.low < 0.5 * (clustered.high - clustered.low)
    assert clustered.how == "bootstrap by prompt"


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        prompts = rng.integers(50, size=100).tolist()
        values = rng.normal(size=50)[prompts] + 0.3 * rng.normal(size=100)
        interval = mean_interval(values, prompts)
        held += interval.low <= 0 <= interval.high
    assert 0.90 < held / 300 < 0.985


@given(st.lists(numbers, min_size=2, max_size=30), st.integers(0, 5))
def test_interval_holds_the_mean_and_follows_the_values(values, seed):
    found = mean_interval(values, seed=seed)
    assert min(values) - 1e-6 <= found.low <= np.mean(values) <= found.high <= max(values) + 1e-6
    assert found == mean_interval(values, seed=seed)
    moved = mean_interval(np.array(values) + 1, seed=seed)
    assert moved.low == pytest.approx(found.low + 1, abs=1e-6)


@given(st.permutations(range(12)))
def test_the_order_of_the_images_changes_nothing(order):
    values, prompts = np.arange(12.0) ** 2, [str(i % 5) for i in range(12)]
    for clusters in (None, prompts):
        shuffled = clusters and [clusters[i] for i in order]
        one, other = mean_interval(values, clusters), mean_interval(values[order], shuffled)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-9)


def test_one_prompt_says_nothing_about_its_spread():
    assert mean_interval([0.5]) is None
    assert mean_interval([0.5, 0.7], ["a cat", "a cat"]) is None


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")], [[1.0]]])
def test_bad_values(values):
    with pytest.raises(InvalidInput, match="finite numbers"):
        mean_interval(values)


def test_bad_settings():
    with pytest.raises(InvalidInput, match="as many clusters, got 1"):
        mean_interval([1.0, 2.0], ["a"])
    with pytest.raises(InvalidInput, match="level"):
        mean_interval([1.0, 2.0], level=95)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_scipy(b, c):
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_many_pairs_is_quick_and_finite():
    assert mcnemar(10_000, 10_400) == pytest.approx(stats.binomtest(10_000, 20_400).pvalue, rel=1e-6)


def test_pairs_of_rates():
    a = {"1": 1.0, "2": 1.0, "3": 1.0, "4": 0.0, "5": None, "6": 1.0}
    b = {"4": 1.0, "3": 0.0, "2": 0.0, "1": 0.0, "5": 1.0, "7": 1.0}
    found = paired_difference(a, b)
    assert (found.n, found.value) == (4, 0.5)
    assert found.p == pytest.approx(stats.binomtest(3, 4).pvalue)
    assert found.low <= 0.5 <= found.high


def test_pairs_that_agree_are_not_certain():
    """The bootstrap alone gives [-1, -1] for two images of two, and [0, 0] where nothing changed."""
    two = paired_difference({"1": 0.0, "2": 0.0}, {"1": 1.0, "2": 1.0})
    assert (two.low, two.high) == pytest.approx(difference_bounds(0, 0, 2, 0))
    assert (two.value, two.low, two.how) == (-1, -1, "newcombe") and two.high > -0.3
    same = dict.fromkeys(map(str, range(20)), 1.0)
    nothing = paired_difference(same, same)
    assert (nothing.value, nothing.p) == (0, 1) and -0.2 < nothing.low < -0.1 and nothing.high == -nothing.low
    prompts = {i: str(int(i) // 2) for i in same}
    shared = paired_difference(same, dict.fromkeys(same, 0.0), prompts)
    assert shared.low < 0.9 and shared.high == 1
    assert shared.how == "bootstrap by prompt, no narrower than newcombe"


def test_the_interval_of_paired_rates_covers():
    """Simulated, 20 pairs of which few differ: the bootstrap alone holds the truth far too rarely."""
    rng, cells = np.random.default_rng(0), np.array([0.7, 0.12, 0.03, 0.15])
    held = naive = 0
    for _ in range(300):
        kind = rng.choice(4, size=20, p=cells)
        a, b = ({str(i): float(k in hit) for i, k in enumerate(kind)} for hit in ((0, 1), (0, 2)))
        found = paired_difference(a, b)
        held += found.low <= 0.09 <= found.high
        alone = mean_interval([a[i] - b[i] for i in a])
        naive += alone.low <= 0.09 <= alone.high
    assert held / 300 >= 0.93 and naive < held


def test_pairs_of_numbers_equal_the_exact_flip_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, 9), rng.normal(size=9)
    signs = np.array(list(itertools.product((-1, 1), repeat=9)))
    exact = np.mean(np.abs(signs @ (a - b)) >= abs((a - b).sum()) - 1e-9)
    of_scipy = stats.permutation_test(
        (a - b, b - b), lambda x, y, axis: np.mean(x - y, axis), permutation_type="samples", vectorized=True
    ).pvalue
    found = paired_difference(dict(enumerate(map(float, a))), dict(enumerate(map(float, b))))
    assert found.p == pytest.approx(exact, abs=0.015) and exact == pytest.approx(of_scipy, abs=1e-9)
    assert found.value == pytest.approx(np.mean(a - b))


def test_pairs_of_one_prompt_count_as_one():
    a = {f"{prompt}-{i}": float(prompt > 0) for prompt in range(4) for i in range(10)}
    b = dict.fromkeys(a, 0.0)
    prompts = {i: i.partition("-")[0] for i in a}
    # Three prompts of four changed: flips of three signs all agree once in four times.
    assert paired_difference(a, b, prompts).p == pytest.approx(0.25, abs=0.02)
    assert paired_difference(a, b).p == pytest.approx(2**-29)


def test_no_difference_and_nothing_to_compare():
    same = {"1": 0.3, "2": 0.6}
    found = paired_difference(same, same)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    single = paired_difference({"1": 1.5}, {"1": 0.5})
    assert (single.value, single.low, single.high, single.p) == (1, None, None, 1)
    with pytest.raises(InvalidInput, match="in common"):
        paired_difference({"1": None}, {"1": 1.0})
