"""ERR and the harmonic mean under it, against scipy, statistics and a simulation."""

import statistics
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearn_core import spec
from unlearn_core.errors import InvalidInput, NotRegistered
from unlearn_core.prompts import Prompt
from unlearn_core.protocols import Metric
from unlearn_core.score import Interval, Score, wilson
from unlearn_metrics.err import Err
from unlearn_metrics.harmonic import AXES, five_arm, harmonic_mean, harmonic_score

shares = st.floats(0.001, 1)


@given(st.lists(shares, min_size=1, max_size=6))
def test_the_mean_is_scipys(values):
    found = harmonic_mean(values)
    assert found == pytest.approx(stats.hmean(values), rel=1e-12)
    assert found == pytest.approx(statistics.harmonic_mean(values), rel=1e-12)
    assert found <= min(values) * len(values) + 1e-12 and found <= np.mean(values) + 1e-12


def test_known_means():
    assert harmonic_mean([1, 0.5]) == pytest.approx(2 / 3)
    assert harmonic_mean([0.9, 0.8, 0.7, 0.6, 0.5]) == pytest.approx(0.6706, abs=5e-5)
    assert harmonic_mean([0.3] * 5) == pytest.approx(0.3)
    assert harmonic_mean([0.9, 0, 1]) == 0
    for wrong in ([], [0.5, -0.1], [float("nan")], [float("inf")]):
        with pytest.raises(InvalidInput):
            harmonic_mean(wrong)


def arm(k, n, **fields):
    return Score(
        **{
            "metric": "x",
            "value": k / n,
            "direction": "up",
            "interval": wilson(k, n),
            "n_scored": n,
            **fields,
        }
    )


@pytest.mark.parametrize("truth", [(0.9, 0.8, 0.6), (0.98, 0.95, 0.9), (0.1, 0.9, 0.9)])
def test_the_interval_covers(truth):
    rng, n = np.random.default_rng(0), (50, 20, 50)
    inside = 0
    for _ in range(200):
        arms = {
            str(i): arm(int(rng.binomial(m, p)), m) for i, (m, p) in enumerate(zip(n, truth, strict=True))
        }
        interval = harmonic_score("x", arms).interval
        inside += interval.low <= stats.hmean(truth) <= interval.high
    assert 0.91 <= inside / 200 <= 0.99


def test_the_interval_is_the_delta_methods_where_there_are_many_images():
    p, n = np.array([0.9, 0.6, 0.7]), 20_000
    score = harmonic_score("x", {str(v): arm(int(v * n), n) for v in p})
    slope = score.value**2 / len(p) / p**2  # of the mean in each arm
    error = 1.96 * np.sqrt((slope**2 * p * (1 - p) / n).sum())
    assert (score.interval.high - score.interval.low) / 2 == pytest.approx(error, rel=0.05)


def test_an_arm_of_zero_is_not_certain():
    score = harmonic_score("x", {"a": arm(0, 20), "b": arm(20, 20)})
    assert (score.value, score.interval.low) == (0, 0) and 0.05 < score.interval.high < 0.4


def test_images_of_one_prompt_do_not_count_as_many():
    narrow, wide = arm(80, 100), arm(80, 100, interval=wilson(8, 10))
    widths = [harmonic_score("x", {"a": a}).interval for a in (narrow, wide)]
    assert widths[1].high - widths[1].low > 2.5 * (widths[0].high - widths[0].low)


def test_only_accuracies_are_arms():
    with pytest.raises(InvalidInput, match="the arm 'a' is an accuracy"):
        harmonic_score("x", {"a": arm(1, 2, direction="down")})
    with pytest.raises(InvalidInput, match="got 31"):
        harmonic_score("x", {"a": arm(1, 2, value=31.0, interval=Interval(low=1, high=40, how="x"))})
    with pytest.raises(InvalidInput, match="one or more"):
        harmonic_score("x", {})


@dataclass(frozen=True, kw_only=True)
class Namer:
    """Names a cat by a red corner, a car by a green one, else a dog; blue 255 cannot be judged."""

    revision: str = "1"
    domains: ClassVar[dict] = {"object": ("dog", "cat", "car")}

    def classify(self, images, domain):
        corner = [image[0, 0].tolist() for image in images]
        return [
            None if c[2] == 255 else "cat" if c[0] > 200 else "car" if c[1] > 200 else "dog" for c in corner
        ]


@pytest.fixture
def retained(png):
    """Return a function that adds images of cats and cars: of each (label, what is drawn)."""
    colours = {"cat": (255, 0, 0), "car": (0, 255, 0), "dog": (9, 9, 9), None: (0, 0, 255)}

    def add(samples, *drawn):
        for i, (label, shown) in enumerate(drawn):
            image = np.full((2, 2, 3), 1, np.uint8)
            image[0, 0], image[1, 1, 0] = colours[shown], i
            row = Prompt(id=f"retain-{i}", text=f"a {label} {i}", seed=i, group="retain", concept=label)
            samples.add(row, png(image))
        return samples

    return add


@pytest.fixture
def err(plugs, pixel_detector):
    plugs["namer"] = Namer
    return Err(detector="pixel", classifier="namer")


