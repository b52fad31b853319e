"""I2P from a table written here, with harmless texts; the guard is tested with bare words."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.prompts import PromptSet
from unlearn_metrics import i2p
from unlearn_metrics.i2p import category_of, load_i2p

COLUMNS = [
    "prompt",
    "categories",
    "hard",
    "inappropriate_percentage",
    "nudity_percentage",
    "sd_seed",
    "sd_guidance_scale",
]
ROWS = [
    ("a statue", "sexual", 0, 10.0, 60.0, 11, 7),
    ("a storm", "violence", 1, 90.0, 0.0, 12, 7.5),
    ("a knight, a dragon", "harassment, violence", 0, 20.0, 0.0, 13, 9),
    ("a painting", "sexual, shocking", 1, 50.0, 10.0, 14, 7),
    (" ", "sexual", 1, 50.0, 60.0, 15, 7),
    ("a statue", "sexual", 1, 10.0, 90.0, 4294967295, 20),
]  # fmt: skip


@pytest.fixture
def table(tmp_path):
    def write(rows=ROWS, columns=COLUMNS, name="i2p_benchmark.csv"):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])
        return path

    return write


def test_a_row_keeps_its_own_seed_and_guidance(table):
    prompts = load_i2p(table())
    assert [(p.seed, p.guidance) for p in prompts] == [(11, 7), (12, 7.5), (13, 9), (14, 7), (4294967295, 20)]
    assert {p.group for p in prompts} == {"i2p"}
    assert prompts.dropped == 1  # the blank one


def test_duplicates_stay_rows(table):
    prompts = load_i2p(table(), category="sexual")
    assert [p.text for p in prompts] == ["a statue", "a painting", "a statue"]
    assert [p.id for p in prompts] == ["i2p-0000", "i2p-0003", "i2p-0005"]


def test_a_label_after_a_comma_and_a_space_counts(table):
    """Ring-A-Bell's own filter misses these: 250 rows of violence instead of 256."""
    assert [p.text for p in load_i2p(table(), category="violence")] == ["a storm", "a knight, a dragon"]
    assert [p.text for p in load_i2p(table(), category="shocking")] == ["a painting"]


def test_the_copies_in_paper_repositories_are_read_too(table):
    other = [*COLUMNS[:5], "evaluation_seed", "evaluation_guidance", "case_number"]
    path = table([(*row, 100 + i) for i, row in enumerate(ROWS)], other, "unsafe-prompts4703.csv")
    ours, theirs = load_i2p(table()), load_i2p(path)
    assert [(p.text, p.seed, p.guidance) for p in theirs] == [(p.text, p.seed, p.guidance) for p in ours]
    assert [p.id for p in theirs][:2] == ["i2p-0100", "i2p-0101"]


def test_filters(table):
    path = table()
    assert [p.id[-1] for p in load_i2p(path, hard_only=True)] == ["1", "3", "5"]
    assert [p.id[-1] for p in load_i2p(path, min_nudity=60)] == ["0", "5"]
    assert [p.id[-1] for p in load_i2p(path, category="sexual", min_nudity=10, hard_only=True)] == ["3", "5"]
    first = load_i2p(path, category="sexual", limit=2)
    assert [p.id[-1] for p in first] == ["0", "3"] and first.dropped == 1


def test_the_concept_of_the_rows_chooses_the_category(table):
    nudity = load_i2p(table(), concept="nudity")
    assert {p.concept for p in nudity} == {"nudity"} and len(nudity) == 3
    assert {p.concept for p in load_i2p(table(), category="violence")} == {"violence"}
    assert {p.concept for p in load_i2p(table())} == {None}
    assert len(load_i2p(table(), concept="nudity", category="shocking")) == 1


@pytest.mark.parametrize("concept", ["dog", "van gogh", "sketch", "church"])
def test_it_is_not_defined_for_objects_and_styles(table, concept):
    with pytest.raises(
        InvalidInput, match=f"I2P is not defined for '{concept}'.*own target prompts|target prompts of"
    ):
        load_i2p(table(), concept=concept)


def test_every_category_is_its_own_concept():
    assert {category_of(c) for c in i2p.CATEGORIES} == set(i2p.CATEGORIES)
    assert category_of("Nudity") == "sexual"


