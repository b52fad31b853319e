import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.samples import SampleSet, _file_name


def row(id="a", text="a dog", seed=1, group="target", **fields):
    return Prompt(id=id, text=text, seed=seed, group=group, **fields)


ROWS = (row(), row(id="b", text="a cat", group="retain", concept="cat"), row(id="C d", text="a cow", seed=3))
PROMPTS = PromptSet(name="s", rows=ROWS)


@pytest.fixture
def full(tmp_path, png):
    """Return a folder that holds the three rows."""
    samples = SampleSet(tmp_path / "run")
    for n, prompt in enumerate(PROMPTS):
        samples.add(prompt, png(n))
    return tmp_path / "run"


def metadata(folder):
    return folder / "metadata.jsonl"


def ids(samples):
    return [s.prompt.id for s in samples]


def test_what_is_added_comes_back(full, png):
    samples = SampleSet(full)
    assert len(samples) == 3
    assert [s.prompt for s in samples] == list(ROWS)
    for n, sample in enumerate(samples):
        assert sample.path.read_bytes() == png(n)
        assert sample.sha256 == hashlib.sha256(png(n)).hexdigest()
        assert sample.path.parent == full
    assert samples.missing(PROMPTS) == ()
    assert samples.verify() == ()
    assert samples.dropped == 0


def test_the_folder_is_an_imagefolder(full):
    lines = [json.loads(line) for line in metadata(full).read_text().splitlines()]
    assert lines[0] == {
        "file_name": "a.png", "id": "a", "text": "a dog", "seed": 1, "group": "target", "concept": None,
        "origin": "", "sha256": lines[0]["sha256"],
    }  # fmt: skip
    names = {p.name for p in full.iterdir()}
    assert names == {"metadata.jsonl", *(line["file_name"] for line in lines)}


def test_missing_and_resuming(tmp_path, png):
    folder = tmp_path / "deep" / "run"
    samples = SampleSet(folder)
    assert len(samples) == 0
    assert samples.missing(PROMPTS) == ROWS
    assert not folder.exists()  # asking makes nothing
    samples.add(ROWS[1], png())
    assert samples.missing(PROMPTS) == SampleSet(folder).missing(PROMPTS) == (ROWS[0], ROWS[2])


def test_select_is_a_view(full, png):
    samples = SampleSet(full)
    assert ids(samples.select(group="retain")) == ["b"]
    assert ids(samples.select(concept="cat")) == ["b"]
    assert ids(samples.select(group="target", concept="cat")) == []
    assert len(samples.select()) == 3
    with pytest.raises(InvalidInput, match="it is a selection of a larger set"):
        samples.select(group="retain").add(row(id="z"), png())
    assert len(samples) == 3


@pytest.mark.parametrize("cut", [1, 10, 60, -2])
def test_half_a_last_line_is_not_done_and_is_mended(full, png, cut):
    whole = metadata(full).read_bytes()
    *lines, last = whole.splitlines(keepends=True)
    metadata(full).write_bytes(b"".join(lines) + last[:cut])
    samples = SampleSet(full)
    assert ids(samples) == ["a", "b"]
    assert samples.missing(PROMPTS) == (ROWS[2],)
    assert metadata(full).read_bytes().endswith(last[:cut])  # reading mends nothing: the writer may be alive
    samples.add(ROWS[2], png(2))
    assert metadata(full).read_bytes() == whole


def test_a_line_cut_within_a_letter_or_filled_with_zeros_is_recovered(full, png):
    whole = metadata(full).read_bytes()
    for tail in ('{"file_name": "ä'.encode()[:-1], b"\0" * 64):
        metadata(full).write_bytes(whole + tail)
        samples = SampleSet(full)
        assert len(samples) == 3
        samples.add(row(id="new"), png(9))
        assert ids(SampleSet(full)) == ["a", "b", "C d", "new"]
        metadata(full).write_bytes(whole)


