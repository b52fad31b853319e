"""Near-concept damage: counted by hand, Newcombe's interval against his tables and by simulation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearn_core import registry
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt
from unlearn_core.protocols import Metric
from unlearn_core.samples import SampleSet
from unlearn_metrics.errors import NotApplicable
from unlearn_metrics.near_concept import NO_PAIR, NOT_BEFORE, NearConcept
from unlearn_metrics.proportions import difference_bounds
from unlearn_metrics.statistics import paired_difference


@dataclass(frozen=True, kw_only=True)
class Corner:
    """Names the label whose number stands in the corner; 9 cannot be judged."""

    revision: str = "1"
    domains: ClassVar[dict] = {"object": ("cat", "wolf", "fox")}

    def classify(self, images, domain):
        return [None if i[0, 0, 0] == 9 else self.domains["object"][i[0, 0, 0]] for i in images]


@pytest.fixture
def near(plugs):
    plugs["corner"] = Corner
    return NearConcept(classifier="corner")


@pytest.fixture
def adjacent(tmp_path, png):
    """Return a function from (concept, what is seen) to a SampleSet of adjacent rows, one model's."""
    made = []

    def make(*rows, texts=None, seed=0, model=None):
        made.append(rows)
        samples = SampleSet(tmp_path / f"adjacent-{len(made)}")
        for i, (concept, seen) in enumerate(rows):
            image = np.full((2, 2, 3), 1, np.uint8)
            image[0, 0, 0] = 9 if seen is None else Corner.domains["object"].index(seen)
            image[1, 1] = i, len(made) if model is None else model, 0  # no two files alike
            text = texts[i] if texts else f"picture {i}"
            row = Prompt(id=f"adjacent-{i:02d}", text=text, seed=seed + i, group="adjacent", concept=concept)
            samples.add(row, png(image))
        return samples

    return make


BEFORE = [("cat", "cat")] * 4 + [("wolf", "wolf")] * 3 + [("fox", "cat")] + [("fox", "fox")] * 2
AFTER = [("cat", "fox")] * 3 + [("cat", "cat")] + [("wolf", "wolf")] * 3 + [("fox", "fox")] * 3


def test_damage_by_hand(near, adjacent):
    score = near.measure(adjacent(*AFTER), adjacent(*BEFORE))
    assert score.value == pytest.approx((3 - 1) / 10)  # three cats lost, one fox mended
    assert (score.parts["broken"], score.parts["mended"]) == (3, 1)
    assert score.parts["p"] == pytest.approx(stats.binomtest(3, 4).pvalue)
    assert (score.parts["accuracy"].value, score.parts["baseline"].value) == (0.7, 0.9)
    of = {name: score.parts[f"damage to {name}"].value for name in ("cat", "wolf", "fox")}
    assert of == {"cat": 0.75, "wolf": 0, "fox": pytest.approx(-1 / 3)}
    assert score.interval.how == "newcombe"
    assert (score.interval.low, score.interval.high) == pytest.approx(difference_bounds(6, 3, 1, 0))
    assert (score.direction, score.n_scored, score.n_unscored) == ("down", 10, 0)
    assert list(score.per_sample.values()) == [1, 1, 1, 0, 0, 0, 0, -1, 0, 0]


def test_the_unmodified_model_has_none(near, adjacent):
    before = adjacent(*BEFORE)
    score = near.measure(before, before)
    assert (score.value, score.interval.low, score.interval.high) == (0, 0, 0)
    assert (score.interval.how, score.parts["p"]) == ("the same images", 1)
    # Other files on which everything is right are not certain to be without damage.
    other = near.measure(adjacent(*BEFORE), before)
    assert other.value == 0 and other.interval.low < -0.1 and other.interval.high > 0.1


def test_the_change_is_what_a_runner_finds_by_pairs(near, adjacent):
    before = adjacent(*BEFORE)
    after, baseline = near.measure(adjacent(*AFTER), before), near.measure(before, before)
    assert paired_difference(after.per_sample, baseline.per_sample).value == pytest.approx(after.value)


def test_only_pairs_count(near, adjacent, damage):
    after = adjacent(("cat", "fox"), ("cat", "cat"), ("wolf", None), ("wolf", "wolf"), ("fox", "fox"))
    before = adjacent(("cat", "cat"), ("cat", None), ("wolf", "wolf"), ("wolf", "wolf"))
    score = near.measure(damage(after, 3), before)
    assert (score.value, score.n_scored) == (1, 1)
    assert score.reasons == {
        NOT_BEFORE: 1, "the judge could not tell": 1, "the image cannot be read": 1, NO_PAIR: 1,
    }  # fmt: skip
    assert "damage to wolf" not in score.parts
    with pytest.raises(InvalidInput, match="no sample could be judged: .*no image of the row"):
        near.measure(after, adjacent(("cat", "cat")).select(group="none"))


