"""Names of other origin, and the fingerprint by which a delta knows its model.

`apps/bench/tests/test_genmu_single_file.py` compares all names with diffusers' own conversion, which needs torch.
"""

import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmu_eval.fingerprint import check_delta, fingerprint, vocabulary
from genmu_eval.names import foreign, of_single_file, usual
from genmu_eval.tie_break import tie_break
from genmu_eval.weights import DELTA, open_weights
from unlearn_core.errors import InvalidInput

UNET = "model.diffusion_model."
ENDS = [f"input_blocks.{i}.0.op.weight" for i in (3, 6, 9)]
ENDS += [f"output_blocks.{i}.{j}.conv.weight" for i, j in ((2, 1), (5, 2), (8, 2))]
"""Where the levels of Stable Diffusion 1 end."""


@pytest.mark.parametrize(
    ("name", "full"),
    [
        (UNET + "input_blocks.0.0.weight", "unet.conv_in.weight"),
        (UNET + "input_blocks.1.0.in_layers.0.weight", "unet.down_blocks.0.resnets.0.norm1.weight"),
        (UNET + "input_blocks.3.0.op.weight", "unet.down_blocks.0.downsamplers.0.conv.weight"),
        (UNET + "input_blocks.5.1.proj_in.bias", "unet.down_blocks.1.attentions.1.proj_in.bias"),
        (UNET + "input_blocks.11.0.out_layers.3.bias", "unet.down_blocks.3.resnets.1.conv2.bias"),
        (UNET + "middle_block.2.emb_layers.1.bias", "unet.mid_block.resnets.1.time_emb_proj.bias"),
        (UNET + "output_blocks.2.1.conv.weight", "unet.up_blocks.0.upsamplers.0.conv.weight"),
        (UNET + "output_blocks.11.1.norm.bias", "unet.up_blocks.3.attentions.2.norm.bias"),
        ("first_stage_model.quant_conv.bias", "vae.quant_conv.bias"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            "text_encoder.final_layer_norm.bias",
        ),
    ],
)
def test_names_of_stable_diffusion_1(name, full):
    found = of_single_file({name, *(UNET + end for end in ENDS)})
    assert usual(found[name]) == full and not foreign(full)


def test_a_decoder_is_numbered_from_the_picture_inwards():
    names = [f"first_stage_model.decoder.up.{i}.block.0.nin_shortcut.bias" for i in range(4)]
    full = [f"vae.decoder.up_blocks.{3 - i}.resnets.0.conv_shortcut.bias" for i in range(4)]
    assert list(of_single_file(names).values()) == full


def save(path, tensors, metadata=None):
    """Write float32 as the format's document says."""
    header, data = {"__metadata__": metadata or {}}, b""
    for name, array in tensors.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@given(st.lists(st.text("io_nputblcks.0123456789conve", max_size=30), max_size=5))
def test_any_name_is_understood_or_kept(rests):
    names = {prefix + rest for rest in rests for prefix in (UNET, "first_stage_model.", "cond_stage_model.")}
    found = of_single_file(names)
    assert found.keys() == names
    assert all(full.endswith(f".{name}") for name, full in found.items() if foreign(full))


def test_two_names_of_one_tensor(tmp_path):
    one = np.zeros(3, np.float32)
    twice = {f"{UNET}input_blocks.{number}.0.in_layers.0.weight": one for number in ("1", "01")}
    with pytest.raises(InvalidInput, match="one tensor under two names"):
        open_weights(save(tmp_path / "a.safetensors", twice))
    twice = {"text_encoder.x": one, "text_encoder.text_model.x": one}
    with pytest.raises(InvalidInput, match="'text_encoder.x' twice"):
        open_weights(save(tmp_path / "b.safetensors", twice))


WORDS = {"a": 0, "dog</w>": 1}
PARTS = {
    "unet": {"conv_in.weight": (4, 3), "conv_in.bias": (4,)},
    "vae": {"encoder.conv_in.bias": (2,)},
    "text_encoder": {"text_model.final_layer_norm.bias": (5,), "text_model.embeddings.x": (2, 2)},
}


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {
        part: {n: rng.standard_normal(shape).astype("<f4") for n, shape in shapes.items()}
        for part, shapes in PARTS.items()
    }


def by_hand(parts):
    """The sha256 as the weight deltas of unlearn-techniques document it."""
    digest = hashlib.sha256(json.dumps(WORDS, separators=(",", ":")).encode())
    for part in ("unet", "vae", "text_encoder"):
        for name, array in sorted(parts[part].items()):
            name = name.removeprefix("text_model.")
            digest.update(f"{part}.{name} torch.float32 {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def test_a_delta_of_another_model_is_refused(tmp_path):
    base = tmp_path / "base"
    for part, tensors in arrays().items():
        save(base / part / "model.safetensors", tensors)
    (base / "tokenizer").mkdir()
    words = {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": "dog</w>"}]}
    (base / "tokenizer" / "tokenizer.json").write_text(json.dumps(words))
    assert vocabulary(base) == WORDS
    own = by_hand(arrays())
    assert fingerprint(open_weights(base), "F32") == own
    new = {"unet.conv_in.weight": arrays()["unet"]["conv_in.weight"] + np.float32(0.5)}

    def delta(fingerprint):
        return save(tmp_path / "d.safetensors", new, {"format": DELTA, "base": fingerprint})

    assert tie_break(base, delta(own)).models["d"].of_this_base is True
    for other in (by_hand(arrays(1)), ""):
        with pytest.raises(InvalidInput, match=rf"delta of another model than .*{other[:12]}.*{own[:12]}"):
            tie_break(base, delta(other))
    assert tie_break(base, delta("x"), any_base=True).models["d"].of_this_base is None
    assert check_delta(open_weights(base), open_weights(delta("as loaded")), known="as loaded")
    (base / "tokenizer" / "tokenizer.json").write_text("[7]")
    with pytest.raises(InvalidInput, match="no tokenizer"):
        tie_break(base, delta(own))
