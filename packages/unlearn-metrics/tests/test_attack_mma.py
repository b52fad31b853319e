"""MMA-Diffusion against finite differences, brute force, PyTorch's cosine, and its rule of sensitive words."""

import pytest
import torch

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.spec import build
from unlearn_metrics.attacks.mma_diffusion import MMADiffusion, cosine_losses, one_hot_gradient
from unlearn_metrics.attacks.target import framed, pooled
from unlearn_metrics.attacks.testing import check_attack, rows, tiny_reader
from unlearn_metrics.attacks.vocabulary import Vocabulary

DOG = Concept(name="dog", phrases=("puppy",), anchor="cat")
SMALL = {"tokens": 4, "steps": 4, "candidates": 12, "topk": 16, "restarts": 2}


@pytest.fixture
def model():
    return tiny_reader()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path))


def target_of(model, text):
    with torch.no_grad():
        return model.text_encoder(model.tokens([text])).pooler_output[0]


def searched(model, attack, seed=0, text="a dog", about=DOG):
    words = Vocabulary.of(
        model, about, avoid=attack.avoid, sensitive=attack.sensitive, whole_words=attack.whole_words
    )
    table = model.token_vectors(words.ids[None])[0]
    return attack.search(model, words, table, target_of(model, text), torch.Generator().manual_seed(seed))


def test_does_what_every_attack_does(model):
    check_attack(MMADiffusion(**SMALL), model, rows("a dog", "a blue dog"))


def test_the_papers_numbers_are_the_defaults():
    paper = MMADiffusion()
    assert (paper.tokens, paper.steps, paper.candidates, paper.topk) == (20, 1000, 512, 256)
    assert (paper.restarts, paper.avoid) == (10, "words")
    assert MMADiffusion.presets["official"] == {"shifted": True, "sensitive": ("ak", "na", "ke", "nud")}


def test_the_pooled_embedding_is_the_text_encoders_own(model):
    ids = model.tokens(["a dog", "a blue dog in the park", ""])
    expected = model.text_encoder(ids).pooler_output
    assert torch.allclose(pooled(model, ids, model.text_encoder(ids).last_hidden_state), expected)


def test_the_loss_is_one_minus_the_cosine_and_zero_for_the_target(model):
    texts = ["a dog", "a cat", "sketch style"]
    target = target_of(model, "a dog")
    expected = 1 - torch.nn.functional.cosine_similarity(
        model.text_encoder(model.tokens(texts)).pooler_output, target[None]
    )
    found = cosine_losses(model, model.tokens(texts), target, 2)
    assert torch.allclose(found, expected, atol=1e-6)
    assert abs(found[0]) < 1e-6 and ((found >= -1e-6) & (found <= 2)).all()


def test_the_gradient_is_that_of_finite_differences():
    import copy
    import dataclasses

    model = tiny_reader()
    model = dataclasses.replace(model, text_encoder=copy.deepcopy(model.text_encoder).double())
    ids = framed(model, torch.tensor([[5, 9, 20]]))
    table = model.text_encoder.get_input_embeddings().weight
    target = target_of(model, "a dog")

    def loss(one_hot):
        states = model.encode_vectors(ids, (one_hot @ table)[None])
        return 1 - torch.cosine_similarity(pooled(model, ids, states), target[None])[0]

    one_hot = torch.nn.functional.one_hot(ids[0], len(table)).double()
    found = one_hot_gradient(model, ids, table.float(), target.float())
    for position, token in [(1, 7), (1, 40), (2, 60), (3, 0), (3, 20)]:
        step = torch.zeros_like(one_hot)
        step[position, token] = 1e-5
        expected = (loss(one_hot + step) - loss(one_hot - step)) / 2e-5
        assert found[position, token].item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-5)
    # Under the causal mask nothing behind the first end token is seen by the pooled output.
    assert (found[5:] == 0).all() and (found[1] != 0).any()


def test_one_step_finds_what_brute_force_finds_where_all_tokens_are_tried(model):
    attack = MMADiffusion(tokens=1, steps=1, candidates=3000, topk=10_000, avoid="nothing", whole_words=True)
    words = Vocabulary.of(model, DOG, whole_words=True)
    found = searched(model, attack, text="a car", seed=3)
    losses = cosine_losses(model, framed(model, words.ids[:, None]), target_of(model, "a car"), 200)
    assert found.loss == pytest.approx(float(losses.min()), abs=1e-6)
    assert found.ids == (int(words.ids[losses.argmin()]),)


def test_the_gradient_beats_random_tokens_of_the_same_budget(model):
    ours, chance = [], []
    for seed in range(4):
        attack = MMADiffusion(tokens=6, steps=20, candidates=24, topk=8, whole_words=True)
        found = searched(model, attack, seed)
        words = Vocabulary.of(model, DOG, avoid="words", whole_words=True)
        ids = words.draw((found.evaluations, 6), torch.Generator().manual_seed(seed))
        ours.append(found.loss)
        chance.append(float(cosine_losses(model, framed(model, ids), target_of(model, "a dog"), 512).min()))
    assert all(a < b for a, b in zip(ours, chance, strict=True))


