"""Every mistake is one line that says what would be right, before a model is loaded, with exit code 2."""

import json

import pytest
import torch

from unlearn_techniques.testing import tiny_sd

SD = ("sd", "--limit", 1, "--steps", 1)


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch, request):
    if request.node.name == "test_a_full_disk_is_a_message":
        return

    def load(*_, **__):
        raise AssertionError("a model was loaded before the input was checked")

    monkeypatch.setattr("unlearn_techniques.diffusion.model.StableDiffusion.load", load)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--technique", "uec"], "did you mean 'uce'"),
        (["--metrics", "clip_scor"], "did you mean 'clip_score'"),
        (["--metrics", "ua_ira,ua_ira"], "twice"),
        (["--concept", "dgo"], "did you mean 'dog'"),
        (["--concept", "nudity"], "'weapon' stands in for unsafe content"),
        (["--model", "pockte"], "did you mean 'pocket'"),
        (["--model", "./nowhere"], "there is no such folder"),
        (["--preset", "pocet"], "did you mean 'pocket'"),
        (["--set", "lam=1"], "did you mean 'lamb'"),
        (["--set", "lamb=much"], "lamb"),
        (["--set", "lamb"], "NAME=VALUE"),
        (["--set", "fid.referenc=x"], "did you mean 'reference'"),
        (["--set", "tifa.x=1"], "no technique of this run and no metric of it"),
        (["--set", "templates=[1"], "no JSON"),
        (["--device", "cuda"], "sees no CUDA device"),
        (["--device", "gpu"], "write cpu, cuda"),
        (["--dtype", "fp8"], "fp32"),
        (["--scheduler", "ddmi"], "ddim"),
        (["--config", "nowhere.yaml"], "cannot read"),
    ],
)
def test_options(arguments, hint, error, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert hint in error(*SD, *arguments)
    assert hint in error(*SD, *arguments, "--json")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("technique: uce\nconcpt: dog\n", "did you mean 'concept'"),
        ("technique: uce\nsampler: {step: 3}\n", "did you mean 'steps'"),
        ("technique: {name: uce, confg: {}}\n", "did you mean 'config'"),
        ("technique: uce\nprompts: {tarjet: a.csv}\n", "did you mean 'target'"),
        ("technique: uce\nprompts: {target: none.csv}\n", "none.csv"),
        ("technique: uce\nseed: 1\nseed: 2\n", "stands there twice"),
        ("technique: uce\nmetrics: []\n", "metrics is empty"),
        ("technique: [uce\n", "not YAML"),
        ("- uce\n", "a configuration is a mapping"),
        ("technique: uce\nlimit: 0\n", "limit"),
        ("technique: uce\nseed: often\n", "seed"),
        ("technique: uce\nprompts: {target: empty.csv}\n", "holds no rows"),
    ],
)
def test_files(text, hint, error, tmp_path):
    (tmp_path / "run.yaml").write_text(text)
    (tmp_path / "empty.csv").write_text("prompt\n")
    assert hint in error("run", "--config", "run.yaml")
    assert hint in error("validate", "--config", "run.yaml")


def test_models_that_are_none(error, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no model_index.json" in error(*SD, "--model", "./empty")
    torch.save({}, tmp_path / "sd.ckpt")
    assert "is a pickle" in error(*SD, "--model", tmp_path / "sd.ckpt")
    tiny_sd().save_pretrained(tmp_path / "sd")
    weights = tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:99])
    assert "is damaged" in error(*SD, "--model", tmp_path / "sd")


def test_a_concept_without_the_anchor_that_it_needs(error, tmp_path):
    tiny_sd().save_pretrained(tmp_path / "sd")
    command = (
        *SD,
        "--model",
        tmp_path / "sd",
        "--concept",
        "teapot",
        "--set",
        "edit=replace",
        "--metrics",
        "ua_ira",
    )
    assert "has no anchor; set anchor=WORD" in error(*command)


def test_folders_of_other_things(error, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "record.json").write_text(json.dumps({}))
    assert "is the folder of a run" in error(*SD, "--out", run)
    (tmp_path / "file").write_text("")
    assert "cannot write" in error(*SD, "--out", tmp_path / "file")
    (run / "record.json").unlink()
    (run / "metadata.jsonl").write_text("")
    assert "is a folder of images" in error(*SD, "--out", run)


def test_prompts_that_must_not_be_drawn(error, tmp_path):
    (tmp_path / "rows.csv").write_text("prompt\na naked child\n")
    (tmp_path / "run.yaml").write_text("technique: none\nconcept: dog\nprompts: {target: rows.csv}\n")
    assert "dropped" in error("run", "--config", "run.yaml")


def test_scoring_a_folder_that_is_not_there(error, tmp_path):
    assert "there is no folder" in error("score", tmp_path / "none", "--metrics", "fid")
    (tmp_path / "none").mkdir()
    assert "holds no images" in error("score", tmp_path / "none", "--metrics", "fid")
    assert "METRIC.NAME=VALUE" in error("score", tmp_path / "none", "--metrics", "fid", "--set", "x=1")


def test_a_card_that_is_not_there(error):
    assert "did you mean 'uce'" in error("show", "uec")


def test_a_full_disk_is_a_message(error, monkeypatch):
    import errno

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unlearn_core.atomic.os.fsync", full)
    assert "the disk is full" in error(*SD, "--metrics", "asr_i2p", "--technique", "none")
