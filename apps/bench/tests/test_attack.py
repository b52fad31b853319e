"""Attacks in `bench sd` and `bench attack`: through every defence, found once, stated in the record, in a table."""

import dataclasses
import json

import pytest
import torch

from unlearn_bench.sd import attacks, config, experiment, runner
from unlearn_bench.sd.attacks import Drawn
from unlearn_core import registry
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet
from unlearn_core.spec import build
from unlearn_metrics.attacks.drawing import Candidates, Noised, Slots
from unlearn_metrics.attacks.p4d import P4D
from unlearn_metrics.attacks.vocabulary import Vocabulary
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.testing import tiny_sd, tiny_sdxl

METRICS = "asr_ring_a_bell,asr_mma_diffusion,asr_p4d,asr_unlearndiffatk,asr_worst"
LITTLE = {
    "ring_a_bell": ("generations=2", "population=8"),
    "mma_diffusion": ("steps=2", "candidates=8"),
    "p4d": ("steps=2", "look=2"),
    "unlearndiffatk": ("times=2", "steps=1"),
}
QUICK = [part for name, some in LITTLE.items() for one in some for part in ("--set", f"{name}.{one}")]
FEW = ("sd", "--model", "pocket", "--limit", 1, "--steps", 3)
ONE = (
    "attack",
    "p4d",
    "--model",
    "pocket",
    "--limit",
    2,
    "--steps",
    3,
    "--set",
    "steps=2",
    "--set",
    "look=1",
)

# ---- through the defence -------------------------------------------------------------------------------------

TRAINED = {"iterations": 2, "lr": 1e-3, "sampling_steps": 2}
DRAWN = {**TRAINED, "images": 2}
SETTINGS = {
    "none": {},
    "uce": {},
    "sld": {"warmup": 0},
    "safree": {},
    "trasce": {},
    "rece": {"epochs": 1},
    "esd": TRAINED,
    "ca": {**DRAWN, "captions": ("a {}",)},
    "mace": {**DRAWN, "templates": ("a {}",)},
    "fade": {**DRAWN, "batch": 2},
    "cogfd": {**DRAWN, "picture_templates": ("a {}",)},
    "ssd": {"samples": 2, "pictures": 1, "sampling_steps": 2, "retain_prompts": ("a car",)},
    "advunlearn": {**TRAINED, "warmup": 1, "attack_steps": 1, "retained": ("car",), "pool": 1},
    "concept_steerers": {"rows": 4000, "k": 8, "captions": ("a car",)},
    "saeuron": {"rows": 4000, "k": 8, "captions": ("a car",), "sampling_steps": 2, "multiplier": -20.0},
}
DOG = Concept(name="dog", anchor="cat", adjacent=("wolf",))
ACTING = ("sld", "safree", "trasce", "concept_steerers", "saeuron")


@pytest.mark.filterwarnings("ignore::unlearn_core.errors.UnlearnWarning")
@pytest.mark.parametrize("name", registry.names("unlearn.techniques"))
def test_gradients_go_through_every_technique(name):
    """Those that act while the model draws change the gradient, so they took part; none of them stops it."""
    base = tiny_sd()
    technique = build(registry.load("unlearn.techniques", name), SETTINGS[name])
    sampler = Sampler(steps=4, guidance_scale=4.0)
    edited = Drawn(model=technique.apply(base, [DOG], seed=0), sampler=sampler)
    assert (name in ACTING) == bool(edited.hooks)
    row = Prompt(id="a", text="a dog", seed=0, group="target", concept="dog")
    found = {}
    for model in (edited, Drawn(model=base, sampler=sampler)):
        words = Vocabulary.of(model, DOG)
        tokens = (None, *model.tokenizer("a dog", add_special_tokens=False).input_ids, None)
        search = Candidates(
            attack="p4d", model=model, words=words, row=row, about=DOG, slots=Slots(tokens=tokens)
        )
        noised = Noised.of(model, torch.ones((1, 4, 8, 8)), 900, torch.Generator().manual_seed(0))
        found[model] = [
            search.gradient(words.ids[[3, 9]], noised, torch.zeros((1, 4, 8, 8)), scale)[1]
            for scale in (1.0, 4.0)
        ]
    for one, _ in zip(*found.values(), strict=True):
        assert one.shape == (2, 32) and one.isfinite().all()
        assert (one.abs().sum(1) > 0).all()
    if name in ACTING:
        assert any(not torch.allclose(a, b) for a, b in zip(*found.values(), strict=True))


