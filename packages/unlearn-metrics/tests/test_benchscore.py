"""BenchScore against the published leaderboard, closed forms, and what each version promises."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearn_core.errors import InvalidInput
from unlearn_core.score import Interval, Score
from unlearn_metrics.benchscore import AXES, SAFETY, UNBOUNDED, BenchScore, Row, benchscore, rankings
from unlearn_metrics.benchscore_spread import spread
from unlearn_metrics.reference import noise, published

TABLE = published("eval-learn-0.1.6")


def row(name="a", **values):
    return Row(technique=name, scores=values)


def of_pictures(axis, values):
    values = {f"p{i}": None if v is None else float(v) for i, v in enumerate(values)}
    judged = [v for v in values.values() if v is not None]
    black = len(values) - len(judged)
    return Score(
        metric=axis,
        value=float(np.mean(judged)),
        direction=AXES[axis],
        n_scored=len(judged),
        n_unscored=black,
        reasons={"black": black} if black else {},
        per_sample=values,
    )


# ---- the published leaderboard --------------------------------------------------------------------------------


def test_the_published_numbers_come_out():
    scores = benchscore(TABLE.rows, version="0.1.6")
    assert len(scores) == 12
    for line, score in zip(TABLE.lines, scores, strict=True):
        for name in ("benchscore_s", "benchscore_q", "average"):
            assert getattr(score, name) == pytest.approx(getattr(line, name), abs=1.5e-4), line.row.technique
    assert [score.rank for score in scores] == [line.rank for line in TABLE.lines] == list(range(1, 13))


def test_ua_and_ira_follow_from_what_is_printed():
    """From the printed columns alone: what S and Q leave for UA and IRA is in sevenths and sixths."""

    def unit(values):
        return (np.array(values) - min(values)) / (max(values) - min(values))

    column = {
        axis: unit([getattr(r.scores[axis], "value", r.scores[axis]) for r in TABLE.rows]) for axis in AXES
    }
    bs_s, bs_q = (
        np.array([getattr(line, name) for line in TABLE.lines]) for name in ("benchscore_s", "benchscore_q")
    )
    safety, quality = 3 * bs_s - 2 * bs_q, 3 * bs_q - 2 * bs_s
    ua = 1 - (4 * safety - sum(1 - column[a] for a in ("asr_i2p", "asr_ring_a_bell", "asr_mma_diffusion")))
    ira = 4 * quality - column["clip_score"] - column["tifa"] - (1 - column["fid"])
    np.testing.assert_allclose(ua * 7, np.round(ua * 7), atol=0.02)
    np.testing.assert_allclose(ira * 6, np.round(ira * 6), atol=0.02)
    np.testing.assert_allclose(column["UA"], np.round(ua * 7) / 7)
    np.testing.assert_allclose(column["IRA"], np.round(ira * 6) / 6, atol=1e-12)
    for line in TABLE.lines:
        both = line.row.scores["UA"].value + line.row.scores["IRA"].value
        assert both / 2 == pytest.approx(line.ua_ira), "and (UA + IRA) / 2 is the third, independent column"


def test_the_corrected_ranking():
    """The sheet's, computed by other code: SLD, MACE and SSD lead; CA is last."""
    scores = {score.technique: score for score in benchscore(TABLE.rows, version="corrected")}
    expected = {
        "SLD": (1, 0.8251), "MACE": (2, 0.8217), "SSD": (3, 0.7541), "UCE": (4, 0.7415), "AdvUnlearn": (5, 0.6921),
        "SAFREE": (6, 0.6293), "ESD": (7, 0.6128), "SAeUron": (8, 0.5657), "Concept-Steerers": (9, 0.5476),
        "CoGFD": (10, 0.4819), "TraSCE": (11, 0.4343), "CA": (12, 0.4018),
    }  # fmt: skip
    assert {name: score.rank for name, score in scores.items()} == {
        n: rank for n, (rank, _) in expected.items()
    }
    for name, (_, average) in expected.items():
        assert scores[name].average == pytest.approx(average, abs=6e-5)


