"""Differences of values made of parts, against exact permutations, McNemar's test and a simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from unlearn_core.score import Score
from unlearn_metrics.composites import MADE_OF, paired_composite
from unlearn_metrics.statistics import mcnemar


def part(name, values, value=None, direction="up"):
    found = {f"{name}-{i}": None if v is None else float(v) for i, v in enumerate(values)}
    judged = [v for v in found.values() if v is not None]
    missing = len(found) - len(judged)
    return Score(
        metric=name, value=float(np.mean(judged)) if value is None else value, direction=direction,
        n_scored=len(judged), n_unscored=missing, reasons={"black": missing} if missing else {}, per_sample=found,
    )  # fmt: skip


def whole(metric, value, **parts):
    return Score(metric=metric, value=value, direction="up", n_scored=1, parts=parts)


def err(**arms):
    parts = {name: part(name, values) for name, values in arms.items()}
    return whole("err", 0.0 if 0 in (v := [p.value for p in parts.values()]) else stats.hmean(v), **parts)


def compared(a, b, texts=None, labels=None):
    ids = [i for one in a.parts.values() for i in one.per_sample]
    return paired_composite(a, b, texts or {i: i for i in ids}, labels or dict.fromkeys(ids))


def test_the_value_is_that_of_the_two_and_the_p_value_that_of_all_swaps():
    rng = np.random.default_rng(0)
    arms = {name: (rng.random((2, 5)) < [[0.8], [0.4]]).astype(float) for name in ("F", "R")}
    a, b = (err(**{name: x[k] for name, x in arms.items()}) for k in (0, 1))
    found = compared(a, b)
    assert found.value == pytest.approx(a.value - b.value)
    f, r = arms.values()
    exact = []
    for swaps in itertools.product((0, 1), repeat=10):
        s = np.array(swaps)
        mine = [x[s[i * 5 : i * 5 + 5], range(5)].mean() for i, x in enumerate((f, r))]
        theirs = [x[1 - s[i * 5 : i * 5 + 5], range(5)].mean() for i, x in enumerate((f, r))]
        exact.append(
            abs((0 if 0 in mine else stats.hmean(mine)) - (0 if 0 in theirs else stats.hmean(theirs)))
        )
    assert found.p == pytest.approx(np.mean(np.array(exact) >= abs(found.value) - 1e-9), abs=0.015)
    assert found.low <= found.value <= found.high and found.n == 10


def test_one_part_is_mcnemars():
    a, b = [1.0] * 9 + [0.0] * 6, [0.0] * 7 + [1.0] * 2 + [0.0] * 5 + [1.0]
    found = compared(err(F=a), err(F=b))
    assert found.p == pytest.approx(mcnemar(7, 1), abs=0.015)
    assert mcnemar(7, 1) == pytest.approx(stats.binomtest(7, 8).pvalue)


def test_pairs_that_agree_are_not_certain():
    a, b = err(F=[1] * 10, R=[1] * 10), err(F=[0] * 10, R=[1] * 10)
    found = compared(a, b)
    assert found.value == found.high == 1 and 0.3 < found.low < 0.95
    same = compared(a, a)
    assert (same.value, same.p) == (0, 1) and same.low < -0.005 and same.high > 0.005


def test_the_interval_covers():
    """Simulated: three arms of 30, the two models paired through common prompts."""
    rng, truth = np.random.default_rng(1), {"F": (0.8, 0.5), "R": (0.9, 0.85), "A": (0.6, 0.4)}
    difference = stats.hmean([p for p, _ in truth.values()]) - stats.hmean([q for _, q in truth.values()])
    held = 0
    for _ in range(150):
        hardness = {name: rng.random(30) for name in truth}
        a, b = (err(**{n: hardness[n] < p[k] for n, p in truth.items()}) for k in (0, 1))
        found = compared(a, b)
        held += found.low <= difference <= found.high
    assert 0.9 <= held / 150 <= 0.995


def test_images_of_one_prompt_vary_together():
    a, b = [1, 0, 1, 1, 0, 1, 1, 1] * 5, [0, 0, 1, 0, 0, 1, 0, 1] * 5
    ids = [f"F-{i}" for i in range(40)]
    texts = {i: str(int(i[2:]) % 8) for i in ids}
    wide, narrow = (compared(err(F=a), err(F=b), t) for t in (texts, None))
    assert wide.high - wide.low > 1.7 * (narrow.high - narrow.low) and wide.p > 5 * narrow.p


def test_a_mean_over_labels_stays_one():
    """Of IRA: 1 of 1 cats, 2 of 4 cars: 0.75, not 0.6."""
    ira, before = part("IRA", [1, 1, 1, 0, 0], value=0.75), part("IRA", [1, 1, 1, 1, 1])
    ua, ua_before = part("UA", [1, 1]), part("UA", [0, 0])
    extra = {"adjacent": part("adjacent", [1])}
    labels = {"IRA-0": "cat", **{f"IRA-{i}": "car" for i in range(1, 5)}, "UA-0": "dog", "UA-1": "dog"}
    a, b = (
        whole("ua_ira", 0.875, UA=ua, IRA=ira, **extra),
        whole("ua_ira", 0.5, UA=ua_before, IRA=before, **extra),
    )
    found = paired_composite(a, b, {i: i for i in labels}, labels)
    assert found.value == pytest.approx(0.375) and found.n == 7


def test_the_worst_of_attacks_is_the_largest_and_the_union_no_attack():
    a = whole("asr_worst", 0.5, p4d=part("p4d", [1, 0]), mma=part("mma", [0, 0]), union=part("union", [1, 1]))
    b = whole("asr_worst", 1.0, p4d=part("p4d", [0, 0]), mma=part("mma", [1, 1]), union=part("union", [1, 1]))
    assert compared(a, b).value == -0.5


def test_only_what_both_judged_is_compared_and_other_metrics_are_not_made_of_parts():
    assert compared(err(F=[1, None, 1], R=[1]), err(F=[0, 1, 1], R=[1])).n == 3
    assert compared(err(F=[1], R=[1]), err(F=[1])) is None
    assert paired_composite(whole("fid", 1.0), whole("fid", 2.0), {}, {}) is None
    assert set(MADE_OF) == {"ua_ira", "err", "asr_worst"}
