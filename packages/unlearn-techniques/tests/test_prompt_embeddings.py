"""Prompts as vectors: the plain encoder bit for bit, gradients, and places for vectors of one's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.errors import InvalidInput
from unlearn_techniques.diffusion.prompt_embeddings import (
    SoftPrompt,
    encode_embeddings,
    prompt_length,
    soft_prompt,
    token_embeddings,
    with_slots,
)

LENGTH = 16  # tokens the tiny model reads


def test_the_vocabularys_own_vectors_are_the_plain_prompt(tiny):
    texts = ["a dog", "a photo of a cat", ""]
    ids = tiny.tokens(texts)
    vectors = token_embeddings(tiny, ids)
    assert torch.equal(vectors, tiny.text_encoder.get_input_embeddings().weight[ids])
    assert torch.equal(encode_embeddings(tiny, ids, vectors), tiny.encode(texts))


def test_another_words_vector_is_the_other_prompt(tiny):
    dog, cat = tiny.tokens(["a dog"]), tiny.tokens(["a cat"])
    assert torch.equal(encode_embeddings(tiny, dog, token_embeddings(tiny, cat)), tiny.encode(["a cat"]))


def test_no_hook_is_left_behind(tiny):
    before = tiny.encode(["a dog"])
    ids = tiny.tokens(["a dog"])
    encode_embeddings(tiny, ids, torch.randn(1, LENGTH, 32))
    with pytest.raises(
        InvalidInput, match="embeddings of prompts are \\(1, 16, 32\\) here, not \\(1, 16, 8\\)"
    ):
        encode_embeddings(tiny, ids, torch.randn(1, LENGTH, 8))
    assert torch.equal(tiny.encode(["a dog"]), before)


def test_gradients_reach_vectors_and_weights_as_differences_say(tiny):
    double = tiny.to(dtype=torch.float64)
    ids = double.tokens(["a dog"])
    vectors = token_embeddings(double, ids).detach().requires_grad_()
    weight = double.text_encoder.get_parameter("final_layer_norm.weight")
    aim, step = torch.randn(2, 1, LENGTH, 32, generator=torch.Generator().manual_seed(0)).double()

    def value(x):
        return (encode_embeddings(double, ids, x) * aim).sum()

    by_vectors, by_weight = torch.autograd.grad(value(vectors), [vectors, weight])
    step *= 1e-6
    with torch.no_grad():
        difference = (value(vectors + step) - value(vectors - step)) / 2
    torch.testing.assert_close(difference, (by_vectors * step).sum(), rtol=1e-6, atol=0)
    assert by_weight.abs().sum() > 0


def test_vectors_of_another_dtype(tiny):
    half = tiny.to(dtype=torch.bfloat16)
    ids = half.tokens(["a dog"])
    vectors = token_embeddings(half, ids).detach().float().requires_grad_()
    hidden = encode_embeddings(half, ids, vectors)
    assert hidden.dtype == torch.bfloat16
    assert torch.equal(hidden, half.encode(["a dog"]))
    (gradient,) = torch.autograd.grad(hidden.float().square().sum(), [vectors])
    assert gradient.dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "length"), [("", 0), ("dog", 1), ("a photo of a dog", 5), ("xy", 2), ("a " * 30, LENGTH - 2)]
)
def test_the_length_of_a_prompt_counts_tokens(tiny, text, length):
    """ "xy" is one word of two tokens, and what is longer than the model reads ends there."""
    assert prompt_length(tiny, text) == length


def test_slots_before_and_behind_the_prompt(tiny):
    begin, end = tiny.tokenizer.bos_token_id, tiny.tokenizer.eos_token_id
    a, dog = tiny.tokenizer("a dog", add_special_tokens=False).input_ids
    ids = tiny.tokens(["a dog"])
    before, behind = with_slots(tiny, ids, k=2, at=1), with_slots(tiny, ids, k=1, at=3)
    assert before.tolist() == [[begin, begin, begin, a, dog] + [end] * 11]
    assert behind.tolist() == [[begin, a, dog, begin] + [end] * 12]
    assert torch.equal(with_slots(tiny, ids, k=0, at=1), ids)


@given(count=st.integers(0, 30), k=st.integers(0, 20), at=st.integers(-1, 20))
def test_a_prompt_of_any_length_keeps_its_end(tiny, count, k, at):
    ids = tiny.tokens(["dog " * count])
    if at < 1 or at + k > LENGTH - 1:
        with pytest.raises(
            InvalidInput, match=f"{k} vectors from position {at} on do not fit into a prompt of 16"
        ):
            with_slots(tiny, ids, k=k, at=at)
        return
    found = with_slots(tiny, ids, k=k, at=at)
    assert found.shape == ids.shape
    assert (found == tiny.tokenizer.eos_token_id).any()
    assert found[0, 0] == tiny.tokenizer.bos_token_id
    assert (found[0, at : at + k] == tiny.tokenizer.bos_token_id).all()


def test_a_soft_prompt_of_words_is_the_prompt_of_these_words(tiny):
    """Vectors of "blue" before "dog" are "blue dog"; added vectors of zero are the prompt itself."""
    blue = tiny.tokenizer("blue", add_special_tokens=False).input_ids
    vectors = token_embeddings(tiny, torch.tensor([blue]))
    for place, text in [("prefix_k", "blue dog"), ("suffix_k", "dog blue"), ("replace_k", "blue")]:
        prompt = soft_prompt(tiny, "dog", place=place, k=1)
        assert torch.equal(prompt.encode(tiny, vectors), tiny.encode([text]))
    added = soft_prompt(tiny, "a dog", place="add", k=1)
    assert (added.at, added.k) == (1, 2)
    assert torch.equal(added.encode(tiny, torch.zeros(1, 2, 32)), tiny.encode(["a dog"]))
    assert not torch.equal(added.encode(tiny, torch.ones(1, 2, 32)), tiny.encode(["a dog"]))


def test_random_words_are_words(tiny):
    table = tiny.text_encoder.get_input_embeddings().weight
    prompt = SoftPrompt(ids=tiny.tokens(["dog"]), at=1, k=3)
    vectors = prompt.random_words(tiny, torch.Generator().manual_seed(0))
    assert vectors.shape == (1, 3, 32)
    assert not vectors.requires_grad
    assert all((table == vector).all(dim=1).any() for vector in vectors[0])
    assert torch.equal(vectors, prompt.random_words(tiny, torch.Generator().manual_seed(0)))
    assert not torch.equal(vectors, prompt.random_words(tiny, torch.Generator().manual_seed(1)))