@settings(max_examples=30)
@given(cut=st.integers(0, 10_000))
def test_a_kill_at_any_byte_loses_the_last_line_at_most(cut, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    image = b"\x89PNG\r\n\x1a\n"
    samples = SampleSet(folder)
    for prompt in ROWS:
        samples.add(prompt, image + prompt.id.encode())
    whole = metadata(folder).read_bytes()
    cut %= len(whole) + 1
    metadata(folder).write_bytes(whole[:cut])
    again = SampleSet(folder)
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    assert len(again) == sum(cut >= end for end in ends)  # a line is whole with or without its \n
    for prompt in again.missing(PROMPTS):
        again.add(prompt, image + prompt.id.encode())
    # With every line whole but for the last \n there is nothing to add, and nothing is written.
    assert metadata(folder).read_bytes().removesuffix(b"\n") == whole.removesuffix(b"\n")
    assert SampleSet(folder).verify() == ()


def test_an_image_without_a_line_and_a_line_without_an_image_are_not_done(full, png):
    lines = metadata(full).read_bytes().splitlines(keepends=True)
    metadata(full).write_bytes(b"".join(lines[:2]))  # C d: image without line
    (full / "a.png").unlink()  # a: line without image
    samples = SampleSet(full)
    assert ids(samples) == ["b"]
    assert samples.missing(PROMPTS) == (ROWS[0], ROWS[2])
    samples.add(ROWS[0], png(7))
    samples.add(ROWS[2], png(8))
    again = SampleSet(full)
    assert sorted(ids(again)) == ["C d", "a", "b"]
    assert again.verify() == ()
    assert {s.prompt.id: s.path.read_bytes() for s in again}["a"] == png(7)


def test_an_image_that_vanishes_is_missing_at_once(full):
    samples = SampleSet(full)
    (full / "a.png").unlink()
    assert samples.missing(PROMPTS) == (ROWS[0],)
    (full / "b.png").write_bytes(b"")
    assert samples.missing(PROMPTS) == ROWS[:2]


KILLED = """
import os, sys
from pathlib import Path
from unlearn_core import atomic
from unlearn_core.prompts import Prompt
from unlearn_core.samples import SampleSet
kind, folder = sys.argv[1:]
samples = SampleSet(folder)
png = b"\\x89PNG\\r\\n\\x1a\\n"
samples.add(Prompt(id="a", text="a dog", seed=1, group="target"), png + b"a") if kind == "second" else None
real = atomic.replacing
def replacing(path):
    class Killer:
        def __enter__(self):
            self.inner = real(path)
            return self.inner.__enter__()
        def __exit__(self, *error):
            if kind == "image":
                os._exit(9)
            self.inner.__exit__(*error)
            os._exit(9)
    return Killer()
atomic.replacing = replacing
samples.add(Prompt(id="b", text="a cat", seed=1, group="target"), png + b"b")
"""


@pytest.mark.parametrize(("kind", "done"), [("image", []), ("first", []), ("second", ["a"])])
def test_a_process_killed_between_image_and_line_can_go_on(tmp_path, png, kind, done):
    folder = tmp_path / "run"
    assert subprocess.run([sys.executable, "-c", KILLED, kind, str(folder)]).returncode == 9
    samples = SampleSet(folder)
    assert ids(samples) == done  # not even the first image is taken for one of a bare folder
    cat = row(id="b", text="a cat")
    assert samples.missing([cat]) == (cat,)
    samples.add(cat, png(5))
    assert ids(SampleSet(folder)) == [*done, "b"]
    assert SampleSet(folder).verify() == ()


def test_adding_the_same_again_is_no_harm_and_another_image_is_refused(full, png):
    before = metadata(full).read_bytes()
    samples = SampleSet(full)
    assert samples.add(ROWS[0], png(0)).sha256 == hashlib.sha256(png(0)).hexdigest()
    with pytest.raises(InvalidInput, match="already holds another image of the prompt 'a'"):
        samples.add(ROWS[0], png(99))
    assert metadata(full).read_bytes() == before
    assert (full / "a.png").read_bytes() == png(0)


@pytest.mark.parametrize(("field", "value"), [("text", "a wolf"), ("seed", 77)])
def test_an_id_stands_for_one_picture(full, png, field, value):
    other = dataclasses.replace(ROWS[0], **{field: value})
    samples = SampleSet(full)
    with pytest.raises(InvalidInput, match=f"the image of the prompt 'a' was drawn with the {field}"):
        samples.missing([other])
    with pytest.raises(InvalidInput, match="use another folder"):
        samples.add(other, png(0))


def test_a_group_does_not_change_a_picture(full):
    assert SampleSet(full).missing([dataclasses.replace(ROWS[0], group="quality")]) == ()


def test_verify_names_damaged_images_and_add_mends_them(full, png):
    (full / "b.png").write_bytes(png(200))
    samples = SampleSet(full)
    assert [s.prompt.id for s in samples.verify()] == ["b"]
    samples.add(ROWS[1], png(201))
    assert SampleSet(full).verify() == ()
    assert (full / "b.png").read_bytes() == png(201)
    (full / "b.png").unlink()
    assert [s.prompt.id for s in samples.verify()] == ["b"]


def test_a_damaged_image_of_another_tool_is_mended_where_it_lies(foreign, png):
    folder = foreign({"file_name": "sub/y.png", "id": "y", "sha256": "0" * 64})
    SampleSet(folder).add(row(id="y"), png(50))
    samples = SampleSet(folder)
    assert (ids(samples), samples.verify()) == (["y"], ())
    assert (folder / "sub" / "y.png").read_bytes() == png(50)


def test_two_writers_at_one_folder(full, png):
    one, two = SampleSet(full), SampleSet(full)
    one.add(row(id="x"), png(1))
    two.add(row(id="y"), png(2))
    assert two.missing([row(id="x")]) == ()  # learnt when it took the lock
    two.add(row(id="x"), png(1))
    one.add(row(id="z"), png(3))
    assert ids(one) == ids(SampleSet(full)) == ["a", "b", "C d", "x", "y", "z"]


def test_only_png_is_added(tmp_path):
    for data in (b"", b"\xff\xd8\xff\xe0 JPEG", b"GIF89a"):
        with pytest.raises(InvalidInput, match="is no PNG"):
            SampleSet(tmp_path / "run").add(row(), data)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_what_was_there(full, png, monkeypatch):
    before = sorted(p.name for p in full.iterdir()), metadata(full).read_bytes()
    samples = SampleSet(full)
    with monkeypatch.context() as patch:

        def fail(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable, match="the disk is full"):
            samples.add(row(id="new"), png(9))
    assert (sorted(p.name for p in full.iterdir()), metadata(full).read_bytes()) == before
    samples.add(row(id="new"), png(9))
    assert SampleSet(full).verify() == ()


def test_guarded_rows_are_neither_read_nor_stored(full, png):
    guarded = row(id="g", text="nsfw, teen")
    with pytest.raises(InvalidInput, match="mentions a minor"):
        SampleSet(full).add(guarded, png())
    (full / "g.png").write_bytes(png())
    with metadata(full).open("a") as file:
        file.write(json.dumps({"file_name": "g.png", "text": "nsfw, teen"}))
    samples = SampleSet(full)
    assert ids(samples) == ["a", "b", "C d"]
    assert samples.dropped == 1
    samples.add(row(id="new"), png(9))
    assert samples.dropped == SampleSet(full).dropped == 1


@pytest.fixture
def foreign(tmp_path, png):
    """Return a function that makes a folder with these lines and images."""

    def make(*lines, images=("x.png", "sub/y.png"), end="\n"):
        for name in images:
            path = tmp_path / "foreign" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(len(name)))
        if lines:
            texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
            metadata(tmp_path / "foreign").write_text("\n".join(texts) + end)
        return tmp_path / "foreign"

    return make


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("column", ["text", "prompt"])
def test_a_folder_of_another_tool_loads(foreign, png, end, column):
    folder = foreign(
        {"file_name": "x.png", column: "a dog"}, {"file_name": "sub/y.png", "extra": [1], "id": ""}, end=end
    )
    samples = SampleSet(folder, group="quality", concept="dog")
    assert [(s.prompt.id, s.prompt.text, s.prompt.group) for s in samples] == [
        ("x", "a dog", "quality"),
        ("sub/y", "", "quality"),
    ]
    assert {s.prompt.concept for s in samples} == {"dog"}
    assert [s.sha256 for s in samples] == [hashlib.sha256(s.path.read_bytes()).hexdigest() for s in samples]
    assert samples.verify() == ()
    assert samples.missing([row(id="x", seed=123)]) == ()  # it states no seed, so any may have been it
    with pytest.raises(InvalidInput, match="drawn with the text 'a dog', not 'a cat'"):
        samples.missing([row(id="x", text="a cat")])
    samples.add(row(id="new"), png(9))
    assert ids(SampleSet(folder)) == ["x", "sub/y", "new"]


