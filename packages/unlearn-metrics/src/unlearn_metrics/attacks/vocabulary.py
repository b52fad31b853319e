"""Which tokens a search may draw, and how ids become prompts and prompts ids."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.minors import sexual_and_minor
from unlearn_metrics.attacks.target import TextModel
from unlearn_metrics.i2p import CATEGORY_OF

Avoid = Literal["nothing", "name", "words"]
"""What a prompt may not say of the concept: nothing is forbidden, its name, or its name and its other words."""

_LETTERS = 3
"""Shorter pieces of a word are not the word."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The tokens that a prompt may have.

    Left out are those that no text can hold (begin, end, padding, id 0 as in the papers, halves of a character), those
    with a forbidden word in them or that such a word is made of, and, where the concept is sexual, words for minors.
    """

    tokenizer: Any
    ids: Tensor
    """Those that may be drawn (m,), rising."""
    forbidden: tuple[str, ...]
    """Words that the prompt may not contain, in lower case."""

    @classmethod
    def of(
        cls,
        model: TextModel,
        about: Concept | None,
        *,
        avoid: Avoid = "nothing",
        sensitive: Collection[str] = (),
        whole_words: bool = False,
    ) -> "Vocabulary":
        """Return the vocabulary of the model's tokenizer for prompts about a concept.

        Args:
            model: whose tokenizer it is.
            about: the concept; None: unknown.
            avoid: its words that are forbidden.
            sensitive: further words or parts of words.
            whole_words: only tokens that, written down alone, are read as themselves again.

        Raises:
            InvalidInput: nothing is left.
        """
        words = model.tokenizer
        forbidden = _forbidden(about, avoid, sensitive)
        texts = [text.strip().casefold() for text in _decoded(words, [[i] for i in range(len(words))])]
        banned = {0, *words.all_special_ids, *_pieces(words, forbidden)}
        aim = " sexual" if is_sexual(about) else ""
        found = [
            i
            for i, text in enumerate(texts)
            if i not in banned
            and text.isprintable()
            and text
            and "\ufffd" not in text
            and not any(word in text for word in forbidden)
            and not sexual_and_minor(text + aim)
        ]
        if whole_words:
            read = _read(words, [texts[i] for i in found])
            found = [i for i, back in zip(found, read, strict=True) if back == [i]]
        if not found:
            raise InvalidInput(f"no token is left to attack with: {', '.join(forbidden)} forbid all of them")
        return cls(tokenizer=words, ids=torch.tensor(found), forbidden=forbidden)

    @classmethod
    def for_attack(cls, attack: Any, model: TextModel, about: Concept | None) -> "Vocabulary":
        """Return `of` with the settings `avoid`, `sensitive` and `whole_words` of an attack."""
        rule = {"avoid": attack.avoid, "sensitive": attack.sensitive, "whole_words": attack.whole_words}
        return cls.of(model, about, **rule)

    def vectors(self, model: TextModel) -> Tensor:
        """Return the model's vectors (m, width) float32 of the tokens that may be drawn."""
        return model.token_vectors(self.ids[None].to(model.tokens([""]).device))[0].detach().float()

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return ids of a shape, each as likely as any other."""
        return self.ids[torch.randint(len(self.ids), shape, generator=generator)]

    def texts(self, ids: Tensor) -> list[str]:
        """Return the prompts that ids (n, k) are written as."""
        return [text.strip() for text in _decoded(self.tokenizer, ids.tolist())]

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids that prompts are read as: not always those they were written from; without begin and end."""
        return _read(self.tokenizer, texts)

    def says_forbidden(self, text: str) -> bool:
        """Return whether a prompt contains a forbidden word, be it of several tokens."""
        lower = text.casefold()
        return any(word in lower for word in self.forbidden)


def is_sexual(about: Concept | None) -> bool:
    """Return whether a concept has to be taken for a sexual one: unless it is known to be none, it is."""
    if about is None:
        return True
    categories = {CATEGORY_OF.get(name.lower()) for name in about.names}
    return "sexual" in categories or (about.kind == "unsafe" and categories == {None})


def _forbidden(about: Concept | None, avoid: Avoid, sensitive: Collection[str]) -> tuple[str, ...]:
    names: tuple[str, ...] = ()
    if about is not None and avoid != "nothing":
        names = about.names if avoid == "words" else (about.name,)
    words = [word for name in names for word in name.casefold().split() if len(word) >= _LETTERS]
    # A name of short words only, such as "ox", is forbidden as it stands.
    words += [name.casefold() for name in names if not any(word in words for word in name.casefold().split())]
    return tuple(sorted({*words, *(word.casefold().strip() for word in sensitive)}))


def _pieces(tokenizer: Any, words: Sequence[str]) -> set[int]:
    """Return the tokens that `words` are made of, but not single letters."""
    ids = {i for back in _read(tokenizer, words) for i in back} if words else set()
    return {i for i in ids if len(_decoded(tokenizer, [[i]])[0].strip()) >= _LETTERS}


def _decoded(tokenizer: Any, ids: Sequence[Sequence[int]]) -> list[str]:
    return tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)  # type: ignore[no-any-return]


def _read(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids if texts else []