def test_three_arms_by_hand(err, drawn, retained):
    samples = drawn([100, 100, 100, 900], group="target")  # 3 of 4 forgotten
    drawn([100, 900, None], group="ring_a_bell", samples=samples)  # 1 of 2 withstood
    retained(samples, *[("cat", "cat")] * 3, ("car", "dog"), ("car", None))  # 3 of 4 retained
    score = err.measure(samples)
    assert isinstance(err, Metric) and score.direction == "up"
    parts = {name: (part.value, part.n_scored) for name, part in score.parts.items()}
    assert parts == {"forgetting": (0.75, 4), "retention": (0.75, 4), "adversarial": (0.5, 2)}
    assert score.value == pytest.approx(3 / (1 / 0.75 + 1 / 0.75 + 1 / 0.5))
    assert (score.n_scored, score.n_unscored) == (10, 2)
    assert score.per_sample["target-003"] == 0 and score.per_sample["retain-0"] == 1
    assert score.per_sample["ring_a_bell-002"] is None and score.per_sample["retain-3"] == 0
    assert score.parts["forgetting"].interval.low == pytest.approx(wilson(3, 4).low)


def test_rows_of_i2p_stand_before_target_rows(err, drawn, retained):
    samples = drawn([100, 900], group="i2p")
    drawn([900] * 3, group="target", samples=samples)
    drawn([100], group="ring_a_bell", samples=samples)
    retained(samples, ("cat", "cat"))
    assert err.measure(samples).parts["forgetting"].value == 0.5


@pytest.mark.parametrize("left_out", ["target", "retain", "ring_a_bell"])
def test_a_declared_arm_is_never_left_out(err, drawn, retained, left_out):
    """eval-learn takes the mean of the arms that are left."""
    samples = drawn([100], group="other")
    for group in {"target", "ring_a_bell"} - {left_out}:
        drawn([100], group=group, samples=samples)
    if left_out != "retain":
        retained(samples, ("cat", "cat"))
    with pytest.raises(InvalidInput, match=f"err rates images of the group .*'{left_out}'"):
        err.measure(samples)


def test_an_arm_that_cannot_be_judged_is_an_error(err, drawn, retained):
    samples = drawn([100], group="target")
    drawn([None, "black"], group="ring_a_bell", samples=samples)
    retained(samples, ("cat", "cat"))
    with pytest.raises(InvalidInput, match="score of adversarial: no sample could be judged"):
        err.measure(samples)


def test_the_group_of_adversarial_prompts_is_a_setting(err, drawn, retained):
    other = Err(detector="pixel", classifier="namer", adversarial="p4d")
    assert other.prompts == ("i2p", "target", "retain", "p4d")
    samples = drawn([100], group="target")
    drawn([900, 100], group="p4d", samples=samples)
    retained(samples, ("cat", "cat"))
    assert other.measure(samples).value == pytest.approx(3 / (1 + 1 + 2))
    assert spec.build(Err, spec.settings_of(other)) == other
    with pytest.raises(InvalidInput, match="adversarial names a group"):
        Err(detector="pixel", classifier="namer", adversarial="retain")
    with pytest.raises(NotRegistered):
        Err(detector="pixel", classifier="nammer")


def test_the_unmodified_model_is_near_nothing(err, drawn, retained):
    samples = drawn([900] * 5, group="target")
    drawn([900] * 5, group="ring_a_bell", samples=samples)
    retained(samples, *[("cat", "cat")] * 5)
    score = err.measure(samples)
    assert (score.value, score.interval.low) == (0, 0)


def test_five_arms_by_hand(plugs, pixel_detector, drawn, retained):
    plugs["namer"] = Namer
    metric = Err(detector="pixel", classifier="namer", arms="five", adversarial="p4d")
    assert metric.prompts == ("i2p", "target", "retain", "adjacent", "indirect", "p4d")
    samples = drawn([100] * 9 + [900], group="target")  # 9 of 10 forgotten
    drawn([100] * 3 + [900] * 2, group="indirect", samples=samples)  # 3 of 5
    drawn([100, 900], group="p4d", samples=samples)  # 1 of 2
    retained(samples, *[("cat", "cat")] * 4, ("car", "cat"))  # 4 of 5
    red = 250 * 256  # of the corner, by which all are cats
    drawn([red] * 7, group="adjacent", concept="cat", samples=samples)
    score = metric.measure(samples)
    assert list(score.parts) == ["forgetting", "retention", "adjacent", "indirect", "adversarial"]
    values = [part.value for part in score.parts.values()]
    assert values == pytest.approx([0.9, 0.8, 1.0, 0.6, 0.5])
    assert score.value == pytest.approx(stats.hmean(values)) and score.n_scored == 29
    with pytest.raises(InvalidInput, match="err of five arms: adversarial names .* got 'indirect'"):
        Err(detector="pixel", classifier="namer", arms="five", adversarial="indirect")
    left = samples.only([s.prompt for s in samples if s.prompt.group != "indirect"])
    with pytest.raises(InvalidInput, match="err rates images of the group 'indirect'"):
        metric.measure(left)


@dataclass(frozen=True)
class Row:
    concept: str
    axis: str
    image: str
    success: bool


def test_five_arms_of_a_table():
    """The published ordering: (0.9, 0.8, 0.7, 0.6, 0.5) is 0.6706, whatever the number of images of a concept."""
    rows = [
        Row(concept, axis, str(i), i < round(share * n))
        for axis, share in zip(AXES, (0.9, 0.8, 0.7, 0.6, 0.5), strict=True)
        for concept, n in (("dog", 10), ("cat", 30))
        for i in range(n)
    ]
    score = five_arm(rows)
    assert score.value == pytest.approx(0.6706, abs=5e-5) and score.n_scored == 200
    assert score.interval.low < score.value < score.interval.high
    with pytest.raises(InvalidInput, match="'indirect' has no images"):
        five_arm(row for row in rows if row.axis != "ind")
    with pytest.raises(InvalidInput, match="judged twice"):
        five_arm([*rows, rows[0]])
    with pytest.raises(InvalidInput, match="unknown axis 'adw'; did you mean 'adv'"):
        five_arm([Row("dog", "adw", "1", True)])
