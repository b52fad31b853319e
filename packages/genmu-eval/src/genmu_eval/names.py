"""What files of different origin call the same tensor, told by the names alone.

Full names here are those of diffusers 0.42 and transformers 5: "unet.down_blocks.0.…", "text_encoder.encoder.…",
"vae.encoder.…". Single files of Stable Diffusion name their blocks as its first code did (CompVis/latent-diffusion,
`openaimodel.py` and `model.py`): numbered along the U-Net, without a word for where a level ends. It ends with the
tensor that halves or doubles the picture, so the numbers are read with those in view.
"""

import re
from collections.abc import Callable, Iterable

SINGLE_FILE = {
    "model.diffusion_model.": "unet", "first_stage_model.": "vae", "cond_stage_model.": "text_encoder",
    "conditioner.embedders.0.": "text_encoder", "conditioner.embedders.1.": "text_encoder_2",
}  # fmt: skip
"""How the names in a single file begin -> part."""

_CLIP = "transformer."
"""What follows in the text encoders of CLIP; those of OpenCLIP join three matrices in one and are not read."""

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The autoencoder's attention, before diffusers 0.15 -> since."""

_RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
_UNET = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}

_NUMBER = r"(\d{1,4})"
_Renamed = Callable[[str], str | None]


def usual(name: str) -> str:
    """Return the full name of today for one of an older library: "text_encoder.text_model.…" lost its second word."""
    if name.startswith("text_encoder.text_model."):
        return "text_encoder." + name.removeprefix("text_encoder.text_model.")
    if found := re.fullmatch(r"(vae\.(?:en|de)coder\.mid_block\.attentions\.0\.)(\w+)\.(weight|bias)", name):
        return f"{found[1]}{_OLD_ATTENTION.get(found[2], found[2])}.{found[3]}"
    return name


def of_single_file(names: Iterable[str]) -> dict[str, str]:
    """Return the name in a single file -> full name, for the parts of the model; others (EMA, schedule) are left out.

    A name of one of the parts that is not understood stays as it is behind its part: "text_encoder.cond_stage_model.…";
    `foreign` tells these.
    """
    names, full = list(names), dict[str, str]()
    for prefix, part in SINGLE_FILE.items():
        rests = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        renamed: _Renamed = {"unet": _unet, "vae": _vae}.get(part, lambda _: _text)(rests)
        full |= {prefix + rest: f"{part}.{renamed(rest) or prefix + rest}" for rest in rests}
    return full


def foreign(name: str) -> bool:
    """Return whether a full name is one of a single file that was not understood."""
    return name.partition(".")[2].startswith(tuple(SINGLE_FILE))


def _unet(names: list[str]) -> _Renamed:
    """Return what renames the U-Net's tensors; input and output blocks are numbered throughout all levels."""
    halved, doubled = (
        sorted({int(found[1]) for name in names if (found := re.match(pattern, name))})
        for pattern in (rf"input_blocks\.{_NUMBER}\.0\.op\.", rf"output_blocks\.{_NUMBER}\.[12]\.conv\.")
    )

    def renamed(rest: str) -> str | None:
        stem, _, last = rest.rpartition(".")
        if stem in _UNET:
            return f"{_UNET[stem]}.{last}"
        if found := re.match(r"middle_block\.([012])\.(.+)", rest):
            return _within("mid_block", int(found[1]) // 2, int(found[1]) % 2, found[2])
        if not (found := re.match(rf"(input|output)_blocks\.{_NUMBER}\.([012])\.(.+)", rest)):
            return None
        side, number, place, inner = found[1], int(found[2]), int(found[3]), found[4]
        ends, first = (halved, 1) if side == "input" else (doubled, 0)  # input block 0 is conv_in
        level = sum(end < number for end in ends)
        layer = number - (ends[level - 1] + 1 if level else first)
        block = f"{'down' if side == 'input' else 'up'}_blocks.{level}"
        if side == "input" and place == 0 and inner.startswith("op."):
            return f"{block}.downsamplers.0.conv.{inner.removeprefix('op.')}"
        if side == "output" and place > 0 and inner.startswith("conv."):
            return f"{block}.upsamplers.0.{inner}"
        return _within(block, layer, place, inner) if place < 2 else None

    return renamed


def _within(block: str, layer: int, attention: int, rest: str) -> str | None:
    if attention:
        return f"{block}.attentions.{layer}.{rest}"
    stem, _, last = rest.rpartition(".")
    return f"{block}.resnets.{layer}.{_RESNET[stem]}.{last}" if stem in _RESNET else None


def _vae(names: list[str]) -> _Renamed:
    """Return what renames the autoencoder's tensors; its decoder numbers levels from the picture inwards."""
    ups = [int(found[1]) for name in names if (found := re.match(rf"decoder\.up\.{_NUMBER}\.", name))]
    last_level = max(ups, default=0)

    def renamed(rest: str) -> str | None:
        rest = rest.replace("nin_shortcut", "conv_shortcut")
        if found := re.match(rf"(en|de)coder\.(down|up)\.{_NUMBER}\.(block|downsample|upsample)\.(.+)", rest):
            level = int(found[3]) if found[2] == "down" else last_level - int(found[3])
            kind = "resnets" if found[4] == "block" else f"{found[4]}rs.0"
            return f"{found[1]}coder.{found[2]}_blocks.{level}.{kind}.{found[5]}"
        if found := re.match(r"(en|de)coder\.mid\.block_([12])\.(.+)", rest):
            return f"{found[1]}coder.mid_block.resnets.{int(found[2]) - 1}.{found[3]}"
        if found := re.match(r"(en|de)coder\.mid\.attn_1\.(norm|q|k|v|proj_out)\.(.+)", rest):
            return f"{found[1]}coder.mid_block.attentions.0.{_VAE_ATTENTION[found[2]]}.{found[3]}"
        if found := re.match(r"((?:en|de)coder)\.(conv_in|conv_out|norm_out)\.(.+)", rest):
            return f"{found[1]}.{found[2].replace('norm_out', 'conv_norm_out')}.{found[3]}"
        return rest if re.match(r"(post_)?quant_conv\.", rest) else None

    return renamed


def _text(rest: str) -> str | None:
    return rest.removeprefix(_CLIP) if rest.startswith(_CLIP) else None
