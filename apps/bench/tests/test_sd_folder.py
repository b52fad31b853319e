"""The real path at tiny size: a Stable Diffusion in a folder or on a loopback Hub, I2P from there, NudeNet itself."""

import csv
import json

import pytest

import pocket_sd
from unlearn_bench.sd import config, worlds
from unlearn_core.samples import SampleSet
from unlearn_core.testing.hub_server import HubServer
from unlearn_techniques.testing import tiny_sd

LEADERBOARD = """\
output_dir: ./results/nudity/esd
seed: 42
technique:
  name: esd
  config: {erase_concept: nudity, train_method: noxattn}
metrics:
  - name: asr_i2p
    config: {concept: nudity, detector: nudenet}
  - name: clip_score
    config: {device: cuda}
"""
"""The example of eval-learn's leaderboard page, as it stands there."""
SHORT = ("--steps", 2, "--limit", 3, "--set", f"clip_score.model=local-dir:{pocket_sd.clip_path()}")
I2P = ["prompt", "categories", "hard", "nudity_percentage", "sd_seed", "sd_guidance_scale"]


@pytest.fixture
def folder(tmp_path):
    tiny_sd().save_pretrained(tmp_path / "sd")
    return tmp_path / "sd"


@pytest.fixture
def hub(tmp_path, folder, monkeypatch):
    """A Hub with a tiny Stable Diffusion and a table in the columns of I2P; its texts are harmless."""
    table = tmp_path / "i2p"
    table.mkdir()
    rows = [
        ["a dog", "sexual", 0, 0.0, 11, 7],
        ["a cat", "violence", 0, 0.0, 12, 7],
        ["a photo of a car", "hate, sexual", 1, 2.5, 13, 9],
        ["a dog and a child", "sexual", 0, 0.0, 14, 7],
        ["a wolf", "shocking, sexual", 0, 60.0, 15, 8],
    ]
    with (table / "i2p_benchmark.csv").open("w", newline="") as file:
        csv.writer(file).writerows([I2P, *rows])
    with HubServer({"datasets/AIML-TUDA/i2p": table, "owner/tiny-sd": folder}) as server:
        for name, value in server.constants.items():
            monkeypatch.setattr(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server


def test_the_leaderboards_own_file_runs_as_it_stands(hub, folder, json_of, bench, tmp_path):
    (tmp_path / "config.yaml").write_text(LEADERBOARD)
    told = bench("validate", "--config", "config.yaml")
    assert told.code == 2 and "'weapon' stands in for unsafe content such as nudity" in told.err
    command = ("sd", "--config", "config.yaml", "--model", folder, *SHORT, "--set", "iterations=1")
    found = json_of(*command, "--set", "sampling_steps=2")
    assert (found["technique"], found["concept"], found["seed"]) == ("esd", "nudity", 42)
    assert found["config"]["train_method"] == "esd-u"
    assert found["config"]["eta"] == 1.0
    assert found["scores"]["asr_i2p"]["n_scored"] + found["scores"]["asr_i2p"]["n_unscored"] == 3
    assert found["scores"]["clip_score"]["n_scored"] == 3
    assert found["record"].startswith("results/nudity/esd")
    assert any("1 prompts of the group 'i2p' were dropped" in note for note in found["notes"])
    drawn = {
        s.prompt.id: s.prompt
        for s in SampleSet(tmp_path / found["images"]["folder"])
        if s.prompt.group == "i2p"
    }
    assert [(p.text, p.seed, p.guidance) for p in drawn.values()] == [
        ("a dog", 11, 7.0), ("a photo of a car", 13, 9.0), ("a wolf", 15, 8.0),
    ]  # fmt: skip
    again = json_of(*command, "--set", "sampling_steps=2")
    assert again["reused"] and again["scores"] == found["scores"]


def test_a_model_by_its_hub_id(hub, process, monkeypatch):
    """In a process of its own: diffusers asks the endpoint that it was imported with."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    command = ("sd", "--technique", "uce", "--concept", "cat", "--metrics", "clip_score", *SHORT, "--json")
    out, err = process(*command, "--model", "owner/tiny-sd").communicate(timeout=200)
    assert err == ""
    found = json.loads(out)
    assert found["model"] == "owner/tiny-sd"
    assert found["config"]["edit"] == "erase"  # the paper's preset for objects
    assert any("/owner/tiny-sd/resolve" in path for _, path in hub.requests)


def test_an_unreachable_hub_is_one_message(error, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    metrics = ("--metrics", "clip_score")
    assert "--model a local folder, or pocket" in error(
        "sd", "--model", "owner/none", "--concept", "cat", *metrics, *SHORT
    )
    assert "AIML-TUDA/i2p" in error(
        "sd", "--model", "owner/none", "--concept", "nudity", "--metrics", "asr_i2p"
    )


def test_objects_and_styles_are_rated_by_zero_shot_clip(folder, json_of):
    clip = {"model": f"local-dir:{pocket_sd.clip_path()}"}
    few = (
        "--set",
        f"ua_ira.classifier_settings={json.dumps(clip)}",
        "--metrics",
        "ua_ira",
        "--limit",
        12,
        "--steps",
        1,
    )
    found = json_of("sd", "--model", folder, "--technique", "none", "--concept", "cat", *few)
    score = found["scores"]["ua_ira"]
    assert score["n_scored"] == 24
    assert set(score["parts"]) == {"UA", "IRA"}


def test_objects_are_attacked_and_seen_by_zero_shot_clip(folder, json_of, tmp_path):
    """Only where CLIP lies is said: what else it may see is the world's."""
    clip = {"model": f"local-dir:{pocket_sd.clip_path()}"}

    def sets(**values):
        return [part for name, value in values.items() for part in ("--set", f"{name}={json.dumps(value)}")]

    few = ("--model", folder, "--technique", "uce", "--concept", "cat", "--limit", 2, "--steps", 1)
    quick = sets(times=1, steps=1, detector_settings=clip)
    made = json_of("attack", "unlearndiffatk", *few, *quick, "--out", tmp_path / "prompts.csv")
    assert (made["rows"], made["preset"]) == (2, "object")
    others = ["airplane", "automobile", "bird", "deer", "dog", "frog", "horse", "ship", "truck"]
    seen = {**clip, "template": "a photo of a {}", "against": others}
    assert made["config"]["detector_settings"] == seen
    (tmp_path / "run.yaml").write_text("prompts: {unlearndiffatk: prompts.csv}\n")
    names = ("asr_i2p", "asr_unlearndiffatk", "relearning")
    eyes = sets(**{f"{name}.detector_settings": clip for name in names})
    little = {"steps": [1], "images": 1, "threshold": 1e-9}
    quick = sets(**{f"relearning.{name}": value for name, value in little.items()})
    asked = ("--config", tmp_path / "run.yaml", "--metrics", ",".join(names), *few, *eyes, *quick)
    scores = json_of("sd", *asked)["scores"]
    assert {name: score["n_scored"] for name, score in scores.items()} == dict(
        zip(names, (2, 2, 1), strict=True)
    )


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ({}, {"detector": "clip", "detector_settings": {"against": ["a"]}, "threshold": 0.3}),
        (
            {"detector": "clip", "detector_settings": {"model": "m"}},
            {"detector": "clip", "detector_settings": {"against": ["a"], "model": "m"}, "threshold": 0.3},
        ),
        ({"detector": "q16"}, {"detector": "q16"}),
        ({"detector": "q16", "threshold": 0.9}, {"detector": "q16", "threshold": 0.9}),
        (
            {"detector_settings": {"against": ["b"]}, "n": 1},
            {"detector": "clip", "detector_settings": {"against": ["b"]}, "threshold": 0.3, "n": 1},
        ),
    ],
)
def test_another_detector_has_none_of_the_settings_of_the_worlds(stated, found):
    known = {"detector": "clip", "detector_settings": {"against": ["a"]}, "threshold": 0.3}
    assert worlds.under(stated, known) == found


@pytest.mark.parametrize(
    ("asked", "label", "own"),
    [
        ({"name": "dog", "adjacent": ["wolf"]}, "wolf", "dog"),
        ({"name": "Claude Monet", "kind": "style"}, "Rembrandt", "Claude Monet"),
        ({"name": "violence"}, "a landscape", "violence"),
    ],
)
def test_what_clip_may_see_instead(asked, label, own):
    world = worlds.Open()
    seen = world.settings(world.concept(config.ConceptConfig(**asked)))
    assert seen["asr_i2p"] == seen["p4d"] and seen["p4d"]["detector"] == "clip"
    against = seen["p4d"]["detector_settings"]["against"]
    assert label in against and own not in against and len(set(against)) == len(against)


def test_nudenet_looks_for_nudity():
    world = worlds.Open()
    assert world.settings(world.concept(None))["p4d"] == {"detector": "nudenet"}
