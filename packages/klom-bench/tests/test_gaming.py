"""Everything that can be done to margins instead of unlearning, and what each variant makes of it (sheet 8.A.1)."""

import re

import numpy as np
import pytest

from klom_bench.klom import MAXIMUM, klom
from klom_bench.scoring import score, warnings_of
from unlearn_core.errors import InvalidInput

N, SAMPLES = 100, 400


@pytest.fixture(scope="module")
def oracle():
    return np.random.default_rng(0).normal(3, 1.25, (N, SAMPLES)).astype(np.float32)


@pytest.fixture(scope="module")
def nothing():
    """Margins of models that remember: 3.1 standard deviations above the oracles'."""
    return np.random.default_rng(1).normal(6.875, 1.25, (N, SAMPLES)).astype(np.float32)


def constant(value):
    return lambda p: np.full_like(p, value)


def rows(value, count):
    def game(p):
        p = p.copy()
        p[:count] = value
        return p

    return game


GAMES = {
    "all +100": constant(100),
    "all +inf": constant(np.inf),
    "all -20": constant(-20),
    "all at the oracles' mean": constant(3),
    "logits x 1e4": lambda p: p * np.float32(1e4),
    "one model NaN": rows(np.nan, 1),
    "all NaN": constant(np.nan),
    "one model -100": rows(-100, 1),
    "three models -100": rows(-100, 3),
    "one model +1e6": rows(1e6, 1),
    "most models alike": lambda p: np.concatenate([p[:40], np.repeat(p[40:41], N - 40, axis=0)]),
}

# mean over samples; the toy reproduces the sheet's 6.80; 0, 0.03, 0, 2.03, 2.14, 11.51
EASYDUB = {
    "all +100": 0, "all +inf": 0, "all -20": MAXIMUM, "logits x 1e4": 0, "one model NaN": 0, "all NaN": 0,
    "one model -100": 2.1, "three models -100": 2.2, "one model +1e6": 2.6,
}  # fmt: skip
UNDEFINED = dict.fromkeys(["all +100", "all +inf", "logits x 1e4", "one model NaN", "all NaN"], np.nan)
PUBLISHED = {
    "easydub": EASYDUB,
    "data-unlearning-bench": EASYDUB | UNDEFINED,
    "attribute-to-delete": EASYDUB
    | UNDEFINED
    | {"one model -100": 1.8, "three models -100": 2.0, "one model +1e6": 2.9},
}


def test_doing_nothing_and_retraining(oracle, nothing):
    honest = np.random.default_rng(2).normal(3, 1.25, oracle.shape)
    for variant, values in {"easydub": (6.8, 0.34), "robust": (4.05, 0.2)}.items():
        assert klom(oracle, nothing, variant).mean() == pytest.approx(values[0], abs=0.15)
        assert klom(oracle, honest, variant).mean() == pytest.approx(values[1], abs=0.02)


@pytest.mark.parametrize(("variant", "game"), [(v, g) for v, games in PUBLISHED.items() for g in games])
def test_the_published_variants_reward_the_games(oracle, nothing, variant, game):
    scores = klom(oracle, GAMES[game](nothing), variant)
    expected = PUBLISHED[variant][game]
    if np.isnan(expected):  # no score at all for (nearly) every sample: whoever averages the rest is fooled
        assert np.isnan(scores).mean() > 0.95
    else:
        assert scores.mean() == pytest.approx(expected, abs=0.1)
        assert scores.mean() < 0.45 * klom(oracle, nothing, variant).mean() or expected == MAXIMUM


def test_the_pre_release_variant_cannot_see_a_shift(oracle, nothing):
    assert klom(oracle, nothing + 54, "easydub-pre-release").mean() < 0.7


@pytest.mark.parametrize("game", GAMES)
def test_robust_scores_every_game_at_least_as_badly_as_doing_nothing(oracle, nothing, game):
    played = GAMES[game](nothing)
    if not np.isfinite(played).all():
        with pytest.raises(InvalidInput, match="model 0, sample 0 is (nan|inf)"):
            klom(oracle, played, "robust")
        return
    assert (klom(oracle, played, "robust") >= klom(oracle, nothing, "robust") - 1e-9).all()
    # and on samples where nothing was to be forgotten a game costs what doing nothing does not
    same = np.random.default_rng(3).normal(3, 1.25, oracle.shape).astype(np.float32)
    assert klom(oracle, GAMES[game](same), "robust").mean() > klom(oracle, same, "robust").mean()


@pytest.mark.parametrize("variant", ["easydub", "data-unlearning-bench", "attribute-to-delete", "robust"])
@pytest.mark.parametrize("game", GAMES)
def test_every_game_is_remarked_on(oracle, nothing, game, variant):
    played = GAMES[game](nothing)
    if game == "most models alike" or (variant == "robust" and not np.isfinite(played).all()):
        return  # the former is scored fairly by all; the latter is refused
    result = score(oracle, played, variant, replicates=3)
    assert warnings_of("forget", oracle, played, result, variant)


EXPECTED_WORDS = {
    "all +100": ["50.00%", "below half", "nearly the same margin"],
    "all -20": ["nearly the same margin"],
    "all at the oracles' mean": ["nearly the same margin"],
    "logits x 1e4": ["clipped"],
    "one model NaN": ["of 1 unlearned models .first: model 0. are not finite"],
    "all NaN": ["of 100 unlearned models"],
    "one model -100": ["a few unlearned models lie far", "clipped"],
    "three models -100": ["a few unlearned models lie far"],
    "one model +1e6": ["a few unlearned models lie far", "0.50% of the margins"],
}


@pytest.mark.parametrize("game", EXPECTED_WORDS)
def test_the_remark_says_what_is_wrong(oracle, nothing, game):
    played = GAMES[game](nothing)
    notes = warnings_of("forget", oracle, played, score(oracle, played, replicates=3))
    for words in EXPECTED_WORDS[game]:
        assert any(re.search(words, note) for note in notes), notes
    assert all(note.startswith("forget: ") for note in notes)


def test_nothing_is_remarked_on_where_nothing_is_odd(oracle, nothing):
    honest = np.random.default_rng(2).normal(3, 1.25, oracle.shape)
    for margins in (honest, nothing):
        for variant in ("easydub", "robust"):
            result = score(oracle, margins, variant, replicates=3)
            assert warnings_of("val", oracle, margins, result, variant) == []
