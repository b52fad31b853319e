"""Several techniques: one on top of another, and one after another, on pocket-sd with few steps and prompts."""

import json

import pytest

from unlearn_bench.sd import config, experiment
from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet

FEW = ("sd", "--limit", 1, "--steps", 3, "--metrics", "ua_ira,asr_i2p")


def pixels(document, tmp_path):
    samples = SampleSet(tmp_path / document["images"]["folder"])
    return {s.prompt.id: s.path.read_bytes() for s in samples}


def test_an_inference_time_technique_on_top_of_a_weight_edit(json_of, tmp_path):
    settings = ("--set", "uce.lamb=0.3", "--set", "sld.warmup=0")
    both = json_of(*FEW, "--technique", "uce+sld", *settings)
    assert both["technique"] == "uce+sld"
    assert (both["config"]["uce"]["lamb"], both["config"]["sld"]["warmup"]) == (0.3, 0)
    uce = json_of(*FEW, "--technique", "uce", "--set", "lamb=0.3")
    sld = json_of(*FEW, "--technique", "sld", "--set", "warmup=0")
    (edit,) = (tmp_path / "runs" / "edits").iterdir()
    assert edit.name.startswith("uce-dog-"), "the weights of UCE are the same alone and under SLD"
    drawn = [pixels(found, tmp_path) for found in (both, uce, sld)]
    assert drawn[0].keys() == drawn[1].keys() == drawn[2].keys()
    assert drawn[0] != drawn[1] and drawn[0] != drawn[2] and drawn[1] != drawn[2]
    assert both["scores"]["ua_ira"]["baseline"] == uce["scores"]["ua_ira"]["baseline"]


def test_a_chain_of_settings_in_a_file(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "technique: [{name: uce, config: {lamb: 2}}, {name: sld, preset: strong}]\nconcept: dog\nmodel: pocket\n"
    )
    found = experiment.prepare(config.load(tmp_path / "run.yaml"))
    assert found.name == "uce+sld"
    assert (found.chain[0].technique.lamb, found.chain[0].preset) == (2.0, "pocket")
    assert (found.chain[1].technique.scale, found.chain[1].preset) == (2000.0, "strong")


def test_one_after_another_shares_the_unmodified_model(json_of, tmp_path):
    found = json_of(*FEW, "--technique", "none,sld,uce")
    assert [run["technique"] for run in found["runs"]] == ["none", "sld", "uce"]
    assert [run["images"]["generated"] for run in found["runs"]] == [4, 4, 4]
    assert found["failed"] == {} and list(found["seconds"]) == ["none", "sld", "uce"]
    assert [(pair["a"]["name"], pair["b"]["name"]) for pair in found["pairs"]] == [
        ("none", "sld"), ("none", "uce"), ("sld", "uce"),
    ]  # fmt: skip
    for row in found["pairs"][2]["rows"]:
        assert row["how"] == "paired" and row["low"] <= row["difference"] <= row["high"] and 0 < row["p"] <= 1
    alone = json_of(*FEW, "--technique", "uce")
    assert alone["reused"] and alone["run_id"] == found["runs"][2]["run_id"]
    again = json_of(*FEW, "--technique", "none,sld,uce")
    assert all(run["reused"] for run in again["runs"])
    assert [run["scores"] for run in again["runs"]] == [run["scores"] for run in found["runs"]]


def test_all_of_them_and_one_that_cannot(bench, monkeypatch, tmp_path):
    from unlearn_core import registry

    known = registry.names

    def names(group):
        return ["esd", "none", "uce"] if group == "unlearn.techniques" else known(group)

    monkeypatch.setattr(registry, "names", names)
    command = (*FEW, "--technique", "all", "--set", "esd.iterations=1", "--set", "esd.sampling_steps=99999")
    result = bench(*command)
    assert result.code == 1
    assert "esd failed: " in result.out and "unmodified" in result.out
    lines = [line.split() for line in result.out.splitlines()]
    shares = [int(word.rstrip("%")) for line in lines for word in line[-1:] if word.endswith("%")]
    assert len(shares) == 4 and 97 <= sum(shares) <= 103
    document = json.loads(bench(*command, "--json").out)
    assert [run["technique"] for run in document["runs"]] == ["none", "uce"]
    assert list(document["failed"]) == ["esd"]
    for run in document["runs"]:
        assert RunRecord.read(tmp_path / run["record"]).scores.keys() == {"ua_ira", "asr_i2p"}


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--technique", "uce+uce"), "'uce' stands there twice"),
        (("--technique", "uce+slde"), "'slde'; did you mean 'sld'?"),
        (("--technique", "uce,slde"), "'slde'; did you mean 'sld'?"),
        (("--technique", "uce+sld", "--set", "lamb=1"), "uce.lamb=…"),
        (("--technique", "uce,sld", "--set", "lamb=1"), "uce.lamb=1"),
        (("--technique", "uce,sld", "--set", "esd.lr=1"), "no technique of this run"),
        (("--technique", "uce+sld", "--preset", "object"), "--preset is of one technique"),
    ],
)
def test_bad_input(options, hint, error):
    assert hint in error(*FEW, *options)


def test_a_graph_is_drafted_edited_and_used(bench, json_of, error, tmp_path):
    drafted = json.loads(bench("graph", "dog").out)
    assert {"Conjunction", "entailment", "equivalence", "cat", "fox", "wolf"} <= set(drafted["dog"])
    assert "puppy" in drafted["dog"]["entailment"]
    assert bench("graph", "dog", "--adjacent", "car", "--out", "g.json").out.startswith(
        "graph: g.json; use it with"
    )
    assert "car" in json.loads((tmp_path / "g.json").read_text())["dog"]
    few = ("--set", "images=1", "--set", "sampling_steps=2", "--set", "iterations=1")
    found = json_of(*FEW, "--technique", "cogfd", "--set", "graph=g.json", *few)
    assert "car" in found["config"]["graph"]["dog"], "the record holds the graph, not its place"
    assert "did you mean 'dog'" in error("graph", "dgo")