@pytest.mark.parametrize(
    ("text", "categories", "nudity", "dropped"),
    [
        ("nsfw, teen", "shocking", 0, 1),  # by its words, whatever its category
        ("teen", "sexual", 0, 1),  # by its category
        ("teen", "shocking, sexual", 0, 1),
        ("teen", "shocking", 0.5, 1),  # by what its pictures showed
        ("teen", "violence", 0, 0),
        ("an adult", "sexual", 90, 0),
    ],
)
def test_sexual_rows_that_mention_a_minor_are_dropped_and_counted(table, text, categories, nudity, dropped):
    prompts = load_i2p(table([("a storm", "hate", 0, 0, 0, 1, 7), (text, categories, 0, 0, nudity, 2, 7)]))
    assert (len(prompts), prompts.dropped) == (2 - dropped, dropped)


def test_a_sexual_concept_counts_as_said(table):
    path = table([("a storm", "shocking", 0, 0, 0, 1, 7), ("teen", "shocking", 0, 0, 0, 2, 7)])
    assert load_i2p(path, category="shocking").dropped == 0
    assert load_i2p(path, category="shocking", concept="nudity").dropped == 1


def test_the_guard_has_no_switch(table):
    """Also not where nothing else is asked for, and the rows do not come back when they are saved and loaded."""
    path = table([("nsfw, teen", "sexual", 1, 99, 99, 1, 7), ("a statue", "sexual", 1, 99, 99, 2, 7)])
    prompts = load_i2p(path, min_nudity=99, hard_only=True, limit=1)
    assert [p.text for p in prompts] == ["a statue"]
    prompts.save(path.with_suffix(".jsonl"))
    assert [p.text for p in PromptSet.load(path.with_suffix(".jsonl"))] == ["a statue"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"category": "sexuall"}, "unknown category of I2P 'sexuall'; did you mean 'sexual'"),
        ({"category": "hate"}, "no row of I2P that fits; 0 were left out"),
        ({"min_nudity": 101}, "0 to 100"),
        ({"min_nudity": float("nan")}, "0 to 100"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_asked_for_is_said(table, options, message):
    with pytest.raises(InvalidInput, match=message):
        load_i2p(table(), **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "hate", 0, 0, "much", 1, 7), "line 2: 'nudity_percentage' is a number, got 'much'"),
        (("a", "hate", 0, 0, 0, "x", 7), "line 2: .*seed is a whole number, got 'x'"),
        (("a", "hate", 0, 0, 0, -1, 7), "line 2: .*seed"),
        (("a", "hate", 0, 0, 0, 1, "x"), "line 2: .*guidance scale is a number from 0, got 'x'"),
    ],
)
def test_a_cell_that_is_no_number_is_said_with_its_line(table, row, message):
    with pytest.raises(InvalidInput, match=message):
        load_i2p(table([row]))


def test_a_table_that_is_not_i2p_is_said(table, tmp_path):
    path = table([("a", "hate", 0, 0, 0, 7)], [c for c in COLUMNS if c != "sd_seed"])
    with pytest.raises(
        InvalidInput, match="a column 'sd_seed' or 'evaluation_seed'; columns found: 'prompt'"
    ):
        load_i2p(path)
    with pytest.raises(InvalidInput, match="a column 'categories'"):
        load_i2p(table([("a",)], ["prompt"]))
    with pytest.raises(Unavailable):
        load_i2p(tmp_path / "none.csv")


def test_a_hub_id_is_fetched_and_its_commit_kept(table, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "unlearn_core.hub.fetch", lambda source: (asked.append(source), (table(), "c0ffee"))[1]
    )
    prompts = load_i2p(concept="nudity", limit=1)
    assert asked == ["AIML-TUDA/i2p"]
    assert (prompts.name, prompts.revision) == ("i2p/sexual", "c0ffee")
    assert prompts.rows[0].origin == "AIML-TUDA/i2p"


@given(st.text(max_size=20))
def test_any_concept_is_answered(concept):
    try:
        assert category_of(concept) in i2p.CATEGORIES
    except InvalidInput as error:
        assert "not defined" in str(error)
