"""`bench genmu` from end to end, on pocket-sd with few pictures and steps."""

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from genmu_eval.table import read_table
from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet

FEW = ("--concepts", "dog,car", "--limit", 1, "--steps", 2)
RUN = ("genmu", "run", *FEW)
SCORES = ("err_pooled", "err_macro", "components", "concepts", "n")


@pytest.fixture
def no_figures(monkeypatch):
    """Save the seconds that drawing figures takes."""

    def draw(path, *_):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")

    for name in ("components", "heat_map"):
        monkeypatch.setattr(f"unlearn_bench.genmu.figures.{name}", draw)


def same_scores(one, other):
    assert {key: one[key] for key in SCORES} == {key: other[key] for key in SCORES}
    assert one["tie_break"]["value"] == other["tie_break"]["value"]


def pictures(folder):
    return {path for path in Path(folder).rglob("*.png") if "images" in path.parts}


def test_continual_from_run_to_ranking(json_of, bench, tmp_path, request):
    ran = json_of(*RUN, "--technique", "uce", "--orders", 2)
    request.getfixturevalue("no_figures")  # one set of them is enough
    assert set(ran["components"]) == {"fgt", "ret", "adj", "ind", "adv"} and set(ran["concepts"]) == {
        "dog",
        "car",
    }
    for score in (ran["err_pooled"], ran["err_macro"], *ran["components"].values()):
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    assert ran["n"] == 9 and set(ran["baselines"]) == {"identity", "noise"}
    assert ran["baselines"]["noise"]["err_pooled"]["value"] == 0
    place = tmp_path / ran["submission"]

    # The step x concept matrix is what the tables of the steps say.
    orders = ran["continual"]["orders"]
    assert [run["order"] for run in orders] == [["dog", "car"], ["car", "dog"]]
    assert set(ran["continual"]["spread"]) >= {"final", "mean", "min"}
    for number, run in enumerate(orders, 1):
        assert run["path"] >= run["weights"][-1]["drift"] > 0
        assert run["weights"][0]["drift"] == run["weights"][0]["moved"]
        for t, row in enumerate(run["detection"], 1):
            rows = read_table(place / "steps" / f"order-{number}-request-{t}.csv")
            shown = [sum(r.present for r in rows if (r.axis, r.concept) == ("fgt", c)) for c in run["order"]]
            assert row == shown, "one direct picture of each"
    assert read_table(place / "steps" / "order-1-request-2.csv") == read_table(place / "judged.csv")

    # Whatever scores the table or draws the weights anew finds the same numbers.
    table = json_of("genmu", "score", place / "judged.csv")
    assert {key: table[key] for key in SCORES} == {key: ran[key] for key in SCORES}
    fresh = json_of("genmu", "evaluate", "--submission", place, "--out", "elsewhere")
    same_scores(ran, fresh)
    assert (
        fresh["images"]["generated"] == 18
        and fresh["claimed"]["different"] == 0 == 9 - fresh["claimed"]["shared"]
    )
    here = json_of("genmu", "evaluate", "--submission", place)
    same_scores(ran, here)
    assert here["images"] == {"generated": 0, "reused": 18}
    change = json_of(
        "genmu", "tiebreak", "pocket", place / "weights" / "model.safetensors", "--n-concepts", 2
    )
    assert change["tie_break"]["value"] == ran["tie_break"]["value"] == 2 * ran["tie_break"]["amortised"] > 0
    (model,) = change["tie_break"]["models"].values()
    assert model["l2"] == pytest.approx(orders[0]["weights"][-1]["drift"], rel=1e-6)

    ranked = json_of("genmu", "rank", place, tmp_path / here["submission"])
    names = {entry["name"] for entry in ranked["ranking"]}
    assert names == {"identity", "noise", place.name, Path(here["submission"]).name}
    assert [note.partition(":")[0] for note in ranked["notes"]] == [place.name]  # scored by whoever made it

    for role in ("heat_map", "components", "sheet"):
        with Image.open(tmp_path / ran["files"][role]) as picture:
            assert min(picture.size) > 200 and len(picture.convert("L").getcolors()) > 20
    record = RunRecord.read(tmp_path / ran["record"])
    assert record.stages.keys() >= {"baseline", "unlearn", "pictures", "judging", "score"}
    assert len(SampleSet.existing(place / "images" / "model")) == 9
    out = bench(*RUN, "--technique", "uce", "--orders", 2).out
    assert "reused the record of" in out and "identity" in out and "2 orders: final ERR" in out


