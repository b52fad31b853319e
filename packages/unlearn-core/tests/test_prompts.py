import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt, PromptSet


def row(id="a", text="a dog", seed=1, group="target", **fields):
    return Prompt(id=id, text=text, seed=seed, group=group, **fields)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
solid = texts.filter(str.strip)
prompts = st.builds(
    Prompt,
    id=solid,
    text=solid,
    seed=st.integers(0, 2**63 - 1),
    group=solid,
    concept=st.none() | solid,
    origin=texts,
)
sets = st.lists(prompts, max_size=6, unique_by=lambda p: p.id).map(
    lambda r: PromptSet(name="s", rows=tuple(r))
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": ""}, "the id of a prompt is not blank"),
        ({"id": 3}, "the id of a prompt is a text, got 3"),
        ({"text": None}, "the text of a prompt is a text, got None"),
        ({"text": "\ud800"}, "half a surrogate pair"),
        ({"group": " "}, "the group of a prompt is not blank"),
        ({"concept": ""}, "the concept of a prompt is not blank"),
        ({"seed": 1.5}, "prompt 'a': the seed is a whole number, got 1.5"),
        ({"seed": "1"}, "the seed is a whole number, got '1'"),
        ({"seed": -1}, "the seed is in [0, 2**63), got -1"),
        ({"seed": 2**63}, "the seed is in [0, 2**63)"),
        ({"seed": True}, "the seed is in [0, 2**63), got True"),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_refused(fields, message):
    with pytest.raises(InvalidInput) as caught:
        row(**fields)
    assert message in str(caught.value)


def test_seeds_of_other_integer_types_become_plain():
    numpy = pytest.importorskip("numpy")
    assert type(row(seed=numpy.int32(3)).seed) is int


PAIR = PromptSet(
    name="pair",
    rows=(
        row(text="a dog", concept="dog"),
        row(id="b", text="ein Käse", seed=2, group="retain", origin="x"),
    ),
)


def test_the_fingerprint_is_what_the_sha256_tool_says():
    # printf '%s' '[{"concept":"dog","group":"target","id":"a","origin":"","seed":1,"text":"a dog"},
    #  {"concept":null,"group":"retain","id":"b","origin":"x","seed":2,"text":"ein Käse"}]' | sha256sum
    assert PAIR.fingerprint == "701417b0d902981a8bbd813dc5978fd947a8631b2c8d6b94f9b568471e71e383"


def test_the_fingerprint_is_of_the_rows_in_order_and_of_nothing_else():
    assert dataclasses.replace(PAIR, name="x", revision="y", dropped=3).fingerprint == PAIR.fingerprint
    assert dataclasses.replace(PAIR, rows=PAIR.rows[::-1]).fingerprint != PAIR.fingerprint
    for field, value in {
        "id": "c", "text": "a d og", "seed": 9, "group": "retain", "concept": None, "origin": "o"
    }.items():  # fmt: skip
        changed = dataclasses.replace(PAIR.rows[0], **{field: value})
        assert dataclasses.replace(PAIR, rows=(changed, PAIR.rows[1])).fingerprint != PAIR.fingerprint, field


@given(sets)
def test_the_fingerprint_is_sha256_of_plain_json(prompts):
    rows = [{k: v for k, v in dataclasses.asdict(p).items() if (k, v) != ("guidance", None)} for p in prompts]
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert prompts.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_select():
    assert [p.id for p in PAIR.select(group="target")] == ["a"]
    assert [p.id for p in PAIR.select(concept="dog")] == ["a"]
    assert [p.id for p in PAIR.select(group="retain", concept="dog")] == []
    assert PAIR.select() == PAIR
    assert PAIR.select(group="retain").name == "pair"


def test_a_set_is_sized_and_iterable():
    assert len(PAIR) == 2
    assert list(PAIR) == list(PAIR.rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row()], "prompt set 's': the id 'a' stands in several rows"),
        ([row(text=" ")], "the row 'a' has no text"),
        (["a dog"], "a row is a Prompt, got str"),
    ],
)
def test_a_set_that_cannot_be_meant_is_refused(rows, message):
    with pytest.raises(InvalidInput) as caught:
        PromptSet(name="s", rows=rows)
    assert message in str(caught.value)


def test_merge_keeps_each_row_once_and_in_order():
    third = row(id="c", text="a cat")
    other = PromptSet(name="other", revision="r2", rows=(third, PAIR.rows[0]))
    merged = PromptSet.merge(PAIR, other, PAIR)
    assert [p.id for p in merged] == ["a", "b", "c"]
    assert merged.name == "pair+other+pair"
    assert merged.revision == "r2"
    assert PromptSet.merge(PAIR, other, name="all").name == "all"
    assert len(PromptSet.merge(name="none")) == 0


def test_merge_refuses_one_id_for_two_rows():
    other = PromptSet(name="other", rows=(row(seed=7, concept="dog"),))
    with pytest.raises(InvalidInput) as caught:
        PromptSet.merge(PAIR, other)
    assert str(caught.value) == (
        "prompt sets 'pair', 'other' disagree on the row 'a': its seed is 1 and 7; "
        "give one of them another id"
    )


@given(sets, sets)
def test_merging_again_adds_nothing(one, two):
    two = PromptSet(name="two", rows=tuple(p for p in two if p.id not in {q.id for q in one}))
    merged = PromptSet.merge(one, two)
    assert merged.rows == one.rows + two.rows
    assert PromptSet.merge(merged, one, two).fingerprint == merged.fingerprint


GUARDED = row(id="g", text="nsfw, teen")


def test_guarded_rows_never_get_in_and_are_counted():
    guarded = PromptSet(name="s", rows=[row(), GUARDED, row(id="g2", text="teen", concept="nudity")])
    assert [p.id for p in guarded] == ["a"]
    assert guarded.dropped == 2
    assert guarded.fingerprint == PromptSet(name="clean", rows=[row()]).fingerprint
    assert guarded.select(group="retain").dropped == 2
    again = dataclasses.replace(guarded, rows=(GUARDED,))
    assert (len(again), again.dropped) == (0, 3)
    assert PromptSet.merge(guarded, PromptSet(name="more", rows=(row(id="z"), GUARDED))).dropped == 3


@pytest.mark.parametrize(
    "group", ["target", "retain", "adjacent", "indirect", "adversarial", "quality", "other"]
)
def test_the_guard_stands_before_every_group(group):
    assert row(text="nsfw, teen", group=group).refused


def test_where_a_row_aims_at_its_concept_the_concept_counts():
    for group in ("target", "indirect", "adversarial", "unsafe"):
        assert row(text="a teen", group=group, concept="nudity").refused
    for group in ("retain", "adjacent", "quality"):
        assert not row(text="a teen", group=group, concept="nudity").refused
    assert not row(text="a statue", group="target", concept="nudity").refused


def test_a_row_may_state_its_own_guidance(tmp_path):
    rows = (row("a", guidance=7), row("b"))
    assert "guidance" not in rows[1].to_mapping()
    assert PromptSet(name="p", rows=rows[1:]).fingerprint == PromptSet(name="p", rows=(row("b"),)).fingerprint
    for name in ("rows.csv", "rows.jsonl"):
        PromptSet(name="p", rows=rows).save(tmp_path / name)
        assert [row.guidance for row in PromptSet.load(tmp_path / name)] == [7.0, None]
    for wrong in (-1, "much", float("nan"), True):
        with pytest.raises(InvalidInput, match="guidance scale"):
            row("a", guidance=wrong)
