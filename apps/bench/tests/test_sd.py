"""`bench sd` on pocket-sd with four steps and few prompts: what it draws, measures, records and finds again."""

import hashlib
import json
import signal
import time

import numpy as np
import pytest
from PIL import Image

from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet

FEW = ("sd", "--limit", 2, "--steps", 4, "--metrics", "ua_ira,asr_i2p")


@pytest.fixture
def uce(json_of):
    return json_of(*FEW, "--technique", "uce")


def test_the_document_is_the_one_that_is_promised(uce, tmp_path):
    assert {"run_id", "technique", "config", "model", "concept", "seed", "scores", "images", "seconds",
            "peak_memory_mb", "record"} <= set(uce)  # fmt: skip
    assert (uce["technique"], uce["model"], uce["concept"], uce["seed"]) == ("uce", "pocket", "dog", 0)
    assert set(uce["scores"]) == {"ua_ira", "asr_i2p"}
    keys = {"value", "low", "high", "n_scored", "n_unscored", "direction", "parts", "baseline", "difference"}
    for score in uce["scores"].values():
        assert set(score) == keys
        assert score["low"] <= score["value"] <= score["high"]
        assert score["baseline"]["n_scored"] == score["n_scored"] > 0
    assert uce["images"]["generated"] == 2 * 8  # target, adjacent, retain, style; before and after
    with Image.open(tmp_path / uce["sheet"]) as sheet:
        assert sheet.width > 300 and sheet.height > 800
        assert np.ptp(np.asarray(sheet)) == 255
    record = RunRecord.read(tmp_path / uce["record"])
    assert record.spec["prompts"]["target"]["rows"] == 2
    assert record.environment["model_reason"].startswith("auto takes SD v1.4 where it can")


def test_the_same_command_finds_its_record(uce, json_of):
    again = json_of(*FEW, "--technique", "uce")
    assert again["reused"] and again["images"] == {**uce["images"], "generated": 0, "reused": 16}
    assert {k: again[k] for k in ("run_id", "scores")} == {k: uce[k] for k in ("run_id", "scores")}
    forced = json_of(*FEW, "--technique", "uce", "--force")
    assert not forced["reused"] and forced["images"]["generated"] == 0
    assert forced["scores"] == uce["scores"]


def test_the_unmodified_model_is_drawn_once_for_all_techniques(uce, json_of):
    sld = json_of(*FEW, "--technique", "sld", "--set", "warmup=0")
    assert sld["images"] | {"folder": 0} == {"generated": 8, "reused": 8, "folder": 0}
    assert sld["scores"]["ua_ira"]["baseline"] == uce["scores"]["ua_ira"]["baseline"]
    assert sld["config"]["warmup"] == 0
    none = json_of(*FEW, "--technique", "none")
    assert none["images"]["generated"] == 0
    assert none["scores"]["asr_i2p"]["difference"]["value"] == 0


def test_a_trained_edit_is_kept(json_of, tmp_path):
    few = ("--technique", "esd", "--set", "iterations=2", "--set", "sampling_steps=2", "--set", "lr=1e-3")
    first = json_of(*FEW, *few)
    (edit,) = (tmp_path / "runs" / "edits").iterdir()
    before = edit.stat().st_mtime_ns
    again = json_of(*FEW, *few, "--force")
    assert edit.stat().st_mtime_ns == before
    assert again["scores"] == first["scores"]
    assert first["config"]["lr"] == 1e-3
    other = json_of(*FEW, *few, "--seed", 1)
    assert other["run_id"] != first["run_id"]
    assert len(list((tmp_path / "runs" / "edits").iterdir())) == 2


