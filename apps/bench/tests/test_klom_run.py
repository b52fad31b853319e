"""`bench klom run`: table, JSON, reuse, settings, and CIFAR-10 in its real layout."""

import json
import re
import sys
from pathlib import Path

import pytest

from klom_bench import testing
from klom_bench.datasets.cifar10 import Cifar10
from klom_bench.experiment import Dataset
from unlearn_bench.klom_commands import choose_dataset
from unlearn_core.record import RunRecord
from unlearn_core.registry import load, names
from unlearn_core.testing.hub_server import HubServer

SMALL = ("klom", "run", "--n-models", 10)
SPLITS = ("retain", "forget", "val")
PROMISED = {
    "dataset", "method", "config", "forget_set", "n_models", "seed", "variant", "scores", "seconds", "record",
    "plot",
}  # fmt: skip


def check_document(document, *, rows):
    """What the issue promises of `--json`, and what must hold of any score."""
    assert document.keys() >= PROMISED
    assert list(document["scores"]) == rows
    for splits in document["scores"].values():
        assert list(splits) == list(SPLITS)
        for score in splits.values():
            assert score.keys() >= {"mean", "p95", "low", "high", "floor"}
            assert score["low"] <= score["p95"] <= score["high"]
            assert score["mean_low"] <= score["mean"] <= score["mean_high"]
            assert 0 < score["floor"] < 12 and score["debiased"] == score["p95"] - score["floor"]
    assert all(seconds >= 0 for seconds in document["seconds"].values())
    record = RunRecord.read(Path(document["record"]))
    assert record.scores == document["scores"] and record.spec["seed"] == document["seed"]
    assert Path(document["plot"]).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_json_is_one_document_and_nothing_else(digits, json_of):
    document = json_of(*SMALL)
    check_document(document, rows=["do_nothing", "noisy_descent", "oracle"])
    assert document["dataset"] == "digits" and document["method"] == "noisy_descent"
    assert (document["forget_set"], document["n_models"], document["seed"]) == (1, 10, 0)
    assert document["variant"] == "easydub"
    assert document["config"] == {
        **document["config"],
        **load("unlearn.methods", "noisy_descent").presets["digits"],
    }
    assert {"pretrain models", "oracles", "noisy_descent", "score", "plot"} <= document["seconds"].keys()
    assert Path(document["record"]).is_relative_to("runs")


def test_table(digits, bench, no_picture):
    result = bench(*SMALL, "--out", "here")
    assert (result.code, result.err) == (0, "")
    lines = [line.rstrip() for line in result.out.splitlines()]
    assert lines[0] == "data set digits: auto takes cifar10 where it can, but no CUDA device"
    assert lines[1] == "KLoM (easydub) on digits, forget set 1, 10 models; lower is better"
    assert lines[2].split() == ["mean", "(95", "%)", "P95", "(95", "%)", "floor", "above", "it"]
    names = ["do nothing", "noisy_descent", "held-out oracle"]
    sizes = ["retain, 490 images", "forget, 10 images", "val, 1,297 images"]
    rows = [line for line in lines[4:18] if line]
    assert [re.split("  +", row.strip())[0] for row in rows] == [x for s in sizes for x in (s, *names)]
    cell = r"\d+\.\d\d \(\d+\.\d\d-\d+\.\d\d\)"
    for row in rows:
        if row.startswith("  "):
            assert re.search(rf"  {cell} +{cell} +\d+\.\d\d +-?\d+\.\d\d$", row), row
    assert max(map(len, lines[1:18])) <= 80
    found = dict(re.findall(r"^(seconds|record|plot): +(.*)$", result.out, re.M))
    assert re.fullmatch(r"pretrain models \d+\.\d, oracles \d+\.\d, .*, plot \d+\.\d", found["seconds"])
    assert found["record"].startswith("here/klom-digits-noisy_descent-") and Path(found["plot"]).is_file()
    assert lines[0].endswith(json.loads(Path(found["record"]).read_text())["environment"]["dataset_reason"])


def test_large_numbers_fit_80_columns(digits, bench, no_picture):
    shown = bench(*SMALL, "--n-models", 3).out
    assert len(re.findall(r"\d+\.\d\d \(\d+\.\d\d-\d+\.\d\d\)", shown)) == 18
    assert re.search(r"\d\d\.\d\d \(\d\d\.\d\d-\d\d\.\d\d\)", shown) and "…" not in shown


