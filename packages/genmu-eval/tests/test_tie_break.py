"""The weight change against closed forms and numpy; files of every dtype, and files that are none."""

import contextlib
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmu_eval.change import change
from genmu_eval.safetensors_file import CHUNK, read_header, rounded
from genmu_eval.tie_break import choose, tie_break
from genmu_eval.weights import DELTA, open_weights
from unlearn_core.errors import InvalidInput, Unavailable


def bf16(array):
    bits = np.asarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


NAMES = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "u2": "BF16"}


def save(path, tensors, metadata=None):
    """Write safetensors as the format's document says; uint16 stands for bfloat16."""
    header, data = {} if metadata is None else {"__metadata__": metadata}, b""
    for name, array in tensors.items():
        array = np.ascontiguousarray(array)
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {
            "dtype": NAMES[array.dtype.str[1:]], "shape": list(array.shape), "data_offsets": offsets
        }  # fmt: skip
        data += array.tobytes()
    text = json.dumps(header).encode()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)
    return Path(path)


UNET = {
    "conv_in.weight": (4, 3),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (5, 768),
    "time_embedding.linear_1.bias": (7,),
}
TEXT = {"text_model.embeddings.token_embedding.weight": (6, 2)}
VAE = {"encoder.conv_in.weight": (2, 2), "decoder.conv_in.weight": (2, 2)}
TOTAL = 12 + 5 * 768 + 7 + 12 + 4 + 4


def arrays(seed=0, dtype="<f4"):
    rng = np.random.default_rng(seed)
    parts = {"unet": UNET, "text_encoder": TEXT, "vae": VAE}
    return {
        part: {n: rng.standard_normal(shape).astype(dtype) for n, shape in shapes.items()}
        for part, shapes in parts.items()
    }


def folder(path, parts):
    for part, tensors in parts.items():
        name = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        save(path / part / f"{name}.safetensors", tensors)
    (path / "safety_checker").mkdir()
    return path


@pytest.fixture
def base(tmp_path):
    parts = arrays()
    parts["text_encoder"]["text_model.embeddings.position_ids"] = np.arange(6)[None]
    return folder(tmp_path / "base", parts)


def edited(path, part, name, by, dtype="<f4"):
    parts = arrays()
    parts[part][name] = (parts[part][name] + by).astype(dtype)
    parts["text_encoder"]["text_model.embeddings.position_ids"] = np.arange(6)[None]
    return folder(path, parts)


def test_identity_is_zero_and_buffers_are_no_parameters(base):
    found = tie_break(base, base)
    assert (found.value, found.total_parameters, found.edits_weights) == (0, TOTAL, False)
    assert found.models["base"].kind == "identity"


def test_one_changed_weight_among_n(base, tmp_path):
    by = np.zeros((4, 3), np.float32)
    by[1, 2] = -2.0
    other = edited(tmp_path / "one", "unet", "conv_in.weight", by)
    delta = float(arrays()["unet"]["conv_in.weight"][1, 2]) - float(
        np.float32(arrays()["unet"]["conv_in.weight"][1, 2] - 2)
    )
    for norm in ("l2", "l1", "max"):
        assert tie_break(base, other, norm=norm).value == pytest.approx(abs(delta) / TOTAL, rel=1e-12)
    found = tie_break(base, other).models["one"]
    assert found.changed == 1 / TOTAL and found.kind == "edit"
    assert found.rms == pytest.approx(abs(delta) / math.sqrt(TOTAL))
    assert tie_break(base, other, parts="vae,text_encoder").value == 0
    assert tie_break(base, other, parts="unet").value == pytest.approx(abs(delta) / (12 + 5 * 768 + 7))


def test_the_norms_are_numpys(base, tmp_path):
    other = folder(tmp_path / "other", arrays(1))
    a, b = (
        np.concatenate([t.ravel() for p in arrays(s).values() for t in p.values()]).astype(float)
        for s in (0, 1)
    )
    found = change(open_weights(base), open_weights(other))
    assert found.l2 == pytest.approx(np.linalg.norm(a - b), rel=1e-12)
    assert found.l1 == pytest.approx(np.abs(a - b).sum(), rel=1e-12)
    assert found.max_abs == np.abs(a - b).max()
    assert found.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-12)
    assert found.kind == "noise"
    # Several models: the mean of their norms.
    assert tie_break(base, [base, other]).value == pytest.approx(found.l2 / 2 / TOTAL)
    # One model of four concepts: literally its norm, and its share of one.
    one = tie_break(base, other, n_concepts=4)
    assert one.value == pytest.approx(4 * one.amortised) and one.value == pytest.approx(found.l2 / TOTAL)