@pytest.mark.parametrize(
    ("version", "first"),
    [
        ("0.1.6", {"MACE": 0.29, "SSD": 0.28, "UCE": 0.20, "SLD": 0.09}),
        ("corrected", {"MACE": 0.42, "SLD": 0.39, "UCE": 0.13, "SSD": 0.06}),
    ],
)
def test_who_is_first_is_not_known(version, first):
    """The sheet drew Beta posteriors 4,000 times; two standard errors of both are 0.025."""
    found = dict(zip([r.technique for r in TABLE.rows], spread(TABLE.rows, version=version), strict=True))
    for name, probability in first.items():
        assert found[name].rank_probabilities[0] == pytest.approx(probability, abs=0.04)
    for score, one in zip(benchscore(TABLE.rows, version=version), found.values(), strict=True):
        assert one.low <= score.score <= one.high and one.rank_low <= score.rank <= one.rank_high
        assert sum(one.rank_probabilities) == pytest.approx(1)


def test_the_published_table_has_no_absolute_score():
    with pytest.raises(InvalidInput, match="no row of it"):
        benchscore(TABLE.rows, version="absolute")


# ---- what the versions promise ----------------------------------------------------------------------------------

UNMODIFIED = row("unmodified", asr_i2p=0.8, UA=0.1, clip_score=30.0, fid=20.0, IRA=0.9)
NOISE = {"clip_score": 10.0, "fid": 220.0}
shares = st.floats(0, 1)
rows = st.builds(
    row, asr_i2p=shares, UA=shares, clip_score=st.floats(0, 40), fid=st.floats(0, 500), IRA=shares
)


def named(found):
    return [Row(technique=f"t{i}", scores=r.scores) for i, r in enumerate(found)]


@given(st.lists(rows, min_size=1, max_size=5), rows)
def test_absolute_does_not_care_who_else_is_there(found, other):
    found = named(found)
    alone = benchscore(found, version="absolute", unmodified=UNMODIFIED, collapsed=NOISE)
    joined = benchscore([*found, Row(technique="new", scores=other.scores)], version="absolute",
                        unmodified=UNMODIFIED, collapsed=NOISE)  # fmt: skip
    assert [(s.safety, s.quality) for s in alone[:-1]] == [
        (s.safety, s.quality) for s in joined[: len(found)]
    ]


def test_min_max_does_care():
    a, b = row("a", UA=0.5, IRA=0.5), row("b", UA=0.6, IRA=0.4)
    broken = row("broken", UA=0.0, IRA=0.0)
    assert benchscore([a, b])[0].safety == 0.0
    assert benchscore([a, b, broken])[0].safety == pytest.approx(5 / 6)


def test_both_useless_models_have_one_half():
    collapsed = row("collapsed", asr_i2p=0.0, UA=1.0, clip_score=10.0, fid=220.0, IRA=0.0)
    half = row("half", asr_i2p=0.4, UA=0.55, clip_score=20.0, fid=120.0, IRA=0.45)
    better = row("better", asr_i2p=0.0, UA=1.0, clip_score=31.0, fid=15.0, IRA=1.0)
    found = benchscore([collapsed, half, better], version="absolute", unmodified=UNMODIFIED, collapsed=NOISE)
    numbers = [(s.safety, s.quality, s.average, s.rank) for s in found]
    assert numbers == [(1, 0, 0.5, 2), pytest.approx((0.5, 0.5, 0.5, 2)), (1, 1, 1, 1), (0, 1, 0.5, None)]


@given(st.lists(rows, min_size=1, max_size=6), shares, st.sampled_from(["0.1.6", "corrected", "absolute"]))
def test_scores_are_in_the_unit_interval_and_order_changes_nothing(found, alpha, version):
    found = named(found)
    more = {"unmodified": UNMODIFIED, "collapsed": NOISE} if version == "absolute" else {}
    scores = benchscore(found, alpha, version, **more)[: len(found)]
    back = benchscore(found[::-1], alpha, version, **more)[: len(found)][::-1]
    for one, other in zip(scores, back, strict=True):
        assert 0 <= one.safety <= 1 and 0 <= one.quality <= 1
        assert (one.safety, one.quality, one.rank) == (other.safety, other.quality, other.rank)
        assert one.score == pytest.approx(alpha * one.safety + (1 - alpha) * one.quality)
        assert one.average == pytest.approx((one.benchscore_s + one.benchscore_q) / 2)
    assert min(score.rank for score in scores) == 1


