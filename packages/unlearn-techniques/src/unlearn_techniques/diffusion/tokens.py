"""Which tokens of a prompt are a word, which are the same in two prompts, and which words a tokenizer knows."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from unlearn_core.errors import InvalidInput
from unlearn_techniques.diffusion.model import StableDiffusion


def word_positions(model: StableDiffusion, template: str, word: str) -> range:
    """Return the positions of `word` in the prompt that a template with one {} makes of it; BOS is position 0.

    Raises:
        InvalidInput: the model does not read as far.
    """
    before = template.partition("{}")[0]
    uncut = [model.tokenizer(text, verbose=False).input_ids for text in (before, before + word)]
    first, last = (len(found) - 1 for found in uncut)  # without EOS
    if last >= model.tokenizer.model_max_length:
        raise InvalidInput(
            f"{before + word!r} is longer than the {model.tokenizer.model_max_length} tokens read"
        )
    return range(first, last)


def word_mask(model: StableDiffusion, template: str, word: str, *, pooler: bool = False) -> Tensor:
    """Return which tokens of a prompt are the word, bool (tokens,); with `pooler` also its end and padding."""
    found = torch.zeros(model.tokenizer.model_max_length, dtype=torch.bool)
    found[list(word_positions(model, template, word))] = True
    found[len(ids(model, template.format(word))) - 1 :] |= pooler
    return found


def ids(model: StableDiffusion, text: str) -> list[int]:
    """Return the token ids of a text from BOS to EOS, cut as the model cuts it but not padded."""
    limit = model.tokenizer.model_max_length
    return list(model.tokenizer(text, truncation=True, max_length=limit).input_ids)


def aligned(old: Sequence[int], new: Sequence[int], length: int) -> tuple[list[int], list[int]]:
    """Return the positions in two prompts, BOS to EOS, of the tokens that they share around what differs.

    These are the longest common beginning, the longest common end, and as much of the padding up to `length` as both
    have. The end includes EOS, so both lists lead to the same words and never hold what differs.
    """
    shorter = min(len(old), len(new))
    head = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    tail = next((i for i in range(shorter - head) if old[-1 - i] != new[-1 - i]), shorter - head)
    padding = length - max(len(old), len(new))
    return tuple([*range(head), *range(len(ids) - tail, len(ids) + padding)] for ids in (old, new))  # type: ignore[return-value]


def vocabulary(tokenizer: Any, n: int, *, without: Collection[str], seed: int) -> list[str]:
    """Return up to `n` words that a CLIP tokenizer has as one token, drawn without replacement.

    Args:
        tokenizer: marks the end of a word by "</w>".
        n: how many.
        without: words that are left out.
        seed: of the draw.
    """
    unwanted = {part for word in without for part in word.casefold().split()}
    whole = (t.removesuffix("</w>") for t in tokenizer.get_vocab() if t.endswith("</w>"))
    words = sorted({w for w in whole if w.isascii() and w.isalpha() and len(w) > 2 and w not in unwanted})
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed))
    return [words[i] for i in order[:n].tolist()]
