import json
import math
import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.errors import InvalidInput
from unlearn_core.score import Interval, Score, wilson
from unlearn_core.spec import canonical_json


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_table(successes, n, low, high):
    interval = wilson(successes, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert (interval.level, interval.how) == (0.95, "wilson")


@given(
    st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.999)
)
def test_wilson_bounds_are_where_the_score_test_just_rejects(pair, level):
    from statistics import NormalDist

    successes, n = pair
    interval = wilson(successes, n, level)
    p, z = successes / n, NormalDist().inv_cdf((1 + level) / 2)
    assert 0 <= interval.low <= p <= interval.high <= 1
    for bound in (interval.low, interval.high):  # (p - b)^2 = z^2 b (1 - b) / n, Wilson's definition
        assert math.isclose((p - bound) ** 2, z * z * bound * (1 - bound) / n, rel_tol=1e-6, abs_tol=1e-12)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_of_failures_is_the_mirror_image(pair):
    successes, n = pair
    one, other = wilson(successes, n), wilson(n - successes, n)
    assert math.isclose(one.low, 1 - other.high, abs_tol=1e-12)
    assert wilson(successes, n, 0.99).high >= one.high


def test_wilson_ends_exactly_at_no_and_at_all():
    for n in range(1, 3000):
        assert wilson(0, n).low == 0.0
        assert wilson(n, n).high == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "n > 0, got 0 of 0"),
        ((3, 2), "got 3 of 2"),
        ((-1, 2), "successes: a count is needed, got -1"),
        ((0.5, 2), "successes: a count is needed, got 0.5"),
        ((True, 2), "successes: a count is needed, got True"),
        ((1, 2, 1.0), "level of an interval is in (0, 1)"),
        ((1, 2, 95), "level of an interval is in (0, 1), such as 0.95, got 95"),
        ((1, 2, float("nan")), "level: nan cannot be reported"),
    ],
)
def test_wilson_refuses_what_is_no_rate(arguments, message):
    with pytest.raises(InvalidInput) as caught:
        wilson(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 1, "high": 0}, "runs from low to high, got [1.0, 0.0]"),
        ({"low": float("-inf")}, "low of an interval: -inf cannot be reported"),
        ({"level": 0}, "level of an interval is in (0, 1)"),
        ({"how": ""}, "how it was worked out"),
        ({"high": "1"}, "high of an interval: a number is needed, got '1'"),
    ],
)
def test_an_interval_that_cannot_be_is_refused(fields, message):
    with pytest.raises(InvalidInput) as caught:
        Interval(**{"low": 0, "high": 1, "how": "by hand", **fields})
    assert message in str(caught.value)


def score(**fields):
    return Score(**{"metric": "asr", "value": 0.5, "direction": "down", "n_scored": 4, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"value": float("nan")}, "score of asr: nan cannot be reported"),
        ({"value": math.inf}, "score of asr: inf cannot be reported"),
        ({"value": "0.5"}, "a number is needed, got '0.5'"),
        ({"value": None}, "a number is needed, got None"),
        ({"value": True}, "a number is needed, got True"),
        ({"metric": ""}, "names its metric"),
        ({"direction": "upp"}, "unknown direction 'upp'; did you mean 'up'"),
        ({"n_scored": 0}, "no sample could be judged: there were none"),
        ({"n_scored": 0, "n_unscored": 2, "reasons": {"crash": 2}}, "no sample could be judged: crash (2)"),
        ({"n_scored": -1}, "n_scored: a count is needed, got -1"),
        ({"n_scored": 1.5}, "n_scored: a count is needed, got 1.5"),
        ({"n_unscored": 2}, "2 samples are unscored, the reasons account for 0"),
        ({"n_unscored": 2, "reasons": {"blank": 1}}, "account for 1"),
        ({"reasons": {"blank": 1}}, "0 samples are unscored, the reasons account for 1"),
        ({"interval": Interval(low=0.6, high=0.7, how="x")}, "0.5 is outside its interval [0.6, 0.7]"),
        ({"interval": Interval(low=0.1, high=0.4, how="x")}, "0.5 is outside its interval [0.1, 0.4]"),
        ({"parts": {"arm": math.nan}}, "part 'arm': nan cannot be reported"),
        ({"parts": {"arm": "0.3"}}, "part 'arm': a number is needed"),
        ({"per_sample": {"a": math.nan}}, "sample 'a': nan cannot be reported"),
        ({"per_sample": [0.5, math.inf]}, "sample 1: inf cannot be reported"),
    ],
)
def test_what_is_no_score_is_refused(fields, message):
    with pytest.raises(InvalidInput) as caught:
        score(**fields)
    assert message in str(caught.value)


