import json

import pytest
import torch

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_techniques.diffusion.loading import check_parts, locate
from unlearn_techniques.diffusion.model import StableDiffusion


@pytest.fixture
def folder(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "sd")
    return tmp_path / "sd"


def refuses(source, hint):
    with pytest.raises(InvalidInput, match=hint):
        StableDiffusion.load(source)


def test_a_folder_without_an_index(folder, tmp_path):
    refuses(tmp_path, r"no model_index.json; did you mean '.*sd'\?")
    (folder / "model_index.json").unlink()
    refuses(folder, "save one with pipeline.save_pretrained")


def test_a_damaged_file_is_named(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    refuses(folder, r"unet/diffusion_pytorch_model.safetensors' is damaged")


def test_missing_weights_are_named(folder):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    refuses(folder, "no weights of the vae")


def test_pickles_are_refused_with_the_way_out(folder, tmp_path):
    file = folder / "text_encoder" / "model.safetensors"
    file.unlink()
    torch.save({}, file.with_name("pytorch_model.bin"))
    refuses(folder, r"pytorch_model.bin' is a pickle.*safe_serialization=True")
    torch.save({}, tmp_path / "sd-v1-4.ckpt")
    refuses(tmp_path / "sd-v1-4.ckpt", "is a pickle")


def test_a_single_file_says_how_to_convert_it(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    refuses(tmp_path / "model.safetensors", "from_single_file")


def test_a_broken_index_is_a_message(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": ["diffusers", "NoSuchModel"]}))
    refuses(folder, "does not load as a Stable Diffusion pipeline")


@pytest.mark.parametrize("source", ["./nowhere", "a/b/c", "/no/such/folder"])
def test_a_path_that_is_not_there(source):
    refuses(source, "there is no such folder")


def test_a_name_that_is_none(monkeypatch):
    monkeypatch.setattr("unlearn_core.registry.names", lambda group: ["pocket"])
    with pytest.raises(InvalidInput, match=r"did you mean 'pocket'\?.*Hub id"):
        locate("pockt")


def test_an_unreachable_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="cannot load 'CompVis/no-such-model' from the Hugging Face Hub"):
        StableDiffusion.load("CompVis/no-such-model")


def test_other_families_are_refused(tiny):
    pipe = tiny.to_pipeline()
    pipe.unet.register_to_config(addition_embed_type="text_time")
    try:
        with pytest.raises(InvalidInput, match="not of one kind"):
            check_parts(pipe)
        pipe.unet.register_to_config(addition_embed_type=None, in_channels=9)
        with pytest.raises(InvalidInput, match="takes 9 channels"):
            check_parts(pipe)
    finally:
        pipe.unet.register_to_config(addition_embed_type=None, in_channels=4)
    with pytest.raises(InvalidInput, match="str has no unet"):
        check_parts("not a pipeline")