def test_a_killed_run_goes_on_without_drawing_a_picture_twice(
    json_of, bench, monkeypatch, no_figures, tmp_path
):
    add, drawn = SampleSet.add, []

    def interrupted(self, prompt, png):
        drawn.append(prompt.id)
        if len(drawn) == 20:
            raise KeyboardInterrupt
        return add(self, prompt, png)

    with monkeypatch.context() as patch:
        patch.setattr(SampleSet, "add", interrupted)
        result = bench(*RUN, "--technique", "uce", "--order", "car,dog")
    assert (result.code, result.err) == (130, "stopped; the same command goes on from here\n")
    assert not list((tmp_path / "runs").rglob("record.json"))
    before = {path: path.stat().st_mtime_ns for path in pictures(tmp_path / "runs" / "images")}
    again = json_of(*RUN, "--technique", "uce", "--order", "car,dog")
    assert len(before) >= 10 and all(path.stat().st_mtime_ns == then for path, then in before.items())
    store = pictures(tmp_path / "runs" / "images")
    assert again["images"]["generated"] == len(store) - len(before)


def test_a_model_per_concept(json_of, error, tmp_path, no_figures):
    ran = json_of(*RUN, "--technique", "uce", "--strategy", "single")
    place = tmp_path / ran["submission"]
    assert sorted(path.name for path in (place / "weights").iterdir()) == [
        "car.safetensors",
        "dog.safetensors",
    ]
    assert sorted(ran["tie_break"]["models"]) == ["car", "dog"]
    norms = [model["l2"] for model in ran["tie_break"]["models"].values()]
    mean = sum(norms) / 2 / ran["tie_break"]["total_parameters"]
    assert ran["tie_break"]["value"] == pytest.approx(mean)
    rows = read_table(place / "judged.csv")
    assert {row.concept for row in rows} == {"dog", "car"}, "what is retained counts under each target"
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for path in [place / "submission.json", place / "judged.csv", *(place / "weights").iterdir()]:
            archive.write(path, path.relative_to(place))
    packed = json_of("genmu", "evaluate", "--submission", "mine.zip", "--concepts", "car,dog")
    same_scores(ran, packed)
    assert packed["images"]["generated"] == 0
    assert "lacks car" not in error("genmu", "evaluate", "--submission", place, "--concepts", "cat")
    assert "it lacks apple" in error(
        "genmu", "evaluate", "--submission", place, "--concepts", "car,dog,apple"
    )
    multi = json_of(*RUN, "--technique", "none", "--strategy", "multi")
    ranked = json_of("genmu", "rank", tmp_path / multi["submission"], place)["ranking"]
    names = {"single": place.name, "multi": Path(multi["submission"]).name}
    assert [p["strategy"] for p in ranked] == ["single"] * 3 + ["multi"] * 3, "each by itself"
    for strategy, name in names.items():
        table = [p for p in ranked if p["strategy"] == strategy]
        assert {p["name"] for p in table} == {"identity", "noise", name}
        assert min(p["rank"] for p in table) == 1
    assert f"two submissions are named '{place.name}'" in error("genmu", "rank", place, place)


def test_doing_nothing_is_the_baseline(json_of, tmp_path, no_figures):
    ran = json_of(*RUN, "--technique", "none", "--strategy", "multi")
    same = {key: ran["baselines"]["identity"][key] for key in SCORES}
    assert same == {key: ran[key] for key in SCORES}
    assert ran["tie_break"]["value"] == 0 == ran["gain"]["value"]
    assert ran["tie_break"]["models"]["model"]["kind"] == "identity"
    found = json_of("genmu", "evaluate", "--submission", ran["submission"])
    said = "the model model is the unmodified model, weight for weight"
    assert said in found["notes"]
    ranked = json_of("genmu", "rank", tmp_path / found["submission"])
    assert ranked["notes"] == [f"{Path(found['submission']).name}: {said}"]
    assert [p["rank"] for p in ranked["ranking"] if p["name"] != "noise"] == [1, 1], (
        "no better than the identity"
    )


def test_a_technique_that_acts_while_the_model_draws(json_of, error, no_figures):
    ran = json_of(*RUN, "--technique", "sld", "--strategy", "multi", "--set", "warmup=0")
    assert ran["tie_break"]["hooks"] == ["Away"] and ran["tie_break"]["value"] == 0
    assert any("acts while the model draws" in note for note in ran["notes"])
    assert "--pictures judges the pictures" in error("genmu", "evaluate", "--submission", ran["submission"])
    judged = json_of("genmu", "evaluate", "--submission", ran["submission"], "--pictures")
    assert {key: judged[key] for key in SCORES} == {key: ran[key] for key in SCORES}
    assert any("the pictures are the submitter's own" in note for note in judged["notes"])
    assert judged["tie_break"]["hooks"] == ["Away"], "and so its weight change wins no tie"
    ranked = json_of("genmu", "rank", judged["submission"])["ranking"]
    assert {entry["name"]: entry["weight_change"] for entry in ranked}[
        Path(judged["submission"]).name
    ] is None