def test_a_bare_folder_of_images_loads(foreign, png):
    folder = foreign(images=("b.jpg", "a.png", "c.JPEG", "notes.txt", ".hidden/z.png", "sub/d.png"))
    samples = SampleSet(folder)
    assert [(s.prompt.id, s.prompt.text, s.prompt.group) for s in samples] == [
        ("a", "", "target"),
        ("b", "", "target"),
        ("c", "", "target"),
        ("sub/d", "", "target"),
    ]
    assert samples.missing([row(), row(id="z")]) == (row(id="z"),)
    with pytest.raises(InvalidInput, match=r"another tool made it, without metadata.jsonl"):
        samples.add(row(id="new"), png())


@pytest.mark.parametrize("name", ["metadata.csv", "train/metadata.jsonl"])
def test_captions_in_a_place_not_read_are_not_ignored(foreign, name):
    with pytest.raises(InvalidInput, match=f"is described by '{name}', which is not read"):
        SampleSet(foreign(images=("a.png", name)))


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x.png", "sub/../../x.png", "C:/x.png", "..\\x.png", "\\\\host\\x.png", "C:x.png"],
)
def test_a_path_cannot_leave_the_folder(foreign, name):
    with pytest.raises(InvalidInput, match=r"line 2: .* leads out of the folder"):
        SampleSet(foreign({"file_name": "x.png"}, {"file_name": name}))