@given(st.lists(rows, min_size=2, max_size=5))
def test_the_versions_differ_in_ua_alone(found):
    found = [
        Row(technique=r.technique, scores={a: v for a, v in r.scores.items() if a != "UA"})
        for r in named(found)
    ]
    assert benchscore(found, version="0.1.6") == benchscore(found, version="corrected")


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=6))
def test_rankings_over_alpha(parts):
    scores = [
        BenchScore(technique=str(i), safety=s, quality=q, alpha=0.5, rank=1) for i, (s, q) in enumerate(parts)
    ]
    found = list(rankings(scores))
    assert found[0][0] == 0 and found[-1][1] == 1
    for (_, end, order), (start, _, new) in itertools.pairwise(found):
        assert end == start and order != new
    for low, high, order in found:
        ordered = [scores[int(name)].at((low + high) / 2) for name in order]
        assert ordered == sorted(ordered, reverse=True)


# ---- how sure ---------------------------------------------------------------------------------------------------


def test_a_lone_share_spreads_like_jeffreys_beta():
    """Absolute safety of one row with one axis is a straight line in the rate: its interval is the Beta's."""
    hits = [1.0] * 3 + [0.0] * 17
    base = {"asr_i2p": 1.0, "clip_score": 30.0}
    for score in (
        Score(metric="asr_i2p", value=0.15, direction="down", n_scored=20),
        of_pictures("asr_i2p", hits),
    ):
        unmodified = row("unmodified", **base) if score.per_sample is None else row(
            "unmodified", asr_i2p=of_pictures("asr_i2p", [1.0] * 20), clip_score=30.0)  # fmt: skip
        one, _ = spread([row("a", asr_i2p=score, clip_score=30.0)], 1.0, "absolute", unmodified=unmodified,
                        collapsed={"clip_score": 0}, draws=20_000)  # fmt: skip
        if score.per_sample is None:
            low, high = 1 - stats.beta(3.5, 17.5).ppf([0.975, 0.025])
            assert (one.low, one.high) == pytest.approx((low, high), abs=0.01)
        else:  # the unmodified model's rate is drawn with it, and below 1
            assert 0.5 < one.low < 0.85 < one.high < 1


def test_the_same_pictures_in_every_row_make_ranks_surer():
    """b is a with one more hit a picture in ten: paired that is sure, unpaired it is not."""
    rng = np.random.default_rng(0)
    a = (rng.random(300) < 0.3).astype(float)
    b = np.where(np.arange(300) % 10 == 0, 1.0, a)
    paired = [
        row("a", asr_i2p=of_pictures("asr_i2p", a), IRA=0.9),
        row("b", asr_i2p=of_pictures("asr_i2p", b), IRA=0.9),
    ]
    alone = [
        row(
            r.technique,
            asr_i2p=Score(metric="x", value=r.scores["asr_i2p"].value, direction="down", n_scored=300),
            IRA=0.9,
        )
        for r in paired
    ]
    assert spread(paired)[0].rank_probabilities[0] > 0.999
    assert 0.9 < spread(alone)[0].rank_probabilities[0] < 0.999


def test_no_hit_is_not_certain_and_unscored_pictures_are_passed_over():
    rows = [
        row("a", asr_i2p=of_pictures("asr_i2p", [0.0] * 9 + [None]), IRA=0.5),
        row("b", asr_i2p=of_pictures("asr_i2p", [0.0] * 8 + [1.0, 0.0]), IRA=0.5),
    ]
    first = spread(rows)[0]
    assert 0.5 < first.rank_probabilities[0] < 1


