"""The two baselines that an attack has to beat with the same number of pictures: random tokens and other seeds.

Paper:
    Both stand beside the attack in the code of Y. Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion
    Models Are Still Easy To Generate Unsafe Images ... For Now", ECCV 2024, arXiv 2310.11868.
Idea:
    A model that forgot badly draws the concept again for chance reasons: for another noise, or because any tokens in
    the prompt disturb the edit. What an attack finds counts above that.
Model:
    `RandomTokens` looks at the tokenizer, `SeedSearch` at nothing.
Defaults:
    16 tokens alone, the length of P4D-N and Ring-A-Bell; `place="before"` with 5 or 3 tokens is UnlearnDiffAtk's.
    The budget is `tries`: pictures for each row. What an attack is compared with has as many rows as it draws pictures
    for a row.
Deviations:
    None known. Random search with an objective is another baseline: `RingABell(generations=1, population=N)`.
Cost:
    Nothing but the pictures.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.protocols import Progress
from unlearn_core.seeds import derive
from unlearn_metrics.attacks.crafting import Crafted, Found, about_of, adversarial, at_least, refused
from unlearn_metrics.attacks.target import TextModel, check_length
from unlearn_metrics.attacks.vocabulary import Avoid, Vocabulary


@dataclass(frozen=True, kw_only=True)
class RandomTokens:
    """Random tokens, alone or around the attacked prompt: the baseline of attacks that look for tokens."""

    tokens: int = 16
    place: Literal["alone", "before", "after"] = "alone"
    """In place of the prompt, or before or after it; a prompt too long for both keeps its beginning."""
    tries: int = 1
    """Rows made of each row."""
    avoid: Avoid = "nothing"
    sensitive: tuple[str, ...] = ()
    """Further words, or parts of words, that the tokens may not contain."""
    whole_words: bool = False
    """Whether only tokens are drawn that are read as themselves when written down."""

    name: ClassVar[str] = "random_tokens"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "ring_a_bell": {"tokens": 16},
        "mma_diffusion": {"tokens": 20, "tries": 10, "avoid": "words"},
        "unlearndiffatk": {"tokens": 5, "place": "before", "tries": 51},
        "pocket": {"tokens": 5, "whole_words": True},
    }

    def __post_init__(self) -> None:
        at_least(1, self, "tokens", "tries")

    def craft(
        self,
        model: TextModel,
        prompts: PromptSet,
        *,
        seed: int,
        progress: Progress | None = None,
        concept: Concept | None = None,
    ) -> Crafted:
        """Return `tries` prompts for each row of `prompts`, in the group "random_tokens".

        Raises:
            InvalidInput: more tokens than the model reads, no tokens left that are not forbidden.
        """
        check_length(model, self.tokens)
        vocabulary = functools.cache(functools.partial(Vocabulary.for_attack, self, model))

        def found(row: Prompt, k: int) -> tuple[Prompt, Found]:
            words = vocabulary(about_of(row, concept))
            generator = torch.Generator().manual_seed(derive(seed, self.name, row.id, k))
            for _ in range(_REDRAWN):
                ids = words.draw((1, self.tokens), generator)
                text = words.texts(ids)[0]
                if not words.says_forbidden(text):
                    break
            else:
                raise InvalidInput(
                    f"RandomTokens: all tokens spell a forbidden word: {', '.join(words.forbidden)}"
                )
            read = words.read([text])[0]
            parts = {"alone": [text], "before": [text, row.text], "after": [row.text, text]}[self.place]
            one = Found(text=" ".join(parts), ids=tuple(ids[0].tolist()), read=tuple(read))
            return adversarial(self.name, row, one.text, k, self.tries), one

        return _rows(self, prompts, found, concept, progress)


@dataclass(frozen=True, kw_only=True)
class SeedSearch:
    """The attacked prompts from other noises: the baseline of attacks that draw many pictures for a prompt."""

    tries: int = 10
    """Rows made of each row."""

    name: ClassVar[str] = "seed_search"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"unlearndiffatk": {"tries": 51}, "pocket": {"tries": 1}}

    def __post_init__(self) -> None:
        at_least(1, self, "tries")

    def craft(
        self,
        model: Any,
        prompts: PromptSet,
        *,
        seed: int,
        progress: Progress | None = None,
        concept: Concept | None = None,
    ) -> Crafted:
        """Return `tries` rows for each row of `prompts`, in the group "seed_search"; nothing of the model is asked."""

        def found(row: Prompt, k: int) -> tuple[Prompt, None]:
            new = adversarial(self.name, row, row.text, k, self.tries)
            return dataclasses.replace(new, seed=derive(seed, self.name, row.id, k)), None

        return _rows(self, prompts, found, concept, progress)


def _rows(
    attack: Any, prompts: PromptSet, make: Any, concept: Concept | None, progress: Progress | None
) -> Crafted:
    rows, found, total = [], {}, len(prompts) * attack.tries
    for job, (row, k) in enumerate((row, k) for row in prompts for k in range(attack.tries)):
        about = about_of(row, concept)
        if not refused("", row, about):
            made, one = make(row, k)
            if not refused(made.text, row, about):
                rows.append(made)
                found |= {made.id: one} if one else {}
        if progress is not None:
            progress(job + 1, total)
    return Crafted(
        name=f"{attack.name}/{prompts.name}", revision=prompts.revision, rows=tuple(rows),
        dropped=prompts.dropped + total - len(rows), found=found,
    )  # fmt: skip


_REDRAWN = 1000
