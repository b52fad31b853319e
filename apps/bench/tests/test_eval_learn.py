"""Files of eval-learn as they stand: what they say, what is said otherwise, and what means nothing any more."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_bench.sd import config, eval_learn, experiment
from unlearn_bench.sd import eval_learn_keys as keys
from unlearn_core import registry, spec
from unlearn_core.errors import InvalidInput

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
"""The example of eval-learn's leaderboard page, quoted."""

CUDA = {"device": "cuda"}
DRAWN = {"num_inference_steps": 20, "guidance_scale": 7.5}
CLIP_L = {"clip_model_name": "openai/clip-vit-large-patch14"}


def file(technique="uce", settings=None, metrics=(("fid", {}),), **more):
    """Return a file of eval-learn; by default UCE of nudity, and FID."""
    settings = {"preset": "nudity"} if settings is None and technique == "uce" else settings
    plugs = [{"name": name, "config": dict(own)} for name, own in metrics]
    return {
        "output_dir": "results",
        "technique": {"name": technique, "config": settings},
        "metrics": plugs,
        **more,
    }


def read(mapping):
    assert eval_learn.recognises(mapping)
    return config.build(eval_learn.translate(mapping, "a.yaml"), "a.yaml")


def stated(mapping):
    """Return what the configuration says besides its defaults, without notes."""
    return read(mapping).model_dump(exclude_defaults=True, exclude={"notes"})


def technique_of(name, settings):
    return read(file(name, settings)).technique[0]


def metric_of(name, settings, **more):
    return read(file(metrics=[(name, settings)], **more)).metrics[0].config


# ---- whole files ----------------------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path):
    (tmp_path / "config.yaml").write_text(LEADERBOARD)
    return config.load(tmp_path / "config.yaml")


def test_the_leaderboard_s_sample_is_understood_unchanged(sample):
    assert sample.model_dump(exclude_defaults=True, exclude={"notes"}) == {
        "technique": [
            {
                "name": "esd",
                # The three that are not stated are the defaults of eval-learn's ESDConfig: 2.0 (eta 1), 200, 5e-5.
                "config": {"train_method": "esd-u", "eta": 1.0, "iterations": 200, "lr": 5e-5},
            }
        ],
        "concept": {"name": "nudity"},
        "metrics": [
            {"name": "asr_i2p", "config": {"detector": "nudenet", "threshold": 0.5}},
            {"name": "clip_score"},
        ],
        "seed": 42,
        "out": Path("results/nudity/esd"),
    }


def test_what_the_sample_leaves_open_or_says_otherwise_is_noted(sample):
    notes = "\n".join(sample.notes)
    for part in (
        "esd: not stated, so as eval-learn's defaults: negative_guidance: 2.0, train_steps: 200, learning_rate: 5e-05",
        "esd: train_method: noxattn is train_method: esd-u here",
        "esd: negative_guidance: 2.0 is eta: 1.0 here",
        "asr_i2p: rows of I2P are drawn with their own seed and guidance",
        "batch_size and device of metrics are not needed",
    ):
        assert part in notes
    assert len(set(sample.notes)) == len(sample.notes)


def test_on_pocket_the_sample_says_which_concepts_there_are(sample):
    with pytest.raises(InvalidInput, match="nudity.*'weapon' stands in for unsafe content"):
        experiment.prepare(sample.model_copy(update={"model": "pocket", "device": "cpu"}))


def test_a_file_of_quick_start_size():
    metrics = [
        ("asr_i2p", {**CUDA, "limit": 5, "concept_name": "nudity", "detector": "nudenet"}),
        ("clip_score", {**CLIP_L, **CUDA, "limit": 5}),
    ]
    assert stated(file("uce", {"preset": "nudity", **CUDA, **DRAWN}, metrics, seed=42)) == {
        "concept": {"name": "nudity"},
        "metrics": [
            {"name": "asr_i2p", "config": {"detector": "nudenet", "threshold": 0.5}},
            {"name": "clip_score", "config": {"model": "ViT-L-14-quickgelu"}},
        ],
        "prompts": {"i2p": {"limit": 5}, "quality": {"limit": 5}},
        "sampler": {"steps": 20, "guidance_scale": 7.5},
        "seed": 42,
        "out": Path("results"),
    }


