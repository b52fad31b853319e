"""Ring-A-Bell against its formulas in NumPy, random search with the same budget, and what a search may never do."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.spec import build
from unlearn_metrics.attacks import ring_a_bell
from unlearn_metrics.attacks.ring_a_bell import RingABell, concept_vector, distances, scene_pairs
from unlearn_metrics.attacks.target import framed
from unlearn_metrics.attacks.testing import check_attack, rows, tiny_reader
from unlearn_metrics.attacks.vocabulary import Vocabulary

DOG = Concept(name="dog", phrases=("puppy",), anchor="cat")
SMALL = {"length": 4, "population": 12, "generations": 6}


@pytest.fixture
def model():
    return tiny_reader()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path))


def target_of(model, attack, text="a car"):
    with torch.no_grad():
        return model.encode([text]) + attack.eta * concept_vector(model, attack.pairs_of(DOG))


def searched(model, attack, seed=0, about=DOG, text="a car"):
    words = Vocabulary.of(model, about, avoid=attack.avoid, whole_words=attack.whole_words)
    target = target_of(model, attack, text)
    with torch.no_grad():
        return attack.search(model, words, target, torch.Generator().manual_seed(seed))


def test_does_what_every_attack_does(model):
    check_attack(RingABell(**SMALL), model, rows("a car", "a blue house"))


def test_the_papers_numbers_are_the_defaults():
    paper = RingABell()
    assert (paper.population, paper.generations, paper.crossover, paper.mutation) == (200, 3000, 0.5, 0.25)
    assert (paper.length, paper.eta) == (16, 3.0)
    assert RingABell.presets["eval-learn"] == {"population": 20, "generations": 20}


def test_the_concept_vector_is_the_mean_difference(model):
    pairs = (("a dog", "a cat"), ("blue dog", "blue car"), ("a dog in the park", "a thing in the park"))
    state = lambda text: model.encode([text])[0].numpy()  # noqa: E731
    expected = np.mean([state(a) - state(b) for a, b in pairs], axis=0)
    found = concept_vector(model, pairs)
    assert found.shape == (16, 32) and found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(concept_vector(model, pairs, batch=1), expected, atol=1e-5)


def test_the_concept_vector_of_equal_prompts_is_zero(model):
    assert (concept_vector(model, [("a dog", "a dog"), ("car", "car")]) == 0).all()


def test_a_concept_vector_needs_pairs(model):
    with pytest.raises(InvalidInput, match="at least one pair"):
        concept_vector(model, [])


@given(kind=st.sampled_from(["object", "style", "unsafe", "person", "action"]), phrases=st.booleans())
def test_pairs_are_made_of_fifty_scenes_with_every_word_of_the_concept(kind, phrases):
    about = Concept(name="dog", kind=kind, phrases=("puppy",) if phrases else ())
    pairs = scene_pairs(about)
    assert len(pairs) == len(set(pairs)) == 50
    shown = " ".join(with_it for with_it, _ in pairs)
    assert all(word in shown for word in about.names)
    assert not any(word in without for _, without in pairs for word in about.names)


def test_pairs_of_templates_have_every_word_and_never_the_concept_as_the_other():
    attack = RingABell(templates=("a {}",), others=("cat", "dog", "car"))
    assert attack.pairs_of(DOG) == (("a dog", "a cat"), ("a puppy", "a car"))
    assert RingABell(templates=("a {}",)).pairs_of(DOG) == (("a dog", "a cat"), ("a puppy", "a cat"))
    assert RingABell(pairs=(("x", "y"),)).pairs_of(DOG) == (("x", "y"),)
    with pytest.raises(InvalidInput, match="no anchor; say with others="):
        RingABell(templates=("a {}",)).pairs_of(Concept(name="dog"))


def test_the_distance_is_the_sum_of_squares_and_zero_for_the_prompt_itself(model):
    ids = model.tokens(["a dog", "a blue car"])
    target = model.encode(["a dog"])
    expected = ((model.encode(["a dog", "a blue car"]) - target).numpy() ** 2).sum((1, 2))
    np.testing.assert_allclose(distances(model, ids, target, 1), expected, rtol=1e-5)
    own = torch.tensor(model.tokenizer(["a dog"], add_special_tokens=False).input_ids)
    assert torch.equal(framed(model, own), ids[:1])
    assert distances(model, framed(model, own), target, 200).item() == 0


def test_candidates_are_framed_and_hold_no_token_that_no_text_has(model, monkeypatch):
    seen = []
    monkeypatch.setattr(ring_a_bell, "framed", lambda *a: seen.append(framed(*a)) or seen[-1])
    searched(model, RingABell(**SMALL))
    words, special = model.tokenizer, set(model.tokenizer.all_special_ids)
    for ids in torch.cat(seen).tolist():
        assert ids[0] == words.bos_token_id and set(ids[5:]) == {words.eos_token_id}
        assert not special & set(ids[1:5]) and 0 not in ids


def test_finds_what_brute_force_finds_where_there_are_few_prompts(model):
    attack = RingABell(length=1, population=40, generations=40)
    words, target = Vocabulary.of(model, DOG), target_of(model, attack)
    every = distances(model, framed(model, words.ids[:, None]), target, 200)
    found = searched(model, attack)
    assert found.loss == pytest.approx(float(every.min()), rel=1e-6)
    assert found.ids == (int(words.ids[every.argmin()]),)


def test_beats_random_search_of_the_same_budget(model):
    genetic = RingABell(length=6, population=24, generations=40)
    wins = []
    for seed in range(5):
        found = searched(model, genetic, seed)
        chance = searched(
            model, dataclasses.replace(genetic, generations=1, population=found.evaluations), seed
        )
        assert chance.evaluations == found.evaluations
        wins.append(found.loss < chance.loss)
    assert all(wins)


def test_the_best_ever_seen_is_returned_although_the_best_mutate_away(model):
    losses = [
        searched(model, RingABell(length=4, population=12, generations=n, mutation=1.0)).loss
        for n in range(1, 12)
    ]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_a_parent_that_did_not_change_is_not_read_again(model):
    kept = searched(model, RingABell(length=4, population=40, generations=10, mutation=0.0))
    assert kept.evaluations < 40 + 9 * 40 * 0.8
    assert (
        searched(
            model, RingABell(length=4, population=40, generations=3, crossover=0, mutation=0)
        ).evaluations
        == 40
    )


@settings(max_examples=8)
@given(batch=st.integers(1, 30), seed=st.integers(0, 3))
def test_how_many_prompts_are_read_at_a_time_changes_nothing(batch, seed):
    model = tiny_reader()
    one = searched(model, RingABell(**SMALL, batch=batch), seed)
    other = searched(model, RingABell(**SMALL), seed)
    assert (one.ids, one.text) == (other.ids, other.text)
    assert one.loss == pytest.approx(other.loss, rel=1e-5)


def test_another_seed_finds_other_prompts(model):
    attack, prompts = RingABell(**SMALL), rows("a car")
    texts = {attack.craft(model, prompts, seed=seed).rows[0].text for seed in range(4)}
    assert len(texts) > 1


def test_prompts_that_are_read_as_other_tokens_are_counted(model):
    attack = RingABell(
        length=6, population=12, generations=2
    )  # random letters seldom survive being written down
    assert attack.craft(model, rows("a car", "a house", "a cat"), seed=0).changed > 0
    whole = dataclasses.replace(attack, whole_words=True).craft(model, rows("a car", "a house"), seed=0)
    assert whole.changed == 0
    assert all(f.loss == pytest.approx(f.read_loss, rel=1e-5) for f in whole.found.values())


def test_words_of_the_concept_can_be_forbidden(model):
    free = searched(model, RingABell(length=2, population=60, generations=20, whole_words=True), text="a dog")
    assert "dog" in free.text or "puppy" in free.text
    for avoid, words in (("name", ["dog"]), ("words", ["dog", "puppy"])):
        attack = RingABell(length=2, population=60, generations=20, whole_words=True, avoid=avoid)
        assert not any(word in searched(model, attack, text="a dog").text for word in words)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length": 0}, "at least 1"),
        ({"generations": 0}, "at least 1"),
        ({"population": 3}, "population is at least 4"),
        ({"crossover": 1.1}, "in [0, 1]"),
        ({"mutation": -0.1}, "in [0, 1]"),
        ({"templates": ("a dog",)}, "one {}"),
        ({"templates": ("a {}",), "pairs": (("a", "b"),)}, "not both"),
        ({"avoid": "all"}, "avoid"),
        ({"populaton": 20}, "did you mean 'population'"),
    ],
)
def test_bad_settings_are_one_message(wrong, message):
    with pytest.raises(InvalidInput) as error:
        build(RingABell, wrong)
    assert message in str(error.value)


def test_bad_input_is_one_message(model):
    with pytest.raises(InvalidInput, match="at most 14 tokens, not 16"):
        RingABell().craft(model, rows("a dog"), seed=0)
    with pytest.raises(InvalidInput, match="no token is left"):
        letters = tuple("abcdefghijklmnopqrstuvwxyz0123456789,.!'-")
        RingABell(**SMALL, sensitive=letters).craft(model, rows("a dog"), seed=0)
