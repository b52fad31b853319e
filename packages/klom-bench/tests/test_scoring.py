"""Floors, intervals and debiased values against many independent draws of known laws."""

import json
import math

import numpy as np
import pytest

from klom_bench.klom import MAXIMUM, VARIANTS, klom
from klom_bench.scoring import bootstrap, score, simulated_floor, summary, too_few_models, warnings_of
from unlearn_core.errors import InvalidInput


def normal(n, samples, seed, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, samples)) + shift).astype(np.float32)


# sheet 1.6: two draws of one normal law, easydub bins
FLOORS = {20: (2.98, 4.88), 50: (0.876, 1.71), 100: (0.341, 0.665), 200: (0.145, 0.277)}


@pytest.mark.parametrize("n", FLOORS)
def test_the_floor_is_that_of_the_sheet(n):
    assert simulated_floor(n, 20_000) == pytest.approx(FLOORS[n], rel=0.05)


@pytest.mark.parametrize("law", ["laplace", "gumbel"])
@pytest.mark.parametrize(("variant", "tolerance"), [("easydub", 0.1), ("robust", 0.25)])
def test_the_floor_hardly_depends_on_the_law(law, variant, tolerance):
    q, p = getattr(np.random.default_rng(5), law)(8, 3, (2, 100, 3000))
    assert simulated_floor(100, 3000, variant) == pytest.approx(
        tuple(summary(klom(q, p, variant))), rel=tolerance
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_a_floor(variant):
    mean, p95 = simulated_floor(50, 1000, variant)
    assert 0 < mean < p95 < 3


def test_the_floor_of_a_few_samples_is_that_of_a_few_samples():
    """P95 of ten samples is an interpolation between the two worst: lower on average than P95 of thousands."""
    rng = np.random.default_rng(0)
    tens = [summary(klom(*rng.standard_normal((2, 100, 10)))) for _ in range(300)]
    mean, p95 = simulated_floor(100, 10)
    assert (mean, p95) == pytest.approx(tuple(np.mean(tens, axis=0)), rel=0.03)
    assert p95 < 0.97 * simulated_floor(100, 4000)[1]
    one = simulated_floor(100, 1)
    assert one[0] == one[1] == pytest.approx(0.341, rel=0.05)


def test_the_floor_is_the_same_every_time():
    first = simulated_floor(30, 50)
    simulated_floor.cache_clear()
    assert simulated_floor(30, 50) == first


# ---- summary ------------------------------------------------------------------------------------------------


def test_summary_is_mean_and_percentile():
    assert summary(np.arange(101.0)) == pytest.approx([50, 95])
    assert summary(np.array([1.0, 3.0])) == pytest.approx([2, 2.9])  # linear, as numpy.percentile
    assert summary(np.array([1.0, math.nan, 3.0])) == pytest.approx([2, 2.9])
    assert np.isnan(summary(np.array([math.nan]))).all()


# ---- interval -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["easydub", "data-unlearning-bench", "robust"])
@pytest.mark.parametrize(("shift", "samples"), [(0, 1), (0, 10), (1, 10), (3, 40), (30, 40)])
def test_the_interval_contains_the_score(variant, shift, samples):
    result = score(normal(100, samples, 1), normal(100, samples, 2, shift), variant, replicates=60)
    assert result.mean_low <= result.mean <= result.mean_high
    assert result.low <= result.p95 <= result.high
    assert min(result.low, result.mean_low) >= -1e-3 and max(result.high, result.mean_high) <= MAXIMUM + 1e-4
    if shift < 30:
        assert result.mean_low < result.mean_high and result.low < result.high


def correlated(rng, n, samples, shift=0.0):
    """Margins of n models that are good or bad as a whole: samples are not independent, models are."""
    return 0.7 * rng.standard_normal((n, samples)) + 0.7 * rng.standard_normal((n, 1)) + shift


@pytest.mark.parametrize("samples", [10, 300])
@pytest.mark.parametrize("variant", ["easydub", "robust"])
def test_the_interval_is_as_wide_as_ensembles_differ(variant, samples):
    rng = np.random.default_rng(4)
    draws = [(correlated(rng, 100, samples), correlated(rng, 100, samples, 1.2)) for _ in range(60)]
    true = np.std([summary(klom(q, p, variant)) for q, p in draws], axis=0)
    moves = np.array([bootstrap(q, p, variant, replicates=60).std(axis=0) for q, p in draws[:8]])
    assert (moves.mean(axis=0) / true) == pytest.approx([1, 1], abs=0.5)  # within a factor of two
    results = [score(q, p, variant, replicates=60) for q, p in draws[:8]]
    widths = np.mean([[r.mean_high - r.mean_low, r.high - r.low] for r in results], axis=0)
    assert (widths / (2 * 1.96 * true)).min() > 0.5 and (widths / (2 * 1.96 * true)).max() < 2


def test_the_upper_bound_is_not_cut_at_the_worst_sample_seen():
    """P95 of ten samples lies just below their maximum; another ensemble's may lie far above it."""
    q, p = normal(60, 10, 1), normal(60, 10, 2, 1.5)
    result = score(q, p)
    worst = klom(q, p).max()
    assert result.high > worst
    assert result.high - result.p95 > 0.4 * (result.p95 - result.low)


def test_bootstrap_draws_models_and_not_samples():
    q, p = normal(40, 1, 1), normal(40, 1, 2, 1)
    alike = bootstrap(np.repeat(q, 500, axis=1), np.repeat(p, 500, axis=1), "easydub", replicates=50)
    np.testing.assert_allclose(
        alike, bootstrap(q, p, "easydub", replicates=50), atol=1e-12
    )  # n is no evidence
    assert alike.std() > 0.1
    np.testing.assert_allclose(alike.mean(axis=0), 0, atol=1e-12)


def test_bootstrap_draws_both_ensembles_apart():
    q = normal(50, 40, 1)
    assert bootstrap(q, q, "easydub", replicates=30).std() > 0  # else p stays equal to q throughout
    # where one side is the same model fifty times, all that moves is the other
    alike = np.zeros_like(q)
    assert bootstrap(alike, q, "easydub", replicates=30).std() > 0.01
    assert bootstrap(q, alike, "easydub", replicates=30).std() > 0.01
    constant = np.full_like(q, 40)
    assert bootstrap(q, constant, "robust", replicates=5).std() == 0


def test_bootstrap_follows_its_seed():
    q, p = normal(30, 20, 1), normal(30, 20, 2)
    first = bootstrap(q, p, "easydub", replicates=8, seed=3)
    np.testing.assert_array_equal(first, bootstrap(q, p, "easydub", replicates=8, seed=3))
    assert (first != bootstrap(q, p, "easydub", replicates=8, seed=4)).any()
    assert score(q, p, replicates=8, seed=3) == score(q, p, replicates=8, seed=3)
    assert score(q, p, replicates=8, seed=3).low != score(q, p, replicates=8, seed=4).low


def test_bootstrap_of_very_many_samples_uses_some_of_them(monkeypatch):
    seen = []
    monkeypatch.setattr("klom_bench.scoring.klom", lambda q, p, v: seen.append(q.shape) or klom(q, p, v))
    moves = bootstrap(normal(20, 6000, 1), normal(20, 6000, 2), "easydub", replicates=2)
    assert seen == [(20, 4000)] * 2 and moves.shape == (2, 2)


# ---- score --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["easydub", "data-unlearning-bench", "attribute-to-delete", "robust"])
def test_two_draws_of_one_law_have_a_debiased_score_of_about_zero(variant):
    q, p, held_out = np.random.default_rng(7).standard_normal((3, 100, 2000))
    for floor_from in (None, held_out):
        result = score(q, p, variant, held_out=floor_from, replicates=2)
        assert abs(result.mean_debiased) < 0.03 * max(1, result.mean) and abs(result.debiased) < 0.05
    far = score(q, p + 3, variant, replicates=2)
    assert far.debiased == far.p95 - far.floor > 1 and far.mean_debiased == far.mean - far.mean_floor > 1


def test_the_numbers_are_those_of_their_names():
    q, p, held_out = normal(100, 200, 1), normal(100, 200, 2, 2), normal(100, 200, 3)
    q[0, :20] = 150
    p[3, 0] = -100
    result = score(q, p, held_out=held_out)
    values, floor = klom(q, p), klom(q, held_out)
    assert (result.n_models, result.n_samples) == (100, 200)
    assert (result.mean, result.p95) == (values.mean(), np.percentile(values, 95))
    assert (result.mean_floor, result.floor) == (floor.mean(), np.percentile(floor, 95))
    assert result.floor_from == "held-out oracles"
    assert result.clipped == pytest.approx(21 / 40_000)
    assert result.undefined == 0
    simulated = score(q, p)
    assert simulated.floor_from == "simulation"
    assert (simulated.mean_floor, simulated.floor) == simulated_floor(100, 200)
    assert score(q, p, "robust").floor == simulated_floor(100, 200, "robust")[1]


def test_undefined_samples_are_passed_over_and_counted():
    q, p = normal(100, 10, 1), normal(100, 10, 2, 1)
    p[:, 4] = 50  # the maximum is dropped: no score
    result = score(q, p, "data-unlearning-bench", replicates=20)
    kept = np.delete(klom(q, p, "data-unlearning-bench"), 4)
    assert (result.mean, result.p95) == (kept.mean(), np.percentile(kept, 95))
    assert result.undefined == 0.1
    assert result.low <= result.p95 <= result.high and result.mean_low < result.mean < result.mean_high
    notes = warnings_of("forget", q, p, result, "data-unlearning-bench")
    assert any("gives 10.0% of the samples no score" in note for note in notes)


def test_no_sample_defined_is_no_score_and_no_crash():
    q = normal(100, 3, 1)
    result = score(q, np.full_like(q, 60), "data-unlearning-bench", replicates=4)
    mapping = result.to_mapping()
    assert (
        mapping["p95"] is mapping["low"] is mapping["high"] is mapping["mean"] is mapping["debiased"] is None
    )
    assert mapping["undefined"] == 1 and mapping["floor"] > 0
    json.dumps(mapping, allow_nan=False)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_ensembles_get_some_score(variant, n):
    result = score(normal(n, 4, 1), normal(n, 4, 2), variant, replicates=10)
    json.dumps(result.to_mapping(), allow_nan=False)
    assert too_few_models(result)


def test_errors_are_those_of_klom():
    q = normal(10, 4, 1)
    with pytest.raises(InvalidInput, match="same models and samples"):
        score(q, q[:, :3])
    with pytest.raises(InvalidInput, match="both must be alike"):
        score(q, q, held_out=q[:5], replicates=1)
    with pytest.raises(InvalidInput, match="did you mean"):
        score(q, q, "robustt")


# ---- warnings -----------------------------------------------------------------------------------------------


def notes_of(q, p, variant="easydub", **options):
    return warnings_of("val", q, p, score(q, p, variant, replicates=2, **options), variant)


def test_few_models_are_remarked_on():
    for n, said in ((79, True), (80, False)):
        notes = too_few_models(score(normal(n, 50, 1), normal(n, 50, 2), replicates=2))
        assert any(f"with {n} models a perfect method scores P95" in note for note in notes) == said


def test_bounds_hold_the_score_where_all_replicates_agree():
    result = score(normal(50, 10, 1), normal(50, 10, 2) + 1e6, "robust", replicates=20)
    assert result.low <= result.p95 <= result.high and result.mean_low <= result.mean <= result.mean_high


def test_held_out_oracles_of_another_shape_are_refused_by_name():
    q = normal(20, 5, 1)
    with pytest.raises(InvalidInput, match="held-out margins are"):
        score(q, q, replicates=2, held_out=q[:10])


def test_oracles_that_are_not_finite_are_remarked_on():
    q, p = normal(100, 50, 1), normal(100, 50, 2)
    q[7, 3] = np.nan
    assert any("margins of 1 oracles (first: model 7) are not finite" in note for note in notes_of(q, p))


def test_a_few_odd_samples_are_not_remarked_on_but_a_tenth_is():
    q, p = normal(100, 100, 1), normal(100, 100, 2)
    for count, said in ((4, False), (10, True)):
        odd = p.copy()
        odd[:, :count] = 0
        assert any("nearly the same margin" in note for note in notes_of(q, odd)) == said
        odd = p.copy()
        odd[5, :count] = 60
        assert any("stretch the bins" in note for note in notes_of(q, odd)) == said
    assert not any("stretch the bins" in note for note in notes_of(q, odd, "robust"))


def test_copies_of_the_oracles_are_remarked_on():
    q = normal(100, 50, 1)
    most = np.concatenate([q[:70], normal(30, 50, 2)])
    assert 0.1 < klom(q, most).mean() / simulated_floor(100, 50)[0] < 0.45
    for copied in (q, most):
        notes = notes_of(q, copied)
        assert any("below half of what two halves of one distribution score" in note for note in notes)
