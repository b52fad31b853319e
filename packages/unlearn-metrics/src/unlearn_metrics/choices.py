"""Which of the choices of a question a free answer means."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from unlearn_metrics import verdicts
from unlearn_metrics.questions import Question

_DIGITS = {
    word: str(number)
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        ]
    )
}


@runtime_checkable
class Sentences(Protocol):
    """Embeds texts so that like meanings are near: a plugin of the group `unlearn.sentences`."""

    revision: str

    def embed(self, texts: list[str]) -> Any:
        """Return unit vectors (n, d) float32."""
        ...


class Snap:
    """Takes the choice that an answer is, word for word, or else the one nearest to it in meaning.

    Attributes:
        snapped: number of answers so far that were no choice.
    """

    GROUP: ClassVar[str] = "unlearn.sentences"

    def __init__(self, encoder: Sentences | None) -> None:
        self._encoder = encoder
        self._nearest = functools.cache(self._nearest_of)
        self.snapped = 0

    @classmethod
    def of(cls, name: str | None, settings: Mapping[str, Any]) -> Self:
        """Return the one that looks with the plugin `name`; None: an answer that is no choice stays one."""
        return cls(None if name is None else verdicts.plug(cls.GROUP, name, settings))

    def __call__(self, answers: Mapping[Question, str | None]) -> dict[Question, str | None]:
        """Return the choice for each of `answers`; None where there is no answer."""
        return {question: self._choice(question, answer) for question, answer in answers.items()}

    def _choice(self, question: Question, answer: str | None) -> str | None:
        if answer is None:
            return None
        said = plain(answer)
        for choice in question.choices:
            if plain(choice) == said:
                return choice
        self.snapped += 1
        return self._nearest(answer, question.choices) if self._encoder is not None else answer

    def _nearest_of(self, answer: str, choices: tuple[str, ...]) -> str:
        assert self._encoder is not None
        said, *each = np.asarray(self._encoder.embed([answer, *choices]), np.float64)
        return choices[int(np.argmax([said @ choice for choice in each]))]


def plain(text: str) -> str:
    """Return `text` in lower case, without a full stop at its end, and numbers up to twelve as digits.

    >>> plain(" Two. ")
    '2'
    """
    words = text.strip().rstrip(".").lower().split()
    return " ".join(_DIGITS.get(word, word) for word in words)