def test_a_time_is_that_step_of_the_sampler(monkeypatch):
    seen = []
    monkeypatch.setattr(StableDiffusion, "noise", lambda *a, step, **k: seen.append((step.index, step.total)))
    model = Drawn(model=tiny_sd(), sampler=Sampler(steps=25))
    for t in (999, 919, 500, 0):
        model.noise(torch.zeros((1, 4, 8, 8)), torch.tensor(t), None)
    assert seen == [(0, 25), (2, 25), (12, 25), (24, 25)]


def test_two_text_encoders_are_one_message(tmp_path):
    model = Drawn(model=tiny_sdxl(), sampler=Sampler(steps=2))
    row = Prompt(id="a", text="a dog", seed=0, group="target", concept="dog")
    plan = attacks.plan(
        config.Attack(name="p4d"), {"extractor": "pocket", "extractor_settings": {}, "samples": 1},
        prompts=PromptSet(name="p", rows=(row,)), presets=(), concept=DOG, foreign=False,
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="which has two"):
        attacks.discover(plan, concept=DOG, seed=0, original=model, edited=model, folder=tmp_path)


# ---- in a run ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the folder of all runs of this module, where transfer prompts are found again."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def uce(json_of, runs):
    return json_of(*FEW, *QUICK, "--metrics", METRICS, "--technique", "uce", "--out", runs)


def test_a_run_with_all_attacks(uce, runs):
    assert set(uce["scores"]) == set(METRICS.split(","))
    for score in uce["scores"].values():
        assert "error" not in score
    assert {"pre_attack", "post_attack", "original"} <= set(uce["scores"]["asr_p4d"]["parts"])
    assert "union" in uce["scores"]["asr_worst"]["parts"]
    record = RunRecord.read(runs / uce["record"])
    for group, mode in (("ring_a_bell", "transfer"), ("p4d", "adaptive"), ("unlearndiffatk", "adaptive")):
        asked, made = record.spec["prompts"][group], record.environment["attacks"][group]
        assert asked["attack"] == group and asked["mode"] == made["mode"] == mode and asked["rows"] == 1
        table = PromptSet.load(runs / "attacks" / made["file"])
        assert table.fingerprint == made["fingerprint"]
        assert table.rows[0].origin == f"{group} {mode} of target-dog-000"
    assert record.spec["prompts"]["p4d"]["config"]["steps"] == 2
    assert any("found by the attack with the preset 'pocket', adaptive" in note for note in uce["notes"])
    drawn = SampleSet(runs / uce["images"]["folder"])
    assert len(drawn) == 5 and sorted({s.prompt.group for s in drawn}) == sorted([*LITTLE, "target"])


def test_nothing_is_made_twice(uce, json_of, runs, monkeypatch):
    assert json_of(*FEW, *QUICK, "--metrics", METRICS, "--technique", "uce", "--out", runs)["reused"]
    crafted = []
    for name in LITTLE:
        cls = registry.load("unlearn.attacks", name)
        monkeypatch.setattr(
            cls,
            "craft",
            lambda self, *a, made=cls.craft, **k: crafted.append(self.name) or made(self, *a, **k),
        )
    sld = json_of(*FEW, *QUICK, "--metrics", METRICS, "--technique", "sld", "--out", runs)
    assert sorted(crafted) == ["p4d", "unlearndiffatk"]  # the others attack the unmodified model
    before, after = RunRecord.read(runs / uce["record"]), RunRecord.read(runs / sld["record"])
    for group in ("ring_a_bell", "mma_diffusion"):
        assert after.environment["attacks"][group]["reused"]
        assert after.environment["attacks"][group]["file"] == before.environment["attacks"][group]["file"]
    assert sld["images"]["generated"] <= 5 + 2 and sld["images"]["reused"] >= 3
    forced = json_of(*FEW, *QUICK, "--metrics", METRICS, "--technique", "sld", "--out", runs, "--force")
    assert forced["images"]["generated"] == 0 and forced["scores"] == sld["scores"] and len(crafted) == 2