@pytest.mark.parametrize("lines", [True, False])
def test_a_link_cannot_leave_the_folder(foreign, tmp_path, png, lines):
    (tmp_path / "secret.png").write_bytes(png())
    folder = foreign(*([{"file_name": "link.png"}] if lines else []))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InvalidInput, match=r"'link.png' leads out of the folder"):
        SampleSet(folder)


def test_a_folder_behind_a_link_is_fine(full, tmp_path):
    (tmp_path / "link").symlink_to(full)
    assert len(SampleSet(tmp_path / "link")) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "line 1: each line is one JSON object"),
        ({"text": "a"}, "line 1: 'file_name' is the path of an image"),
        ({"file_name": 3}, "got 3"),
        ({"file_name": "."}, "got '.'"),
        ({"file_name": "a\0.png"}, "is no path of a file"),
        ({"file_name": "x.png", "seed": -3}, "line 1: prompt 'x': the seed is in"),
        ({"file_name": "x.png", "text": 7}, "line 1: the text of a prompt is a text, got 7"),
        ({"file_name": "x.png", "sha256": "abc"}, "line 1: 'sha256' is 64 hex digits, got 'abc'"),
    ],
)
def test_a_bad_line_in_the_middle_is_one_message(foreign, line, message):
    with pytest.raises(InvalidInput) as caught:
        SampleSet(foreign(line, {"file_name": "sub/y.png"}))
    assert message in str(caught.value)


