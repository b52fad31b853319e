"""What an attack on the text encoder asks of the model under attack."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from unlearn_core.errors import InvalidInput
from unlearn_core.spec import canonical_json


class TextModel(Protocol):
    """A text-to-image model as far as it reads: a CLIP tokenizer and what its text encoder makes of tokens."""

    @property
    def tokenizer(self) -> Any:
        """A `transformers.CLIPTokenizer`."""
        ...

    @property
    def text_encoder(self) -> Any:
        """The module behind `encode`."""
        ...

    @property
    def fingerprint(self) -> str:
        """The sha256 of the whole model."""
        ...

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return the ids (n, tokens) of texts with begin, end and padding."""
        ...

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the last hidden states (n, tokens, width) of texts, after the final norm."""
        ...

    def token_vectors(self, ids: Tensor) -> Tensor:
        """Return the vocabulary's vectors (n, tokens, width) of ids (n, tokens), before positions are added."""
        ...

    def encode_vectors(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """Return what `encode` does, of vectors (n, tokens, width) in place of those of the ids; differentiable."""
        ...


def reader_fingerprint(model: TextModel) -> str:
    """Return the sha256 of the text encoder's weights and the vocabulary.

    All that an attack on the text encoder sees of a model: those that share it, as most unlearned models do with the
    original, share the prompts.
    """
    digest = hashlib.sha256(canonical_json(model.tokenizer.get_vocab()).encode())
    for name, tensor in sorted(model.text_encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def framed(model: TextModel, ids: Tensor) -> Tensor:
    """Return ids (n, k) of words between begin and end, padded as the tokenizer does: (n, tokens), on the model.

    Raises:
        InvalidInput: they do not fit.
    """
    check_length(model, ids.shape[1])
    words, empty = model.tokenizer, model.tokens([""])
    found = empty.new_full((len(ids), empty.shape[1]), words.pad_token_id)
    found[:, 0] = words.bos_token_id
    found[:, 1 : 1 + ids.shape[1]] = ids.to(found)
    found[:, 1 + ids.shape[1]] = words.eos_token_id
    return found


def check_length(model: TextModel, tokens: int) -> None:
    """Check that a prompt of so many tokens, without begin and end, is read to its end.

    Raises:
        InvalidInput: it is not.
    """
    if tokens > (most := most_tokens(model)):
        raise InvalidInput(f"the model reads prompts of at most {most} tokens, not {tokens}")


def most_tokens(model: TextModel) -> int:
    """Return how many tokens of a prompt are read, without begin and end."""
    return model.tokenizer.model_max_length - 2  # type: ignore[no-any-return]


def hidden_states(model: TextModel, ids: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (ids, their last hidden states float32 (n, tokens, width)) for `batch` of ids (n, tokens) at a time."""
    for some in ids.split(batch):
        yield some, model.encode_vectors(some, model.token_vectors(some)).float()


def pooled(model: TextModel, ids: Tensor, states: Tensor) -> Tensor:
    """Return the states (n, width) at the first end token of ids (n, tokens): the pooled output of a text encoder."""
    ends = (ids == model.tokenizer.eos_token_id).int().argmax(dim=1)
    return states[torch.arange(len(ids), device=states.device), ends]