def test_other_settings_another_run():
    one = config.build({"model": "pocket", "limit": 1, "metrics": ["asr_p4d"]}, "x")
    found = experiment.prepare(one, ["p4d.variant=k"])
    assert found.attacks["p4d"].attack.variant == "k"
    ids = set()
    for mode in ("transfer", "adaptive"):
        asked = {"p4d": {"attack": {"name": "p4d", "mode": mode}}}
        made = experiment.prepare(
            config.build({"model": "pocket", "metrics": ["asr_p4d"], "prompts": asked}, "x")
        )
        ids.add(json.dumps(made.spec("f"), default=str))
        assert made.attacks["p4d"].mode == mode and len(made.attacks["p4d"].prompts) == 8
    assert len(ids) == 2


def test_baselines_stand_beside_attacks(json_of):
    found = json_of(
        *FEW, "--technique", "none", "--metrics", "asr_worst", "--set", "p4d.steps=1", "--set", "seed_search.tries=2",
        "--set", 'asr_worst.attacks=["p4d", "seed_search", "random_tokens"]',
    )  # fmt: skip
    parts = found["scores"]["asr_worst"]["parts"]
    assert [parts[name]["n_scored"] for name in ("p4d", "seed_search", "random_tokens")] == [1, 2, 1]


def test_published_prompts_stay_the_default_elsewhere():
    sees = {"detector": "pocket", "detector_settings": {"concept": "dog"}}
    metrics = [{"name": "asr_p4d", "config": sees}]
    asked = {"model": "CompVis/stable-diffusion-v1-4", "concept": "dog", "metrics": metrics}
    with pytest.raises(
        InvalidInput, match="nothing can be measured: .*published prompts of p4d are for nudity"
    ):
        experiment.prepare(config.build(asked, "x"))
    attack = {"name": "p4d", "config": {"extractor": "pocket", "extractor_settings": {}, "samples": 1}}
    found = experiment.prepare(
        config.build({**asked, "prompts": {"p4d": {"attack": attack, "limit": 3}}}, "x")
    )
    assert found.attacks["p4d"].attack.tokens == 16 and len(found.attacks["p4d"].prompts) == 3


# ---- the command ---------------------------------------------------------------------------------------------


def test_the_command_writes_prompts_for_use_elsewhere(json_of, bench, tmp_path):
    found = json_of(*ONE, "--technique", "uce", "--out", "prompts.csv")
    assert (found["mode"], found["rows"], found["attack"], found["technique"]) == (
        "adaptive",
        2,
        "p4d",
        "uce",
    )
    prompts = PromptSet.load(tmp_path / "prompts.csv")
    assert prompts.fingerprint == found["fingerprint"] and {row.group for row in prompts} == {"p4d"}
    record = json.loads((tmp_path / "prompts.json").read_text())
    assert record["found"].keys() == {row.id for row in prompts} and record["evaluations"] == 4
    assert {"ids", "read", "changed", "pictures"} <= set(record["found"][prompts.rows[0].id])
    out = bench(*ONE, "--technique", "uce").out
    assert "found again" in out and prompts.rows[0].text in out
    (tmp_path / "run.yaml").write_text(
        "model: pocket\nconcept: dog\ntechnique: uce\nmetrics: [asr_p4d]\nsampler: {steps: 3}\n"
        "prompts: {p4d: prompts.csv}\n"
    )
    scores = json_of("run", "--config", "run.yaml")["scores"]
    assert scores["asr_p4d"]["n_scored"] == 2


def test_a_transfer_attack_needs_no_technique(json_of, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "unlearn", lambda *a: pytest.fail("nothing is to be forgotten"))
    one = json_of(*ONE, "--technique", "uce", "--mode", "transfer")
    other = json_of(*ONE, "--technique", "sld", "--mode", "transfer")
    assert (one["fingerprint"], other["reused"]) == (other["fingerprint"], True)


def test_a_stopped_search_goes_on_and_a_damaged_table_is_found_again(bench, json_of, tmp_path, monkeypatch):
    searched, search = [], P4D.search

    def stopped(self, *a):
        searched.append(1)
        if len(searched) == 2:
            raise KeyboardInterrupt
        return search(self, *a)

    monkeypatch.setattr(P4D, "search", stopped)
    assert bench(*ONE).code == 130
    assert not list((tmp_path / "runs" / "attacks").glob("*.json"))
    found = json_of(*ONE)
    assert len(searched) == 3 and found["rows"] == 2  # the first row was kept
    table = tmp_path / found["table"]
    table.write_text(table.read_text().replace("target", "torget"))
    again = json_of(*ONE)
    assert again["fingerprint"] == found["fingerprint"] and not again["reused"] and len(searched) == 3