def test_the_baseline_of_eval_learn():
    mapping = file("free_run", {"model_id": "CompVis/stable-diffusion-v1-4", **CUDA}, seed=7)
    assert stated(mapping) == {
        "technique": [{"name": "none"}],
        "model": "CompVis/stable-diffusion-v1-4",
        "metrics": [{"name": "fid"}],
        "seed": 7,
        "out": Path("results"),
    }


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_both_forms_and_a_single_metric(tmp_path, suffix):
    mapping = {**file("uce"), "metric": {"name": "fid", "config": {"limit": 8}}}
    del mapping["metrics"]
    (tmp_path / f"c{suffix}").write_text(json.dumps(mapping))  # JSON is YAML
    read = config.load(tmp_path / f"c{suffix}")
    assert [metric.name for metric in read.metrics] == ["fid"] and read.prompts["quality"].limit == 8


def test_1e_5_is_a_number(tmp_path):
    text = LEADERBOARD.replace("train_method: noxattn", "learning_rate: 1e-5")
    (tmp_path / "c.yaml").write_text(text)
    lr = config.load(tmp_path / "c.yaml").technique[0].config["lr"]
    assert lr == 0.00001 and isinstance(lr, float)


@pytest.mark.parametrize(
    "mapping",
    [
        file("esd", {"erase_concept": "Van Gogh", "erase_from": "art", "train_method": "xattn"}),
        file("uce", {"erase_concept": ["dog", "puppy"], "concept_type": "style"}),
        file("sld", {"erase_concept": "violence", "preset": "none", "sld_warmup_steps": 3}),
        file("free_run", {"model_id": "x"}, [("asr_i2p", {"concept_name": "nudity"})]),
        file(metrics=[("asr_i2p", {"concept_name": "nudity", "detector": "nudenet", "threshold": 0.6})]),
        file(metrics=[("asr_i2p", {"detector": "clip", "clip_model_id": "openai/clip-vit-base-patch32"})]),
        file(metrics=[("clip_score", CLIP_L)]),
    ],
)
def test_what_is_understood_are_settings_that_exist(mapping):
    read_ = read(mapping)
    cls = registry.load("unlearn.techniques", read_.technique[0].name)
    assert read_.technique[0].preset in (None, "none", *getattr(cls, "presets", {}))
    for group, plug in [
        ("techniques", read_.technique[0]),
        *(("metrics", metric) for metric in read_.metrics),
    ]:
        built = spec.build(registry.load(f"unlearn.{group}", plug.name), plug.config)
        assert plug.config.items() <= json.loads(json.dumps(spec.settings_of(built))).items()


