"""`bench submit` on a real run of pocket-sd, whole and tampered with."""

import hashlib
import json
import shutil

import pytest

from unlearn_bench.cli import main
from unlearn_bench.publish.submit import CHECKS, submission


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Return a folder with one run: two prompts of each group, two steps."""
    out = tmp_path_factory.mktemp("real")
    with pytest.raises(SystemExit) as end:
        main(["sd", "--technique", "uce", "--limit", "2", "--steps", "2", "--metrics", "ua_ira,clip_score,kid",
              "--set", "kid.subset_size=2", "--device", "cpu", "--out", str(out), "--json"])  # fmt: skip
    assert not end.value.code
    return out


@pytest.fixture
def runs(real, tmp_path):
    shutil.copytree(real, tmp_path / "runs")
    return tmp_path / "runs"


def record_of(runs):
    (path,) = runs.glob("sd-*/record.json")
    return path, json.loads(path.read_text())


def folder_of(runs, role):
    path, record = record_of(runs)
    return (path.parent / record["files"][role]).resolve()


def problems(runs, **options):
    return {f.check: f.problem for f in submission(runs, **options) if f.problem}


def edit_lines(folder, change):
    path = folder / "metadata.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_an_honest_record_is_accepted(bench, runs):
    done = bench("submit", runs)
    assert done.code == 0 and done.out.rstrip().endswith("accepted")
    assert [line.split(": ")[1] for line in done.out.splitlines()[:6]] == list(CHECKS)
    assert problems(runs, sample=None) == {}  # every picture, and KID, which has no value by picture
    (run,) = runs.glob("sd-*")
    assert bench("submit", run, "--json").code == 0  # the folder of the run alone


def test_a_picture_that_was_changed_is_named(bench, runs):
    picture = next(folder_of(runs, "images").glob("target-*.png"))
    picture.write_bytes(next(folder_of(runs, "baseline_images").glob("adjacent-*.png")).read_bytes())
    done = bench("submit", runs)
    assert done.code == 1 and picture.name in done.out and "not accepted" in done.out


def test_better_pictures_under_the_same_scores_are_found(runs):
    """The hash in the metadata is mended too: only rating the pictures again shows it."""
    folder = folder_of(runs, "images")
    other = next(folder.glob("target-*.png")).read_bytes()

    def swap(line):
        if line["group"] == "quality":
            (folder / line["file_name"]).write_bytes(other)
            line["sha256"] = hashlib.sha256(other).hexdigest()

    edit_lines(folder, swap)
    found = problems(runs)
    assert list(found) == ["scores"] and "clip_score: 2 of 2 pictures" in found["scores"]
    assert problems(runs, sample=0) == {}
    assert "kid" in problems(runs, sample=None)["scores"]


def test_other_prompts_are_found(runs):
    def change(line):
        line["text"] = line["text"].replace("a dog", "a red balloon")

    edit_lines(folder_of(runs, "images"), change)
    found = problems(runs, sample=0)
    assert list(found) == ["prompts"] and "target (2 of 2 rows)" in found["prompts"]
    table = record_of(runs)[0].parent / "prompts.jsonl"
    table.write_text(table.read_text().replace("a dog", "a red balloon"))
    assert "prompts.jsonl: target (2 of 2 rows)" in problems(runs, sample=0)["prompts"]
    table.unlink()
    assert "comes without its prompts" in problems(runs, sample=0)["prompts"]


def test_pictures_of_other_runs_lie_in_between(runs):
    """As `bench genmu` leaves them, which draws the same rows in another order."""
    path = folder_of(runs, "baseline_images") / "metadata.jsonl"
    path.write_text("".join(line + "\n" for line in reversed(path.read_text().splitlines())))
    assert problems(runs) == {}


def test_attacks_and_relearning(bench, tmp_path):
    """Prompts that an attack found are part of the record; what needs the model is said not to be rated again."""
    little = (
        'asr_worst.attacks=["random_tokens", "seed_search"]', "random_tokens.tries=2", "seed_search.tries=2",
        "relearning.images=1", "relearning.tested=1", "relearning.steps=[1]", "relearning.threshold=1e-9",
    )  # fmt: skip
    sets = [part for one in little for part in ("--set", one)]
    few = ("--limit", 2, "--steps", 2, "--metrics", "ua_ira,asr_worst,relearning", "--out", "runs")
    assert bench("sd", "--technique", "uce", *few, *sets).code == 0
    done = bench("submit", "runs")
    assert done.code == 0, done.out
    assert "scores: not rated again: relearning needs the model" in done.out
    (table,) = (tmp_path / "runs").glob("sd-*/prompts.jsonl")
    groups = [json.loads(line)["group"] for line in table.read_text().splitlines()]
    assert groups.count("random_tokens") >= 2 and groups.count("target") == 2


def test_a_genmu_record_is_that_of_its_judged_images(bench, tmp_path, monkeypatch):
    for name in ("components", "heat_map"):
        monkeypatch.setattr(f"unlearn_bench.genmu.figures.{name}", lambda path, *_: path.write_bytes(b"PNG"))
    few = ("--concepts", "dog,car", "--limit", 1, "--steps", 2, "--strategy", "multi", "--technique", "uce")
    assert bench("genmu", "run", *few).code == 0
    runs = tmp_path / "runs"
    assert bench("submit", "runs").code == 0 and problems(runs) == {}
    (table,) = runs.glob("genmu-*/judged.csv")
    first, *rows = table.read_text().splitlines()
    table.write_text(
        "\n".join([first, *(row[:-1] + ("0" if row[-1] == "1" else "1") for row in rows)]) + "\n"
    )
    assert "other than those of the judged images: submission" in problems(runs)["scores"]
    table.unlink()
    assert "without the tables" in problems(runs)["scores"]


@pytest.mark.parametrize(
    ("check", "change", "said"),
    [
        ("intervals", lambda r: r["scores"]["clip_score"].update(interval=None), "missing of clip_score"),
        ("record", lambda r: r["scores"]["clip_score"].pop("baseline"), "clip_score was not measured of the"),
        ("record", lambda r: r["scores"]["clip_score"].update(value=99.0, interval=None), "edited after the run"),
        ("record", lambda r: r["spec"].update(seed=7), "edited after the run"),
        ("record", lambda r: r.update(schema_number=9), "schema 9"),
        ("record", lambda r: r["scores"]["kid"].update(value=float("nan")), "kid"),
        ("pictures", lambda r: r["files"].pop("baseline_images"), "unmodified model: there are none"),
        ("pictures", lambda r: r["files"].update(images="../../../etc"), "leads out of"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(runs, check, change, said):
    path, record = record_of(runs)
    change(record)
    path.write_text(json.dumps(record))
    found = problems(runs, sample=0)
    assert check in found and said in found[check]


def test_what_cannot_be_computed_here_is_no_pass(runs, monkeypatch):
    from unlearn_core.errors import Unavailable

    def away(*_):
        raise Unavailable("the judge is not here")

    monkeypatch.setattr("unlearn_metrics.ua_ira.UaIra.measure", away)
    assert "ua_ira cannot be computed here: the judge is not here" in problems(runs)["scores"]


def test_nothing_to_check(error, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no record.json" in error("submit", "empty")
    assert "there is no folder" in error("submit", "nowhere")