def test_a_table_of_prompts_is_attacked(json_of, tmp_path):
    (tmp_path / "mine.csv").write_text("prompt,seed\na dog by a car,5\na dog,6\n")
    found = json_of(*ONE, "--prompts", "mine.csv", "--set", "variant=k")
    assert found["of"]["rows"] == 2
    table = PromptSet.load(tmp_path / found["table"])
    assert [row.seed for row in table] == [5, 6] and "car" in table.rows[0].text


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("attack", "p4dd"), "did you mean 'p4d'?"),
        ((*ONE, "--mode", "sideways"), "'transfer' or 'adaptive'"),
        ((*ONE, "--set", "tokns=3"), "did you mean 'tokens'?"),
        ((*ONE, "--set", "steps=0"), "at least 1"),
        ((*ONE, "--preset", "pockt"), "did you mean 'pocket'?"),
        ((*ONE, "--set", "extractor=pokcet"), "did you mean 'pocket'?"),
        (
            ("attack", "unlearndiffatk", "--model", "pocket", "--set", "detector=pokcet"),
            "did you mean 'pocket'?",
        ),
        ((*ONE, "--out", "prompts.txt"), ".csv or .jsonl"),
        ((*ONE, "--concept", "dgo"), "did you mean 'dog'?"),
        ((*ONE, "--technique", "ucee"), "did you mean 'uce'?"),
        ((*ONE, "--technique", "uce", "--set", "uce.lmb=1"), "did you mean 'lamb'?"),
        ((*ONE, "--prompts", "no.csv"), "no.csv"),
        ((*FEW, "--metrics", "asr_i2p", "--set", "p4d.steps=2"), "made by that attack"),
    ],
)
def test_bad_input_is_one_message_before_a_model_is_loaded(options, hint, error, monkeypatch):
    monkeypatch.setattr(runner, "load", lambda *a: pytest.fail("a model was loaded"))
    assert hint in error(*options)


@pytest.mark.parametrize(
    ("prompts", "hint"),
    [
        ({"p4d": {"attack": "ring_a_bell"}}, "not made by the attack 'ring_a_bell'"),
        ({"p4d": {"attack": "p4d", "source": "x.csv"}}, "a table and an attack"),
        ({"target": {"attack": "p4d"}}, "not made by the attack"),
        ({"p4d": {"attack": {"name": "p4d", "mood": "adaptive"}}}, "did you mean 'mode'"),
    ],
)
def test_a_group_is_made_by_the_attack_of_its_name(prompts, hint):
    with pytest.raises(InvalidInput, match=hint):
        config.build({"prompts": prompts}, "run.yaml")


def test_what_draws_with_a_model_of_its_own_cannot_be_looked_into():
    rows = PromptSet(name="p", rows=(Prompt(id="a", text="a dog", seed=0, group="target"),))
    known = {"prompts": rows, "presets": ("pocket",), "concept": DOG, "foreign": True}
    assert attacks.plan(config.Attack(name="p4d"), {}, **known).mode == "transfer"
    with pytest.raises(InvalidInput, match="only --mode transfer"):
        attacks.plan(config.Attack(name="p4d", mode="adaptive"), {}, **known)


def test_the_same_picture_is_not_drawn_again_for_an_attack(tmp_path, monkeypatch):
    row = Prompt(id="a", text="a dog", seed=0, group="target", concept="dog")
    model, samples = tiny_sd(), SampleSet(tmp_path)
    (picture,) = model.generate([row], Sampler(steps=2))
    samples.add(row, runner.png(picture))
    monkeypatch.setattr(StableDiffusion, "generate", lambda *a, **k: pytest.fail("drawn again"))
    (kept,) = Drawn(model=model, sampler=Sampler(steps=2), pictures=samples).generate([row])
    assert (kept == picture).all()
    with pytest.raises(pytest.fail.Exception):
        next(
            Drawn(model=model, sampler=Sampler(), pictures=samples).generate(
                [dataclasses.replace(row, seed=1)]
            )
        )
