"""Every variant against recorded values, against a loop written from the formula, and by hand."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from klom_bench import klom as module
from klom_bench.klom import EPS, MAXIMUM, VARIANTS, klom
from unlearn_core.errors import InvalidInput

PUBLIC = ["easydub", "data-unlearning-bench", "attribute-to-delete", "easydub-pre-release", "fixed-bins"]
LOG = math.log


def test_the_variants_are_these():
    assert [*PUBLIC, "robust"] == list(VARIANTS)
    assert pytest.approx(11.512925464970229, abs=1e-14) == MAXIMUM


# ---- recorded values of the public codes ------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "_n1", "_n2", "_n20"])
@pytest.mark.parametrize("variant", PUBLIC)
def test_parity_with_the_public_codes(reference, variant, suffix):
    expected = reference[variant + suffix]
    got = klom(reference["oracle" + suffix], reference["unlearned" + suffix], variant)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12, equal_nan=True)


def test_the_reference_holds_what_it_is_there_for(reference):
    assert len(reference["regimes"]) == 19 and set(reference["regime"]) == set(range(19))
    undefined = {v: int(np.isnan(reference[v]).sum()) for v in PUBLIC}
    assert undefined["easydub"] == 0 < undefined["data-unlearning-bench"] < undefined["attribute-to-delete"]
    means = {
        name: reference["easydub"][reference["regime"] == i].mean()
        for i, name in enumerate(reference["regimes"])
    }
    assert means["identical"] == means["constant_above"] == 0  # the public code's worst defect
    assert means["same_dist"] == pytest.approx(0.36, abs=0.05) and means["disjoint"] > 9


# ---- by hand ------------------------------------------------------------------------------------------------


def score(unlearned, oracle, variant):
    return klom(np.array(oracle, float)[:, None], np.array(unlearned, float)[:, None], variant)[0]


NAN, INF = math.nan, math.inf
SPREAD = [0, 1, 2, 3]
EASYDUB, DUB, A2D = PUBLIC[:3]


@pytest.mark.parametrize(
    ("unlearned", "oracle", "expected"),
    [
        # a constant has a bin from it to it + 1; Attribute-to-Delete gives it no width at all
        ([5] * 4, [5] * 4, {EASYDUB: 0, DUB: 0, A2D: NAN}),
        # all unlearned values are the maximum, which lies in no bin
        ([9] * 4, SPREAD, {EASYDUB: 0, DUB: NAN, A2D: NAN}),
        ([100] * 4, SPREAD, {EASYDUB: 0, DUB: NAN, A2D: NAN}),
        ([INF] * 4, SPREAD, {EASYDUB: 0, DUB: NAN, A2D: NAN}),
        # p is 1 in a bin where q is eps; q adds up to 1 + eps, or to 1 + 17 eps over 20 bins, three of them full
        ([-1] * 4, SPREAD, {EASYDUB: LOG(1e5), DUB: LOG(1e5 * (1 + EPS)), A2D: LOG(1e5 * (1 + 17 * EPS))}),
        ([NAN, 1, 2, 3], SPREAD, {EASYDUB: 0, DUB: NAN, A2D: NAN}),
        ([NAN] * 4, SPREAD, {EASYDUB: 0, DUB: NAN, A2D: NAN}),
        # +inf becomes 100 and is dropped; the rest shares the bin [0, 5) or [0, 5.3), with all oracles
        ([0, 1, 2, INF], SPREAD, {EASYDUB: 0, DUB: 0, A2D: LOG(1 + 19 * EPS)}),
        # -inf becomes -100, in a bin of its own: p = 1/3, 2/3 (3 is dropped), q = 0, 1
        ([1, 2, 3, -INF], SPREAD, {EASYDUB: LOG(1 / 3 / EPS) / 3 + 2 * LOG(2 / 3) / 3}),
        # one model: the larger of two values is dropped
        ([1], [0], {EASYDUB: 0, DUB: NAN, A2D: NAN}),
        ([0], [1], {EASYDUB: LOG(1e5), DUB: 0, A2D: NAN}),
        # two models: p = 1/2, 1/2 and q = 1, eps
        ([0, 0.5], [0, 1], {EASYDUB: LOG(0.5) / 2 + LOG(0.5 / EPS) / 2}),
    ],
)
def test_edge_cases_by_hand(unlearned, oracle, expected):
    for variant, value in expected.items():
        np.testing.assert_allclose(
            score(unlearned, oracle, variant), value, rtol=0, atol=1e-12, err_msg=variant
        )


def test_a_nan_among_the_oracles_is_passed_over():
    # range of p alone, 1 to 4: oracles 1, 2, 3 fill three bins with 1/3 each, and so do p's 1, 2, 3
    assert score([1, 2, 3, 4], [NAN, 1, 2, 3], EASYDUB) == 0


def test_pre_release_is_blind_to_shift_and_scale():
    p, q = np.random.default_rng(0).normal(size=(2, 100, 50))
    shifted = klom(q, 4 * p + 54, "easydub-pre-release")  # by a power of two: exact
    np.testing.assert_allclose(shifted.mean(), klom(q, p, "easydub-pre-release").mean(), rtol=0.02)
    assert klom(q, 4 * p + 54).min() > 9


def test_fixed_bins_by_hand():
    # 100 oracles in [0, 10), all unlearned in [10, 20): the reverse direction, eps added to counts
    n, total = 100, 100 + 20 * EPS
    p, q = (EPS / total, (n + EPS) / total)
    expected = q * LOG(q / p) + p * LOG(p / q)
    assert score([15] * n, [5] * n, "fixed-bins") == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx(16.118, abs=1e-3)


# ---- against a loop over samples and values, from the formula ----------------------------------------------


def counts_half_open(values, edges):
    counts = [0] * (len(edges) - 1)
    for v in values:
        for k in range(len(edges) - 1):
            if edges[k] <= v < edges[k + 1]:
                counts[k] += 1
    return counts


def kl(p, q):
    return sum(a * LOG(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def shares(counts):
    return [c / sum(counts) for c in counts] if sum(counts) else [0.0] * len(counts)


def shared_bins(p, q):
    p, q = np.clip(p, -100, 100), np.clip(q, -100, 100)
    a, b = min(p.min(), q.min()), max(p.max(), q.max())
    if a >= b:
        b = a + 1
    edges = np.linspace(a, b, 21)
    return shares(counts_half_open(p, edges)), shares(counts_half_open(q, edges))


def loop_easydub(p, q):
    p, q = shared_bins(p, q)
    return kl(p, [max(b, EPS) if a > 0 else b for a, b in zip(p, q, strict=True)])


def loop_data_unlearning_bench(p, q):
    p, q = shared_bins(p, q)
    q = [max(b, EPS) if a > 0 else b for a, b in zip(p, q, strict=True)]
    return kl(p, [b / sum(q) for b in q]) if sum(p) else NAN


def loop_attribute_to_delete(p, q):
    p = np.clip(p, -100, 100)
    edges = np.linspace(min(p.min(), q.min()), max(p.max(), q.max()), 20)

    def twenty(values):
        return [sum(v < edges[0] for v in values), *counts_half_open(values, edges)]

    p, q = twenty(p), twenty(q)
    if not sum(p) or not sum(q):
        return NAN
    q = [max(b, EPS) for b in shares(q)]
    return kl(shares(p), [b / sum(q) for b in q])


def loop_pre_release(p, q):
    def own(values):
        values = np.clip(values, -100, 100)
        return shares(np.histogram(values, np.linspace(values.min(), values.max(), 21))[0])

    return kl(own(p), [max(b, EPS) for b in own(q)])


def loop_fixed_bins(p, q):
    p, q = (np.histogram(np.clip(v, -100, 100), np.linspace(-100, 100, 21))[0] + EPS for v in (p, q))
    return kl(q / q.sum(), p / p.sum())


LOOPS = dict(
    zip(
        PUBLIC,
        [
            loop_easydub,
            loop_data_unlearning_bench,
            loop_attribute_to_delete,
            loop_pre_release,
            loop_fixed_bins,
        ],
        strict=True,
    )
)


def check_against_loop(p, q):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # numpy's, about the infinities that are meant to be there
        for variant, loop in LOOPS.items():
            expected = [loop(p[:, s], q[:, s]) for s in range(p.shape[1])]
            got = klom(q, p, variant)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12, equal_nan=True, err_msg=variant)


def draw(rng, kind, n):
    values = {
        "normal": lambda: rng.normal(5, 2, n),
        "ties": lambda: rng.integers(-2, 3, n).astype(float),
        "halves": lambda: rng.integers(-8, 8, n) / 2,
        "constant": lambda: np.full(n, rng.integers(-3, 3) * 50.0),
        "wide": lambda: rng.normal(0, 90, n),
        "tiny": lambda: 7 + rng.integers(0, 3, n) * 1e-6,
        "heavy": lambda: rng.standard_cauchy(n),
    }[kind]()
    return values


KINDS = st.sampled_from(["normal", "ties", "halves", "constant", "wide", "tiny", "heavy"])
ODD = st.sampled_from([None, NAN, INF, -INF, 100.0, -100.0, 1e30])


@given(
    n=st.sampled_from([1, 2, 3, 10, 99, 254, 255, 256, 300]),
    kinds=st.lists(st.tuples(KINDS, KINDS, ODD, ODD), min_size=1, max_size=3),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_public_variant_equals_a_loop_over_samples(n, kinds, dtype, seed):
    rng = np.random.default_rng(seed)
    p, q = np.empty((2, n, len(kinds)), dtype)
    for s, (of_p, of_q, odd_p, odd_q) in enumerate(kinds):
        p[:, s], q[:, s] = draw(rng, of_p, n), draw(rng, of_q, n)
        for column, odd in ((p[:, s], odd_p), (q[:, s], odd_q)):
            if odd is not None:
                column[rng.random(n) < rng.choice([0.02, 0.3, 1])] = odd
    check_against_loop(p, q)


# Twenty bins between numbers nearer than that have no edges of their own in float32; margins never are.
floats = st.floats(-1000, 1000, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)


@given(st.integers(1, 6).flatmap(lambda n: arrays.arrays(np.float32, (2, n, 2), elements=floats)))
@example(np.float32([[[1.0], [2.0]], [[1.0], [1.0]]]).reshape(2, 2, 1))
def test_small_samples_equal_the_loop(pair):
    check_against_loop(*pair)


def test_edges_are_those_of_linspace_to_the_bit():
    rng = np.random.default_rng(3)
    for dtype in (np.float16, np.float32, np.float64):
        start = rng.normal(0, 30, 500).astype(dtype)
        end = start + rng.exponential(10, 500).astype(dtype)
        end[::7] = start[::7]  # no width at all: linspace takes another route
        end[1::7] = np.nextafter(start[1::7], dtype(np.inf))
        for n in (20, 21):
            one_by_one = np.stack([np.linspace(a, b, n) for a, b in zip(start, end, strict=True)], axis=1)
            np.testing.assert_array_equal(module._edges(start, end, n), one_by_one.astype(dtype))


# ---- what may be put in ------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    rng = np.random.default_rng(1)
    return rng.normal(5, 2, (40, 7)).astype(np.float32), rng.normal(6, 2, (40, 7)).astype(np.float32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_torch_tensors_of_every_dtype(pair, variant):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        q, p = (torch.from_numpy(m).to(dtype) for m in pair)
        as_numpy = [t.float().numpy() if dtype == torch.bfloat16 else t.numpy() for t in (q, p)]
        expected = klom(*as_numpy, variant)
        np.testing.assert_array_equal(klom(q.requires_grad_(), p.requires_grad_(), variant), expected)
        np.testing.assert_array_equal(klom(q.T.contiguous().T, p, variant), expected)
        assert np.abs(expected - klom(*pair, variant)).mean() < 0.15  # the margins lost digits, not the score


def test_integers_and_lists(pair):
    q, p = (m.round().astype(np.int64) for m in pair)
    np.testing.assert_array_equal(klom(q, p), klom(q.astype(float), p.astype(float)))
    np.testing.assert_array_equal(klom(q.tolist(), p.tolist()), klom(q, p))
    np.testing.assert_array_equal(klom(q > 5, p > 5), klom((q > 5) * 1.0, (p > 5) * 1.0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_arguments_are_untouched_and_their_layout_does_not_matter(pair, variant):
    q, p = (m * 40 for m in pair)  # some beyond the clipping range
    before = q.copy(), p.copy()
    expected = klom(q, p, variant)
    assert (q == before[0]).all() and (p == before[1]).all()
    q.flags.writeable = p.flags.writeable = False
    np.testing.assert_array_equal(
        klom(np.asfortranarray(q), np.repeat(p, 2, axis=1)[:, ::2], variant), expected
    )


def same(a, b):
    np.testing.assert_allclose(
        a, b, rtol=0, atol=1e-13
    )  # numpy adds up one column in another order than many


@pytest.mark.parametrize("variant", VARIANTS)
def test_samples_do_not_depend_on_the_chunk_they_are_in(variant, monkeypatch):
    rng = np.random.default_rng(2)
    q, p = rng.normal(5, 2, (2, 30, 2 * module._CHUNK + 1)).astype(np.float32)
    whole = klom(q, p, variant)
    assert whole.shape == (q.shape[1],)
    for n in (1, 511, 512, 513, module._CHUNK, module._CHUNK + 1):
        same(klom(q[:, :n], p[:, :n], variant), whole[:n])
    one_by_one = [klom(q[:, s : s + 1], p[:, s : s + 1], variant)[0] for s in range(0, q.shape[1], 97)]
    same(one_by_one, whole[::97])
    monkeypatch.setattr(module, "_CHUNK", 7)
    same(klom(q[:, :30], p[:, :30], variant), whole[:30])


@pytest.mark.parametrize("variant", ["easydub", "robust"])
def test_memory_is_bounded_by_chunks(variant):
    q, p = np.random.default_rng(0).standard_normal((2, 100, 60_000), dtype=np.float32)
    tracemalloc.start()
    try:
        assert klom(q, p, variant).shape == (60_000,)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (q.nbytes + p.nbytes) / 5, f"{peak / 2**20:.1f} MiB"


def test_the_clipping_range_can_be_chosen(pair):
    q, p = pair
    np.testing.assert_allclose(klom(q, p, clip=(-1, 4)), klom(q.clip(-1, 4), p.clip(-1, 4)), atol=1e-12)
    assert (klom(q, p, clip=(-1, 4)) != klom(q, p)).any()
    np.testing.assert_array_equal(klom(q, p, "robust", clip=(-1, 4)), klom(q, p, "robust"))


ONES = np.ones((4, 3))


@pytest.mark.parametrize(
    ("oracle", "unlearned", "variant", "message"),
    [
        (ONES, np.ones((4, 2)), "easydub", r"oracle margins are \(4, 3\) and unlearned margins \(4, 2\)"),
        (ONES, np.ones((3, 3)), "easydub", "same models and samples"),
        (np.ones(4), np.ones(4), "easydub", r"must be \(n_models, n_samples\), got shape \(4,\)"),
        (ONES, np.ones((1, 4, 3)), "easydub", r"unlearned margins must be .* got shape \(1, 4, 3\)"),
        (np.ones((0, 3)), np.ones((0, 3)), "robust", r"oracle margins are empty: shape \(0, 3\)"),
        (np.ones((4, 0)), np.ones((4, 0)), "easydub", "empty"),
        (np.array([["a", "b"]]), np.array([["a", "b"]]), "easydub", "real numbers, got dtype <U1"),
        (ONES * 1j, ONES * 1j, "easydub", "real numbers, got dtype complex128"),
        (ONES.astype(object), ONES, "easydub", "real numbers, got dtype object"),
        (ONES, ONES, "easydup", "did you mean 'easydub'"),
        (ONES, ONES, "rubust", "did you mean 'robust'"),
    ],
)
def test_mistakes_are_errors_in_words(oracle, unlearned, variant, message):
    with pytest.raises(InvalidInput, match=message):
        klom(oracle, unlearned, variant)


# ---- robust -------------------------------------------------------------------------------------------------


def smooth(n, columns, seed, kind="normal"):
    return np.random.default_rng(seed).standard_normal((n, columns)) * (1 if kind == "normal" else 3) + 5


@pytest.mark.parametrize(("n", "bins"), [(100, 20), (200, 20), (50, 10), (20, 4), (10, 2), (9, 2), (4, 2)])
def test_robust_bins_hold_equal_oracle_mass(n, bins):
    # All unlearned models in one inner bin, none twice at one place: KL is log(bins) up to a model or so.
    q = np.linspace(0, 1, n)[:, None]
    width = 1 / bins
    p = np.linspace(0.5 + 0.05 * width, 0.5 + 0.9 * width, n)[:, None]
    in_the_bin = int(((q >= 0.5) & (q < 0.5 + width)).sum())
    tolerance = LOG((in_the_bin + 1) / in_the_bin) if in_the_bin > 1 else 0.7
    assert klom(q, p, "robust")[0] == pytest.approx(LOG(bins), abs=tolerance + 1e-9)


def test_robust_by_hand():
    # N = 10: two bins at the median 4.5 between 4.5 -+ 2.5 (4.5 - 0.45): -5.625 and 14.625
    oracle = list(range(10))
    assert score([v + 0.25 for v in oracle], oracle, "robust") == 0  # half of them in either bin
    seven = [v / 10 for v in range(7)] + [5.1, 5.2, 5.3]
    assert score(seven, oracle, "robust") == pytest.approx(0.7 * LOG(1.4) + 0.3 * LOG(0.6), abs=1e-12)
    # one beyond either limit, where there is no oracle: one pooled bin of q = eps
    ends = [-5.7, 14.7, 1, 2, 3, 4, 5, 6, 7, 8]
    expected = 0.2 * LOG(0.2 / EPS) + 0.8 * LOG(0.8)
    assert score(ends, oracle, "robust") == pytest.approx(expected, abs=1e-12)
    inside = [-5.6, 14.6, 1, 2, 3, 4, 5, 6, 7, 8]
    assert score(inside, oracle, "robust") == 0


def test_robust_counts_the_upper_limit_as_inside():
    # oracles 0 and 1: median 1/2, 5 %-quantile 0.05, limits 1/2 -+ 2.5 x 0.45
    q = np.array([0.0, 1.0])[:, None]
    ordered = np.sort(q, axis=0)
    low, high = (module._quantile(ordered, x) for x in (0.05, 0.95))
    median = module._quantile(ordered, 0.5)
    upper, lower = median + 2.5 * (high - median), median - 2.5 * (median - low)
    assert klom(q, np.stack([lower, upper]), "robust")[0] == 0
    beyond = np.stack([lower, np.nextafter(upper, np.inf) + 1e-15])
    assert klom(q, beyond, "robust")[0] > 5


@given(
    n=st.integers(1, 220),
    kinds=st.tuples(KINDS, KINDS),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_robust_stays_in_range_and_is_zero_for_identical_ensembles(n, kinds, dtype, seed):
    rng = np.random.default_rng(seed)
    p, q = (draw(rng, kind, n).clip(-1e3, 1e3).astype(dtype)[:, None] for kind in kinds)
    value = klom(q, p, "robust")
    assert np.isfinite(value).all() and -1e-9 <= value[0] <= MAXIMUM + 1e-12
    assert klom(q, q, "robust")[0] == pytest.approx(0, abs=1e-12)
    far = rng.permutation(np.linspace(2e4, 3e4, n)).astype(dtype)[:, None]
    for beyond in (far, -far):
        assert klom(q, beyond, "robust")[0] == pytest.approx(MAXIMUM, abs=1e-12)


@given(
    n=st.integers(2, 150),
    shift=st.floats(-3, 3),
    scale=st.floats(0.01, 100),
    offset=st.floats(-50, 50),
    seed=st.integers(0, 2**32 - 1),
)
def test_robust_does_not_depend_on_units_or_on_the_order_of_models(n, shift, scale, offset, seed):
    rng = np.random.default_rng(seed)
    q, p = rng.standard_normal((2, n, 3))
    p = p + shift
    expected = klom(q, p, "robust")
    np.testing.assert_allclose(klom(scale * q + offset, scale * p + offset, "robust"), expected, atol=1e-12)
    np.testing.assert_array_equal(klom(rng.permutation(q), rng.permutation(p), "robust"), expected)


@pytest.mark.parametrize("n", [5, 21, 41, 61, 81, 101, 201])
def test_robust_edges_that_fall_on_an_oracle_do_not_shake(n):
    """Where k (n - 1) / bins is whole, the edge is an oracle's own margin, whatever the units."""
    rng = np.random.default_rng(n)
    q, p = rng.standard_normal((2, n, 200))
    expected = klom(q, p, "robust")
    for scale, offset in ((1.0, 0.0), (3.7, 11.0), (0.01, -20.0), (1000.0, 0.3)):
        np.testing.assert_allclose(
            klom(scale * q + offset, scale * p + offset, "robust"), expected, atol=1e-12
        )