def test_the_official_gradient_is_one_position_off(model):
    words = Vocabulary.of(model, DOG)
    table, target = model.token_vectors(words.ids[None])[0], target_of(model, "a dog")
    ids = words.ids[:4]
    gradient = one_hot_gradient(model, framed(model, ids[None]), table, target)
    for shifted, rows_of in ((False, gradient[1:5]), (True, gradient[0:4])):
        attack = MMADiffusion(tokens=4, topk=5, shifted=shifted)
        found = attack._promising(model, words, table, ids, target)
        assert torch.equal(found, words.ids[rows_of.argsort(dim=1)[:, :5]])


def test_the_best_ever_seen_is_returned(model):
    losses = [searched(model, MMADiffusion(**{**SMALL, "steps": n})).loss for n in range(1, 10)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_forbidden_words_never_occur(model):
    attack = MMADiffusion(**{**SMALL, "steps": 8, "restarts": 6}, sensitive=("at",))
    made = attack.craft(model, rows("a dog", "a puppy"), seed=0, concept=DOG)
    words = Vocabulary.of(model, DOG, avoid="words", sensitive=("at",))
    assert len(made) == 12
    for row in made:
        assert not any(word in row.text for word in ("dog", "puppy", "at"))
        assert set(made.found[row.id].read) <= set(words.ids.tolist())


def test_the_rule_bans_tokens_with_a_word_in_them_and_tokens_of_the_words(model):
    table = model.tokenizer.get_vocab()
    left = set(Vocabulary.of(model, DOG, avoid="words").ids.tolist())
    assert not {table[t] for t in ("dog</w>", "puppy</w>")} & left
    assert {table[t] for t in ("cat</w>", "d", "o", "do", "p")} <= left  # letters of a word are not the word
    assert table["puppy</w>"] in Vocabulary.of(model, DOG, avoid="name").ids
    assert table["dog</w>"] in Vocabulary.of(model, DOG).ids
    fragments = Vocabulary.of(model, DOG, sensitive=("ca",))
    assert not {table[t] for t in ("cat</w>", "car</w>", "ca")} & set(fragments.ids.tolist())
    assert Vocabulary.of(model, Concept(name="Van Gogh"), avoid="name").forbidden == ("gogh", "van")
    assert Vocabulary.of(model, Concept(name="ox"), avoid="name").forbidden == ("ox",)


def test_a_word_spelled_by_several_tokens_is_seen(model):
    words = Vocabulary.of(model, DOG, avoid="words")
    table = model.tokenizer.get_vocab()
    ids = torch.tensor([[table["do"], table["g</w>"]]])
    assert words.texts(ids) == ["dog"] and words.says_forbidden("dog")
    assert MMADiffusion(tokens=2)._readable(words, ids, "") == {}


def test_candidates_are_read_as_so_many_tokens(model):
    words = Vocabulary.of(model, DOG)
    table = model.tokenizer.get_vocab()
    joined, fine = [table["ca"], table["r</w>"]], [table["blue</w>"], table["cat</w>"]]
    attack = MMADiffusion(tokens=2)
    assert attack._readable(words, torch.tensor([joined, fine, fine]), "") == {"blue cat": fine}
    assert attack._readable(words, torch.tensor([joined, fine]), "blue cat") == {}  # where it stands already


def test_prompts_are_read_as_they_were_found(model):
    made = MMADiffusion(**SMALL).craft(model, rows("a dog", "a cat"), seed=0)
    assert made.changed == 0 and len({row.text for row in made}) == 4
    assert [row.id for row in made][:2] == ["mma_diffusion-target-0-0", "mma_diffusion-target-0-1"]
    for row in made:
        found = made.found[row.id]
        assert len(model.tokenizer([row.text], add_special_tokens=False).input_ids[0]) == 4
        assert found.loss == pytest.approx(found.read_loss, abs=1e-5)


def test_stays_where_it_is_if_no_candidate_is_left(model, monkeypatch):
    monkeypatch.setattr(MMADiffusion, "_readable", lambda *a: {})
    found = searched(model, MMADiffusion(**SMALL))
    assert found.evaluations == 1 and len(found.text.split()) == 4
    assert all(len(word) == 1 for word in found.text.split())  # the letters that it began with


@pytest.mark.parametrize("field", ["tokens", "steps", "candidates", "topk", "restarts", "batch"])
def test_bad_settings_are_one_message(field):
    with pytest.raises(InvalidInput, match="at least 1"):
        build(MMADiffusion, {field: 0})


def test_bad_input_is_one_message(model):
    with pytest.raises(InvalidInput, match="at most 14 tokens, not 20"):
        MMADiffusion().craft(model, rows("a dog"), seed=0)
