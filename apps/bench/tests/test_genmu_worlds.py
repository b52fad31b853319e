"""What is asked of a model that is not pocket-sd: the package's prompts, or a file's filled up with them."""

import csv
import hashlib

import pytest

from genmu_eval.prompts import own, sheet_of
from genmu_eval.table import AXES
from unlearn_bench.genmu.worlds import Open, Pocket
from unlearn_core.errors import InvalidInput
from unlearn_core.testing.hub_server import HubServer

COLUMNS = ("concept_type", "concept_name", "direct_prompt", "indirect_prompt", "adversarial_prompt")


@pytest.fixture
def sheet(tmp_path):
    """Return a sheet in the challenge's columns, without adjacent and retained concepts."""
    rows = [
        (
            "Artistic Styles",
            "Monet",
            "a painting by Monet",
            "water lilies in soft dabs of light",
            "qwx zzv lily",
        ),
        (
            "Objects",
            "Golf Ball",
            "a photo of a golf ball",
            "a small dimpled white sphere on a tee",
            "fore birdie",
        ),
    ]
    with (tmp_path / "challenge.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return sheet_of(tmp_path / "challenge.csv")


def test_the_packages_own_prompts():
    asked = Open().protocol((), images=None, limit=None)
    assert len(asked.targets) == 20
    per_target = {
        axis: sum((d.question.axis, d.question.concept) == (axis, "Golf Ball") for d in asked.draws)
        for axis in AXES
    }
    assert per_target["fgt"] == per_target["ind"] == per_target["adv"] == 20
    assert per_target["adj"] == 50 and asked.counts["ret"] >= 200


def test_a_sheet_is_filled_up(sheet):
    asked = Open(sheet=sheet).protocol((), images=2, limit=None)
    assert asked.targets == ("Monet", "Golf Ball") and asked.counts["fgt"] == asked.counts["adv"] == 4
    near = {d.question.asks for d in asked.draws if d.question.axis == "adj"}
    retained = {d.question.asks for d in asked.draws if d.question.axis == "ret"}
    assert near == {*own().adjacent("Monet"), *own().adjacent("Golf Ball")}
    assert retained and not retained & (near | set(asked.targets))
    monet = Open(sheet=sheet).concept("Monet", asked)
    assert (monet.kind, set(monet.adjacent)) == ("style", set(own().adjacent("Monet")))
    assert Open(sheet=sheet).concept("Golf Ball", asked).kind == "object"
    assert Open(sheet=sheet).protocol(("golf  ball",), images=1, limit=1).counts == dict.fromkeys(AXES, 1)


def test_neighbours_are_known_in_every_spelling(tmp_path):
    with (tmp_path / "sheet.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, ("Objects", "barberton  daisy", "a daisy", "a flower", "d4isy")])
    asked = Open(sheet=sheet_of(tmp_path / "sheet.csv")).protocol((), images=1, limit=None)
    near = {d.question.asks for d in asked.draws if d.question.axis == "adj"}
    assert near == set(own().adjacent("Barbeton Daisy"))
    assert {d.question.concept for d in asked.draws if d.question.axis == "adj"} == set(asked.targets)


def test_pictures_of_an_edited_sheet_are_others(sheet, tmp_path):
    before = {
        d.question.text: d.prompt.id for d in Open(sheet=sheet).protocol((), images=1, limit=None).draws
    }
    text = (tmp_path / "challenge.csv").read_text().replace("soft dabs", "hard dabs")
    (tmp_path / "challenge.csv").write_text(text)
    edited = Open(sheet=sheet_of(tmp_path / "challenge.csv")).protocol((), images=1, limit=None)
    after = {d.question.text: d.prompt.id for d in edited.draws}
    (changed,) = after.keys() - before.keys()
    assert "hard dabs" in changed and after[changed] not in before.values()
    assert all(after[text] == before[text] for text in after.keys() & before.keys())


def test_judges():
    llava = Open().judge("golf ball", ())
    assert "llava" in llava.vqa_settings["model"] and "{}" in llava.question
    clip = Open(judge_name="clip").judge("golf ball", ("golf ball", "tennis ball", "egg"))
    assert (clip.concept, clip.against) == ("golf ball", ("tennis ball", "egg"))
    assert Pocket().judge("dog", ()).concept == "dog"


def test_a_target_without_neighbours_is_refused(tmp_path):
    with (tmp_path / "sheet.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, ("Objects", "Zeppelin", "a zeppelin", "an airship", "xx yy")])
    with pytest.raises(InvalidInput, match="no prompt for the component adj of 'Zeppelin'"):
        Open(sheet=sheet_of(tmp_path / "sheet.csv")).protocol((), images=1, limit=None)


def test_sheets_from_the_hub(sheet, tmp_path, monkeypatch, json_of, error):
    """Over the real client, from a Hub on the loopback device."""
    repo = tmp_path / "repo"
    (repo / "ERR").mkdir(parents=True)
    data = (tmp_path / "challenge.csv").read_bytes()
    for name in ("mine.csv", "ERR/challenge_dataset.csv"):
        (repo / name).write_bytes(data)
    with HubServer({"datasets/owner/sheets": repo}) as hub:
        for name, value in hub.constants.items():
            monkeypatch.setattr(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        found = json_of("genmu", "lint", "owner/sheets:mine.csv")
        assert found["sha256"] == hashlib.sha256(data).hexdigest() and not found["published"]
        assert found["questions"] == len(sheet.questions)
        wrong = "owner/sheets:ERR/challenge_dataset.csv"
        assert f"has the sha256 {found['sha256']}, not b1aa4a0d" in error("genmu", "lint", wrong)
        run = ("genmu", "run", "--technique", "none", "--model", "owner/model", "--csv", wrong)
        assert "it is another file" in error(*run)
        assert "nowhere.csv" in error("genmu", "lint", "owner/sheets:nowhere.csv")
        assert hub.files().count("mine.csv") == 1
