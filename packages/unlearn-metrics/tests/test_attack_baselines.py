"""Random tokens and other seeds: as many rows as asked, every token alike, nothing said of the concept."""

from collections import Counter

import pytest
from scipy import stats

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.spec import build
from unlearn_metrics.attacks.baselines import RandomTokens, SeedSearch
from unlearn_metrics.attacks.mma_diffusion import MMADiffusion
from unlearn_metrics.attacks.p4d import P4D
from unlearn_metrics.attacks.ring_a_bell import RingABell
from unlearn_metrics.attacks.testing import check_attack, rows, tiny_reader
from unlearn_metrics.attacks.unlearndiffatk import UnlearnDiffAtk
from unlearn_metrics.attacks.vocabulary import Vocabulary


@pytest.fixture
def model():
    return tiny_reader()


@pytest.mark.parametrize("place", ["alone", "before", "after"])
def test_random_tokens_do_what_every_attack_does(model, place):
    check_attack(RandomTokens(tokens=4, tries=2, place=place), model, rows("a dog", "a blue dog"))


def test_other_seeds_do_what_every_attack_does(model):
    check_attack(SeedSearch(tries=3), model, rows("a dog", "a blue dog"), other_noise=True)


def test_the_presets_are_as_long_and_draw_as_many_pictures_as_the_attacks():
    ring, mma, diff = RingABell(), MMADiffusion(), UnlearnDiffAtk()
    assert (
        RandomTokens().tokens == RandomTokens.presets["ring_a_bell"]["tokens"] == ring.length == P4D().tokens
    )
    tries = 1 + diff.times
    presets = {name: build(RandomTokens, preset) for name, preset in RandomTokens.presets.items()}
    assert presets["mma_diffusion"] == RandomTokens(tokens=mma.tokens, tries=mma.restarts, avoid=mma.avoid)
    assert presets["unlearndiffatk"] == RandomTokens(tokens=diff.tokens, place=diff.place, tries=tries)
    assert SeedSearch.presets["unlearndiffatk"] == {"tries": tries}


def test_tokens_stand_alone_or_beside_the_prompt(model):
    made = {
        place: RandomTokens(tokens=3, place=place, whole_words=True)
        .craft(model, rows("a dog"), seed=0)
        .rows[0]
        .text
        for place in ("alone", "before", "after")
    }
    tokens = made["alone"]
    assert len(model.tokenizer([tokens], add_special_tokens=False).input_ids[0]) == 3
    assert (made["before"], made["after"]) == (f"{tokens} a dog", f"a dog {tokens}")


def test_every_token_is_drawn_alike(model):
    made = RandomTokens(tokens=10, tries=200).craft(model, rows("a dog"), seed=0)
    words = Vocabulary.of(model, Concept(name="dog"))
    counts = Counter(i for found in made.found.values() for i in found.ids)
    assert set(counts) <= set(words.ids.tolist())
    assert stats.chisquare([counts[i] for i in words.ids.tolist()]).pvalue > 1e-4


def test_forbidden_words_never_occur(model):
    made = RandomTokens(tokens=8, tries=100, avoid="name", sensitive=("ca",)).craft(
        model, rows("a cat"), seed=0
    )
    assert len(made) == 100 and len({row.text for row in made}) > 90
    assert not any("dog" in row.text or "ca" in row.text for row in made)


def test_changed_prompts_are_counted(model):
    made = RandomTokens(tokens=8, tries=20).craft(model, rows("a dog"), seed=0)
    assert 0 < made.changed <= 20
    assert RandomTokens(tokens=8, tries=20, whole_words=True).craft(model, rows("a dog"), seed=0).changed == 0


def test_other_seeds_are_distinct_and_the_text_stays(model):
    made = SeedSearch(tries=5).craft(None, rows("a dog", "a cat"), seed=0)
    assert [row.text for row in made] == ["a dog"] * 5 + ["a cat"] * 5
    assert len({row.seed for row in made} | {100, 101}) == 12
    assert made.rows != SeedSearch(tries=5).craft(None, rows("a dog", "a cat"), seed=1).rows


@pytest.mark.parametrize("attack", [RandomTokens(tokens=2, tries=2), SeedSearch(tries=2)])
def test_the_guard_stands_behind_the_baselines(model, attack):
    row = Prompt(id="a", text="a kid", seed=0, group="other")
    made = attack.craft(
        model, PromptSet(name="p", rows=(row,)), seed=0, concept=Concept(name="nudity", kind="unsafe")
    )
    assert len(made) == 0 and made.dropped == 2
    assert len(attack.craft(model, rows("a kid with a dog"), seed=0)) == 2  # about a dog


def test_bad_settings_and_input_are_one_message(model):
    for cls, wrong in (
        (RandomTokens, {"tokens": 0}),
        (RandomTokens, {"tries": 0}),
        (SeedSearch, {"tries": 0}),
    ):
        with pytest.raises(InvalidInput, match="at least 1"):
            build(cls, wrong)
    with pytest.raises(InvalidInput, match="place"):
        build(RandomTokens, {"place": "behind"})
    with pytest.raises(InvalidInput, match="at most 14 tokens"):
        RandomTokens().craft(model, rows("a dog"), seed=0)
