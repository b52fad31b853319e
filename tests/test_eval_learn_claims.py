"""The claims of eval-learn's page that `bench sd` has to keep, each by what eval-learn 1.1.2 does otherwise.

"Unified pipeline", "plugin architecture", "GPU-efficient execution", "CLI + YAML/JSON config", "reproducible". What the
peer does was found by running it (facts sheet eval_learn.md, sections 0, 1, 2, 6 and 7).
"""

import hashlib
import json
import warnings
from pathlib import Path

import pytest
import torch

from unlearn_bench.cli import main
from unlearn_core.errors import UnlearnWarning

FEW = ["--limit", "1", "--steps", "2", "--metrics", "ua_ira,asr_i2p"]


@pytest.fixture(autouse=True)
def sandbox(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@pytest.fixture
def bench(capsys):
    """Return a function that gives exit code, stdout and stderr of `bench`."""

    def run(*arguments):
        capsys.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            warnings.simplefilter("default", UnlearnWarning)
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return run


def document(bench, *arguments):
    code, out, err = bench(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_unified_pipeline(bench):
    """Fine-tuning, a closed form and guidance on one model, with one set of pictures of the unmodified one.

    There: no baseline row, and each technique has its own pipeline class with its own noise.
    """
    training = ["--set", "iterations=1", "--set", "sampling_steps=2"]
    runs = [
        document(bench, "sd", "--technique", t, *FEW, *(training if t == "esd" else []))
        for t in ("uce", "esd", "sld")
    ]
    baselines = [{name: score["baseline"] for name, score in run["scores"].items()} for run in runs]
    assert baselines[0] == baselines[1] == baselines[2]
    assert [run["images"]["generated"] for run in runs] == [8, 4, 4]


PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
from unlearn_core.score import Score

@dataclass(frozen=True, kw_only=True)
class Shrug:
    """Forget nothing, from another package."""
    strength: float = 0.0
    def apply(self, model, concepts, *, seed, progress=None):
        return model

@dataclass(frozen=True, kw_only=True)
class Count:
    """How many pictures there are."""
    prompts: ClassVar = ("target",)
    def measure(self, samples, reference=None):
        n = sum(s.prompt.group == "target" for s in samples)
        return Score(metric="count", value=n, direction="up", n_scored=n)
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package that is installed beside ours: one technique, one metric, and one of each that does not import."""
    site = tmp_path / "site"
    info = site / "shrug-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "shrug.py").write_text(PLUGIN)
    (site / "broken.py").write_text("import no_such_module")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shrug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[unlearn.techniques]\nshrug = shrug:Shrug\nbroken = broken:Nothing\n"
        "[unlearn.metrics]\ncount = shrug:Count\nbroken_metric = broken:Nothing\n"
    )
    monkeypatch.syspath_prepend(str(site))


def test_plugin_architecture(plugin, bench):
    """A technique and a metric of another package run without a line of ours; a broken one is nobody else's trouble.

    There: one failing import made every technique vanish, and settings of plugins could not be checked.
    """
    found = document(
        bench, "sd", "--technique", "shrug", "--limit", 2, "--steps", 1, "--metrics", "count,asr_i2p"
    )
    assert found["scores"]["count"]["value"] == 2
    assert found["config"] == {"strength": 0.0}
    code, _, err = bench("sd", "--technique", "shrug", "--set", "strenght=1")
    assert (code, err.count("\n")) == (2, 1) and "did you mean 'strength'" in err
    code, _, err = bench("sd", "--technique", "broken")
    assert code == 2 and "no_such_module" in err
    code, out, _ = bench("list", "techniques")
    assert code == 0 and "Forget nothing, from another package" in out and "uce" in out


def test_efficient_execution(bench, monkeypatch):
    """All metrics share one set of pictures, drawn in batches; the next run draws none.

    There: one prompt per call, and every metric draws its own.
    """
    from unlearn_techniques.diffusion import sampling

    calls = []
    draw = sampling._draw
    monkeypatch.setattr(sampling, "_draw", lambda m, p, s, b: calls.append(len(p)) or draw(m, p, s, b))
    metrics = "ua_ira,asr_i2p,clip_score,fid,kid"
    found = document(bench, "sd", "--technique", "uce", "--limit", 3, "--steps", 1, "--metrics", metrics)
    rows = 5 * 3  # target, adjacent, retain, style, quality, each drawn once and before and after
    assert sum(calls) == found["images"]["generated"] == 2 * rows
    assert len(calls) == 2 * 2  # 8 pictures a call on a CPU
    calls.clear()
    document(bench, "sd", "--technique", "uce", "--limit", 3, "--steps", 1, "--metrics", "ua_ira,clip_score")
    assert calls == []


def test_command_line_and_files(bench, tmp_path):
    """YAML and JSON mean the same; `1e-5` is a number, `seed` counts, a typo is an error before anything loads.

    There: the top-level seed was never read, unknown keys were dropped, `1e-5` was a text.
    """
    config = {"technique": {"name": "esd", "config": {"lr": "1e-5", "iterations": 1, "sampling_steps": 2}},
              "concept": "dog", "limit": 1, "sampler": {"steps": 1}, "metrics": ["asr_i2p"], "seed": 7}  # fmt: skip
    Path("run.json").write_text(json.dumps(config))
    Path("run.yaml").write_text(
        "technique: {name: esd, config: {lr: 1e-5, iterations: 1, sampling_steps: 2}}\nconcept: dog\nlimit: 1\n"
        "sampler: {steps: 1}\nmetrics: [asr_i2p]\nseed: 7\n"
    )
    one, other = (document(bench, "run", "--config", name) for name in ("run.json", "run.yaml"))
    assert one["run_id"] == other["run_id"] and other["reused"]
    assert one["config"]["lr"] == 1e-5
    Path("run.json").write_text(json.dumps({**config, "seed": 8}))
    assert document(bench, "run", "--config", "run.json")["run_id"] != one["run_id"]
    Path("run.json").write_text(json.dumps({**config, "sead": 8}))
    code, _, err = bench("run", "--config", "run.json")
    assert code == 2 and "did you mean 'seed'" in err


def test_reproducible(bench, tmp_path):
    """The same file gives the same bytes, and a prompt its picture whatever stands before it.

    There: two runs with seed 42 gave different pictures, and a picture depended on its place in the batch.
    """
    Path("a.csv").write_text("id,prompt,seed\nx,a dog,5\ny,a cat,6\nz,a car,7\n")
    Path("b.csv").write_text("id,prompt,seed\nz,a car,7\ny,a cat,6\n")

    def pictures(table, out):
        Path("run.yaml").write_text(
            f"technique: uce\nconcept: dog\nmetrics: [asr_i2p]\nprompts: {{target: {table}}}\nseed: 42\n"
            f"sampler: {{steps: 2}}\nout: {out}\n"
        )
        folder = tmp_path / document(bench, "run", "--config", "run.yaml")["images"]["folder"]
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.png")}

    first = pictures("a.csv", "one")
    assert pictures("a.csv", "two") == first
    assert pictures("b.csv", "three") == {k: v for k, v in first.items() if "x" not in k}