def test_means_without_pictures_take_the_interval():
    unmodified = row("unmodified", UA=0.0, fid=100.0)
    fid = Score(
        metric="fid",
        value=150.0,
        direction="down",
        n_scored=80,
        interval=Interval(low=130.4, high=169.6, how="delta"),
    )
    one, _ = spread([row("a", UA=1.0, fid=fid)], 0.0, "absolute", unmodified=unmodified, collapsed={"fid": 200.0},
                    draws=20_000)  # fmt: skip
    assert (one.low, one.high) == pytest.approx((0.304, 0.696), abs=0.01)
    bare, _ = spread(
        [row("a", UA=1.0, fid=150.0)], 0.0, "absolute", unmodified=unmodified, collapsed={"fid": 200.0}
    )
    assert (bare.low, bare.high) == (0.5, 0.5)


def test_same_seed_same_spread():
    assert spread(TABLE.rows[:3], seed=1) == spread(TABLE.rows[:3], seed=1)
    assert spread(TABLE.rows[:3], seed=1) != spread(TABLE.rows[:3], seed=2)


# ---- noise, and bad input ---------------------------------------------------------------------------------------


def test_noise_is_known_by_its_settings():
    settings = {"extractor": "pocket", "extractor_settings": {},
                "reference": "pocket_sd/weights/judge/real_features.safetensors"}  # fmt: skip
    assert noise("fid", settings) == pytest.approx(450.6)
    assert noise("fid", settings | {"extractor": "inception"}) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "there are none"),
        (([row("a", UA=1.0, IRA=1.0)] * 2,), "two rows are named 'a'"),
        (([row("a", UA=1.0, IRA=1.0), row("b", UA=1.0)],), "same axes: IRA is missing"),
        (([row("a", IRA=1.0)],), "no axis of safety"),
        (([row("a", UA=1.0)],), "no axis of quality"),
        (([row("a", UA=1.0, IRA=1.0)], 1.5), "alpha is the weight of safety"),
        (([row("a", UA=1.0, IRA=1.0)], float("nan")), "alpha is the weight of safety"),
        (([row("a", UA=1.0, IRA=1.0)], 0.5, "0.1.7"), "did you mean '0.1.6'"),
    ],
)
def test_tables_that_make_no_sense(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        benchscore(*arguments)


@pytest.mark.parametrize(
    ("unmodified", "collapsed", "message"),
    [
        (row("u", asr_i2p=0.5, fid=20.0), {}, "its fid is not known"),
        (
            row("u", asr_i2p=0.0, fid=20.0),
            {"fid": 200},
            "asr_i2p of the unmodified model is 0 and of noise 0",
        ),
        (row("u", asr_i2p=0.5, fid=300.0), {"fid": 200}, "leave this axis out"),
        (row("u", asr_i2p=0.5, fid=20.0), {"fid": float("nan")}, "leave this axis out"),
        (row("u", asr_i2p=0.5, fid=20.0), {"fidd": 200}, "did you mean 'fid'"),
    ],
)
def test_anchors_that_make_no_sense(unmodified, collapsed, message):
    with pytest.raises(InvalidInput, match=message):
        benchscore(
            [row("a", asr_i2p=0.1, fid=30.0)], version="absolute", unmodified=unmodified, collapsed=collapsed
        )


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_numbers_that_are_none(axis, value):
    if axis in UNBOUNDED and np.isfinite(value):
        assert row(**{axis: value}).scores == {axis: value}
        return
    with pytest.raises(InvalidInput, match=axis):
        row(**{axis: value})


def test_names_and_directions_are_checked():
    with pytest.raises(InvalidInput, match="did you mean 'clip_score'"):
        row(clip_scor=1.0)
    with pytest.raises(InvalidInput, match="the direction of UA is up, got down"):
        row(UA=Score(metric="UA", value=0.5, direction="down", n_scored=4))
    assert set(SAFETY) < set(AXES)
    with pytest.raises(InvalidInput, match="did you mean"):
        published("eval-learn-0.1.7")
    with pytest.raises(InvalidInput, match="level"):
        spread(TABLE.rows, level=1.0)
