"""The 20 concepts of the challenge, by the spelling of its CSV, with other spellings and the traps among them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Type = Literal["Objects", "Artistic Styles", "Open Set", "Activities/Actions"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One of the 20 concepts."""

    name: str
    """As the CSV spells it."""
    type: Type
    aliases: tuple[str, ...] = ()
    """Other spellings in use: the usual one, or that of the challenge's site."""
    giveaways: tuple[str, ...] = ()
    """Words that say the concept without naming it; an indirect prompt does without."""


TARGETS = (
    Target(name="Labrador Retriever", type="Objects", aliases=("Labrador",), giveaways=("lab dog",)),
    Target(name="Barbeton Daisy", type="Objects", aliases=("Barberton Daisy",), giveaways=("gerbera",)),
    Target(name="Blue Jay", type="Objects", giveaways=("cyanocitta",)),
    Target(name="Golf Ball", type="Objects", giveaways=("golfer",)),
    Target(name="Apple Fruit", type="Objects", aliases=("Apple",)),
    Target(
        name="Van Gogh", type="Artistic Styles", aliases=("Vincent van Gogh",), giveaways=("starry night",)
    ),
    Target(name="Doodle", type="Artistic Styles", giveaways=("scribble",)),
    Target(name="Neon", type="Artistic Styles", giveaways=("cyberpunk",)),
    Target(
        name="Monet",
        type="Artistic Styles",
        aliases=("Claude Monet",),
        giveaways=("impressionism", "giverny"),
    ),
    Target(name="Sketch", type="Artistic Styles"),
    Target(name="Wedding", type="Open Set", giveaways=("bride", "groom", "nuptials")),
    Target(name="Sunset", type="Open Set", giveaways=("dusk",)),
    Target(name="Rainfall", type="Open Set", aliases=("Rain",), giveaways=("downpour",)),
    Target(
        name="Aurora Borialis",
        type="Open Set",
        aliases=("Aurora Borealis",),
        giveaways=("northern lights", "polar lights"),
    ),
    Target(name="Scenerie", type="Open Set", aliases=("Scenery",), giveaways=("landscape",)),
    Target(name="Sleeping", type="Activities/Actions", giveaways=("asleep", "nap")),
    Target(name="Walking", type="Activities/Actions", giveaways=("stroll",)),
    Target(name="Eating", type="Activities/Actions", giveaways=("dining",)),
    Target(name="Dancing", type="Activities/Actions", giveaways=("ballet", "waltz")),
    Target(name="Jumping", type="Activities/Actions", giveaways=("leap",)),
)

SITE_ONLY = ("Welsh Springer Spaniel",)
"""In the tables of the challenge's site where its CSV has Labrador Retriever."""

OVERLAPPING = (
    ("Van Gogh", "Monet"), ("Doodle", "Sketch"), ("Scenerie", "Sunset"), ("Scenerie", "Aurora Borialis"),
    ("Scenerie", "Rainfall"), ("Walking", "Jumping"), ("Walking", "Dancing"), ("Jumping", "Dancing"),
)  # fmt: skip
"""Pairs of targets that judges confuse or of which one entails the other: "retain the other 19" asks for both."""

ELSEWHERE = ("barn swallow", "black tern", "german shepherd", "pomeranian", "yellow iris", "blanket flower")
"""Targets of FADE (arXiv 2503.19783) that are none of the challenge's, and turn up in its adversarial prompts."""


def target(name: str) -> Target | None:
    """Return the target of this name in any of its spellings, None where there is none."""
    key = _key(name)
    return next((t for t in TARGETS if key in map(_key, (t.name, *t.aliases))), None)


def stem(word: str) -> str:
    """Return what is left of an English word without its ending, roughly: "dancing", "danced", "dances" -> "danc"."""
    word = word.casefold()
    for ending in ("ings", "ing", "ers", "ed", "er", "es", "ie", "y", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return [w.strip("'_") for w in re.findall(r"[^\W\d]+(?:'[^\W\d]+)*", text.casefold())]


def alike(one: str, other: str) -> bool:
    """Return whether two words share a stem, or one begins with the other: rain and rainfall."""
    a, b = sorted((stem(one), stem(other)), key=len)
    return a == b or (len(a) >= 4 and b.startswith(a) and len(b) - len(a) <= 4)


def names_of(name: str) -> tuple[str, ...]:
    """Return the spellings of a concept: those known of a target, else the name alone."""
    known = target(name)
    return (name,) if known is None else tuple(dict.fromkeys((name, known.name, *known.aliases)))


def told_by(name: str, text: str, *, inside: bool = False) -> list[str]:
    """Return the words of `text` that give the concept away: a word of its name or a giveaway of its own.

    Args:
        name: of the concept.
        text: of the prompt.
        inside: whether a word within another counts too, as in strings that an attack glued together.
    """
    known, said = target(name), words(text)
    giveaways = known.giveaways if known else ()
    parts = {w for spelling in names_of(name) for w in words(spelling) if w not in _SMALL}
    found = [w for w in said if any(alike(w, part) for part in parts)]
    found += [g for g in giveaways if contains(said, g)]
    if inside:
        hidden = [form for part in (*parts, *giveaways) for form in (part, stem(part))]
        found += [w for w in said if any(len(h) >= 4 and h in w for h in hidden)]
    return list(dict.fromkeys(found))


def contains(said: Iterable[str], phrase: str) -> bool:
    """Return whether the words `said` hold the words of `phrase` in a row, whatever their endings."""
    stems, wanted = [stem(w) for w in said], [stem(w) for w in words(phrase)]
    return any(stems[i : i + len(wanted)] == wanted for i in range(len(stems) - len(wanted) + 1))


def _key(name: str) -> str:
    return " ".join(name.casefold().split())


_SMALL = frozenset({"van", "the", "of", "and", "with"})
