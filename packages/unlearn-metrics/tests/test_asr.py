"""Attack success rates: counted by hand, against scipy, and against a simulation."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearn_core import spec
from unlearn_core.errors import InvalidInput
from unlearn_core.protocols import Metric
from unlearn_core.samples import SampleSet
from unlearn_core.score import Score, wilson
from unlearn_metrics import correction, verdicts
from unlearn_metrics.asr_i2p import AsrI2P
from unlearn_metrics.asr_mma_diffusion import AsrMmaDiffusion
from unlearn_metrics.asr_p4d import AsrP4D
from unlearn_metrics.asr_ring_a_bell import AsrRingABell
from unlearn_metrics.asr_unlearndiffatk import AsrUnlearnDiffAtk
from unlearn_metrics.asr_worst import AsrWorst
from unlearn_metrics.origins import origin_of, raw_ids
from unlearn_metrics.rates import effective_number, rate

METRICS = {
    "ring_a_bell": AsrRingABell,
    "mma_diffusion": AsrMmaDiffusion,
    "p4d": AsrP4D,
    "unlearndiffatk": AsrUnlearnDiffAtk,
}

pytestmark = pytest.mark.usefixtures("pixel_detector")


@pytest.fixture
def crafted(drawn):
    """Return a function that adds rows of `group` made of the first raw rows, with these confidences."""

    def add(samples, group, confidences):
        raw = [s.prompt for s in samples if s.prompt.group == "target"]
        made = drawn(confidences, group=group)
        for row, sample in zip(raw, made, strict=False):
            prompt = dataclasses.replace(sample.prompt, origin=origin_of(f"{group} transfer", row))
            samples.add(prompt, sample.path.read_bytes())
        return samples

    return add


@pytest.mark.parametrize("group", METRICS)
def test_each_is_the_same_rate_on_its_own_rows(drawn, group):
    metric = METRICS[group](detector="pixel")
    confidences, texts = [449, 450, 900, None, "black", 100], ["a", "a", "b", "b", "c", "c"]
    samples = drawn(confidences, texts, group=group)
    drawn([900] * 9, group="target", samples=samples)
    found = metric.measure(samples)
    expected = AsrI2P(detector="pixel").measure(drawn(confidences, texts))
    assert isinstance(metric, Metric) and metric.prompts == (group,)
    assert found.metric == f"asr_{group}" and found.direction == "down"
    assert (found.value, found.interval, found.n_scored, found.reasons) == (
        expected.value, expected.interval, expected.n_scored, expected.reasons,
    )  # fmt: skip
    assert found.value == 0.5 and found.parts["any_of"].value == 2 / 3
    assert found.parts.keys() == {"n_blocked", "threshold", "any_of", "at_0.6"}
    with pytest.raises(InvalidInput, match=f"asr_{group} rates images of the group '{group}'"):
        metric.measure(drawn([900], group="target"))
    assert spec.build(METRICS[group], spec.settings_of(metric)) == metric


def test_the_threshold_is_the_detectors_own_unless_stated(drawn, pixel_detector, monkeypatch):
    samples = drawn([449, 450, 599, 600])
    assert AsrI2P(detector="pixel").measure(samples).parts["threshold"] == 0.45
    monkeypatch.setattr(pixel_detector, "threshold", 0.6, raising=False)
    score = AsrI2P(detector="pixel").measure(samples)
    assert (score.value, score.parts["threshold"]) == (0.25, 0.6)
    assert AsrI2P(detector="pixel", threshold=0.45).measure(samples).value == 0.75


def test_against_the_original_model(drawn):
    """Of six rows the original succeeds on four, two of which still work; "b" works at another seed."""
    texts = ["a", "b", "b", "c", "d", "e"]
    before = drawn([900, 900, 100, 900, 900, 100], texts, group="p4d")
    after = drawn([900, 100, 900, 100, 900, 900], texts, group="p4d")
    parts = AsrP4D(detector="pixel").measure(after, before).parts
    original, conditional = parts["original"], parts["conditional"]
    assert (original.value, original.parts["any_of"].value) == (4 / 6, 4 / 5)
    assert (conditional.value, conditional.n_scored) == (2 / 4, 4)
    assert conditional.interval == wilson(2, 4)
    assert conditional.parts["any_of"].value == 3 / 4  # a, b, d of a, b, c, d
    assert list(conditional.per_sample) == ["p4d-000", "p4d-001", "p4d-003", "p4d-004"]


def test_an_original_that_never_succeeds_has_no_conditional_rate(drawn):
    before, after = drawn([100, 100], group="p4d"), drawn([900, 100], group="p4d")
    parts = AsrP4D(detector="pixel").measure(after, before).parts
    assert parts["original"].value == 0 and "conditional" not in parts
    other = AsrP4D(detector="pixel").measure(after, drawn([900], group="target")).parts
    assert "original" not in other


def test_what_the_original_has_no_image_of_is_in_no_conditional_rate(drawn):
    before, after = drawn([900], group="p4d"), drawn([900, 900, 100], group="p4d")
    parts = AsrP4D(detector="pixel").measure(after, before).parts
    assert (parts["original"].n_scored, parts["conditional"].n_scored) == (1, 1)


def test_an_image_is_looked_at_once(drawn, pixel_detector, monkeypatch):
    looked = []
    presence = pixel_detector.presence
    monkeypatch.setattr(pixel_detector, "presence", lambda self, x: looked.extend(x) or presence(self, x))
    samples = drawn([900, 100, None], group="p4d")
    score = AsrP4D(detector="pixel").measure(samples, samples)
    assert len(looked) == 3
    assert score.parts["original"].value == score.value == 0.5
    assert score.parts["original"].reasons == {verdicts.UNDECIDED: 1}
    assert score.parts["conditional"].value == 1


def test_pre_and_post_attack_are_unlearndiffatks(drawn, crafted):
    """(1 that succeeds by itself + 2 of the other 4 that were brought back) / all 5."""
    samples = crafted(drawn([900, 100, 100, 100, 100]), "unlearndiffatk", [100, 900, 100, 900, 100])
    score = AsrUnlearnDiffAtk(detector="pixel").measure(samples)
    pre, post = score.parts["pre_attack"], score.parts["post_attack"]
    assert (score.value, pre.value, post.value) == (2 / 5, 1 / 5, (1 + 2) / 5)
    assert (pre.n_scored, post.n_scored, post.interval) == (5, 5, wilson(3, 5))
    assert set(post.per_sample) == {f"target-00{i}" for i in range(5)}


def test_only_attacked_rows_are_the_denominator(drawn, crafted):
    samples = crafted(drawn([900, 100, 100, 900]), "p4d", [100, 900])
    parts = AsrP4D(detector="pixel").measure(samples).parts
    assert (parts["pre_attack"].value, parts["post_attack"].value) == (1 / 2, 1)
    assert parts["post_attack"].n_scored == 2


def test_an_origin_says_what_a_row_was_made_of(drawn):
    (row, other) = (s.prompt for s in drawn([1, 2]))
    made = dataclasses.replace(other, id="x", origin=origin_of("p4d adaptive", row))
    assert made.origin == f"p4d adaptive of {row.id}"
    assert raw_ids([made, other]) == {"x": row.id}


class TestWorst:
    attacks = ("p4d", "ring_a_bell")

    @pytest.fixture
    def worst(self):
        return AsrWorst(attacks=self.attacks, detector="pixel")

    def test_it_is_the_highest_rate(self, worst, drawn):
        samples = drawn([900, 100, 100, 100], group="p4d")
        drawn([900, 900, 100, 900, 900], group="ring_a_bell", samples=samples)
        score = worst.measure(samples, samples)
        assert isinstance(worst, Metric) and worst.prompts == self.attacks
        assert (score.value, score.n_scored) == (4 / 5, 9)
        assert [score.parts[a].value for a in self.attacks] == [1 / 4, 4 / 5]
        assert score.parts["p4d"].parts["original"].value == 1 / 4
        assert "union" not in score.parts
        each = [stats.binomtest(*kn).proportion_ci(0.975, "wilson") for kn in ((1, 4), (4, 5))]
        expected = (max(i.low for i in each), max(i.high for i in each))
        assert (score.interval.low, score.interval.high) == pytest.approx(expected, abs=1e-12)

    def test_the_union_is_over_the_rows_that_all_attacked(self, worst, drawn, crafted):
        samples = drawn([100, 100, 100, 100])
        crafted(samples, "p4d", [900, 100, 100])
        crafted(samples, "ring_a_bell", [100, 900, 100, 900])
        score = worst.measure(samples)
        assert (score.value, score.parts["union"].value, score.parts["union"].n_scored) == (1 / 2, 2 / 3, 3)

    def test_a_declared_attack_without_images_is_an_error(self, worst, drawn):
        with pytest.raises(InvalidInput, match="asr_worst rates images of the group 'ring_a_bell'"):
            worst.measure(drawn([900], group="p4d"))

    @pytest.mark.parametrize("attacks", [(), ("p4d",), ("p4d", "p4d")])
    def test_one_attack_is_no_worst_case(self, attacks):
        with pytest.raises(InvalidInput, match="two or more different attacks"):
            AsrWorst(attacks=attacks, detector="pixel")

    def test_the_interval_holds_the_highest_true_rate(self, worst, drawn):
        """Simulated: the highest of two rates is biased upwards, its interval must allow for it."""
        from unlearn_metrics.asr_worst import _interval

        rng = np.random.default_rng(0)
        samples = drawn([1] * 40, group="p4d")
        drawn([1] * 40, group="ring_a_bell", samples=samples)
        rows = {a: [s for s in samples if s.prompt.group == a] for a in self.attacks}
        ids = [s.prompt.id for s in samples]
        inside = 0
        for _ in range(200):
            hits = dict(zip(ids, (rng.random(80) < 0.3).astype(float).tolist(), strict=True))
            interval = _interval(rows, hits)
            inside += interval.low <= 0.3 <= interval.high
        assert inside / 200 >= 0.94


class TestCorrection:
    def test_the_formula_of_rogan_and_gladen(self):
        value, unclipped, interval = correction.rogan_gladen((0.3, 100), (0.9, 50), (0.8, 50))
        assert value == unclipped == pytest.approx((0.3 + 0.8 - 1) / (0.9 + 0.8 - 1))
        assert interval.low <= value <= interval.high
        perfect, _, _ = correction.rogan_gladen((0.3, 100), (1.0, 50), (1.0, 50))
        assert perfect == pytest.approx(0.3)
        value, unclipped, interval = correction.rogan_gladen((0.1, 100), (0.9, 50), (0.8, 50))
        assert (value, interval.low) == (0, 0) and unclipped == pytest.approx(-0.1 / 0.7)

    @pytest.mark.parametrize(
        ("share", "se", "sp", "n", "n_se", "n_sp"),
        [(0.05, 0.9, 0.95, 142, 50, 50), (0.5, 0.7, 0.8, 200, 30, 30), (0.9, 0.8, 0.9, 142, 30, 30)],
    )
    def test_its_interval_covers(self, share, se, sp, n, n_se, n_sp):
        """Lang and Reiczigel claim 95 % or somewhat more, sensitivity and specificity being estimated, too."""
        rng = np.random.default_rng(0)
        seen, inside = share * se + (1 - share) * (1 - sp), 0
        for _ in range(600):
            drawn = [(rng.binomial(m, p) / m, m) for m, p in ((n, seen), (n_se, se), (n_sp, sp))]
            _, _, interval = correction.rogan_gladen(*drawn)
            inside += interval.low <= share <= interval.high
        assert 0.93 <= inside / 600 <= 0.995

    def test_a_rate_is_corrected_by_labelled_images(self, drawn):
        # Seen: 3 of 4 dogs, 1 of 5 cats. 6 of 10 images are hits: (0.6 + 0.8 - 1) / (0.75 + 0.8 - 1).
        labelled = drawn([900, 900, 900, 100], group="dog", concept="dog")
        drawn([900, 100, 100, 100, 100], group="cat", concept="cat", samples=labelled)
        metric = AsrI2P(detector="pixel", labelled=labelled.folder)
        score = metric.measure(drawn([900] * 6 + [100] * 4))
        part = score.parts["corrected"]
        assert score.value == 0.6 and part.value == pytest.approx(0.4 / 0.55)
        assert part.parts["sensitivity"].interval == wilson(3, 4)
        assert (part.parts["specificity"].value, part.parts["specificity"].n_scored) == (0.8, 5)

    def test_what_cannot_be_corrected(self, drawn):
        with pytest.raises(InvalidInput, match="no image without the concept 'dog'"):
            AsrI2P(detector="pixel", labelled=drawn([900]).folder).measure(drawn([900]))
        useless = drawn([100], group="dog")
        drawn([900], group="cat", concept="cat", samples=useless)
        with pytest.raises(InvalidInput, match="no more often where it is"):
            AsrI2P(detector="pixel", labelled=useless.folder).measure(drawn([900]))

    @given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_the_effective_number_of_independent_images_is_their_number(self, kn):
        k, n = kn
        score = Score(metric="x", value=k / n, direction="up", interval=wilson(k, n), n_scored=n)
        assert effective_number(score) == pytest.approx(n, rel=1e-6)

    def test_the_effective_number_of_images_that_agree_is_that_of_prompts(self):
        hits, texts = [1.0] * 60 + [0.0] * 60, [f"text {i // 6}" for i in range(120)]
        value, interval = rate(hits, texts)
        score = Score(metric="x", value=value, direction="up", interval=interval, n_scored=120)
        assert 10 <= effective_number(score) <= 25


def test_order_changes_nothing(drawn, crafted):
    samples = crafted(drawn([900, 100, None, 100]), "p4d", [100, 900, 900, "black"])
    expected = AsrP4D(detector="pixel").measure(samples, samples)
    backwards = SampleSet(samples.folder)
    backwards._entries = dict(reversed(backwards._entries.items()))
    assert AsrP4D(detector="pixel").measure(backwards, backwards) == expected
