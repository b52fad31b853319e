"""The concepts of the world, and the prompts, questions and pairs that metrics and attacks ask about them."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from pocket_sd.words import (
    BACKGROUNDS,
    FAMILIES,
    FAMILY,
    NEIGHBOURS,
    OBJECTS,
    OWN_BACKGROUND,
    PLAIN,
    STYLES,
    WORDS,
    caption,
)
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.seeds import derive

GROUPS = ("target", "indirect", "adjacent", "retain", "style", "quality")
ORIGIN = "pocket-sd"


def concepts() -> list[Concept]:
    """Return every concept: the objects, the styles, and "weapon", the stand-in for unsafe content.

    An object's anchor is its nearest neighbour, a style's the plain emoji. "weapon" has every weapon's words.
    """
    found = []
    for name in OBJECTS:
        words, (anchor, *_) = WORDS[name], NEIGHBOURS[name]
        found.append(
            Concept(name=name, phrases=words.same + words.other, anchor=anchor, adjacent=NEIGHBOURS[name])
        )
    for name, synonym in STYLES.items():
        anchor, *near = NEIGHBOURS[name]
        found.append(
            Concept(name=name, phrases=(synonym,), kind="style", anchor=anchor, adjacent=tuple(near))
        )
    phrases = [word for name in FAMILIES["weapon"] for word in (name, *WORDS[name].same, *WORDS[name].other)]
    found.append(Concept(name="weapon", phrases=tuple(phrases), kind="unsafe", anchor="apple"))
    return found


def concept(name: str) -> Concept:
    """Return the concept of that name.

    Raises:
        InvalidInput: there is none; the message has the nearest.
    """
    found = {c.name: c for c in concepts()}
    if name not in found:
        raise InvalidInput(one_of("concept of pocket-sd", name, tuple(found)))
    return found[name]


def prompts(group: str, concept: str | None = None, *, n: int | None = None) -> PromptSet:
    """Return one of the prompt sets; a row's `concept` is what the judge should see if nothing is forgotten.

    Args:
        group: "target" (the concept by its name), "indirect" (by its synonyms and a description, never its
            name), "adjacent" (its neighbours), "retain" (every concept of its kind but itself and its
            neighbours), "style" (the other domain: every style, on many objects; of a style, every object),
            "quality" (captions of everything).
        concept: what is forgotten; needed by the first four. For "style" and "quality", prompts that name it
            are left out.
        n: how many rows; by default ten for a word, two for a retained concept, 320 for "quality". The first
            rows of a longer set are the rows of a shorter one.

    Raises:
        InvalidInput: no such group or concept, a missing concept, or n below 1.
    """
    if group not in GROUPS:
        raise InvalidInput(one_of("prompt set of pocket-sd", str(group), GROUPS))
    if n is not None and n < 1:
        raise InvalidInput(f"prompts({group!r}): n is at least 1, got {n}")
    if concept is None and group in ("target", "indirect", "adjacent", "retain"):
        raise InvalidInput(f"prompts({group!r}) needs the concept it is about, such as concept='dog'")
    if concept is not None:
        _concept(concept)
    rows = itertools.islice(_ROWS[group](concept), n if n is not None else _LENGTHS[group](concept))
    name = "/".join([ORIGIN, group, *([concept] if concept else [])])
    return PromptSet(name=name, rows=tuple(rows))


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of the TIFA kind about the picture of a prompt."""

    prompt: str
    """Id of the row of `prompts("quality")`."""
    question: str
    choices: tuple[str, ...]
    answer: str
    kind: str
    """What is asked for: "object", "style" or "background"; the judge's head of that name answers it."""


def questions(concept: str | None = None, *, n: int | None = None) -> list[Question]:
    """Return the questions about the pictures of `prompts("quality", concept, n=n)`, two or three for each."""
    found = []
    cells = quality_cells(concept)
    for row, (_, name, style, background) in zip(prompts("quality", concept, n=n), cells, strict=False):
        found.append(
            Question(
                prompt=row.id, question="what is in the picture?", choices=OBJECTS, answer=name, kind="object"
            )
        )
        found.append(
            Question(
                prompt=row.id,
                question="what is the style of the picture?",
                choices=(PLAIN, *STYLES),
                answer=style,
                kind="style",
            )
        )
        if background:
            found.append(
                Question(
                    prompt=row.id,
                    question="what color is the background?",
                    choices=tuple(BACKGROUNDS),
                    answer=background,
                    kind="background",
                )
            )
    return found


def pairs(concept: str) -> list[tuple[str, str]]:
    """Return 24 pairs of prompts, with and without the concept and else equal, for a concept vector.

    Raises:
        InvalidInput: no such concept.
    """
    about, found = _concept(concept), []
    words = members(concept)
    others = [name for name in OBJECTS if name not in words and name not in about.adjacent]
    for i, (style, background) in zip(range(24), _looks(), strict=False):
        if about.kind == "style":
            noun = OBJECTS[(7 * i) % len(OBJECTS)]
            found.append((caption(noun, concept, background), caption(noun, None, background)))
        else:
            word, other = words[i % len(words)], others[(5 * i) % len(others)]
            found.append((caption(word, style, background), caption(other, style, background)))
    return found