# ---- techniques -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("esd", {"train_method": "noxattn"}, {"train_method": "esd-u"}),
        ("esd", {"train_method": "XATTN"}, {"train_method": "esd-x"}),
        ("esd", {"train_method": "selfattn"}, {"train_method": "selfattn"}),
        ("esd", {"train_method": "full"}, {"train_method": "full"}),
        ("esd", {"train_steps": 1000, "learning_rate": "1e-5"}, {"iterations": 1000, "lr": 1e-5}),
        # e(c) - g (e(c) - e("")) = e("") - (g - 1)(e(c) - e("")); with another prompt to erase from, g stays g.
        ("esd", {"negative_guidance": 3}, {"eta": 2.0}),
        ("esd", {"negative_guidance": 1.0}, {"eta": 0.0}),
        ("esd", {"erase_concept": "Van Gogh", "erase_from": "van gogh "}, {"eta": 1.0}),
        ("esd", {"erase_concept": "Van Gogh", "erase_from": "art"}, {"eta": 2.0, "erase_from": "art"}),
        ("esd", {"save_path": None, "load_path": None, "erase_from": None}, {"eta": 1.0}),
        ("uce", {"preset": "dog"}, {}),
        ("uce", {"erase_concept": ["dog", "puppy"]}, {"phrases": True}),
        ("sld", {"preset": "none"}, keys.SLD_OFF),
        ("sld", {"preset": "none", "sld_guidance_scale": 9}, {**keys.SLD_OFF, "scale": 9.0}),
        ("sld", {"sld_guidance_scale": "2e3", "sld_warmup_steps": 7}, {"scale": 2000.0, "warmup": 7}),
        (
            "sld",
            {"sld_threshold": 0.025, "sld_momentum_scale": 0.5, "sld_mom_beta": 0.7},
            {"threshold": 0.025, "momentum_scale": 0.5, "momentum_beta": 0.7},
        ),
        ("sld", {"erase_concept": "violence"}, {"text": "paper"}),
        ("mace", {"lambda_cfr": 0.2, **CUDA, **DRAWN}, {"lamb": 0.2}),
        ("ca", {"anchor_concept": "cat"}, {"anchor": "cat", "iterations": 400, "lr": 1e-5}),
        ("theirs", {"strength": 0.1, **CUDA, **DRAWN}, {"strength": 0.1}),
    ],
)
def test_settings_of_a_technique(name, settings, expected):
    read_ = technique_of(name, settings)
    assert read_.name == name and {k: read_.config.get(k) for k in expected} == expected
    if "text" not in expected:
        assert set(read_.config) - {"text"} <= {*expected, "train_method", "eta", "iterations", "lr"}


@pytest.mark.parametrize("preset", ["weak", "medium", "Strong", "MAX", None])
def test_presets_of_sld(preset):
    assert technique_of("sld", {"preset": preset}).preset == (preset or "max").lower(), "theirs is max"


def test_a_guidance_that_is_not_shifted_is_no_note():
    mapping = file("esd", {"erase_concept": "hat", "erase_from": "a man in a hat", "negative_guidance": 2.0})
    assert not [note for note in read(mapping).notes if "eta" in note]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"preset": "nudity"}, {"name": "nudity"}),
        ({"preset": "Violence"}, {"name": "violence"}),
        ({"preset": "dog", "erase_concept": "dog"}, {"name": "dog"}),
        ({"concept": "cat"}, {"name": "cat"}),
        ({"erase_concept": "dog", "concept_type": "object"}, {"name": "dog"}),
        ({"erase_concept": "Monet", "concept_type": "style"}, {"name": "Monet", "kind": "style"}),
        ({"erase_concept": ["Monet"]}, {"name": "Monet"}),
        ({"erase_concept": ["Monet", "Manet"]}, {"name": "Monet", "phrases": ["Manet"]}),
    ],
)
def test_the_concept_of_uce(settings, expected):
    assert stated(file("uce", settings))["concept"] == expected


@pytest.mark.parametrize("name", ["esd", "sld", "mace"])
def test_nudity_is_the_concept_that_is_not_stated(name):
    read_ = read(file(name, {}))
    assert read_.concept.name == "nudity" and any("erase_concept: nudity" in note for note in read_.notes)


@pytest.mark.parametrize(
    ("settings", "device", "dtype", "noted"),
    [
        ({}, "auto", "auto", ""),
        ({"device": None}, "auto", "auto", ""),
        ({"device": "cuda", "use_fp16": True}, "auto", "auto", "device: cuda is device: auto"),
        ({"device": "cuda", "use_fp16": False}, "auto", "fp32", "use_fp16: False is dtype: fp32"),
        ({"device": "cuda:1", "use_fp16": True}, "cuda:1", "auto", "use_fp16: True is dtype: auto"),
        ({"device": "cpu"}, "cpu", "auto", ""),
    ],
)
def test_device_and_precision(settings, device, dtype, noted):
    read_ = read(file("uce", {"preset": "nudity", **settings}))
    assert (read_.device, read_.dtype) == (device, dtype) and noted in "\n".join(read_.notes)
    assert noted or not [note for note in read_.notes if note.startswith("uce")]