@given(st.floats(1e-3, 1e3), st.integers(0, 5))
def test_scaling_the_change_scales_the_norm(tmp_path, scale, seed):
    step = np.random.default_rng(seed).standard_normal((4, 3))
    zero = {n: np.zeros(s) for n, s in UNET.items()}
    save(tmp_path / "a" / "unet.safetensors", {f"unet.{n}": t for n, t in zero.items()})
    norms = []
    for by in (step, step * scale):
        save(
            tmp_path / "b" / "x.safetensors",
            {f"unet.{n}": t for n, t in (zero | {"conv_in.weight": by}).items()},
        )
        norms.append(tie_break(tmp_path / "a" / "unet.safetensors", tmp_path / "b").value)
    assert norms[1] == pytest.approx(norms[0] * scale, rel=1e-9)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "u2"])
def test_every_dtype_across_chunks(tmp_path, dtype):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(CHUNK + 5) for _ in range(2))
    store = bf16 if dtype == "u2" else lambda x: x.astype(f"<{dtype}")
    for name, x in (("a", a), ("b", b)):
        save(tmp_path / f"{name}.safetensors", {"unet.w": store(x)})
    widened = [
        (store(x).astype(np.uint32) << 16).view(np.float32).astype(float)
        if dtype == "u2"
        else store(x).astype(float)
        for x in (a, b)
    ]
    found = tie_break(tmp_path / "a.safetensors", tmp_path / "b.safetensors").models["b"]
    assert found.l2 == pytest.approx(np.linalg.norm(widened[0] - widened[1]), rel=1e-12)
    assert found.rounding == 0


@pytest.mark.parametrize("dtype", ["f2", "u2"])
def test_saving_narrower_is_told_apart(tmp_path, dtype):
    a = np.random.default_rng(0).standard_normal(1000).astype("<f4")
    narrow = bf16(a) if dtype == "u2" else a.astype("<f2")
    save(tmp_path / "a.safetensors", {"unet.w": a})
    save(tmp_path / "b.safetensors", {"unet.w": narrow})
    found = tie_break(tmp_path / "a.safetensors", tmp_path / "b.safetensors").models["b"]
    assert found.l2 == pytest.approx(found.rounding, rel=1e-12) and found.l2 > 0
    wide = (narrow.astype(np.uint32) << 16).view(np.float32) if dtype == "u2" else narrow
    assert np.array_equal(rounded(a.astype(float), NAMES[dtype]), wide.astype(float))


def test_a_delta_is_read_directly(base, tmp_path):
    new = arrays()["unet"]["conv_in.weight"] + np.float32(0.5)
    metadata = {"format": DELTA, "base": "abc", "record": json.dumps({"technique": "uce"})}
    delta = save(tmp_path / "uce.safetensors", {"unet.conv_in.weight": new}, metadata)
    whole = edited(tmp_path / "whole", "unet", "conv_in.weight", np.float32(0.5))
    opened = open_weights(delta)
    assert opened.is_delta and opened.record == {"technique": "uce"} and opened.base == "abc"
    assert tie_break(base, delta).value == tie_break(base, whole).value > 0
    assert tie_break(base, delta).models["uce"].absent == ()
    with pytest.raises(InvalidInput, match="original is a whole model"):
        tie_break(delta, base)
    stranger = save(tmp_path / "s.safetensors", {"unet.nothing": new}, metadata)
    with pytest.raises(InvalidInput, match="the delta changes unet.nothing"):
        tie_break(base, stranger)


def test_added_parameters_are_counted_kept_apart_or_refused(base, tmp_path):
    lora = {"unet.down_blocks.0.lora_A.weight": np.full((2, 2), 3.0, np.float32)}
    path = save(tmp_path / "lora.safetensors", lora)
    found = tie_break(base, path)
    assert found.value == pytest.approx(6 / TOTAL) and found.added_parameters == 4
    assert found.models["lora"].kind == "adapter" and not found.edits_weights
    assert tie_break(base, path, added="apart").value == 0
    assert tie_break(base, path, norm="l1").value == pytest.approx(12 / TOTAL)
    with pytest.raises(InvalidInput, match="adds 4 parameters"):
        tie_break(base, path, added="refuse")


def test_a_part_that_is_not_there_is_unchanged_and_named(base, tmp_path):
    other = folder(tmp_path / "unet-only", {"unet": arrays()["unet"]})
    assert tie_break(base, other).models["unet-only"].absent == ("text_encoder", "vae")


