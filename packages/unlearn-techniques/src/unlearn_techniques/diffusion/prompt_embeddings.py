"""Prompts as vectors: what the text encoder reads may be vectors of one's own in place of those of its vocabulary.

AdvUnlearn is trained against such prompts, and white-box attacks look for them:

    prompt = soft_prompt(model, "a dog", place="prefix_k", k=1)
    vectors = prompt.random_words(model, generator).requires_grad_()
    noise = model.noise(x, t, model.trajectory(embeddings=prompt.encode(model, vectors)))
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearn_core.errors import InvalidInput
from unlearn_techniques.diffusion.model import StableDiffusion

Place = Literal["prefix_k", "suffix_k", "replace_k", "add"]
"""Where vectors are: before a prompt, behind it, in its place, or added to those of its tokens."""


def token_embeddings(model: StableDiffusion, ids: Tensor) -> Tensor:
    """Return the vocabulary's vectors (n, tokens, width) for ids (n, tokens), before positions are added."""
    return _table(model)(ids)  # type: ignore[no-any-return]


def encode_embeddings(model: StableDiffusion, ids: Tensor, embeddings: Tensor) -> Tensor:
    """Return the hidden states (n, tokens, width) of prompts given as vectors, as `model.encode` does of texts.

    Gradients flow to the vectors and to the weights. Vectors of another dtype are converted.

    Args:
        model: whose text encoder reads.
        ids: (n, tokens); only a pooled output, which no Stable Diffusion 1.x or 2.x reads, depends on them.
        embeddings: (n, tokens, width), before positions are added.

    Raises:
        InvalidInput: another shape.
    """
    table = _table(model)
    shape = (*ids.shape, table.weight.shape[1])
    if embeddings.shape != shape:
        raise InvalidInput(f"embeddings of prompts are {shape} here, not {tuple(embeddings.shape)}")

    # A hook, as CLIPTextModel takes no vectors and its inner parts are called otherwise in every major version.
    def instead(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return embeddings.to(output.dtype)

    handle = table.register_forward_hook(instead)
    try:
        return model.text_encoder(ids).last_hidden_state  # type: ignore[no-any-return]
    finally:
        handle.remove()


def prompt_length(model: StableDiffusion, text: str) -> int:
    """Return the number of tokens of a text without begin and end, as far as they are read."""
    count = len(model.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    return min(count, model.tokenizer.model_max_length - 2)


def with_slots(model: StableDiffusion, ids: Tensor, *, k: int, at: int) -> Tensor:
    """Return ids (n, tokens) with k placeholders from position `at` on; the last tokens give way, never the end token.

    The placeholder is the begin token, which no pooling takes for the end.

    Args:
        model: whose tokenizer made the ids.
        ids: (n, tokens) with begin and end token.
        k: how many.
        at: 1 is right behind the begin token, 1 + `prompt_length` right behind the prompt.

    Raises:
        InvalidInput: the placeholders do not fit between begin and end.
    """
    tokens = ids.shape[1]
    if k < 0 or at < 1 or at + k > tokens - 1:
        raise InvalidInput(f"{k} vectors from position {at} on do not fit into a prompt of {tokens} tokens")
    placeholders = ids.new_full((len(ids), k), model.tokenizer.bos_token_id)
    found = torch.cat([ids[:, :at], placeholders, ids[:, at:]], dim=1)[:, :tokens]
    end = model.tokenizer.eos_token_id
    found[:, -1] = torch.where((found == end).any(dim=1), found[:, -1], end)
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftPrompt:
    """A prompt with places for k vectors."""

    ids: Tensor
    """(1, tokens)."""
    at: int
    """Position of the first vector."""
    k: int
    added: bool = False
    """Whether the vectors are added to those of the ids, which they replace otherwise."""

    def encode(self, model: StableDiffusion, vectors: Tensor) -> Tensor:
        """Return the hidden states (1, tokens, width) of the prompt with the vectors (1, k, width) in their places."""
        words, end = token_embeddings(model, self.ids), self.at + self.k
        if self.added:
            vectors = vectors + words[:, self.at : end]
        placed = torch.cat([words[:, : self.at], vectors.to(words.dtype), words[:, end:]], dim=1)
        return encode_embeddings(model, self.ids, placed)

    def random_words(self, model: StableDiffusion, generator: torch.Generator) -> Tensor:
        """Return the vectors (1, k, width) float32 of k words of the vocabulary, drawn by a CPU generator."""
        ids = torch.randint(len(_table(model).weight), (1, self.k), generator=generator)
        return token_embeddings(model, ids.to(model.device)).detach().float()


def soft_prompt(
    model: StableDiffusion, text: str, *, place: Place, k: int, by_words: bool = False
) -> SoftPrompt:
    """Return a text with places for k vectors, or for one to each of its tokens where they are added.

    Args:
        model: whose text encoder reads.
        text: the prompt.
        place: where they are.
        k: how many.
        by_words: as in AdvUnlearn's public code, which takes a prompt for as many tokens as it has words and makes room
            right behind them: of a prompt with longer words k tokens are lost.

    Raises:
        InvalidInput: the vectors do not fit.
    """
    length = prompt_length(model, text)
    ids = model.tokens(["" if place == "replace_k" else text])
    if place == "add":
        return SoftPrompt(ids=ids, at=1, k=length, added=True)
    if by_words and place == "prefix_k":
        behind, end = 1 + len(text.split()), ids.new_full((1, k), model.tokenizer.eos_token_id)
        ids = torch.cat([ids[:, :behind], ids[:, behind + k :], end], dim=1)
    at = 1 + length if place == "suffix_k" else 1
    return SoftPrompt(ids=with_slots(model, ids, k=k, at=at), at=at, k=k)


def _table(model: StableDiffusion) -> Any:
    return model.text_encoder.get_input_embeddings()