def test_a_sheet_of_ones_own(json_of, tmp_path, bench, no_figures):
    import pocket_sd

    rows = [row for row in pocket_sd.challenge() if row["concept_name"] in ("dog", "car")]
    rows[0]["adversarial_prompt"] = rows[0]["direct_prompt"]
    with (tmp_path / "sheet.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    found = json_of("genmu", "lint", "sheet.csv", "--model", "pocket", "--images", 1, "--steps", 2)
    assert found["counts"]["equals_direct"] == 1
    assert [row["shown"] for row in found["potency"]] == [
        pytest.approx(row["shown"]) for row in found["potency"] if row["shown"] in (0, 1)
    ]
    assert len(found["potency"]) == found["questions"]
    ran = json_of("genmu", "run", "--technique", "uce", "--strategy", "multi", "--csv", "sheet.csv", "--images", 1,
                  "--limit", 1, "--steps", 2)  # fmt: skip
    assert set(ran["concepts"]) == {"dog", "car"}
    texts = {s.prompt.text for s in SampleSet.existing(Path(ran["submission"]) / "images" / "model")}
    assert {row["indirect_prompt"] for row in rows} <= texts
    assert "equals_direct (1)" in bench("genmu", "lint", "sheet.csv").out


def test_help_imports_nothing_heavy():
    code = (
        "import contextlib, io, sys\n"
        "from unlearn_bench.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['genmu', '--help'])\n"
        "print(*({'torch', 'numpy', 'matplotlib', 'genmu_eval', 'rich'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("run", "--technique", "uce", "--strategy", "mutli"), "did you mean 'multi'?"),
        (("run", "--technique", "ucee"), "did you mean 'uce'?"),
        (("run", "--technique", "uce", "--concepts", "dgo"), "did you mean 'dog'?"),
        (("run", "--technique", "uce", "--concepts", "dog,dog"), "each once"),
        (("run", "--technique", "uce", "--concepts", "dog,cat,wolf,fox,bear"), "every neighbour of 'dog'"),
        (("run", "--technique", "uce", "--set", "lam=1"), "did you mean 'lamb'?"),
        (("run", "--technique", "uce", "--preset", "pockett"), "did you mean 'pocket'?"),
        (
            ("run", "--technique", "uce", "--concepts", "dog,car", "--order", "dog"),
            "names each of dog, car once",
        ),
        (
            ("run", "--technique", "uce", "--order", "dog", "--strategy", "multi"),
            "is for --strategy continual",
        ),
        (("run", "--technique", "uce", "--order", "dog", "--orders", "2"), "give one of them"),
        (("run", "--technique", "uce", "--judge", "clip"), "its own judge alone"),
        (("run", "--technique", "uce", "--csv", "nowhere.csv"), "nowhere.csv"),
        (("run", "--technique", "uce+sld", "--preset", "pocket"), "--preset is of one technique"),
        (("score", "nowhere.csv"), "nowhere.csv"),
        (("score", "bad.csv"), "adj is missing"),
        (("evaluate", "--submission", "nowhere"), "nowhere"),
        (("evaluate", "--submission", "pickled"), "may hold a pickle"),
        (("rank", "pickled"), "has no record.json"),
        (("tiebreak", "pockett", "bad.csv"), "did you mean 'pocket'?"),
        (("lint", "bad.csv"), "no column 'asks'"),
        (("lint", "own", "--model", "pocket"), "unknown concept of pocket-sd 'Labrador Retriever'"),
    ],
)
def test_bad_input(options, hint, error, tmp_path):
    (tmp_path / "bad.csv").write_text(
        "concept,axis,image,present\ndog,fgt,1,0\ndog,ind,1,0\ndog,adv,1,0\ncat,ret,1,1\n"
    )
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "model.bin").write_bytes(b"\x80\x04.")
    assert hint in error("genmu", *options, "--json")
    assert not pictures(tmp_path / "runs"), "known before the first picture"


def test_json_is_one_document(bench, no_figures):
    result = bench(*RUN, "--technique", "none", "--strategy", "multi", "--json")
    assert json.loads(result.out)["reused"] is False