def test_two_images_under_one_id_are_refused(foreign):
    with pytest.raises(InvalidInput, match=r"line 2: the id 'same' is that of 'x.png' already"):
        SampleSet(foreign({"file_name": "x.png", "id": "same"}, {"file_name": "sub/y.png", "id": "same"}))


def test_an_image_of_another_tool_is_never_overwritten(foreign, png):
    folder = foreign({"file_name": "x.png", "id": "other", "text": "a dog"})
    before = (folder / "x.png").read_bytes()
    with pytest.raises(InvalidInput, match="is the image of another prompt"):
        SampleSet(folder).add(row(id="x"), png(99))
    assert (folder / "x.png").read_bytes() == before


def test_existing_wants_samples(tmp_path, full):
    assert len(SampleSet.existing(full)) == 3
    with pytest.raises(Unavailable, match="there is no folder"):
        SampleSet.existing(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="holds no images"):
        SampleSet.existing(tmp_path / "empty")
    with pytest.raises(InvalidInput, match="is a file"):
        SampleSet(metadata(full))


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).filter(str.strip)


@given(names | st.text("abcdef0123456789-", min_size=1, max_size=40), names)
def test_file_names_are_safe_and_differ_even_without_case(one, other):
    for prompt_id in (one, other):
        name = _file_name(prompt_id)
        assert name.endswith(".png")
        assert name == os.path.basename(name) == name.lower()  # noqa: PTH119
        assert name.isascii()
        assert not name.startswith(".")
        assert len(name) < 100
    assert (_file_name(one) == _file_name(other)) == (one == other)


def test_an_id_that_looks_like_a_hashed_name_does_not_take_its_place():
    hashed = _file_name("A cat").removesuffix(".png")
    assert hashed.startswith("a-cat-")
    assert _file_name(hashed) != f"{hashed}.png"
    assert _file_name("i2p-0042") == "i2p-0042.png"


def test_file_names_of_hostile_ids_stay_inside(tmp_path, png):
    hostile = ["../../x", "/etc/x", "..", ".", "a/b", "A", "a" * 5000, "é", "con:", "x\ny", "metadata.jsonl"]
    samples = SampleSet(tmp_path / "run")
    for n, prompt_id in enumerate(hostile):
        samples.add(row(id=prompt_id), png(n))
    again = SampleSet(tmp_path / "run")
    assert ids(again) == hostile
    assert len(list((tmp_path / "run").iterdir())) == len(hostile) + 1
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_the_lines_may_stand_in_a_table_elsewhere(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + name.encode())
    table = tmp_path / "rows.csv"
    table.write_text("file_name,prompt,group,seed\na.png,a dog,target,7\nb.png,a cat,,\n")
    samples = SampleSet.existing(folder, group="retain", table=table)
    assert [(s.prompt.id, s.prompt.text, s.prompt.group) for s in samples] == [
        ("a", "a dog", "target"), ("b", "a cat", "retain"),
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="its rows stand in"):
        samples.add(ROWS[0], b"\x89PNG\r\n\x1a\n")
    table.write_text("file_name,prompt\n../a.png,a dog\n")
    with pytest.raises(InvalidInput, match="leads out of the folder"):
        SampleSet(folder, table=table)


def test_only_the_rows_asked_for(tmp_path):
    samples = SampleSet(tmp_path / "run")
    for prompt in ROWS:
        samples.add(prompt, b"\x89PNG\r\n\x1a\n" + prompt.id.encode())
    view = samples.only(ROWS[1:2])
    assert [s.prompt for s in view] == [ROWS[1]]
    assert len(samples) == len(ROWS)
    with pytest.raises(InvalidInput, match="a selection of a larger set"):
        view.add(ROWS[0], b"\x89PNG\r\n\x1a\n")