def test_images_of_one_prompt_widen_the_interval(near, adjacent):
    texts = ["one"] * 5 + ["two"] * 5
    rows = [("cat", "fox")] * 5 + [("cat", "cat")] * 5
    before = [("cat", "cat")] * 10
    apart = near.measure(adjacent(*rows), adjacent(*before))
    together = near.measure(adjacent(*rows, texts=texts), adjacent(*before, texts=texts))
    assert together.interval.how.startswith("bootstrap by prompt")
    assert (together.interval.low, together.interval.high) == (0, 1)
    assert apart.interval.low > 0.1 and together.value == apart.value == 0.5
    assert together.parts["p"] > apart.parts["p"]


def test_pairs_are_of_one_prompt_and_seed(near, adjacent):
    after = adjacent(*AFTER)
    with pytest.raises(InvalidInput, match="the seed of the row 'adjacent-00' is 0, and 7"):
        near.measure(after, adjacent(*BEFORE, seed=7))
    with pytest.raises(InvalidInput, match="the text of the row 'adjacent-00' is 'picture 0', and 'x'"):
        near.measure(after, adjacent(*BEFORE, texts=["x"] * 10))


def test_without_neighbours_it_does_not_apply_and_without_a_baseline_it_says_so(near, adjacent, drawn):
    with pytest.raises(NotApplicable, match="not applicable: .*adjacent concepts, and there are none"):
        near.measure(drawn([900]), drawn([900]))
    with pytest.raises(InvalidInput, match="--baseline"):
        near.measure(adjacent(*AFTER))


def test_an_image_that_both_drew_is_looked_at_once(near, adjacent, monkeypatch):
    looked = []
    classify = Corner.classify
    monkeypatch.setattr(Corner, "classify", lambda self, x, d: looked.extend(x) or classify(self, x, d))
    near.measure(adjacent(*BEFORE, model=1), adjacent(*BEFORE, model=1))
    assert len(looked) == len(BEFORE)


def test_the_order_of_the_images_changes_nothing(near, adjacent, tmp_path):
    after, before = adjacent(*AFTER), adjacent(*BEFORE)
    turned = SampleSet(tmp_path / "turned")
    for sample in reversed(list(after)):
        turned.add(sample.prompt, sample.path.read_bytes())
    assert near.measure(turned, before) == near.measure(after, before)


def test_it_is_found_by_name_and_is_a_metric(near):
    assert registry.load("unlearn.metrics", "near_concept") is NearConcept
    assert isinstance(near, Metric) and near.prompts == ("adjacent",)


# ---- Newcombe's interval -------------------------------------------------------------------------------------


def test_a_published_interval():
    """The first example of R. G. Newcombe, Statistics in Medicine 17, 1998, 2635, by his method 10."""
    assert difference_bounds(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_without_correlation_it_joins_the_intervals_of_both_shares():
    """Where one share is 0, phi is 0, and the bounds are those of two shares that know nothing of each other."""
    found = stats.binomtest(12, 40).proportion_ci(method="wilson")
    above = stats.binomtest(0, 40).proportion_ci(method="wilson").high
    low = 0.3 - np.hypot(0.3 - found.low, above)
    assert difference_bounds(0, 12, 0, 28) == pytest.approx((low, found.high))


@given(*[st.integers(0, 30)] * 4)
def test_it_holds_the_difference_and_mirrors(both, first, second, neither):
    if not (n := both + first + second + neither):
        return
    low, high = difference_bounds(both, first, second, neither)
    assert -1 <= low <= (first - second) / n <= high <= 1
    assert difference_bounds(both, second, first, neither) == pytest.approx((-high, -low), abs=1e-12)


def test_it_covers():
    rng = np.random.default_rng(0)
    for cells in ((0.85, 0.1, 0.02, 0.03), (0.6, 0.2, 0.1, 0.1)):
        truth, inside = cells[1] - cells[2], 0
        for drawn in rng.multinomial(40, cells, size=2000):
            low, high = difference_bounds(*(int(k) for k in drawn))
            inside += low <= truth <= high
        assert 0.93 <= inside / 2000 <= 0.99
