"""`bench sd` with a technique written for eval-unlearn: listed, shown, run, scored and found again."""

import sys

import pytest

from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet

THEIRS = '''
"""Their technique."""
import numpy as np
from PIL import Image

CALLS = []


class Gray:
    """Draw gray squares of the concept's length."""

    def __init__(self, **config):
        self.shade = 10 * len(config["erase_concept"]) + int(config.get("more", 0))

    def generate(self, prompts, seed=None, **kwargs):
        CALLS.append((prompts, seed, kwargs))
        return [Image.fromarray(np.full((64, 64), self.shade, dtype=np.uint8)) for _ in prompts]
'''
FEW = ("sd", "--limit", 2, "--steps", 3, "--metrics", "asr_i2p,ua_ira")


@pytest.fixture
def gray(tmp_path, monkeypatch):
    info = tmp_path / "site/gray_pack-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gray-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[eval_unlearn.techniques]\ngray = gray_pack:Gray\nuce = gray_pack:Gray\n"
    )
    (tmp_path / "site/gray_pack.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    sys.modules.pop("gray_pack", None)


def test_it_is_listed_and_shown(gray, bench):
    assert "Draw gray squares of" in bench("list", "eval_unlearn").out
    assert "Their technique." in bench("show", "gray").out


def test_it_is_run_scored_and_found_again(gray, json_of, tmp_path):
    found = json_of(*FEW, "--technique", "gray", "--set", "more=3")
    record = RunRecord.read(tmp_path / found["record"])
    import gray_pack

    samples = {s.prompt.id: s for s in SampleSet(tmp_path / found["images"]["folder"])}
    assert len(gray_pack.CALLS) == len(samples) == 8
    told = {(p, seed) for (p,), seed, _ in gray_pack.CALLS}
    assert told == {(s.prompt.text, s.prompt.seed % 2**32) for s in samples.values()}
    assert all(
        kwargs == {"num_inference_steps": 3, "guidance_scale": 4.0} for _, _, kwargs in gray_pack.CALLS
    )
    from PIL import Image

    assert {Image.open(s.path).convert("RGB").getpixel((0, 0)) for s in samples.values()} == {(33, 33, 33)}
    assert found["scores"]["asr_i2p"]["n_scored"] == 2
    assert found["config"]["config"] == {"more": 3}
    assert record.environment["changes"] == {"hooks": ["EvalUnlearn"]}
    assert any(
        "the pictures before are of pocket, and the change is not paired" in note for note in record.notes
    )
    assert not (tmp_path / "runs/edits").exists()
    again = json_of(*FEW, "--technique", "gray", "--set", "more=3")
    assert again["reused"] and len(gray_pack.CALLS) == 8
    other = json_of(*FEW, "--technique", "gray", "--set", "more=4")
    assert other["run_id"] != found["run_id"] and len(gray_pack.CALLS) == 16


def test_ours_comes_first_and_theirs_has_a_long_name(gray, json_of):
    assert "lamb" in json_of(*FEW, "--technique", "uce")["config"]
    assert json_of(*FEW, "--technique", "eval_unlearn_uce")["config"]["name"] == "uce"


def test_it_goes_alone(gray, error):
    assert "'gray' draws with a model of its own" in error(*FEW, "--technique", "uce+gray")
