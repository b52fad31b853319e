import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pocket_sd
from pocket_sd import prompt_sets
from pocket_sd.words import FAMILIES, OBJECTS, OWN_BACKGROUND, STYLES, WORDS
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import PromptSet

NAMES = [c.name for c in pocket_sd.concepts()]
names = st.sampled_from(NAMES)
groups = st.sampled_from(prompt_sets.GROUPS)


def test_there_are_forty_objects_seven_styles_and_the_unsafe_one():
    kinds = [c.kind for c in pocket_sd.concepts()]
    assert (kinds.count("object"), kinds.count("style"), kinds.count("unsafe")) == (40, 7, 1)
    assert len(NAMES) == len(set(NAMES))


@given(groups, names, st.integers(1, 60))
def test_a_longer_set_begins_with_the_shorter_one(group, concept, n):
    shorter, longer = (pocket_sd.prompts(group, concept, n=k) for k in (n, n + 7))
    assert len(shorter) == n
    assert longer.rows[:n] == shorter.rows


@given(names)
def test_target_prompts_name_the_concept_and_indirect_ones_never_do(concept):
    own = set(pocket_sd.members(concept))
    for row in pocket_sd.prompts("target", concept):
        assert own & set(re.findall(r"\w+", row.text))
    for row in pocket_sd.prompts("indirect", concept):
        assert concept not in re.findall(r"\w+", row.text)


@given(names)
def test_the_sets_of_a_concept_part_the_concepts_of_its_kind(concept):
    seen = [{row.concept for row in pocket_sd.prompts(g, concept)} for g in ("target", "adjacent", "retain")]
    if concept == "weapon":
        assert seen[0] == set(FAMILIES["weapon"])
        return
    kind = set(STYLES) if concept in STYLES else set(OBJECTS)
    assert kind <= set.union(*seen)
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


@given(st.lists(names, min_size=2, max_size=4, unique=True))
def test_the_sets_of_several_concepts_merge(concepts):
    sets = [pocket_sd.prompts(g, c) for c in concepts for g in prompt_sets.GROUPS]
    merged = PromptSet.merge(*sets)
    assert len({row.id for row in merged}) == len(merged)


@given(names)
def test_what_is_forgotten_is_in_no_quality_caption(concept):
    for row in pocket_sd.prompts("quality", concept):
        assert not set(pocket_sd.members(concept)) & set(re.findall(r"\w+", row.text))


def test_no_caption_names_a_background_in_a_style_that_has_its_own():
    for group in prompt_sets.GROUPS:
        for row in pocket_sd.prompts(group, "dog", n=200):
            if any(f"{style} style" in row.text for style in OWN_BACKGROUND):
                assert "background" not in row.text


def test_sets_survive_a_file(tmp_path):
    rows = pocket_sd.prompts("indirect", "dog")
    rows.save(tmp_path / "prompts.csv")
    assert PromptSet.load(tmp_path / "prompts.csv").fingerprint == rows.fingerprint


@given(st.none() | names, st.integers(1, 80))
def test_the_gold_answers_are_what_the_caption_says(concept, n):
    texts = {row.id: row.text for row in pocket_sd.prompts("quality", concept, n=n)}
    asked = pocket_sd.questions(concept, n=n)
    assert {q.prompt for q in asked} == set(texts)
    for question in asked:
        assert question.answer in question.choices
        said = question.answer in re.findall(r"\w+", texts[question.prompt])
        assert said or (question.kind == "style" and question.answer == "emoji")


@pytest.mark.parametrize("concept", ["dog", "sketch", "weapon"])
def test_pairs_differ_in_the_concept_alone(concept):
    words = set(pocket_sd.members(concept))
    found = pocket_sd.pairs(concept)
    assert len(found) == 24
    for one, other in found:
        assert words & set(re.findall(r"\w+", one))
        assert not words & set(re.findall(r"\w+", other))


def test_the_challenge_has_a_row_for_every_concept():
    table = pocket_sd.challenge()
    assert [row["concept_name"] for row in table] == [n for n in NAMES if n != "weapon"]
    for row in table:
        name = row["concept_name"]
        banned = {
            name,
            STYLES.get(name, name),
            *(WORDS[name].same + WORDS[name].other if name in WORDS else ()),
        }
        assert name in row["direct_prompt"]
        for column in ("indirect_prompt", "adversarial_prompt"):
            assert name not in re.findall(r"\w+", row[column])
        assert not banned & set(re.findall(r"\w+", row["adversarial_prompt"]))


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: pocket_sd.prompts("targets", "dog"), "target"),
        (lambda: pocket_sd.prompts("target", "dgo"), "dog"),
        (lambda: pocket_sd.prompts("target"), "concept='dog'"),
        (lambda: pocket_sd.prompts("target", "dog", n=0), "at least 1"),
        (lambda: pocket_sd.concept("nudity"), "pocket-sd"),
        (lambda: pocket_sd.pairs("sketchy"), "sketch"),
        (lambda: pocket_sd.path("cat"), "--without cat"),
    ],
)
def test_mistakes_are_answered_with_what_would_be_right(call, hint):
    with pytest.raises(InvalidInput, match=re.escape(hint)):
        call()