def test_shards(base, tmp_path):
    parts = arrays()
    unet = parts.pop("unet")
    other = folder(tmp_path / "sharded", parts)
    where = {name: f"part-{i}.safetensors" for i, name in enumerate(unet)}
    for name, file in where.items():
        save(other / "unet" / file, {name: unet[name]})
    index = other / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert tie_break(base, other).value == 0
    index.write_text(json.dumps({"weight_map": where | {"more": "part-0.safetensors"}}))
    with pytest.raises(InvalidInput, match="disagree"):
        tie_break(base, other)
    index.write_text(json.dumps({"weight_map": {"x": "../../base/unet/diffusion_pytorch_model.safetensors"}}))
    with pytest.raises(InvalidInput, match="no file beside it"):
        tie_break(base, other)


def test_another_architecture_is_named(base, tmp_path):
    parts = arrays()
    (name,) = [n for n in parts["unet"] if "to_k" in n]
    parts["unet"][name] = np.zeros((5, 1024), np.float32)
    with pytest.raises(InvalidInput, match=r"Stable Diffusion 2\) is not the model .*Stable Diffusion 1"):
        tie_break(base, folder(tmp_path / "sd2", parts))
    parts = arrays()
    del parts["unet"]["conv_in.weight"]
    with pytest.raises(InvalidInput, match="lacks unet.conv_in.weight"):
        tie_break(base, folder(tmp_path / "less", parts))
    single = save(tmp_path / "ldm.safetensors", {"model.diffusion_model.input_blocks.0.weight": np.zeros(3)})
    assert open_weights(single).parts == ("unet",)
    with pytest.raises(
        InvalidInput, match=r"'model.diffusion_model.input_blocks.0.weight' is in .*save_pretrained"
    ):
        tie_break(base, single)


def test_numbers_that_are_not_finite(base, tmp_path):
    with pytest.raises(InvalidInput, match="conv_in.weight holds numbers that are not finite"):
        tie_break(base, edited(tmp_path / "nan", "unet", "conv_in.weight", np.float32("nan")))


def test_settings(base):
    assert choose("vae, unet") == ("unet", "vae")
    for wrong in ({"norm": "l3"}, {"parts": "unets"}, {"added": "ignore"}, {"n_concepts": 0}, {"parts": []}):
        with pytest.raises(InvalidInput):
            tie_break(base, base, **wrong)
    with pytest.raises(InvalidInput, match="at least one unlearned"):
        tie_break(base, [])
    with pytest.raises(Unavailable):
        tie_break(base, base / "none")
    with pytest.raises(InvalidInput, match="holds no weights"):
        tie_break(base, base / "safety_checker")


def header(entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00...", "but a pickle"),
        (b"PK\x03\x04\x00\x00\x00\x00\x00\x00", "zip archive or a pickle"),
        (struct.pack("<Q", 2**62), "no safetensors file"),
        (struct.pack("<Q", 4) + b"nope", "no JSON"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (header({"w": ENTRY}) + b"1234", "not whole"),
        (header({"w": ENTRY}) + b"123456789", "not whole"),
        (header({"w": ENTRY | {"data_offsets": [4, 12]}}) + b"0" * 12, "overlap or leave a gap"),
        (header({"w": ENTRY, "v": ENTRY}) + b"0" * 8, "overlap or leave a gap"),
        (header({"w": ENTRY | {"shape": [3]}}) + b"0" * 8, "entry of 'w'"),
        (header({"w": ENTRY | {"shape": [-2]}}) + b"0" * 8, "entry of 'w'"),
        (header({"w": ENTRY | {"dtype": "object"}}) + b"0" * 8, "entry of 'w'"),
        (header({"w": 7}), "entry of 'w'"),
        (header({"__metadata__": 7}), "metadata"),
    ],
)
def test_damaged_files(tmp_path, data, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=message):
        read_header(path)


@given(st.binary(max_size=64))
def test_any_bytes_are_refused_or_read(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with contextlib.suppress(InvalidInput):
        assert all(tensor.offset <= len(data) for tensor in read_header(path)[0].values())


def test_a_tensor_as_a_whole(tmp_path):
    array = np.arange(CHUNK + 3, dtype="<f4")
    tensors, _ = read_header(save(tmp_path / "x.safetensors", {"w": array, "e": np.empty((0, 2), "<f2")}))
    assert np.array_equal(tensors["w"].raw(), array) and tensors["e"].raw().shape == (0,)
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-4])
    with pytest.raises(InvalidInput, match="cut off while it was read"):
        tensors["w"].raw()
    tensors, _ = read_header(save(tmp_path / "y.safetensors", {"w": np.arange(2)}))
    with pytest.raises(InvalidInput, match="dtype I64 is none of"):
        tensors["w"].raw()