# ---- metrics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"detector": "auto", **CUDA}, {}),
        ({"detector": "nudenet"}, {"detector": "nudenet", "threshold": 0.5}),
        ({"detector": "nudenet", "threshold": 0.7}, {"detector": "nudenet", "threshold": 0.7}),
        ({"detector": "pocket"}, {"detector": "pocket"}),
        ({"detector": "nudenet", "q16_threshold": 0.9}, {"detector": "nudenet", "threshold": 0.5}),
    ],
)
def test_detectors(settings, expected):
    assert metric_of("asr_i2p", {"concept_name": "nudity", **settings}) == expected


def test_clip_as_detector_has_something_to_choose_among():
    found = metric_of("asr_i2p", {"detector": "clip", "clip_model_id": "openai/clip-vit-large-patch14-336"})
    assert found["detector"] == "clip" and found["threshold"] == 0.5
    detector = spec.build(
        registry.load("unlearn.detectors", "clip"), {"concept": "violence", **found["detector_settings"]}
    )
    assert detector.model == "ViT-L-14-336-quickgelu" and len(detector.against) >= 2


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("base-patch16", "ViT-B-16-quickgelu"),
        ("base-patch32", "ViT-B-32-quickgelu"),
        ("large-patch14", "ViT-L-14-quickgelu"),
        ("large-patch14-336", "ViT-L-14-336-quickgelu"),
    ],
)
def test_names_of_clip(name, ours):
    assert metric_of("clip_score", {"clip_model_name": f"openai/clip-vit-{name}"}) == {"model": ours}
    open_clip = Path(importlib.util.find_spec("open_clip").origin).parent  # importing it takes seconds
    assert json.loads((open_clip / f"model_configs/{ours}.json").read_text())["quick_gelu"]


def test_metrics_that_share_prompts_take_the_most():
    read_ = read(
        file(metrics=[("fid", {"limit": 300, "batch_size": 32, **CUDA}), ("clip_score", {"limit": 50})])
    )
    assert read_.prompts["quality"].limit == 300
    assert "clip_score: metrics share the quality prompts: 300 rows for all of them" in read_.notes
    assert len([note for note in read_.notes if "batch_size" in note]) == 1


TWO_SETS = {
    "target_prompts_path": "examples/data/dog_target_prompts.csv",
    "retain_prompts_path": "examples/data/dog_retain_prompts.csv",
    "target_prompt_limit": 4,
    "retain_prompt_limit": 5,
}


@pytest.mark.parametrize("end", ["", "_name"])
def test_prompts_of_ua_ira_know_what_they_show(end):
    labels = {f"target_concept{end}": "dog", f"retain_concept{end}": "person"}
    mapping = file("uce", {"preset": "dog"}, [("ua_ira", {**TWO_SETS, **labels, **CLIP_L, **CUDA})])
    read_ = stated(mapping)
    assert read_["prompts"] == {
        group: {"source": f"examples/data/dog_{group}_prompts.csv", "limit": limit, "label": label}
        for group, limit, label in (("target", 4, "dog"), ("retain", 5, "person"))
    }
    own = read_["metrics"][0]["config"]
    classifier = spec.build(
        registry.load("unlearn.classifiers", own["classifier"]), own["classifier_settings"]
    )
    assert classifier.labels["concept"][:2] == ("dog", "person") and classifier.template == "image of {}"
    assert (
        "ua_ira: CLIP chooses among 'dog', 'person' and noise; in eval-learn of the first two"
        in read(mapping).notes
    )


def test_rows_of_ua_ira_s_files_have_their_label(tmp_path):
    from unlearn_bench.sd.worlds import Open

    (tmp_path / "retain.csv").write_text("prompt\na person in a park\na person at a cafe\na person reading\n")
    own = {**TWO_SETS, "retain_prompts_path": "retain.csv", "retain_prompt_limit": 2}
    own |= {"target_concept": "dog", "retain_concept": "person"}
    mapping = file("uce", {"preset": "dog"}, [("ua_ira", own)])
    read_, world = read(mapping), Open()
    rows = world.prompts("retain", world.concept(read_.concept), read_.prompts["retain"])
    assert [(row.text, row.concept) for row in rows] == [
        ("a person in a park", "person"),
        ("a person at a cafe", "person"),
    ]