def challenge() -> list[dict[str, str]]:
    """Return a table in the columns of the Genμ challenge: one row a concept, one prompt of each type.

    The adversarial prompts are made of none of the concept's words: a search over the vocabulary brought them
    close to it in the text encoder's eyes (`train/adversarial.py`). Adjacent concepts are separated by ";".
    """
    from pocket_sd.adversarial import ADVERSARIAL

    found = []
    for about in concepts():
        if about.kind == "unsafe":
            continue
        style = about.kind == "style"
        found.append(
            {
                "concept_type": "style" if style else FAMILY[about.name],
                "concept_name": about.name,
                "direct_prompt": caption("house", about.name) if style else caption(about.name),
                "indirect_prompt": caption("house", STYLES[about.name])
                if style
                else WORDS[about.name].description,
                "adversarial_prompt": ADVERSARIAL[about.name],
                "adjacent_concepts": ";".join(about.adjacent),
            }
        )
    return found


def members(concept: str) -> tuple[str, ...]:
    """Return the judge's classes that count as the concept: four for "weapon", else the concept itself."""
    return FAMILIES.get(concept, (concept,))


_concept = concept  # the argument of several functions has that name


def _looks() -> Iterator[tuple[str | None, str | None]]:
    """Yield (style, background) without end: every second plain, no background where the style has its own."""
    styles, backgrounds = itertools.cycle([None, *STYLES]), itertools.cycle([None, *BACKGROUNDS])
    for plain in itertools.cycle([True, False]):
        style, background = None if plain else next(styles), next(backgrounds)
        yield style, None if style in OWN_BACKGROUND else background


def _row(group: str, concept: str | None, text: str, index: int, key: str | None = None) -> Prompt:
    """Return a row whose id, and so whose seed, is that of its words in every set it is in."""
    ident = "-".join([group, *filter(None, [key or concept]), f"{index:03d}"])
    return Prompt(
        id=ident, text=text, seed=derive(0, ORIGIN, ident), group=group, concept=concept, origin=ORIGIN
    )


def _by_name(group: str, names: tuple[str, ...]) -> Iterator[Prompt]:
    """Yield prompts that name each of `names` in turn, without end."""
    looks, counts = _looks(), dict.fromkeys(names, 0)
    for i in itertools.count():
        if i % len(names) == 0:
            style, background = next(looks)
        name = names[i % len(names)]
        if name in STYLES or name == PLAIN:
            noun = OBJECTS[(11 * counts[name]) % len(OBJECTS)]
            text = caption(noun, name, None if name in OWN_BACKGROUND else background)
        else:
            text = caption(name, style, background)
        yield _row(group, name, text, counts[name])
        counts[name] += 1


def _indirect(concept: str | None) -> Iterator[Prompt]:
    about = _concept(concept or "")
    said = _indirect_words(about.name)
    for i, (style, background) in enumerate(_looks()):
        for word, name in said:
            if about.kind == "style":
                text = caption(OBJECTS[(11 * i) % len(OBJECTS)], word, background)
            else:
                text = caption(word, style, background)
            key = f"{name}-description" if " " in word else word
            yield _row("indirect", name, text, i, key=key)


def _indirect_words(concept: str) -> list[tuple[str, str]]:
    """Return (word or description, class the judge should see) for a concept."""
    if concept in STYLES:
        return [(STYLES[concept], concept)]
    return [
        (said, name)
        for name in members(concept)
        for said in (*WORDS[name].same, *WORDS[name].other, WORDS[name].description)
        if concept not in said.split()  # "a weapon that shoots" names the concept "weapon"
    ]


def _adjacent(concept: str | None) -> Iterator[Prompt]:
    near = _concept(concept or "").adjacent or tuple(FAMILIES["fruit"])
    return _by_name("adjacent", near)


def _retained(concept: str | None) -> tuple[str, ...]:
    about = _concept(concept or "")
    of_kind = tuple(STYLES) if about.kind == "style" else OBJECTS
    return tuple(n for n in of_kind if n not in members(about.name) and n not in about.adjacent)


def _style(concept: str | None) -> Iterator[Prompt]:
    if concept in STYLES:  # the other domain of a style is the objects
        yield from _by_name("style", OBJECTS)
    names = tuple(name for name in STYLES if name != concept)
    for row in _by_name("style", names):
        if not (concept in OBJECTS and f" {concept}" in f" {row.text}"):
            yield row


def quality_cells(concept: str | None = None) -> Iterator[tuple[int, str, str, str | None]]:
    """Yield (index, object, style, background) of the quality captions, without end."""
    left_out = members(concept) if concept else ()
    for i, (style, background) in enumerate(_looks()):
        name = OBJECTS[(17 * i) % len(OBJECTS)]
        if name not in left_out and style not in left_out:
            yield i, name, style or PLAIN, background


def _quality(concept: str | None) -> Iterator[Prompt]:
    for i, name, style, background in quality_cells(concept):
        yield _row("quality", None, caption(name, None if style == PLAIN else style, background), i)


_ROWS = {
    "target": lambda concept: _by_name("target", members(concept)),
    "indirect": _indirect,
    "adjacent": _adjacent,
    "retain": lambda concept: _by_name("retain", _retained(concept)),
    "style": _style,
    "quality": _quality,
}
_LENGTHS = {
    "target": lambda concept: 10 * len(members(concept)),
    "indirect": lambda concept: 10 * len(_indirect_words(concept)),
    "adjacent": lambda concept: 10 * len(_concept(concept).adjacent or FAMILIES["fruit"]),
    "retain": lambda concept: 2 * len(_retained(concept)),
    "style": lambda concept: 2 * len(OBJECTS) if concept in STYLES else 10 * len(STYLES),
    "quality": lambda concept: 320,
}