def test_without_matplotlib_there_are_the_numbers_and_a_note(digits, bench, json_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    document = json_of(*SMALL)
    assert document["plot"] is None and any("klom-bench[plot]" in note for note in document["notes"])
    assert "plot:" not in bench(*SMALL).out


def test_a_second_run_reuses_the_record_and_says_so(digits, bench, json_of, no_picture):
    first = json_of(*SMALL)
    assert first["reused"] is False
    written = Path(first["record"]).read_bytes()
    again = json_of(*SMALL)
    assert again == {**first, "reused": True}
    assert re.search(r"^reused the record of .* \(--force computes it again\)$", bench(*SMALL).out, re.M)
    assert Path(first["record"]).read_bytes() == written
    forced = json_of(*SMALL, "--force")
    assert forced["reused"] is False and forced["scores"] == first["scores"]
    assert Path(first["record"]).read_bytes() != written, "a new time stamp at least"


def test_other_settings_are_another_run(digits, json_of, no_picture):
    paths = [
        json_of(*SMALL, *more)["record"]
        for more in ([], ["--seed", 1], ["--variant", "robust"], ["--forget-set", 2], ["--set", "epochs=1"])
    ]
    assert len(set(paths)) == 5


def test_seed_decides(digits, json_of, no_picture):
    a, b = (json_of(*SMALL, "--seed", seed, "--out", f"{seed}")["scores"] for seed in (0, 1))
    assert a["do_nothing"] == b["do_nothing"] and a["oracle"] == b["oracle"]
    assert a["noisy_descent"] != b["noisy_descent"]


def test_settings_and_presets(digits, json_of, no_picture):
    published = json_of(*SMALL, "--preset", "published", "--set", "batch-size=100", "--set", "lr = 0.5")
    assert published["config"] == {
        "epochs": 5, "lr": 0.5, "noise": 0.01, "max_norm": 1.0, "batch_size": 100, "schedule": "constant",
        "batch_norm": "train",
    }  # fmt: skip


@pytest.mark.parametrize("method", names("unlearn.methods"))
def test_every_method_runs(digits, json_of, no_picture, method):
    quick = ["--preset", "published"] if method == "retrain" else []
    document = json_of(*SMALL, "--method", method, "--n-models", 3, "--dataset", "digits", *quick)
    rows = ["do_nothing", "oracle"] if method == "do_nothing" else ["do_nothing", method, "oracle"]
    check_document(document, rows=rows)
    assert document["dataset_reason"] == "as asked"


def test_without_held_out_oracles_the_floor_is_simulated_and_a_note_says_so(
    digits, json_of, no_picture, monkeypatch
):
    monkeypatch.setattr(digits.Digits, "n_oracles", 15)
    document = json_of(*SMALL)
    assert list(document["scores"]) == ["do_nothing", "noisy_descent"]
    assert document["scores"]["do_nothing"]["forget"]["floor_from"] == "simulation"
    assert any("none are held out" in note for note in document["notes"])


def test_a_damaged_cache_is_computed_again(digits, json_of, no_picture, tmp_path):
    first = json_of(*SMALL)
    for block in (tmp_path / "cache").rglob("*.safetensors"):
        block.write_bytes(block.read_bytes()[:100])
    assert json_of(*SMALL, "--force")["scores"] == first["scores"]


# CIFAR-10, tiny, in the layout of its Hub


@pytest.mark.parametrize("name", names("unlearn.datasets"))
def test_data_sets_offer_what_an_experiment_needs(name):
    cls = load("unlearn.datasets", name)
    promised = set(Dataset.__annotations__) | {n for n in vars(Dataset) if not n.startswith("_")}
    assert [n for n in sorted(promised) if not hasattr(cls, n)] == []


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    testing.write_easydub(tmp_path / "data", testing.tiny_margins())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(Cifar10, "block", 2, raising=False)
    return tmp_path / "data"


@pytest.fixture
def hub(cifar10, monkeypatch):
    with HubServer({"datasets/easydub/EasyDUB-dataset": cifar10}) as hub:
        for name, value in hub.constants.items():
            monkeypatch.setattr(name, value)
        yield hub


CIFAR = ("klom", "run", "--dataset", "cifar10", "--n-models", 4)


def test_cifar10_from_a_folder_and_from_the_hub_score_the_same(cifar10, hub, json_of):
    local = json_of(*CIFAR, "--method", "do_nothing", "--data-dir", cifar10)
    assert hub.requests == []
    remote = json_of(*CIFAR, "--method", "do_nothing")
    check_document(remote, rows=["do_nothing", "oracle"])
    assert remote["scores"] == local["scores"] and remote["record"] != local["record"]
    assert local["dataset"] == remote["dataset"] == "cifar10"
    counts = {s: remote["scores"]["oracle"][s]["n_samples"] for s in SPLITS}
    assert counts == {"retain": 55, "forget": 5, "val": 12}
    assert len(hub.files()) == 1 + 3 * (4 + 8), "the forget set, 4 pretrain models, 8 oracles; nothing twice"


def test_cifar10_is_unlearned(cifar10, json_of, digits):
    testing.write_checkpoints(cifar10, range(2))
    testing.write_images(cifar10 / "data")
    run = (*CIFAR, "--n-models", 2, "--data-dir", cifar10)
    document = json_of(*run, "--preset", "published", "--set", "epochs=1")
    check_document(document, rows=["do_nothing", "noisy_descent", "oracle"])
    assert document["config"]["batch_size"] == 256
    assert document["scores"]["noisy_descent"] != document["scores"]["do_nothing"]


def test_auto_takes_cifar10_where_there_is_a_gpu_and_the_data(cifar10, digits, monkeypatch):
    data, why = choose_dataset("auto", cifar10)
    assert data.name == "digits" and why.endswith(
        "but no CUDA device; --dataset cifar10 uses --data-dir all the same"
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    data, why = choose_dataset("auto", cifar10)
    assert (data.name, data.data_dir) == ("cifar10", cifar10) and why == "a CUDA device and the data are here"
    data, why = choose_dataset("auto", None)
    assert data.name == "digits" and "margins are not downloaded" in why
