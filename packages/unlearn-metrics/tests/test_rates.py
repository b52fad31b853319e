"""Shares and their intervals, against scipy, the closed form and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearn_core.score import wilson
from unlearn_metrics.rates import rate, weighted_rate

hits = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)


def distinct(n):
    return [f"text {i}" for i in range(n)]


@given(hits)
def test_a_plain_rate_is_wilsons(hits):
    value, interval = rate(hits, distinct(len(hits)))
    expected = wilson(int(sum(hits)), len(hits))
    assert value == sum(hits) / len(hits)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert interval.how == "wilson"


def test_labels_count_alike_and_the_interval_knows_it():
    y, labels = [1, 0, 1, 1, 1, 1, 1, 0], ["a"] * 2 + ["b"] * 6
    value, interval = weighted_rate(y, distinct(8), labels, {"a": 0.5, "b": 0.5})
    assert value == pytest.approx((1 / 2 + 5 / 6) / 2)
    # Kish: 1 / (0.25 / 2 + 0.25 / 6) = 6 images, of which value * 6 = 4 are hits.
    expected = stats.binomtest(4, 6).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert "Kish" in interval.how


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from("xyz")), min_size=1))
def test_the_value_is_the_mean_of_the_shares_and_inside(rows):
    labels = [label for label, _, _ in rows]
    y = [float(hit) for _, hit, _ in rows]
    known = sorted(set(labels))
    shares = [np.mean([h for h, other in zip(y, labels, strict=True) if other == label]) for label in known]
    value, interval = weighted_rate(
        y, [text for _, _, text in rows], labels, dict.fromkeys(known, 1 / len(known))
    )
    assert value == pytest.approx(np.mean(shares), abs=1e-12)
    assert 0 <= interval.low <= value <= interval.high <= 1
    assert (value == 1) == (min(y) == 1)


def test_images_of_one_prompt_say_less_than_as_many_prompts():
    """Five images of a prompt that all agree are worth one: the interval is near that of the twenty prompts."""
    y = np.repeat([1.0] * 12 + [0.0] * 8, 5)
    texts = np.repeat(distinct(20), 5).tolist()
    _, interval = rate(y.tolist(), texts)
    drawn = stats.bootstrap((y[::5],), np.mean, method="percentile", rng=0).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((drawn.low, drawn.high), abs=0.03)
    alone = wilson(60, 100)
    assert interval.high - interval.low > 1.8 * (alone.high - alone.low)
    assert "bootstrap by prompt" in interval.how


def test_images_that_agree_are_not_certain():
    """The bootstrap alone would give [1, 1]."""
    _, interval = rate([1.0] * 20, distinct(10) * 2)
    assert interval.low == pytest.approx(wilson(20, 20).low)


def test_the_bootstrap_over_labels_has_the_spread_of_the_sum():
    """Where images of a prompt are independent: standard error² = sum of weight² p (1 - p) / n."""
    rng = np.random.default_rng(0)
    p, n, weight = np.array([0.5, 0.9]), np.array([300, 900]), np.array([0.7, 0.3])
    labels = np.repeat(["a", "b"], n).tolist()
    y = (rng.random(n.sum()) < np.repeat(p, n)).astype(float)
    texts = [f"{label} {i // 2}" for i, label in enumerate(labels)]
    shares = np.array([y[:300].mean(), y[300:].mean()])
    value, interval = weighted_rate(y.tolist(), texts, labels, {"a": 0.7, "b": 0.3})
    assert value == pytest.approx(weight @ shares)
    width = 2 * 1.96 * math.sqrt((weight**2 * shares * (1 - shares) / n).sum())
    # Kish's Wilson, which it is never narrower than, assumes one share and so is a little wider here.
    assert width * 0.95 <= interval.high - interval.low <= width * 1.25


def test_wilson_with_kishs_n_covers():
    """Simulated from the truth, labels of different sizes and rates: 95 % of the intervals hold it."""
    rng = np.random.default_rng(1)
    p, n = np.array([0.8, 0.95, 0.9]), np.array([10, 10, 40])
    labels, texts = np.repeat(["a", "b", "c"], n).tolist(), distinct(60)
    weights, truth, inside = dict.fromkeys("abc", 1 / 3), p.mean(), 0
    for _ in range(400):
        y = (rng.random(60) < np.repeat(p, n)).astype(float).tolist()
        _, interval = weighted_rate(y, texts, labels, weights)
        inside += interval.low <= truth <= interval.high
    assert 0.92 <= inside / 400 <= 0.99