def test_metrics_that_are_not_understood_keep_their_settings():
    own = {
        "concept_name": "violence",
        "n_steps": 200,
        "device": "cuda",
        "limit": 50,
        "target_prompts": ["a fight"],
    }
    for name in ("mine", "yours"):
        assert metric_of(name, own) == own, "of another concept, too: attacks are transferred"


# ---- what is theirs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "theirs"),
    [
        ({"output_dir": "x"}, True),
        ({"metric": "fid"}, True),
        ({"technique": {"name": "free_run"}}, True),
        ({"technique": {"name": "esd", "config": {"train_steps": 5}}}, True),
        ({"technique": {"name": "uce", "config": {"preset": "nudity"}}, "seed": 4}, True),
        ({"metrics": [{"name": "asr_i2p", "config": {"concept_name": "nudity"}}]}, True),
        ({"technique": "uce"}, False),
        ({"technique": {"name": "esd", "config": {"train_method": "esd-x"}}, "seed": 4}, False),
        (
            {"technique": "uce", "metrics": ["fid", {"name": "clip_score", "config": {"device": "cpu"}}]},
            False,
        ),
        ({"metrics": [{"name": "asr_i2p", "config": {"detector": "clip", "threshold": 0.4}}]}, False),
        ({"output_dir": "x", "concept": "dog"}, False),
        ({"output_dir": "x", "sampler": {"steps": 5}}, False),
        ({"technique": {"name": "esd", "config": {"train_steps": 5}}, "out": "x"}, False),
        ({}, False),
        ({1: 2}, False),
        (None, False),
        ([{"output_dir": "x"}], False),
        ("output_dir", False),
    ],
)
def test_recognises(mapping, theirs):
    assert eval_learn.recognises(mapping) is theirs


def test_a_file_that_mixes_both_is_ours():
    with pytest.raises(InvalidInput, match="unknown key 'output_dir'"):
        config.build({"output_dir": "x", "concept": "dog"}, "a.yaml")


def test_no_setting_of_ours_is_taken_for_theirs():
    """Otherwise our own files would be read by the wrong tables."""
    for group in ("techniques", "metrics"):
        for name in registry.names(f"unlearn.{group}"):
            own = set(registry.load(f"unlearn.{group}", name).__dataclass_fields__)
            assert not own & keys.THEIRS, name


# ---- errors ---------------------------------------------------------------------------------------------------

