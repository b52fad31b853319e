"""Single files of Stable Diffusion, folders of older libraries, and deltas of another model."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from genmu_eval.fingerprint import check_delta, fingerprint
from genmu_eval.names import of_single_file
from genmu_eval.submission import Submission, SubmittedModel
from genmu_eval.tie_break import tie_break
from genmu_eval.weights import open_weights
from unlearn_bench.genmu.evaluate import MOST_STATED, asked_with, with_weights_of
from unlearn_core.errors import InvalidInput
from unlearn_techniques.diffusion.delta import Delta
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.weights import with_weights
from unlearn_techniques.testing import tiny_sd

SD14 = {
    "unet": {
        "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "vae": {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
}  # fmt: skip


# ---- the names that the first code of Stable Diffusion gives, in the order in which it makes its layers -----------


def both(*layers):
    return [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


def unet_names(config):
    """As the constructor of `UNetModel` of CompVis/latent-diffusion goes through its levels."""
    widths, layers = config.block_out_channels, config.layers_per_block
    attended = ["CrossAttn" in kind for kind in config.down_block_types]

    def resnet(name, channels, width):
        inner = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3")
        return both(
            *(f"{name}.{layer}" for layer in inner), *[f"{name}.skip_connection"] * (channels != width)
        )

    def transformer(name):
        block = f"{name}.transformer_blocks.0"
        linear = [f"{block}.attn{i}.to_{x}.weight" for i in (1, 2) for x in "qkv"]
        others = ("attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3")
        return (
            both(*(f"{name}.{x}" for x in ("norm", "proj_in", "proj_out")), *(f"{block}.{x}" for x in others))
            + linear
        )

    names = both("time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2")
    n, channels, skips = 0, widths[0], [widths[0]]
    for level, width in enumerate(widths):
        for _ in range(layers):
            n += 1
            names += resnet(f"input_blocks.{n}.0", channels, width)
            names += transformer(f"input_blocks.{n}.1") if attended[level] else []
            channels = width
            skips.append(width)
        if level < len(widths) - 1:
            n += 1
            names += both(f"input_blocks.{n}.0.op")
            skips.append(width)
    names += resnet("middle_block.0", 1, 1) + transformer("middle_block.1") + resnet("middle_block.2", 1, 1)
    n = 0
    for level, width in reversed(list(enumerate(widths))):
        for i in range(layers + 1):
            names += resnet(f"output_blocks.{n}.0", channels + skips.pop(), width)
            names += transformer(f"output_blocks.{n}.1") if attended[level] else []
            if level and i == layers:
                names += both(f"output_blocks.{n}.{1 + attended[level]}.conv")
            channels = width
            n += 1
    return [f"model.diffusion_model.{name}" for name in names]


def vae_names(config):
    """As the constructors of its `Encoder` and `Decoder` go through theirs."""
    widths, layers = config.block_out_channels, config.layers_per_block

    def resnet(name, channels, width):
        inner = ("norm1", "conv1", "norm2", "conv2", *["nin_shortcut"] * (channels != width))
        return both(*(f"{name}.{layer}" for layer in inner))

    names = both("quant_conv", "post_quant_conv")
    for side in ("encoder", "decoder"):
        names += both(*(f"{side}.{x}" for x in ("conv_in", "conv_out", "norm_out")))
        names += resnet(f"{side}.mid.block_1", 1, 1) + resnet(f"{side}.mid.block_2", 1, 1)
        names += both(*(f"{side}.mid.attn_1.{x}" for x in ("norm", "q", "k", "v", "proj_out")))
    last, channels = len(widths) - 1, widths[0]
    for level, width in enumerate(widths):
        for i in range(layers):
            names += resnet(f"encoder.down.{level}.block.{i}", channels, width)
            channels = width
        names += both(f"encoder.down.{level}.downsample.conv") if level < last else []
    for level, width in reversed(list(enumerate(widths))):
        for i in range(layers + 1):
            names += resnet(f"decoder.up.{level}.block.{i}", channels, width)
            channels = width
        names += both(f"decoder.up.{level}.upsample.conv") if level else []
    return [f"first_stage_model.{name}" for name in names]


def converted(part, names, config):
    """Return name in a single file -> name in a folder, by diffusers' own conversion of numbered tensors."""
    from diffusers.loaders import single_file_utils as diffusers_own

    convert = getattr(diffusers_own, f"convert_ldm_{part}_checkpoint")
    numbered = {name: torch.full((1, 1, 1, 1), float(i)) for i, name in enumerate(names)}
    return {names[int(t.item())]: name for name, t in convert(numbered, config).items()}


def named(part, module):
    names = {"unet": unet_names, "vae": vae_names}[part](module.config)
    return converted(part, names, module.config)


