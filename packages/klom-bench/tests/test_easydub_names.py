"""EasyDUB's names: the paper's snippet runs as printed, only the module's name is another."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from klom_bench import testing
from klom_bench.data import ensure_dataset, load_forget_indices, load_margins_array, retain_mask
from klom_bench.datasets.cifar10 import margin_path
from klom_bench.eval import klom_from_margins, load_margins_matrix
from klom_bench.klom import klom
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.testing.hub_server import HubServer

REPO = "datasets/easydub/EasyDUB-dataset"

# EasyDUB, arXiv 2602.16400, appendix A.2, with `easydub` replaced by `klom_bench` and 100 models by 8.
SNIPPET = """
from klom_bench.data import ensure_dataset, load_margins_array
from klom_bench.eval import klom_from_margins
import numpy as np, torch
root = ensure_dataset()
n = 8
load = lambda kind, fid: torch.from_numpy(
    np.stack([load_margins_array(root, kind=kind, phase="val",
                                 forget_id=fid, model_id=i) for i in range(n)]))
pretrain = load("pretrain", None)
oracle = load("oracle", 1)
score = klom_from_margins(oracle, pretrain)
"""


@pytest.fixture
def tiny():
    return testing.tiny_margins()


@pytest.fixture
def folder(tmp_path, tiny):
    testing.write_easydub(tmp_path / "data", tiny)
    return tmp_path / "data"


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    with HubServer({REPO: folder}) as hub:
        for name, value in hub.constants.items():
            monkeypatch.setattr(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
        yield hub


def test_the_snippet_of_the_paper(hub, tiny, tmp_path):
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    code = SNIPPET + "print(score.tolist())"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    score = klom(tiny.split("oracle", "val"), tiny.split("pretrain", "val"), "easydub")
    assert eval(done.stdout) == score.tolist() and len(score) == 12
    wanted = [margin_path(kind, "val", 1, i) for kind in ("pretrain", "oracle") for i in range(8)]
    assert hub.files() == sorted(wanted)


@pytest.mark.parametrize("where", ["hub", "folder"])
def test_every_array(where, hub, folder, tiny):
    root = ensure_dataset() if where == "hub" else ensure_dataset(data_dir=folder)
    assert hub.files() == []
    for kind in ("pretrain", "oracle"):
        for split in ("retain", "forget", "val"):
            matrix = load_margins_matrix(root, kind, split, 1, n_models=5)
            expected = tiny.split(kind, split)[:5]
            if (kind, split) == ("pretrain", "retain"):
                mask = retain_mask(60, load_forget_indices(root, forget_id=1))
                assert matrix.shape == (5, 60) and mask.sum() == 55
                matrix = matrix[:, torch.from_numpy(mask)]
            assert matrix.dtype == torch.float32
            np.testing.assert_array_equal(matrix, expected)
    np.testing.assert_array_equal(load_forget_indices(root, 1), testing.FORGET)
    assert (where == "folder") == (hub.files() == [])


def test_a_block_is_fetched_at_once_and_only_once(hub):
    root = ensure_dataset()
    load_margins_array(root, kind="oracle", phase="val", forget_id=1, model_id=3)
    assert hub.files() == [margin_path("oracle", "val", 1, i) for i in range(8)]
    asked = len(hub.requests)
    load_margins_array(root, kind="oracle", phase="val", forget_id=1, model_id=7)
    assert len(hub.requests) == asked


def test_mistakes(hub, folder, tmp_path):
    root = ensure_dataset()
    with pytest.raises(InvalidInput, match="unknown kind 'oracel'; did you mean 'oracle'"):
        load_margins_array(root, "oracel", "val", 1, 0)
    with pytest.raises(InvalidInput, match="unknown split 'test'"):
        load_margins_array(root, "oracle", "test", 1, 0)
    with pytest.raises(ValueError, match="belong to a forget set"):
        load_margins_array(root, "oracle", "val", None, 0)
    with pytest.raises(
        OSError, match=r"has no file margins/cifar10/oracle/forget_1/val/resnet9/id_20_epoch_23.npy"
    ):
        load_margins_array(root, "oracle", "val", 1, 20)
    with pytest.raises(Unavailable, match=r"id_20_epoch_23.npy does not exist"):
        load_margins_array(folder, "oracle", "val", 1, 20)
    with pytest.raises(Unavailable, match="has no folder 'margins'"):
        ensure_dataset(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="no forget set 0"):
        load_forget_indices(folder, 0)


def test_klom_from_margins_clips():
    rng = np.random.default_rng(0)
    oracle, unlearned = rng.normal(0, 5, (2, 20, 6))
    score = klom_from_margins(
        torch.from_numpy(oracle), torch.from_numpy(unlearned), clip_min=-1.0, clip_max=1.0
    )
    np.testing.assert_array_equal(score, klom(oracle, unlearned, "easydub", clip=(-1.0, 1.0)))
    assert not np.array_equal(score, klom_from_margins(oracle, unlearned))
