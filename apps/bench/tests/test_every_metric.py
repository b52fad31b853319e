"""Every metric and every attack from the command line: the same number twice, how sure it is, and what cannot be."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pocket_sd
from genmu_eval.err import err
from genmu_eval.table import PRESERVED, Judgement
from unlearn_bench.sd.config import ATTACKS, BASELINES
from unlearn_core import registry
from unlearn_core.record import RunRecord
from unlearn_core.testing.hub_server import HubServer
from unlearn_metrics.harmonic import AXES, five_arm

LITTLE = {
    "relearning": {"images": 1, "tested": 1, "steps": "[1,2]", "batch": 1, "threshold": 1e-9},
    "ring_a_bell": {"generations": 2, "population": 8},
    "mma_diffusion": {"steps": 2, "candidates": 8},
    "p4d": {"steps": 2, "look": 2},
    "unlearndiffatk": {"times": 2, "steps": 1},
    "seed_search": {"tries": 2},
    "asr_worst": {"attacks": json.dumps([*ATTACKS, *BASELINES])},
}
QUICK = [
    part for name, some in LITTLE.items() for k, v in some.items() for part in ("--set", f"{name}.{k}={v}")
]
FEW = ("sd", "--model", "pocket", "--limit", 2, "--steps", 2, "--batch", 2)
ALL = (*FEW, "--technique", "uce", "--metrics", "all", *QUICK)


def run(text, tmp_path):
    (tmp_path / "run.yaml").write_text(f"model: pocket\nconcept: dog\ntechnique: uce\n{text}")
    return "run", "--config", "run.yaml"


def told(score):
    """Return a score as it does not depend on where its files lie."""
    parts = {
        k: told(v) if isinstance(v, dict) else v for k, v in score["parts"].items() if "reference" not in k
    }
    return {**{k: v for k, v in score.items() if k not in ("baseline", "difference")}, "parts": parts}


def test_every_metric_and_attack_gives_the_same_number_twice(json_of, tmp_path, monkeypatch):
    """From nothing each time: other folders of runs, features and verdicts."""
    records = []
    for folder in ("one", "other"):
        monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / folder / "cache"))
        found = json_of(*ALL, "--out", tmp_path / folder / "runs")
        assert found["images"]["reused"] == 0
        records.append(RunRecord.read(tmp_path / folder / "runs" / Path(found["record"])))
    first, second = records
    assert first.run_id == second.run_id
    assert set(first.scores) == set(registry.names("unlearn.metrics"))
    made = [{name: one["fingerprint"] for name, one in r.environment["attacks"].items()} for r in records]
    assert made[0] == made[1] and set(made[0]) == set(registry.names("unlearn.attacks"))
    for name, score in first.scores.items():
        assert told(score) == told(second.scores[name]), name
        change = score["difference"]["value"]
        assert change == second.scores[name]["difference"]["value"] and 0 < change["p"] <= 1, name
        if score["n_scored"] > 1:  # one prompt says nothing about the spread over prompts
            assert score["interval"]["low"] <= score["value"] <= score["interval"]["high"], name
            assert change["low"] <= change["value"] <= change["high"] and score["baseline"]["interval"], name


def test_several_images_of_a_prompt_are_any_of_n(json_of, tmp_path):
    """Rows with one text and other seeds."""
    rows = "".join(f"{text},{seed}\n" for text in ("a dog", "a photo of a dog") for seed in (1, 2, 3))
    (tmp_path / "rows.csv").write_text(f"prompt,seed\n{rows}")
    text = "sampler: {steps: 2, batch: 2}\nmetrics: [asr_i2p]\nprompts: {target: rows.csv}\n"
    found = json_of(*run(text, tmp_path))
    score = RunRecord.read(Path(found["record"])).scores["asr_i2p"]
    assert (score["n_scored"], score["parts"]["any_of"]["n_scored"]) == (6, 2)
    assert score["interval"]["how"] == "bootstrap by prompt, no narrower than wilson"
    assert len(score["parts"]["any_of"]["per_sample"]) == 2 and "original" in score["parts"]
    assert {"any_of", "at_0.6", "original"} <= score["difference"].keys()


def test_prompts_are_drawn_from_several_noises(json_of, tmp_path):
    """A table's and an attack's, which is run once on each."""
    (tmp_path / "rows.csv").write_text("prompt,seed\na dog,1\na photo of a dog,2\n")
    attack = "{images: 2, attack: {name: ring_a_bell, config: {generations: 1, population: 4}}}"
    text = "sampler: {steps: 2}\nmetrics: [asr_i2p, asr_ring_a_bell]\n"
    text += f"prompts: {{target: {{source: rows.csv, images: 3}}, ring_a_bell: {attack}}}\n"
    record = RunRecord.read(Path(json_of(*run(text, tmp_path))["record"]))
    for name, n in (("asr_i2p", 6), ("asr_ring_a_bell", 4)):
        score = record.scores[name]
        assert (score["n_scored"], score["parts"]["any_of"]["n_scored"]) == (n, 2)
    assert record.scores["asr_ring_a_bell"]["parts"]["pre_attack"]["n_scored"] == 2
    assert record.environment["attacks"]["ring_a_bell"]["rows"] == 2
    ids = sorted(record.scores["asr_i2p"]["per_sample"])
    assert len({i.rpartition("-image-")[0] or i for i in ids}) == 2


def test_the_same_pictures_certainly_did_not_change(json_of):
    found = json_of(*FEW, "--technique", "none", "--metrics", "near_concept,asr_i2p,ua_ira")
    for name, score in RunRecord.read(Path(found["record"])).scores.items():
        change = score["difference"]["value"]
        assert (change["value"], change["low"], change["high"], change["p"]) == (0, 0, 0, 1), name
        assert change["how"] == "the same images"


def test_err_of_five_arms_is_the_challenges(json_of, tmp_path):
    """Our arms, and genmu-eval's table of the same judged images, through the protocol that both know."""
    (tmp_path / "rows.csv").write_text("prompt,seed\na hound,1\na puppy,2\n")
    metric = "{name: err, config: {arms: five, adversarial: p4d}}"
    text = f"limit: 2\nsampler: {{steps: 2, batch: 2}}\nmetrics: [{metric}]\nprompts: {{p4d: rows.csv}}\n"
    found = json_of(*run(text, tmp_path))
    score = RunRecord.read(Path(found["record"])).scores["err"]
    assert list(score["parts"]) == list(AXES.values()) and score["difference"]["value"]["p"] is not None
    rows = [
        Judgement(concept="dog", axis=axis, image=ident, present=bool(right) == (axis in PRESERVED))
        for axis, name in AXES.items()
        for ident, right in score["parts"][name]["per_sample"].items()
    ]
    assert five_arm(rows).value == pytest.approx(score["value"]) == pytest.approx(err(rows).err_pooled.value)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), min_size=1, max_size=12), st.randoms())