@pytest.mark.parametrize("size", ["tiny", "sd14"])
@pytest.mark.parametrize("part", ["unet", "vae"])
def test_the_names_are_those_of_diffusers_own_conversion(part, size):
    from diffusers import AutoencoderKL, UNet2DConditionModel

    module = getattr(tiny_sd(), part)
    if size == "sd14":
        with torch.device("meta"):
            module = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part](**SD14[part])
        published = {"unet": 859_520_964, "vae": 83_653_863}  # parameters of v1.4
        assert sum(p.numel() for p in module.parameters()) == published[part]
    theirs = named(part, module)
    assert set(theirs.values()) == set(module.state_dict()), "the test's names are all there are"
    assert of_single_file(theirs) == {name: f"{part}.{new}" for name, new in theirs.items()}


# ---- single files ------------------------------------------------------------------------------------------------


def save_single_file(model, path):
    """Write a model as Stable Diffusion was first released, with what else such files hold."""
    tensors = {}
    for part in ("unet", "vae"):
        own = getattr(model, part).state_dict()
        for name, new in named(part, getattr(model, part)).items():
            attention = part == "vae" and ".attn_1." in name and own[new].ndim == 2
            tensors[name] = (own[new][:, :, None, None] if attention else own[new]).contiguous()
    start = "cond_stage_model.transformer.text_model."
    tensors |= {start + name: t.contiguous() for name, t in model.text_encoder.state_dict().items()}
    tensors[f"{start}embeddings.position_ids"] = torch.arange(16.0)[None]
    tensors |= {"alphas_cumprod": torch.ones(5), "model_ema.decay": torch.ones(())}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def moved(model, part, name, by=0.25):
    """Return the model with all numbers of one tensor moved by a power of two, which half precision keeps."""
    module = getattr(model, part)
    return dataclasses.replace(model, **{part: with_weights(module, {name: module.get_parameter(name) + by})})


def test_a_single_file_against_a_folder_and_another(tmp_path):
    base = tiny_sd()
    base.save_pretrained(tmp_path / "base")
    edit = moved(moved(base, "vae", "encoder.mid_block.attentions.0.to_q.weight"), "unet", "conv_in.bias")
    size = base.vae.encoder.mid_block.attentions[0].to_q.weight.numel() + base.unet.conv_in.bias.numel()
    same = save_single_file(base, tmp_path / "same.safetensors")
    single = save_single_file(edit, tmp_path / "edit.safetensors")
    total = sum(p.numel() for part in base.parts for p in getattr(base, part).parameters())
    for original in (tmp_path / "base", same):
        assert tie_break(original, same).models["same"].kind == "identity"
        found = tie_break(original, single)
        assert found.total_parameters == total and found.added_parameters == 0
        assert found.models["edit"].changed == size / total
        assert found.models["edit"].l2 == pytest.approx(0.25 * size**0.5, rel=1e-5)
    assert tie_break(same, tmp_path / "base").value == 0
    drawn = with_weights_of(base, open_weights(single))
    assert drawn.fingerprint == edit.fingerprint, "the model that draws is the one that was sent"


def test_what_is_not_understood_is_said(tmp_path):
    base = tiny_sd()
    base.save_pretrained(tmp_path / "base")
    single = save_single_file(base, tmp_path / "s.safetensors")
    tensors = load_file(single)
    tensors["cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"] = torch.ones(3, 1)
    save_file(tensors, single)
    with pytest.raises(
        InvalidInput, match="in_proj_weight' is in a folder of diffusers is not known.*save_pretr"
    ):
        tie_break(tmp_path / "base", single)


def test_evaluate_draws_with_single_files(json_of, error, tmp_path, monkeypatch):
    """Two models, one of which forgot nothing: as single files they get the scores that they get as deltas."""
    for name in ("components", "heat_map"):
        monkeypatch.setattr(
            f"unlearn_bench.genmu.figures.{name}", lambda path, *_: path.write_bytes(b"\x89PNG\r\n\x1a\n")
        )
    pocket = StableDiffusion.load("pocket")
    edit = moved(pocket, "unet", "conv_out.bias")
    for name, model in (("dog", edit), ("car", pocket)):
        save_single_file(model, tmp_path / "files" / f"{name}.safetensors")
        (tmp_path / "deltas").mkdir(exist_ok=True)
        Delta.between(pocket, model).save(tmp_path / "deltas" / f"{name}.safetensors")
    how = ("--model", "pocket", "--concepts", "dog,car", "--limit", 1, "--steps", 2)
    files, deltas = (json_of("genmu", "evaluate", "--submission", name, *how) for name in ("files", "deltas"))
    for key in ("err_pooled", "err_macro", "components", "concepts"):
        assert files[key] == deltas[key]
    assert 0 < files["tie_break"]["value"] == pytest.approx(deltas["tie_break"]["value"])
    assert deltas["images"]["generated"] == 0, "the pictures of the same weights are the same pictures"
    assert "the model car is the unmodified model, weight for weight" in files["notes"]
    # A delta of another model is refused, by whoever compares it.
    Delta.between(edit, pocket).save(tmp_path / "deltas" / "dog.safetensors")
    said = "'deltas/dog.safetensors' is a delta of another model than "
    assert said in error("genmu", "evaluate", "--submission", "deltas", *how)
    assert said in error("genmu", "tiebreak", "pocket", "deltas/dog.safetensors")
    assert "put it in one" in error("genmu", "evaluate", "--submission", "files/dog.safetensors", *how)