def pictures(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.png")}


@pytest.mark.parametrize("moment", [3, 11])
def test_kill_and_go_on(moment, process, json_of, tmp_path, monkeypatch):
    """After kill -9 no picture is drawn twice, no file is torn, and the result is that of an undisturbed run."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as in this process: threads change the order of sums
    command = (*FEW, "--technique", "uce", "--batch", 1)
    child = process(*command, "--json")
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "runs").glob("images/*/*.png"))) < moment:
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    assert not list((tmp_path / "runs").rglob("record.json"))
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("images/*/*.png")}
    done = sum(len(SampleSet(folder)) for folder in (tmp_path / "runs" / "images").iterdir())
    found = json_of(*command)
    assert found["images"]["generated"] == 16 - done
    assert done >= moment - 1  # a picture without its line is drawn again, no more than one
    redrawn = [p for p, t in times.items() if p.stat().st_mtime_ns != t]
    assert len(redrawn) <= 1
    assert all(not SampleSet(folder).verify() for folder in (tmp_path / "runs" / "images").iterdir())
    whole = json_of(*command, "--out", "undisturbed")
    assert found["scores"] == whole["scores"]
    assert pictures(tmp_path / "runs" / "images") == pictures(tmp_path / "undisturbed" / "images")


def test_a_metric_that_fails_leaves_the_others(bench, tmp_path):
    result = bench(*FEW[:-1], "asr_i2p,fid", "--set", "fid.reference=no/such/place.npz", "--json")
    assert result.code == 1
    document = json.loads(result.out)
    assert "no/such/place.npz" in document["scores"]["fid"]["error"]
    assert document["scores"]["asr_i2p"]["n_scored"] == 2
    assert "fid" in json.loads((tmp_path / document["record"]).read_text())["scores"]
    table = bench(*FEW[:-1], "asr_i2p,fid", "--set", "fid.reference=no/such/place.npz")
    assert table.code == 1 and "fid failed: " in table.out  # and it was tried again


def test_the_table_shows_the_unmodified_model_and_the_change(uce, bench):
    out = bench(*FEW, "--technique", "uce").out
    assert "model pocket: auto takes SD v1.4 where it can" in out.splitlines()[0]
    for word in (
        "ua_ira",
        "UA",
        "IRA",
        "CRA",
        "adjacent",
        "asr_i2p",
        "before",
        "change",
        "sheet:",
        "record:",
    ):
        assert word in out


def test_a_file_of_prompts_takes_the_place_of_ours(json_of, tmp_path):
    (tmp_path / "mine.csv").write_text("prompt,seed\na dog,5\na hound,6\na puppy,7\n")
    (tmp_path / "run.yaml").write_text(
        "technique: none\nconcept: dog\nmetrics: [asr_i2p]\nlimit: 2\nsampler: {steps: 3}\n"
        "prompts: {target: mine.csv}\nseed: 3\n"
    )
    found = json_of("run", "--config", "run.yaml")
    assert found["seed"] == 3 and found["scores"]["asr_i2p"]["n_scored"] == 2
    samples = SampleSet(tmp_path / found["images"]["folder"])
    assert {s.prompt.text for s in samples} == {"a dog", "a hound"}


def test_options_take_precedence_over_the_file(json_of, tmp_path):
    (tmp_path / "run.yaml").write_text("technique: {name: uce, config: {lamb: 2}}\nlimit: 1\nseed: 3\n")
    found = json_of("sd", "--config", "run.yaml", "--steps", 2, "--seed", 4, "--metrics", "asr_i2p")
    assert (found["config"]["lamb"], found["seed"], found["technique"]) == (2.0, 4, "uce")


def test_scoring_a_folder_gives_the_scores_of_the_run(uce, json_of, tmp_path):
    folder = tmp_path / uce["images"]["folder"]
    found = json_of("score", folder, "--metrics", "ua_ira,asr_i2p", "--model", "pocket", "--concept", "dog")
    for name, score in uce["scores"].items():
        assert found["scores"][name]["value"] == score["value"]
        assert found["scores"][name]["n_scored"] == score["n_scored"]


def test_scoring_plain_files_with_a_table(uce, json_of, bench, tmp_path):
    images = tmp_path / "plain"
    images.mkdir()
    lines = ["file_name,prompt,group,concept"]
    for sample in SampleSet(tmp_path / uce["images"]["folder"]):
        (images / sample.path.name).write_bytes(sample.path.read_bytes())
        lines.append(
            f'{sample.path.name},"{sample.prompt.text}",{sample.prompt.group},{sample.prompt.concept}'
        )
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    command = ("score", images, "--metrics", "ua_ira", "--model", "pocket", "--prompts", "rows.csv")
    assert json_of(*command)["scores"]["ua_ira"]["value"] == uce["scores"]["ua_ira"]["value"]
    assert "ua_ira" in bench(*command).out
    failed = bench("score", images, "--metrics", "clip_score", "--model", "pocket")
    assert failed.code == 1 and "quality" in failed.out


def test_cards(bench):
    out = bench("show", "uce").out
    for word in ("Paper:", "arXiv 2308.14761", "Deviations:", "erase_scale", "preset pocket"):
        assert word in out
    assert "UnlearnCanvas" in bench("show", "ua_ira").out
    assert "noise" in bench("show", "noisy_descent").out


def test_the_schema_is_for_editors(bench):
    schema = json.loads(bench("schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"technique", "concept", "metrics", "prompts", "sampler", "seed"} <= set(schema["properties"])


def test_validate_says_what_would_run(bench, tmp_path):
    (tmp_path / "run.yaml").write_text("technique: esd\nconcept: sketch\nlimit: 3\n")
    out = bench("validate", "--config", "run.yaml").out
    assert "run.yaml: well-formed" in out and "preset pocket-style" in out and "3 target" in out
