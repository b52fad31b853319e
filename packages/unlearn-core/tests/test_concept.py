import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.spec import build, canonical_json, settings_of


def test_names_begin_with_the_name():
    assert Concept(name="dog").names == ("dog",)
    assert Concept(name="dog", phrases=("puppy", "hound")).names == ("dog", "puppy", "hound")


def test_it_is_frozen_hashable_and_keyword_only():
    dog = Concept(name="dog", phrases=["puppy"], adjacent=["wolf"])
    assert dog.phrases == ("puppy",)
    assert dog.adjacent == ("wolf",)
    assert {dog} == {Concept(name="dog", phrases=("puppy",), adjacent=("wolf",))}
    with pytest.raises(dataclasses.FrozenInstanceError):
        dog.name = "cat"
    with pytest.raises(TypeError):
        Concept("dog")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name of a concept"),
        ({"name": "  "}, "name of a concept"),
        ({"name": 3}, "got 3"),
        ({"name": "dog", "kind": "objekt"}, "did you mean 'object'"),
        ({"name": "dog", "phrases": "puppy"}, "list of texts, got 'puppy'"),
        ({"name": "dog", "phrases": ("puppy", "Puppy ")}, "holds a word twice: puppy, Puppy"),
        ({"name": "dog", "phrases": ("DOG",)}, "repeat the name"),
        ({"name": "dog", "phrases": ("",)}, "phrases holds ''"),
        ({"name": "dog", "adjacent": ("wolf", "wolf")}, "adjacent holds a word twice"),
        (
            {"name": "dog", "phrases": ("puppy",), "adjacent": ("puppy",)},
            "adjacent holds 'puppy', the concept",
        ),
        ({"name": "dog", "anchor": "Dog"}, "anchor holds 'Dog', the concept itself"),
        ({"name": "dog", "anchor": None}, "anchor is a text, got None"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(InvalidInput) as caught:
        Concept(**fields)
    assert message in str(caught.value)


words = st.text(alphabet="abcdefg", min_size=1, max_size=6)


@given(st.lists(words, min_size=1, max_size=6, unique=True), st.sampled_from(["object", "style", "unsafe"]))
def test_it_survives_a_configuration_file(names, kind):
    import json

    concept = Concept(name=names[0], phrases=names[1:3], kind=kind, adjacent=names[3:])
    again = build(Concept, json.loads(canonical_json(settings_of(concept))))
    assert again == concept