def test_a_submission_cannot_ask_for_ever(tmp_path):
    model = SubmittedModel(name="x", concepts=("a",), path=tmp_path)

    def asked(images, steps):
        record = {"asked": {"images": images, "limit": None}, "sampler": {"steps": steps}}
        return asked_with(Submission(folder=tmp_path, strategy="multi", models=(model,), record=record))

    assert asked(2, MOST_STATED) == {"images": 2, "limit": None, "steps": MOST_STATED}
    for wrong in (10**9, 0, True, 1e3, "7", [1]):
        assert asked(wrong, wrong) == {"images": None, "limit": None, "steps": None}


# ---- deltas, and folders of older libraries -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_delta_knows_its_model_in_every_dtype(tmp_path, dtype):
    tiny_sd().save_pretrained(tmp_path / "base")
    base = StableDiffusion.load(tmp_path / "base", dtype=dtype)
    edit = moved(base, "unet", "conv_in.bias")
    Delta.between(base, edit).save(tmp_path / "delta.safetensors")
    Delta.between(edit, base).save(tmp_path / "other.safetensors")
    Delta.between(base, base).save(tmp_path / "nothing.safetensors")
    original = open_weights(tmp_path / "base")
    stored = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    assert fingerprint(original, stored) == base.fingerprint
    for name in ("delta", "nothing"):
        assert check_delta(original, open_weights(tmp_path / f"{name}.safetensors")) is True
    assert tie_break(original, tmp_path / "delta.safetensors").models["delta"].of_this_base is True
    with pytest.raises(
        InvalidInput, match=r"delta of another model than .*base'.*made from one with.*this one's"
    ):
        tie_break(original, tmp_path / "other.safetensors")
    assert tie_break(original, tmp_path / "other.safetensors", any_base=True).value >= 0
    shutil.rmtree(tmp_path / "base" / "tokenizer")
    found = check_delta(open_weights(tmp_path / "base"), open_weights(tmp_path / "other.safetensors"))
    assert found is None, "without a vocabulary nothing can be told"


def test_a_folder_as_older_libraries_wrote_it(tmp_path):
    """diffusers and transformers of today read these names as the same model."""
    base = tiny_sd()
    base.save_pretrained(tmp_path / "new")
    base.save_pretrained(tmp_path / "old")
    vae, text = (
        tmp_path / "old" / part
        for part in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
    )
    older = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = {}
    for name, tensor in load_file(vae).items():
        for new, old in older.items():
            name = name.replace(new, old) if ".attentions." in name else name
        tensors[name] = tensor
    save_file(tensors, vae, {"format": "pt"})
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(text).items()}
    save_file(
        tensors | {"text_model.embeddings.position_ids": torch.arange(16)[None]}, text, {"format": "pt"}
    )
    words = tmp_path / "old" / "tokenizer"
    model = json.loads((words / "tokenizer.json").read_text())["model"]
    (words / "tokenizer.json").unlink()
    (words / "vocab.json").write_text(json.dumps(model["vocab"]))
    (words / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])])
    )

    loaded = StableDiffusion.load(tmp_path / "old")
    assert loaded.fingerprint == base.fingerprint == fingerprint(open_weights(tmp_path / "old"), "F32")
    assert tie_break(tmp_path / "old", tmp_path / "new").models["new"].kind == "identity"
    for part, name in (
        ("vae", "decoder.mid_block.attentions.0.to_out.0.bias"), ("text_encoder", "final_layer_norm.bias")
    ):  # fmt: skip
        edit = moved(loaded, part, name)
        Delta.between(loaded, edit).save(tmp_path / f"{part}.safetensors")
        found = tie_break(tmp_path / "old", tmp_path / f"{part}.safetensors").models[part]
        size = getattr(base, part).get_parameter(name).numel()
        assert found.l2 == found.parts[part] == pytest.approx(0.25 * size**0.5, rel=1e-5)
        edit.save_pretrained(tmp_path / part)
        assert tie_break(tmp_path / "old", tmp_path / part).models[part].l2 == pytest.approx(found.l2)