def test_five_arms_of_several_targets_are_genmu_evals(extra, random):
    rows = [
        Judgement(concept=concept, axis=axis, image=str(i), present=random.random() < 0.5)
        for axis in AXES
        for i, (concept, _) in enumerate([("a", True), ("b", True), *extra])
    ]
    assert five_arm(rows).value == pytest.approx(err(rows, resamples=100).err_pooled.value, abs=1e-12)


def test_every_kind_of_detector_judges_a_folder(json_of):
    folder = json_of(*FEW, "--technique", "none", "--metrics", "asr_i2p")["images"]["folder"]
    clip = {"against": ["cat", "car"], "model": f"local-dir:{pocket_sd.clip_path()}", "device": "cpu"}
    members = [{"detector": "pocket"}, {"detector": "clip", "settings": clip}]
    for detector, chosen, concept in (
        ("pocket", {}, "dog"),
        ("clip", clip, "dog"),
        ("classifier", {"classifier": "pocket", "top": 1}, "dog"),
        ("ensemble", {"members": members, "rule": "any"}, "dog"),
        *(
            (("nudenet", {"concept": "nudity", "classes": name}, "nudity"))
            for name in ("strict5", "core6", "wide9")
        ),
        ("nudenet", {"concept": "nudity", "channel_order": "bgr"}, "nudity"),
    ):
        found = json_of("score", folder, "--metrics", "asr_i2p", "--concept", concept, "--set",
                        f"asr_i2p.detector={detector}", "--set",
                        f"asr_i2p.detector_settings={json.dumps(chosen)}")  # fmt: skip
        score = found["scores"]["asr_i2p"]
        assert score["n_scored"] == 2 and score["interval"]["how"] == "wilson", (detector, score)


# ---- bad input -----------------------------------------------------------------------------------------------


