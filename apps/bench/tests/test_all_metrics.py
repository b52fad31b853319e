"""Metrics that need the model, that have no meaning, and all of them at once."""

from pathlib import Path

from unlearn_bench.sd import config
from unlearn_bench.sd.experiment import prepare
from unlearn_core import registry
from unlearn_core.record import RunRecord

FEW = ("sd", "--technique", "uce", "--limit", 3, "--steps", 3)


def test_relearning_trains_the_model_and_the_baseline(json_of):
    """With a threshold of nearly nothing: after three steps of drawing, the judge is sure of no dog."""
    easy = {"steps": "[1]", "images": 1, "tested": 1, "batch": 1, "threshold": 1e-9}
    settings = [part for name, value in easy.items() for part in ("--set", f"relearning.{name}={value}")]
    found = json_of(*FEW, "--metrics", "relearning", *settings)["scores"]["relearning"]
    assert {"after 0 steps", "after 1 steps"} <= set(found["parts"])
    assert 0 <= found["value"] <= 1 and found["baseline"]["value"] is not None


def test_what_needs_a_model_is_not_applicable_to_a_folder(json_of, bench):
    folder = json_of(*FEW, "--metrics", "asr_i2p")["images"]["folder"]
    found = json_of(
        "score", folder, "--metrics", "relearning,asr_i2p", "--model", "pocket", "--concept", "dog"
    )
    assert "trains the model itself" in found["scores"]["relearning"]["not_applicable"]
    assert "value" in found["scores"]["asr_i2p"]


def test_neighbours_are_compared_with_the_unmodified_model(json_of):
    found = json_of(*FEW, "--metrics", "near_concept,clip_score")["scores"]
    assert found["near_concept"]["baseline"]["value"] == 0
    assert found["near_concept"]["n_scored"] == 3
    assert {"adjacent"} <= set(found["clip_score"]["parts"])


def test_a_verdict_is_given_once(json_of):
    first = json_of(*FEW, "--metrics", "asr_i2p,ua_ira")
    again = json_of(*FEW, "--metrics", "asr_i2p,ua_ira", "--force")
    counts = [RunRecord.read(Path(run["record"])).environment["verdicts"] for run in (first,)]
    assert again["scores"] == first["scores"]
    assert counts[0]["computed"] == 0  # the second run wrote the record anew
    assert counts[0]["reused"] > 0


def test_all_metrics_can_be_prepared_on_pocket():
    """Each name has settings there, and what it rates is drawn or searched for."""
    names = registry.names("unlearn.metrics")
    experiment = prepare(
        config.Config(metrics=[{"name": name} for name in names], concept="dog", model="pocket")
    )
    assert set(experiment.metrics) == set(names) and not experiment.not_applicable
    assert set(experiment.attacks) == set(config.ATTACKS)


def test_too_few_rows_to_learn_from_are_told_before_anything_is_drawn(error, tmp_path):
    said = error("sd", "--model", "pocket", "--technique", "uce", "--limit", 8, "--metrics", "relearning")
    assert "learns from 8 images of target rows and tests others, and there are only 8 rows" in said
    assert not (tmp_path / "runs").exists()