def test_robust_takes_half_precision_margins_of_any_size():
    q, p = np.random.default_rng(0).normal(0, 2e4, (2, 100, 20)).clip(-6e4, 6e4).astype(np.float16)
    expected = klom(q.astype(np.float32), p.astype(np.float32), "robust")
    np.testing.assert_array_equal(klom(q, p, "robust"), expected)
    assert expected.mean() < 0.5


def majority(column):
    return np.unique(column, return_counts=True)[1].max() > len(column) / 2


@given(
    n=st.integers(2, 192),
    kinds=st.tuples(KINDS, KINDS),
    where=st.sampled_from([1e6, -1e6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_outlier_ever_lowers_robust(n, kinds, where, seed):
    """Up to N = 192, and unless the outlier was one of a bare majority that sits on one value (see below)."""
    rng = np.random.default_rng(seed)
    p, q = (draw(rng, kind, n).clip(-1e5, 1e5)[:, None] for kind in kinds)
    if majority(p[:, 0]):
        p = p + rng.normal(0, 1e-3, p.shape)
    before = klom(q, p, "robust")[0]
    for model in rng.choice(n, min(n, 12), replace=False):
        moved = p.copy()
        moved[model] = where
        assert klom(q, moved, "robust")[0] >= before - 1e-9


def test_an_outlying_oracle_does_not_vouch_for_whatever_lies_beyond_it():
    q = np.linspace(0, 1, 100)[:, None]
    q[-1] = 20  # far above the upper limit of about 1.6
    for p, expected in (
        (np.linspace(30, 40, 100), MAXIMUM),  # beyond even that oracle
        (np.linspace(5, 15, 100), LOG(100)),  # on the way to it: where one oracle in a hundred is
        (np.linspace(-9, -8, 100), MAXIMUM),
    ):
        assert klom(q, p[:, None], "robust")[0] == pytest.approx(expected)
        assert klom(-q, -p[:, None], "robust")[0] == pytest.approx(expected)


def one_oracle_in_the_tail(n):
    q = np.random.default_rng(0).uniform(0, 1, (n, 1))
    q[0] = -50  # far below the lower limit: the bin at the lower end holds one oracle
    p = np.linspace(-49, -40, n)[:, None]
    moved = p.copy()
    moved[3] = 1e6
    return klom(q, moved, "robust")[0] - klom(q, p, "robust")[0]


def test_exactly_when_an_outlier_may_lower_robust():
    # All mass where one oracle in N is: log N. One of N in the empty bin instead gains 1/N log(1 / (N eps)) and
    # costs about (log N + 1) / N: it pays from 2 log N + 1 > log(1 / eps), N = 193, on, by less than 1e-3 at 200.
    assert one_oracle_in_the_tail(192) > 0 > one_oracle_in_the_tail(193)
    assert one_oracle_in_the_tail(200) > -1e-3
    # A bare majority on one value counts as mass without density; with one model fewer it is no majority.
    q = np.linspace(0, 1, 100)[:, None]
    p = q.copy()
    p[:51] = 0.503
    tied = klom(q, p, "robust")[0]
    p[0] = 1e6
    assert tied > 5 > klom(q, p, "robust")[0]


def test_constants_in_robust():
    q = np.linspace(0, 1, 100)[:, None]
    assert klom(q, np.full_like(q, 0.503), "robust")[0] == pytest.approx(MAXIMUM)
    assert klom(q, np.full_like(q, 0.5), "robust")[0] == pytest.approx(MAXIMUM)
    same = np.full((100, 1), 3.0)
    assert klom(same, same, "robust")[0] == 0
    assert klom(same, same + 1e-9, "robust")[0] == pytest.approx(MAXIMUM)
    # the oracles themselves share a value: an ensemble that does too is right, one that does not is not
    most = q.copy()
    most[:60] = 2.0
    assert klom(most, most, "robust")[0] == pytest.approx(0, abs=1e-12)
    # exactly half is no majority
    half = q.copy()
    half[50:] = 0.503
    assert klom(q, half, "robust")[0] < 3
    half[49] = 0.503
    assert klom(q, half, "robust")[0] > 5


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
@pytest.mark.parametrize("side", ["oracle", "unlearned"])
def test_robust_refuses_what_is_not_finite_and_says_where(odd, side):
    margins = {"oracle": np.ones((4, 3000)), "unlearned": np.ones((4, 3000))}
    margins[side][2, 2500] = odd
    with pytest.raises(InvalidInput, match=f"{side} margin of model 2, sample 2500 is {odd}"):
        klom(**margins, variant="robust")


def test_the_package_has_the_metric_by_its_own_name():
    import klom_bench

    q, p = np.random.default_rng(0).normal(size=(2, 20, 3))
    np.testing.assert_array_equal(klom_bench.klom(q, p), klom(q, p))
    np.testing.assert_array_equal(klom_bench.klom(q, p, variant="robust"), klom(q, p, "robust"))
    with pytest.raises(AttributeError):
        _ = klom_bench.klomm
