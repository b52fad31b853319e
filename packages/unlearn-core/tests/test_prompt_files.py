import csv
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.errors import InvalidInput, MissingExtra, Unavailable
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.seeds import derive


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file of this name and content, and returns its path."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
nasty = st.sampled_from(
    ['a "quoted", text', "two\nlines", "\r", "a\r\nb", "\ufeffbom", "\u2028", "\0", " pad ", "=1+1"]
)
solid = (texts | nasty).filter(str.strip)
prompts = st.builds(
    Prompt,
    id=solid,
    text=solid,
    seed=st.integers(0, 2**63 - 1),
    group=solid,
    concept=st.none() | solid,
    origin=texts | nasty,
)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@given(rows=st.lists(prompts, min_size=1, max_size=6, unique_by=lambda p: p.id))
def test_save_and_load_are_exact(suffix, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / f"prompts{suffix}"
    saved = PromptSet(name="prompts", rows=tuple(rows))
    saved.save(path)
    loaded = PromptSet.load(path)
    assert loaded == saved
    assert loaded.fingerprint == saved.fingerprint


def test_what_is_saved_is_read_by_the_standard_library(tmp_path):
    row = Prompt(id="a", text='say "hi",\nthen go', seed=3, group="target", concept="dog")
    for suffix in (".csv", ".jsonl"):
        PromptSet(name="s", rows=(row,)).save(tmp_path / f"s{suffix}")
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        (found,) = csv.DictReader(file)
    assert found == {
        "id": "a", "text": row.text, "seed": "3", "group": "target", "concept": "dog", "origin": ""
    }  # fmt: skip
    assert json.loads((tmp_path / "s.jsonl").read_text()) == {**found, "seed": 3}


def test_other_suffixes_are_not_saved(tmp_path):
    with pytest.raises(InvalidInput, match=r"saved as .csv or .jsonl, got '.*s.txt'"):
        PromptSet(name="s", rows=()).save(tmp_path / "s.txt")


def test_a_file_with_a_text_column_is_enough(file):
    path = file("captions.csv", "number,text\n1,a dog\n2,a cat\n")
    loaded = PromptSet.load(path, group="quality", concept="pets", origin="captions")
    assert loaded.name == "captions"
    assert [p.text for p in loaded] == ["a dog", "a cat"]
    assert {(p.group, p.concept, p.origin) for p in loaded} == {("quality", "pets", "captions")}
    assert all(p.seed == derive(0, "prompt", p.id) for p in loaded)
    assert len({p.seed for p in loaded}) == len({p.id for p in loaded}) == 2
    assert PromptSet.load(str(path), group="quality", concept="pets", origin="captions") == loaded


def test_the_id_of_a_row_does_not_depend_on_its_neighbours(file):
    one = PromptSet.load(file("one.csv", "text\na dog\na cat\n"))
    two = PromptSet.load(file("two.jsonl", '{"prompt": "a cat"}\n{"prompt": "a dog"}\n'))
    assert one.rows == two.rows[::-1]


def test_repeated_captions_stay_rows_with_their_own_noise(file):
    loaded = PromptSet.load(file("s.csv", "text\na dog\na dog\n"))
    first, second = loaded
    assert second.id == f"{first.id}-2"
    assert first.seed != second.seed


def test_a_row_is_the_same_from_every_format_and_another_in_every_group(file):
    one = PromptSet.load(file("one.csv", "text,seed\na dog,42\n"))
    two = PromptSet.load(file("two.jsonl", '{"text": "a dog", "seed": 42}\n'))
    assert one.rows == two.rows
    other = PromptSet.load(file("one.csv", "text,seed\na dog,42\n"), group="quality")
    assert len(PromptSet.merge(one, two, other)) == 2


def test_columns_can_be_named(file):
    path = file("i2p.csv", "prompt,sd_seed,categories\na dog,4294967295,shock\na cat,,shock\n")
    loaded = PromptSet.load(path, columns={"seed": "sd_seed", "concept": "categories"})
    assert loaded.rows[0].seed == 4294967295
    assert loaded.rows[0].concept == "shock"
    assert loaded.rows[1].seed == derive(0, "prompt", loaded.rows[1].id)
    assert PromptSet.load(path, columns={"text": "categories", "id": "prompt"}).rows[0].text == "shock"


@pytest.mark.parametrize(
    ("cell", "seed"),
    [("42", 42), ("42.0", 42), (" 42 ", 42), ("9223372036854775807", 2**63 - 1), ("4e3", 4000)],
)
def test_whole_numbers_as_spreadsheets_write_them(file, cell, seed):
    assert PromptSet.load(file("s.csv", f"text,seed\na dog,{cell}\n")).rows[0].seed == seed


def test_a_byte_order_mark_is_no_part_of_a_name(file):
    for name, content in (("s.csv", "text\na dog\n"), ("s.jsonl", '{"text": "a dog"}\n')):
        assert PromptSet.load(file(name, b"\xef\xbb\xbf" + content.encode())).rows[0].text == "a dog"


def test_tabs_crlf_blank_lines_and_numbers_as_ids(file):
    rows = PromptSet.load(file("s.tsv", "id\ttext\r\n\r\n7\ta dog, a cat\r\n\t\r\n")).rows
    assert [(p.id, p.text) for p in rows] == [("7", "a dog, a cat")]
    rows = PromptSet.load(
        file("s.jsonl", ' \r\n{"id": 7, "text": "a\u2028b", "seed": 3.0, "concept": null}')
    ).rows
    assert [(p.id, p.text, p.seed, p.concept) for p in rows] == [("7", "a\u2028b", 3, None)]


@pytest.mark.parametrize(
    ("name", "content", "messages"),
    [
        ("s.csv", "", ["holds no rows"]),
        ("s.csv", "\n\n", ["holds no rows"]),
        ("s.csv", "text\n", ["holds no rows"]),
        ("s.jsonl", "", ["holds no rows"]),
        ("s.csv", "title,caption\nx,y\n", ["line 2", "'text' or 'prompt'", "found: 'title', 'caption'"]),
        ("s.csv", "id;text\n1;x\n", ["line 2", "columns found: 'id;text'"]),
        ("s.jsonl", '{"text": "x"}\n{"txt": "y"}\n', ["line 2", "'text' or 'prompt'", "found: 'txt'"]),
        ("s.csv", b"text\na dog\ncaf\xe9\n", ["line 3", "not UTF-8"]),
        ("s.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', ["line 2", "not UTF-8"]),
        ("s.csv", "text\na dog\n".encode("utf-16"), ["line 1", "not UTF-8"]),
        ("s.csv", 'id,text\n1,"a\nb"\n2,c\n1,d\n', ["line 5", "the id '1'", "line 2"]),
        ("s.jsonl", '{"id":"x","text":"a"}\n\n{"id":"x","text":"b"}', ["line 3", "the id 'x'", "line 1"]),
        ("s.csv", "id,text\n1,a dog, a cat\n", ["line 2", "3 cells under 2 columns", "double quotes"]),
        ("s.csv", "id,text\n1\n", ["line 2", "1 cells under 2 columns"]),
        ("s.csv", 'text\na\n"never closed\nb\n', ["line 3", "unexpected end of data"]),
        ("s.csv", "text,text\na,b\n", ["line 1", "two columns are named 'text'"]),
        ("s.csv", "id,text\n1,a\n2,\n", ["line 3", "the text is empty"]),
        ("s.csv", "text,seed\na,-1\n", ["line 2", "the seed is in [0, 2**63), got -1"]),
        ("s.csv", "text,seed\na,soon\n", ["line 2", "the seed is a whole number, got 'soon'"]),
        ("s.csv", f"text,seed\na,{'9' * 5000}\n", ["line 2", "the seed is in [0, 2**63)"]),
        ("s.csv", "text,seed\na,1e300\n", ["line 2", "the seed is a whole number"]),
        ("s.jsonl", '{"text": 3}\n', ["line 1", "the text of a prompt is a text, got 3"]),
        ("s.jsonl", '{"text": "a", "seed": true}\n', ["line 1", "got True"]),
        ("s.jsonl", '{"text": "\\ud800"}\n', ["line 1", "half a surrogate pair"]),
        ("s.jsonl", "[1]\n", ["line 1", "one JSON object, got list"]),
        ("s.jsonl", '{"text": "a"\n', ["line 1", "not JSON"]),
        ("s.jsonl", "[" * 100_000, ["line 1", "not JSON"]),
        ("s.txt", "text\na\n", ["ends in .csv, .tsv, .jsonl, .parquet, got '.txt'"]),
    ],
)
def test_a_bad_file_is_one_clear_message(file, name, content, messages):
    with pytest.raises(InvalidInput) as caught:
        PromptSet.load(file(name, content))
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_the_columns_argument_is_checked(file):
    path = file("s.csv", "prompt\na dog\n")
    with pytest.raises(InvalidInput, match="unknown field 'sed'; did you mean 'seed'"):
        PromptSet.load(path, columns={"sed": "x"})
    with pytest.raises(
        InvalidInput, match="no column 'sd_seed' for the seed of a prompt; columns found: 'prompt'"
    ):
        PromptSet.load(path, columns={"seed": "sd_seed"})


def test_no_file_is_unavailable(tmp_path):
    for source in (tmp_path / "none.csv", "none.csv", "data/none.csv", "../none"):
        with pytest.raises((Unavailable, InvalidInput), match="none"):
            PromptSet.load(source)
    with pytest.raises(Unavailable, match="No such file"):
        PromptSet.load("data/none.csv")


def test_a_folder_with_one_table_is_that_table(file, tmp_path):
    file("README.md", "x")
    with pytest.raises(InvalidInput, match="holds no table"):
        PromptSet.load(tmp_path)
    file("a.csv", "text\na dog\n")
    assert PromptSet.load(tmp_path).rows[0].text == "a dog"
    file("b.jsonl", "")
    with pytest.raises(InvalidInput, match=r"holds 2 tables; say which: a.csv, b.jsonl"):
        PromptSet.load(tmp_path)


def test_guarded_rows_are_dropped_from_every_format(file):
    for path in (
        file("s.csv", "text,group\na dog,retain\nnsfw teen,retain\n"),
        file("s.jsonl", '{"text": "a dog"}\n{"text": "nsfw teen"}\n'),
    ):
        loaded = PromptSet.load(path)
        assert [p.text for p in loaded] == ["a dog"]
        assert loaded.dropped == 1


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table(
        {
            "prompt": ["a dog", 'a "cat",\n'],
            "seed": arrow.array([3, None], arrow.int64()),
            "image": arrow.array([b"x", b"y"], arrow.binary()),
            "tags": [["a"], ["b"]],
        }
    )
    parquet.write_table(table, tmp_path / "s.parquet")
    loaded = PromptSet.load(tmp_path / "s.parquet")
    assert [p.text for p in loaded] == ["a dog", 'a "cat",\n']
    assert [p.seed for p in loaded] == [3, derive(0, "prompt", loaded.rows[1].id)]
    with pytest.raises(InvalidInput, match=r"row 1: no column 'x' .* found: 'prompt', 'seed'"):
        PromptSet.load(tmp_path / "s.parquet", columns={"id": "x"})
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(InvalidInput, match="is not Parquet"):
        PromptSet.load(tmp_path / "bad.parquet")
    with pytest.raises(Unavailable, match="No such file"):
        PromptSet.load(tmp_path / "none.parquet")


def test_parquet_without_pyarrow_names_the_command(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra) as caught:
        PromptSet.load(file("s.parquet", b"PAR1"))
    assert str(caught.value) == 'this needs pyarrow: pip install "unlearn-core[parquet]"'