def test_a_detector_that_is_not_installed(error, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "nudenet" else find(name, *a)
    )
    said = error(
        *FEW,
        "--metrics",
        "asr_i2p",
        "--set",
        "asr_i2p.detector=nudenet",
        "--set",
        "asr_i2p.detector_settings={}",
    )
    assert "this needs nudenet: pip install 'unlearn-metrics[nudenet]'" in said


def test_a_gated_data_set_without_a_token(error, tmp_path, monkeypatch):
    (tmp_path / "gated").mkdir()
    (tmp_path / "gated" / "rows.csv").write_text("prompt,evaluation_seed\na hound,5\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with HubServer({"datasets/owner/gated": tmp_path / "gated"}) as server:
        for name, value in server.constants.items():
            monkeypatch.setattr(name, value)
        server.require_token("secret")
        command = run("metrics: [asr_ring_a_bell]\nprompts: {ring_a_bell: owner/gated}\n", tmp_path)
        said = error(*command)
        assert "accept its conditions at https://huggingface.co/datasets/owner/gated" in said
        assert "set HF_TOKEN=… or run 'hf auth login'" in said
        monkeypatch.setenv("HF_TOKEN", "secret")
        from unlearn_bench.sd import config, experiment

        rows = experiment.prepare(config.load(tmp_path / "run.yaml")).prompts["ring_a_bell"]
    assert [(row.text, row.seed, row.origin) for row in rows] == [("a hound", 5, "owner/gated")]


def test_a_table_without_the_column(error, tmp_path):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["words", "seed"], ["a hound", 1]])
    said = error(*run("metrics: [asr_mma_diffusion]\nprompts: {mma_diffusion: rows.csv}\n", tmp_path))
    assert "column 'adv_prompt' or 'prompt' or 'text'; columns found: 'words', 'seed'" in said
    assert "no column 'rest'" in error(*run(
        "metrics: [{name: in_prompt_clip, config: {pairs: pairs.csv}}]\n", pairs(tmp_path)))  # fmt: skip


def pairs(folder):
    (folder / "pairs.csv").write_text("prompt\na photo of a dog\n")
    return folder


def test_pictures_that_cannot_be_decoded_are_never_a_number(json_of, bench, tmp_path):
    good = json_of(*FEW, "--technique", "none", "--metrics", "asr_i2p")["images"]["folder"]
    (tmp_path / "mixed").mkdir()
    for i, picture in enumerate(sorted(Path(good).rglob("*.png"))[:2]):
        (tmp_path / "mixed" / f"{i}.png").write_bytes(picture.read_bytes()[: 40 if i else None])
    rows = "".join(f"{i}.png,a dog,{i}\n" for i in (0, 1))
    (tmp_path / "table.csv").write_text("file_name,text,seed\n" + rows)
    about = (
        "--metrics",
        "asr_i2p",
        "--model",
        "pocket",
        "--concept",
        "dog",
        "--prompts",
        tmp_path / "table.csv",
    )
    found = json_of("score", tmp_path / "mixed", *about)["scores"]["asr_i2p"]
    assert (found["n_scored"], found["n_unscored"], found["reasons"]) == (
        1,
        1,
        {"the image cannot be read": 1},
    )
    (tmp_path / "mixed" / "0.png").write_bytes(b"no picture")
    found = bench("score", tmp_path / "mixed", *about)
    assert found.code == 1 and "no sample could be judged: the image cannot be read (2)" in found.out
    assert "0.000" not in found.out


@pytest.mark.parametrize(
    "settings",
    ["{detector: nudenet, detector_settings: {}}", "{detector: nudenet, detector_settings: {concept: dog}}"],
)
def test_a_metric_without_a_meaning_for_the_concept_says_why_and_leaves_the_others(bench, tmp_path, settings):
    text = f"limit: 1\nsampler: {{steps: 2}}\nmetrics: [ua_ira, {{name: asr_i2p, config: {settings}}}]\n"
    found = bench(*run(text, tmp_path))
    assert found.code == 0 and "n/a" in found.out
    assert "asr_i2p is not applicable: NudeNet detects nudity, not 'dog'" in found.out
    found = json.loads(bench(*run(text, tmp_path), "--json").out)["scores"]
    assert "value" in found["ua_ira"] and "NudeNet detects nudity" in found["asr_i2p"]["not_applicable"]
