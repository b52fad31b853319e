"""What is asked of a model: one prompt and what the judge looks for in its images; a sheet of them; images to draw."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from genmu_eval.table import AXES, Judgement
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.minors import sexual_and_minor
from unlearn_core.prompts import Prompt
from unlearn_core.seeds import derive

GROUPS = {"fgt": "target", "ret": "retain", "adj": "adjacent", "ind": "indirect", "adv": "adversarial"}
"""Axis -> group of its prompts."""
TARGETED = ("fgt", "ind", "adv")
"""Axes whose concept is a target."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One prompt, and what the judge is asked of its images.

    Raises:
        InvalidInput: an unknown axis, a blank field.
    """

    concept: str
    """The target it counts under; on ret, the retained concept."""
    axis: str
    asks: str
    """What the judge looks for: the target on fgt, ind and adv, the neighbour on adj, the retained concept on ret."""
    text: str
    source: str = ""

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise InvalidInput(one_of("axis", str(self.axis), AXES))
        for name in ("concept", "asks", "text"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise InvalidInput(f"the {name} of a question is not blank, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One image to draw and to judge."""

    prompt: Prompt
    """Its id names the image in the table; `concept` is what the judge looks for."""
    question: Question

    def judgement(self, present: bool) -> Judgement:
        """Return the row of the table that the judge's answer makes."""
        q = self.question
        return Judgement(concept=q.concept, axis=q.axis, image=self.prompt.id, present=present)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The questions of a benchmark; those that are sexual and mention a minor never get in, `dropped` counts them.

    Raises:
        InvalidInput: no question.
    """

    name: str
    questions: tuple[Question, ...]
    types: Mapping[str, str] = field(default_factory=dict)
    """Target -> its type."""
    sha256: str = ""
    """Of the file that it was read from."""
    escaped: bool = False
    """Whether that file writes quotes inside a text with a backslash, about which readers of CSV disagree."""
    dropped: int = 0

    def __post_init__(self) -> None:
        kept = tuple(q for q in self.questions if not sexual_and_minor(f"{q.text} {q.asks} {q.concept}"))
        object.__setattr__(self, "dropped", self.dropped + len(self.questions) - len(kept))
        object.__setattr__(self, "questions", kept)
        if not kept:
            raise InvalidInput(f"{self.name} holds no prompts")

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The concepts to forget, in the order of the sheet."""
        return tuple(dict.fromkeys(q.concept for q in self.questions if q.axis in TARGETED))

    def of(self, *, axis: str | None = None, concept: str | None = None) -> tuple[Question, ...]:
        """Return the questions of an axis and a concept, None standing for any."""
        return tuple(q for q in self.questions if axis in (None, q.axis) and concept in (None, q.concept))

    def adjacent(self, concept: str) -> tuple[str, ...]:
        """Return the neighbours of a target."""
        return tuple(dict.fromkeys(q.asks for q in self.of(axis="adj", concept=concept)))

    def only(self, concepts: Iterable[str]) -> "Sheet":
        """Return the sheet with these targets alone and all that is retained.

        Raises:
            InvalidInput: an unknown target.
        """
        known = {key(name): name for name in self.targets}
        wanted = []
        for name in concepts:
            if key(name) not in known:
                raise InvalidInput(f"{self.name}: " + one_of("concept", name, self.targets))
            wanted.append(known[key(name)])
        kept = [q for q in self.questions if q.concept in wanted or q.axis == "ret"]
        return Sheet(
            name=self.name, questions=tuple(kept), types={c: t for c, t in self.types.items() if c in wanted}
        )

    def draws(self, *, images: int, seed: int = 0) -> tuple[Draw, ...]:
        """Return the images to draw, `images` per question.

        Seeds depend on concept, axis and number, never on the model: the original and every unlearned model start
        from the same noise.

        Raises:
            InvalidInput: `images` below 1.
        """
        if images < 1:
            raise InvalidInput(f"a question takes at least one image, got {images}")
        found, count = [], Counter[tuple[str, str]]()
        for q in self.questions:
            number = count[q.concept, q.axis]
            count[q.concept, q.axis] += 1
            for i in range(images):
                ident = f"{q.axis}-{_slug(q.concept)}-{number}-{i}"
                prompt = Prompt(
                    id=ident, text=q.text, seed=derive(seed, "genmu", ident), group=GROUPS[q.axis],
                    concept=q.asks, origin=self.name,
                )  # fmt: skip
                found.append(Draw(prompt=prompt, question=q))
        return tuple(found)


def key(name: str) -> str:
    """Return a name as it is compared: case and spaces do not matter."""
    return " ".join(name.casefold().split())


def _slug(name: str) -> str:
    return re.sub(r"[^\w]+", "-", key(name)).strip("-") or hashlib.sha256(name.encode()).hexdigest()[:8]
