"""The published counts of SD v1.4's parameter groups, on its real configuration (no memory: the meta device)."""

import copy

import pytest
import torch

from unlearn_core.errors import InvalidInput
from unlearn_techniques.diffusion.attention import GROUPS, cross_attentions, parameter_group, text_projections

# tensors, scalars; counted by others on the real model (facts sheet A, 0.1)
SD14 = {
    "esd-x-strict": (32, 19_169_280),
    "esd-x": (80, 43_962_560),
    "selfattn": (80, 49_574_080),
    "esd-u": (598, 813_495_680),
    "esd-u-2025": (388, 815_358_084),
    "full": (686, 859_520_964),
    "esd-all": (468, 859_320_644),
}


@pytest.fixture(scope="module")
def sd14():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)


@pytest.mark.parametrize("group", SD14)
def test_groups_of_sd_v14(sd14, group):
    names = parameter_group(sd14, group)
    sizes = dict(sd14.named_parameters())
    assert (len(names), sum(sizes[n].numel() for n in names)) == SD14[group]


def test_projections_of_sd_v14(sd14):
    found = text_projections(sd14)
    assert len(found) == 32
    assert {m.in_features for m in found.values()} == {768}
    assert {m.out_features for m in found.values()} == {320, 640, 1280}


def test_groups_of_the_tiny_model(tiny):
    """Sheet A, section 1, invariant 4: 20, 8, 122 and 142 of 208 tensors."""
    counts = {
        g: len(parameter_group(tiny.unet, g))
        for g in ("esd-x", "esd-x-strict", "esd-u-2025", "esd-all", "full")
    }
    assert counts == {"esd-x": 20, "esd-x-strict": 8, "esd-u-2025": 122, "esd-all": 142, "full": 208}
    edges = set(parameter_group(tiny.unet, "full")) - set(parameter_group(tiny.unet, "notime"))
    assert {n.split(".")[0] for n in edges} == {"conv_norm_out", "conv_out", "time_embedding"}


def test_an_unknown_group_names_the_nearest(tiny):
    with pytest.raises(InvalidInput, match="did you mean 'esd-x'"):
        parameter_group(tiny.unet, "esdx")
    assert "esd-u" in GROUPS


def test_edits_without_effect_are_refused(tiny):
    unet = copy.deepcopy(tiny.unet)
    unet.fuse_qkv_projections()
    with pytest.raises(InvalidInput, match="unfuse_qkv_projections"):
        cross_attentions(unet)
    unet = copy.deepcopy(tiny.unet)
    attention = next(iter(cross_attentions(unet).values()))
    attention.to_k = torch.nn.Sequential(attention.to_k)
    with pytest.raises(InvalidInput, match="merge and remove the adapters"):
        text_projections(unet)
    with pytest.raises(InvalidInput, match="no cross-attention"):
        cross_attentions(torch.nn.Linear(2, 2))