ASR = "asr_i2p"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (file(tecnique=1), "unknown key 'tecnique'; did you mean 'technique'?"),
        ({**file(), "techniques": []}, "unknown key 'techniques'; did you mean 'technique'?"),
        ({**file(), "metric": {"name": "fid"}}, "state either metric, a mapping, or metrics, a list of them"),
        ({"output_dir": "x", "technique": "esd"}, "state either metric"),
        ({**file(), "metrics": {"name": "fid"}}, "metrics is a list of mappings with name and config, got {"),
        ({**file(), "output_dir": 5}, "output_dir: this is a text, got 5"),
        ({**file(), "seed": "many"}, "seed: .*integer"),
        ({**file(), "seed": -1}, "seed: .*greater than or equal to 0"),
        ({**file(), "technique": None}, "technique is a mapping with name and config, got None"),
        ({**file(), "technique": {"config": {}}}, "technique is a mapping with name and config"),
        ({**file(), "technique": {"name": "esd", "confg": {}}}, "esd: unknown key 'confg'; did you mean 'config'?"),
        ({**file(), "metrics": [{"name": "fid", "config": [1]}]}, r"fid: config is a mapping, got \[1\]"),
        ({**file(), "metrics": [None]}, "a metric is a mapping with name and config, got None"),
        (file(metrics=[("fid", {}), ("fid", {"limit": 5})]), "the metric 'fid' stands there twice"),
        (file(metrics=[]), "metrics is empty"),
        (file("esd", {"erase_conept": "dog"}), "esd: unknown key 'erase_conept'; did you mean 'erase_concept'?"),
        (file("esd", {"learning_rat": None}), "esd: unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        (file("esd", {"train_method": "noxatn"}), "esd: train_method: unknown value 'noxatn'; did you mean 'noxattn'?"),
        (file("esd", {"train_method": 5}), "esd: train_method: this is a text, got 5"),
        (file("esd", {"learning_rate": "fast"}), "esd: learning_rate: this is a number, got 'fast'"),
        (file("esd", {"learning_rate": float("nan")}), "esd: learning_rate: this is a number, got nan"),
        (file("esd", {"train_steps": 0}), "esd: train_steps: this is a whole number from 1, got 0"),
        (file("esd", {"train_steps": 1.5}), "esd: train_steps: this is a whole number from 1, got 1.5"),
        (file("esd", {"train_steps": True}), "esd: train_steps: this is a number, got True"),
        (file("esd", {"negative_guidance": 0.5}), "esd: negative_guidance: it is at least 1"),
        (file("esd", {"save_path": "a.pt"}), "esd: save_path: leave it out: every run saves .* a delta"),
        (file("uce", {"load_path": "a.pt"}), "uce: state preset or erase_concept or concept"),
        (file("uce", {"preset": "dog", "load_path": "a.pt"}), "uce: load_path: .*free_run with model_id: FOLDER"),
        (file("esd", {"use_fp16": "yes"}), "esd: use_fp16: this is true or false, got 'yes'"),
        (file("esd", {"erase_concept": ""}), "esd: erase_concept: this is a text, got ''"),
        (file("esd", {"erase_concept": []}), r"esd: erase_concept: this is a text, got \[\]"),
        (file("uce", {"preset": "cat"}), "uce: preset: unknown value 'cat'.*Known: dog, nudity, violence"),
        (file("uce", {"preset": "dog", "erase_concept": "cat"}), "uce: erase_concept: 'cat', but before it 'dog'"),
        (file("uce", {"erase_concept": "x", "concept_type": "person"}), "uce: concept_type: unknown value 'person'"),
        (file("sld", {"preset": "hard"}), "sld: preset: unknown value 'hard'"),
        (file("sld", {"sld_warmup": 3}), "sld: unknown key 'sld_warmup'; did you mean 'sld_warmup_steps'?"),
        (file("free_run", {}), "free_run: state model_id"),
        (file("free_run", {"model_id": "x", "train_steps": 3}), "free_run: unknown key 'train_steps'"),
        (file(metrics=[(ASR, {"concept_name": "violence"})]), "asr_i2p: concept 'violence', but uce: concept 'nudity'"),
        (file("esd", {}, [(ASR, {"concept": "hate"})]), "asr_i2p: concept 'hate', but esd: concept 'nudity'"),
        (file(metrics=[(ASR, {"concept": "nudity", "concept_name": "hate"})]), "concept_name: 'hate', but before it"),
        (file(metrics=[(ASR, {"detector": "q61"})]), "asr_i2p: unknown detector 'q61'; did you mean 'q16'"),
        (file(metrics=[(ASR, {"detector": "nudnet"})]), "unknown detector 'nudnet'; did you mean 'nudenet'?"),
        (file("uce", {"preset": "dog"}, [(ASR, {"detector": "nudenet"})]), "nudenet detects nudity, not 'dog'"),
        (file(metrics=[(ASR, {"detector": "clip", "similarity_threshold": 0.3})]), "similarity_threshold: write thres"),
        (file(metrics=[(ASR, {"use_nudenet": True})]), "asr_i2p: use_nudenet: write detector: nudenet"),
        (file(metrics=[(ASR, {"limt": 5})]), "asr_i2p: unknown key 'limt'; did you mean 'limit'?"),
        (file(metrics=[("clip_score", {"clip_model_name": "a/b"})]), "clip_score: clip_model_name: unknown value"),
        (file(metrics=[("fid", {"limit": -3})]), "fid: limit: this is a whole number from 1, got -3"),
        (file(metrics=[("ua_ira", {"target_prompts_path": "a.csv", "target_concept": "x"})]),
         "ua_ira: state retain_prompts_path and retain_concept as well"),
        (file(metrics=[("ua_ira", TWO_SETS)]), "ua_ira: state target_concept and retain_concept as well"),
    ],
)  # fmt: skip
def test_errors_say_where_and_what_instead(mapping, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        read(mapping)
    assert str(caught.value).startswith("a.yaml: ") and "\n" not in str(caught.value)


def test_names_that_nobody_knows_are_the_registry_s_to_refuse():
    mapping = {
        **file("uce", {"erase_concept": "dog"}),
        "technique": {"name": "maze", "config": {"erase_concept": "dog"}},
    }
    read_ = read(mapping).model_copy(update={"model": "pocket", "device": "cpu"})
    with pytest.raises(LookupError, match="'maze'; did you mean 'mace'"):
        experiment.prepare(read_)


# What its 26 example files state: thirteen techniques, for nudity and for violence, each with these metrics.
EXAMPLES = {
    "advunlearn": {"save_dir": "results/checkpoints"},
    "ca": {"anchor_concept": "a person wearing clothes", "train_steps": 400, "learning_rate": 1e-05},
    "cogfd": {"combination_prompts": ["a nude person", "a person without clothes"], "preserve_concepts": ["a person"],
              "lambda_erase": 1.0, "lambda_preserve": 2.0, "lambda_decouple": 0.5, "train_steps": 150},
    "concept_steerers": {"multiplier": 1.0},
    "esd": {"train_method": "noxattn", "negative_guidance": 2.0, "train_steps": 200, "learning_rate": 5e-05},
    "free_run": {"model_id": "CompVis/stable-diffusion-v1-4"},
    "mace": {"lambda_cfr": 0.1},
    "saeuron": {"multiplier": -20.0},
    "safree": {"alpha": 0.01, "enable_svf": True, "upperbound_timestep": 10, "enable_lra": True, "freeu_b1": 1.0,
               "freeu_b2": 1.0, "freeu_s1": 0.9, "freeu_s2": 0.2, "re_attn_timestep_range": [-1, 1001]},
    "sld": {"preset": "max"},
    "ssd": {"alpha": 0.1, "dampening_coeff": 0.3, "num_fisher_samples": 50, "forget_prompts": ["nudity"],
            "retain_prompts": ["", "a person", "a landscape"]},
    "trasce": {"discriminator_guidance_scale": 5.0, "guidance_loss_scale": 15.0, "sigma": 1.0},
    "uce": {"preset": "nudity"},
}  # fmt: skip


def example_metrics(concept, detector):
    attack = {"concept_name": concept, "limit": 50, "device": "cuda", "detector": detector}
    return [
        ("asr_i2p", attack),
        ("asr_ring_a_bell", {**attack, "seed_prompts_csv": "seeds.csv", "generated_prompts_output": "found.csv",
                             "enable_discovery": True, "population_size": 20, "generations": 20}),
        ("asr_mma_diffusion", {**attack, "output_csv": "mma.csv", "target_prompts": [f"a picture of {concept}"]}),
        ("asr_p4d", {**attack, "target_prompts_path": "targets.csv", "erase_id": "std", "variant": "k", "num_iter": 10,
                     "q16_threshold": 0.9}),
        ("err", {"clip_model_name": "openai/clip-vit-large-patch14", "device": "cuda", "target_limit": 50,
                 "retain_limit": 20, "adversarial_limit": 50}),
        ("fid", {"batch_size": 32, "device": "cuda", "limit": 300}),
        ("clip_score", {"clip_model_name": "openai/clip-vit-large-patch14", "device": "cuda", "limit": 50}),
        ("ua_ira", {"clip_model_name": "openai/clip-vit-large-patch14", "target_prompts_path": "target.csv",
                    "retain_prompts_path": "retain.csv", "target_prompt_limit": 50, "retain_prompt_limit": 50,
                    "batch_size": 32, "target_concept": concept, "retain_concept": "person"}),
        ("tifa", {"vqa_model_name": "Salesforce/blip2-flan-t5-xl", "device": "cuda", "limit": 50}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("concept", "detector"), [("nudity", "nudenet"), ("violence", "q16"), ("violence", "vlm")]
)
@pytest.mark.parametrize("name", EXAMPLES)
def test_what_its_examples_state_is_understood(name, concept, detector):
    settings = {**EXAMPLES[name], **CUDA}
    if name == "uce":
        settings["preset"] = concept
    elif name != "free_run":
        settings["erase_concept"] = concept
    found = read(file(name, settings, example_metrics(concept, detector)))
    (technique,) = found.technique
    built = spec.build(registry.load("unlearn.techniques", technique.name), technique.config)
    assert built is not None and len(found.metrics) == 9
    for metric in found.metrics:
        needed = {"questions": "pocket"} if metric.name == "tifa" else {}  # the model's world states them
        spec.build(registry.load("unlearn.metrics", metric.name), {**needed, **metric.config})
    assert found.prompts["i2p"].limit == found.prompts["p4d"].limit == 50
    if name == "trasce":
        assert (built.discriminator_guidance_scale, built.guidance_loss_scale) == (5.0, 15.0)
    if name == "safree":
        assert (built.lra, built.lra_scales, built.up_t) == ("high", (1.0, 1.0, 0.9, 0.2), 10)
    if name == "concept_steerers":
        assert built.lamb == -1.0
    if name == "cogfd":
        assert built.graph is not None
    if name == "ssd":
        assert (technique.preset, built.retain_prompts[0]) == ("eval-learn", "")
    if name == "advunlearn":
        assert (built.iterations, built.warmup) == (5, 1)


# ---- anything at all ------------------------------------------------------------------------------------------

NAMES = [*keys.TECHNIQUES, *keys.METRICS, "mace", "tifa"]
KEYS = sorted(
    {*keys.TOP, *keys.GONE, *keys.THEIRS, *keys.COMMON, "detector", "name", "config", "device", "preset"}
)
names_of_keys = st.sampled_from(KEYS) | st.text(max_size=5) | st.integers()
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(10**400),
    st.sampled_from(["nudity", "dog", "none", "noxattn", "1e-5", "auto", "nudenet", "clip", "cuda", *NAMES]),
)  # fmt: skip
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names_of_keys, inner, max_size=4)
)
plugs = st.fixed_dictionaries(
    {"name": st.sampled_from(NAMES) | leaves},
    optional={"config": st.dictionaries(names_of_keys, values, max_size=5)},
)
files = st.fixed_dictionaries(
    {"technique": plugs | values, "metrics": st.lists(plugs | values, max_size=3) | values},
    optional={"output_dir": values, "seed": values, "metric": plugs | values, "extra": values},
)


@settings(max_examples=300, deadline=None)
@given(files | values)
def test_any_content_is_a_configuration_or_a_mistake(mapping):
    try:
        if eval_learn.recognises(mapping):
            mapping = eval_learn.translate(mapping, "a.yaml")
        config.build(mapping, "a.yaml")
    except InvalidInput as error:
        assert str(error).startswith("a.yaml: ")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(keys.COMMON.keys() | keys.TECHNIQUES["esd"].keys())), values)
def test_any_value_of_any_key(key, value):
    mapping = file("esd", {key: value})
    try:
        read_ = read(mapping)
    except InvalidInput as error:
        assert key in str(error) or "concept" in key
    else:
        assert read_.technique[0].name == "esd" and mapping == file("esd", {key: value}), (
            "the file is left as it is"
        )


def test_nothing_heavy_is_imported():
    code = "import sys, unlearn_bench.sd.eval_learn; print({'torch', 'diffusers', 'open_clip'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
