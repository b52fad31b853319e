import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_techniques.diffusion.delta import Delta
from unlearn_techniques.sld import SLD
from unlearn_techniques.testing import tiny_sd
from unlearn_techniques.uce import UCE


@pytest.fixture
def edited(tiny, dog):
    return UCE().apply(tiny, [dog], seed=0)


def test_it_holds_what_changed_and_nothing_else(tiny, edited):
    delta = Delta.between(tiny, edited, record={"technique": "uce"})
    assert len(delta.tensors) == 8
    assert all(n.startswith("unet.") and ".attn2.to_" in n for n in delta.tensors)


def test_a_file_makes_the_same_model(tiny, edited, tmp_path):
    path = tmp_path / "uce.safetensors"
    Delta.between(tiny, edited, record={"technique": "uce", "seed": 3}).save(path)
    loaded = Delta.load(path)
    assert loaded.record == {"technique": "uce", "seed": 3}
    assert loaded.apply(tiny).fingerprint == edited.fingerprint
    assert path.stat().st_size < 100_000


def test_a_pipeline_is_restored_bit_for_bit(tiny, edited):
    pipe = copy.deepcopy(tiny).to_pipeline()
    before = {n: p.clone() for n, p in pipe.unet.state_dict().items()}
    with Delta.between(tiny, edited).applied(pipe):
        for name, tensor in edited.unet.state_dict().items():
            assert torch.equal(pipe.unet.state_dict()[name], tensor)
    assert all(torch.equal(before[n], p) for n, p in pipe.unet.state_dict().items())
    with pytest.raises(ZeroDivisionError), Delta.between(tiny, edited).applied(pipe):
        _ = 1 / 0
    assert all(torch.equal(before[n], p) for n, p in pipe.unet.state_dict().items())


def test_hooks_are_no_part_of_it(tiny, dog):
    assert not Delta.between(tiny, SLD().apply(tiny, [dog], seed=0)).tensors


def test_another_model_is_refused(tiny, edited):
    other = tiny_sd(seed=1)
    delta = Delta.between(tiny, edited)
    with pytest.raises(InvalidInput, match="belongs to a model with the fingerprint"):
        delta.apply(other)
    assert delta.apply(other, any_base=True).fingerprint != other.fingerprint
    pipe = copy.deepcopy(tiny).to_pipeline()
    wrong = Delta(tensors={"unet.conv_in.weight": torch.zeros(1)}, base="")
    with pytest.raises(InvalidInput, match="no unet.conv_in.weight of shape"), wrong.applied(pipe):
        pass


def test_files_that_are_no_deltas(tmp_path):
    with pytest.raises(Unavailable, match="there is no file"):
        Delta.load(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InvalidInput, match="is no delta"):
        Delta.load(tmp_path / "other.safetensors")
    (tmp_path / "half.safetensors").write_bytes(np.arange(9, dtype=np.uint8).tobytes())
    with pytest.raises(InvalidInput, match="no whole safetensors file"):
        Delta.load(tmp_path / "half.safetensors")