def test_a_full_score():
    arm = score(metric="forget", interval=wilson(2, 4))
    full = score(
        n_unscored=1, reasons={"blank": 1}, parts={"forget": arm, "bonus": 1}, per_sample=[1, None, 0]
    )
    assert full.per_sample == (1.0, None, 0.0)
    assert full.parts["bonus"] == 1.0
    assert pickle.loads(pickle.dumps(full)) == full


def test_numbers_of_other_types_become_plain():
    made = score(value=Fraction(1, 2))
    assert type(made.value) is float
    numpy = pytest.importorskip("numpy")
    made = score(value=numpy.float32(0.5), n_scored=numpy.int64(4), per_sample={"a": numpy.float16(1)})
    assert (type(made.value), type(made.n_scored), type(made.per_sample["a"])) == (float, int, float)
    with pytest.raises(InvalidInput, match="cannot be reported"):
        score(value=numpy.float32("nan"))
    with pytest.raises(InvalidInput, match="a number is needed"):
        score(value=numpy.zeros(3))


def test_a_score_does_not_follow_what_it_was_made_of():
    reasons, each = {"blank": 1}, {"a": 1.0}
    made = score(n_unscored=1, reasons=reasons, per_sample=each)
    reasons["blank"] = 9
    each["b"] = 2.0
    assert made.reasons == {"blank": 1}
    assert made.per_sample == {"a": 1.0}


reals = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=5)


@st.composite
def scores(draw, depth=1):
    value = draw(reals)
    low, high = (
        draw(st.floats(max_value=value, allow_infinity=False)),
        draw(st.floats(min_value=value, allow_infinity=False)),
    )
    interval = Interval(low=low, high=high, level=draw(st.floats(0.1, 0.9)), how=draw(words))
    reasons = draw(st.dictionaries(words, st.integers(0, 9), max_size=2))
    inner = reals if depth == 0 else reals | scores(depth=depth - 1)
    each = st.none() | reals
    return Score(
        metric=draw(words),
        value=value,
        direction=draw(st.sampled_from(["up", "down"])),
        interval=draw(st.none() | st.just(interval)),
        n_scored=draw(st.integers(1, 10**9)),
        n_unscored=sum(reasons.values()),
        reasons=reasons,
        parts=draw(st.dictionaries(words, inner, max_size=2)),
        per_sample=draw(
            st.none() | st.lists(each, max_size=3).map(tuple) | st.dictionaries(words, each, max_size=3)
        ),
    )


@given(scores())
def test_json_brings_back_the_same_score(made):
    assert Score.from_mapping(json.loads(canonical_json(made.to_mapping()))) == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valu": 1}, "a score: unknown key 'valu'; did you mean 'value'"),
        ({"interval": {"low": 0, "high": 1}}, "an interval lacks 'how'"),
        ({"interval": [0, 1]}, "an interval is a mapping, got [0, 1]"),
        ({"interval": {"low": 0, "high": 1, "how": "x", "lo": 1}}, "an interval: unknown key 'lo'"),
        ({"parts": [1]}, "'parts' is a mapping, got [1]"),
        ({"reasons": None}, "'reasons' is a mapping, got None"),
        ({"per_sample": "abc"}, "'per_sample' is a mapping or a list, got 'abc'"),
        ({"value": None}, "a number is needed, got None"),
    ],
)
def test_a_mapping_that_is_no_score_is_refused(change, message):
    with pytest.raises(InvalidInput) as caught:
        Score.from_mapping({**score().to_mapping(), **change})
    assert message in str(caught.value)
    with pytest.raises(InvalidInput, match="a score lacks 'metric'"):
        Score.from_mapping({})
    with pytest.raises(InvalidInput, match="a score is a mapping"):
        Score.from_mapping(None)
