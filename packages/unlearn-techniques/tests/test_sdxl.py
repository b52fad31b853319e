"""Stable Diffusion XL: the same pictures as diffusers', and the techniques that need no more than cross-attention."""

import numpy as np
import pytest
import torch

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt
from unlearn_techniques.advunlearn import AdvUnlearn
from unlearn_techniques.ca import CA
from unlearn_techniques.concept_steerers import ConceptSteerers
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion.attention import parameter_group
from unlearn_techniques.diffusion.delta import Delta
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.sdxl import StableDiffusionXL
from unlearn_techniques.esd import ESD
from unlearn_techniques.mace import MACE
from unlearn_techniques.none import NoTechnique
from unlearn_techniques.rece import RECE
from unlearn_techniques.saeuron import SAeUron
from unlearn_techniques.safree import SAFREE
from unlearn_techniques.sld import SLD
from unlearn_techniques.testing import tiny_sdxl
from unlearn_techniques.trasce import TraSCE
from unlearn_techniques.uce import UCE

ROWS = [
    Prompt(id=str(i), text=text, seed=i, group="target") for i, text in enumerate(["a dog", "", "a blue car"])
]
DOG = Concept(name="dog", anchor="cat", adjacent=("wolf",))


@pytest.fixture
def xl():
    return tiny_sdxl()


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("zeros", [True, False])
@torch.no_grad()
def test_pictures_are_those_of_diffusers(xl, scale, zeros):
    pipe = xl.to_pipeline()
    pipe.register_to_config(force_zeros_for_empty_prompt=zeros)
    model = StableDiffusion.from_pipeline(pipe)
    sampler = Sampler(steps=4, guidance_scale=scale, batch=1)
    for row, ours in zip(ROWS, model.generate(ROWS, sampler), strict=True):
        pipe.scheduler = sampler.scheduler_for(model)
        (theirs,) = pipe(
            row.text, num_inference_steps=4, guidance_scale=scale, output_type="np", height=16, width=16,
            generator=torch.Generator().manual_seed(row.seed),
        ).images  # fmt: skip
        assert np.abs(ours - theirs * 255).max() <= 1


def test_what_is_read_holds_both_encoders_and_the_pooled_vector(xl):
    pipe = xl.to_pipeline()
    states, _, pooled, _ = pipe.encode_prompt("a dog", do_classifier_free_guidance=False)
    read = xl.read(["a dog"])
    assert isinstance(xl, StableDiffusionXL) and read.shape == (1, 17, 64)
    torch.testing.assert_close(read[:, :-1], states)
    torch.testing.assert_close(read[:, -1, :24], pooled)
    assert (read[:, -1, 24:] == 0).all() and torch.equal(xl.encode(["a dog"]), read[:, :-1])


def test_a_saved_one_is_found_again(xl, tmp_path):
    edited = UCE().apply(xl, [DOG], seed=0)
    edited.save_pretrained(tmp_path / "xl")
    again = StableDiffusion.load(tmp_path / "xl")
    assert isinstance(again, StableDiffusionXL) and again.fingerprint == edited.fingerprint
    delta = Delta.between(xl, edited)
    assert delta.apply(xl).fingerprint == edited.fingerprint
    assert {name.partition(".")[0] for name in delta.tensors} == {"unet"}


QUICK = {"iterations": 2, "sampling_steps": 2}


@pytest.mark.parametrize(
    "technique", [MACE(), AdvUnlearn(), SAFREE(), ConceptSteerers()], ids=lambda t: type(t).__name__
)
def test_what_reads_one_text_encoder_refuses_two(xl, technique):
    with pytest.raises(InvalidInput, match="tiny-xl is XL, which has two; uce, esd, "):
        technique.apply(xl, [DOG], seed=0)


def test_saeuron_names_the_modules_that_there_are(xl):
    with pytest.raises(
        InvalidInput, match=r"unknown module 'up_blocks.1.attentions.1'.*up_blocks.0.attentions.1"
    ):
        SAeUron().apply(xl, [DOG], seed=0)


@pytest.mark.parametrize(
    ("technique", "group"),
    [
        (NoTechnique(), None),
        (UCE(), "esd-x-strict"),
        (ESD(iterations=2, lr=1e-2, sampling_steps=2, train_method="esd-x-strict"), "esd-x-strict"),
        (SLD(**SLD.presets["max"]), None),
        (TraSCE(sigma=4.0), None),
        (RECE(), "esd-x-strict"),
        (CA(captions=("a {}",), lr=1e-2, images=2, **QUICK), "esd-x-strict"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_techniques(xl, technique, group):
    names = parameter_group(xl.unet, group) if group else ()
    check_technique(
        technique,
        xl,
        DOG,
        changes=not isinstance(technique, NoTechnique),
        parameters=[f"unet.{n}" for n in names],
    )


def test_all_projections_of_the_real_configuration_are_found():
    from diffusers import UNet2DConditionModel

    from unlearn_techniques.diffusion.attention import text_projections

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128, cross_attention_dim=2048, attention_head_dim=(5, 10, 20), use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10),
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
    assert sum(p.numel() for p in unet.parameters()) == 2_567_463_684  # SDXL base 1.0's
    found = text_projections(unet)
    assert len(found) == 140 and {p.in_features for p in found.values()} == {2048}


def test_a_refiner_is_refused(xl):
    pipe = xl.to_pipeline()
    pipe.text_encoder = None
    with pytest.raises(InvalidInput, match="has no text_encoder"):
        StableDiffusion.from_pipeline(pipe)


@torch.no_grad()
def test_half_precision_is_decoded_in_whole(xl):
    half = xl.to(dtype=torch.float16)
    assert half.vae.dtype == torch.float16 and half.decoder.dtype == torch.float32
    assert xl.decoder is xl.vae and xl.to(dtype=torch.bfloat16).decoder.dtype == torch.bfloat16
