import re

import pytest

from pocket_sd import words
from pocket_sd.words import FAMILIES, NEIGHBOURS, OBJECTS, STYLES, WORDS, article, caption


def test_every_object_and_style_has_neighbours_that_exist():
    assert set(NEIGHBOURS) == {*OBJECTS, *STYLES}
    for name, (anchor, *near) in NEIGHBOURS.items():
        known = {*STYLES, words.PLAIN} if name in STYLES else set(OBJECTS)
        assert {anchor, *near} <= known
        assert name not in (anchor, *near)


def test_no_word_stands_for_two_things():
    said = [w for name in OBJECTS for w in (name, *WORDS[name].same, *WORDS[name].other)]
    said += [*STYLES, *STYLES.values()]
    assert len(said) == len(set(said))


def test_a_description_names_neither_its_object_nor_another():
    said = {w: name for name in OBJECTS for w in (name, *WORDS[name].same, *WORDS[name].other)}
    for name, entry in WORDS.items():
        named = set(re.findall(r"\w+", entry.description)) & set(said)
        assert not named, f"{name}: {named}"


def test_a_weapon_becomes_something_harmless():
    assert not {NEIGHBOURS[name][0] for name in FAMILIES["weapon"]} & set(FAMILIES["weapon"])


@pytest.mark.parametrize(
    ("noun", "with_article"),
    [
        ("dog", "a dog"),
        ("apple", "an apple"),
        ("grapes", "grapes"),
        ("the king of animals", "the king of animals"),
    ],
)
def test_articles(noun, with_article):
    assert article(noun) == with_article


def test_captions():
    assert caption("dog", "sketch", "blue") == "a dog, sketch style, blue background"
    assert caption("owl") == "an owl"
