"""Submissions there and back, and everything that a stranger could send."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmu_eval import hostile
from genmu_eval.hostile import check_folder, check_kind, unpack
from genmu_eval.submission import MANIFEST, Submission, SubmittedModel, changes, check_base, open_submission
from genmu_eval.weights import DELTA, open_weights
from unlearn_core.errors import InvalidInput, Unavailable

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def weights_file(path, by=0.0, width=768, metadata=None, seed=0):
    array = (np.random.default_rng(seed).standard_normal((2, width)) + by).astype("<f4")
    entry = {"dtype": "F32", "shape": [2, width], "data_offsets": [0, array.nbytes]}
    header = {f"unet.{KEY}": entry} | ({} if metadata is None else {"__metadata__": metadata})
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + array.tobytes())
    return path


@pytest.fixture
def original(tmp_path):
    return open_weights(weights_file(tmp_path / "original" / "model.safetensors"))


@pytest.fixture
def folder(tmp_path):
    """Return a single submission of three models, a delta among them, with its manifest."""
    root = tmp_path / "submission"
    paths = [
        weights_file(root / "models" / "blue-jay.safetensors", by=0.01),
        weights_file(root / "models" / "golf-ball.safetensors", metadata={"format": DELTA, "base": "x"}),
        weights_file(root / "models" / "Neon" / "unet" / "diffusion_pytorch_model.safetensors"),
    ]
    data = paths[2].read_bytes().replace(b"unet.down_blocks", b"down_blocks")  # within a folder of its part
    length = struct.unpack("<Q", data[:8])[0] - len("unet.")
    paths[2].write_bytes(struct.pack("<Q", length) + data[8:])
    (root / "README.md").write_text("hello")
    names = [("Blue Jay", paths[0]), ("Golf Ball", paths[1]), ("Neon", paths[2].parents[1])]
    models = tuple(SubmittedModel(name=p.stem, concepts=(c,), path=p) for c, p in names)
    Submission(folder=root, strategy="single", models=models, base="base", record={"technique": "uce"}).save()
    return root


def test_there_and_back(folder):
    found = open_submission(folder)
    assert (found.strategy, found.base, found.record) == ("single", "base", {"technique": "uce"})
    assert found.concepts == ("Blue Jay", "Golf Ball", "Neon") and found.final == found.models
    found.save()
    assert open_submission(folder) == found


def test_without_a_manifest_names_tell(folder):
    (folder / MANIFEST).unlink()
    found = open_submission(folder)
    assert found.strategy == "single" and set(found.concepts) == {"Blue Jay", "Golf Ball", "Neon"}
    assert open_submission(folder, concepts=["blue jay", "golf ball", "neon"]).concepts[-1] == "golf ball"
    with pytest.raises(InvalidInput, match="'golf-ball.safetensors' is named after no concept"):
        open_submission(folder, concepts=["blue jay", "neon"])


def test_one_model_alone_forgot_everything(tmp_path):
    weights_file(tmp_path / "s" / "model.safetensors")
    found = open_submission(tmp_path / "s", concepts=["a", "b"])
    assert (found.strategy, found.concepts, len(found.models)) == ("multi", ("a", "b"), 1)
    assert len(open_submission(tmp_path / "s").concepts) == 20


def test_copies_of_the_original_and_noise_are_recognised(tmp_path, original):
    root = tmp_path / "s"
    kinds = {"blue-jay": {}, "golf-ball": {"seed": 1}, "neon": {"by": 0.01}}
    for name, how in kinds.items():
        weights_file(root / f"{name}.safetensors", **how)
    found = changes(open_submission(root), original)
    assert {name: c.kind for name, c in found.items()} == {
        "blue-jay": "identity", "golf-ball": "noise", "neon": "edit"
    }  # fmt: skip


def test_a_wrong_base_is_named(tmp_path, original):
    root = tmp_path / "s"
    weights_file(root / "neon.safetensors", width=1024)
    with pytest.raises(InvalidInput, match=r"Stable Diffusion 2\) is not the model .*Stable Diffusion 1"):
        check_base(open_submission(root), original)
    weights_file(root / "neon.safetensors", width=32)
    with pytest.raises(InvalidInput, match="a U-Net with text of width 32"):
        check_base(open_submission(root), original)


@pytest.mark.parametrize(
    ("strategy", "concepts", "message"),
    [
        ("singel", [["a"]], "did you mean 'single'"),
        ("single", [["a", "b"]], "one model for each concept"),
        ("single", [["a"], ["A"]], "one model for each concept"),
        ("multi", [["a"], ["b"]], "one model for all concepts, got 2"),
        ("multi", [["a", " a"]], "names each concept it forgot once"),
        ("multi", [[]], "at least one"),
        ("multi", [], "at least one model"),
        ("continual", [["a"], ["b"]], "the concepts of the one before and one more"),
        ("continual", [["a"], ["a", "b", "c"]], "the concepts of the one before and one more"),
    ],
)
def test_models_that_do_not_fit_the_strategy(tmp_path, strategy, concepts, message):
    models = tuple(
        SubmittedModel(name=str(i), concepts=tuple(c), path=tmp_path) for i, c in enumerate(concepts)
    )
    with pytest.raises(InvalidInput, match=message):
        Submission(folder=tmp_path, strategy=strategy, models=models)


def test_continual(tmp_path):
    models = tuple(
        SubmittedModel(name=c[-1], concepts=tuple(c), path=tmp_path / c[-1]) for c in ("a", "ab", "abc")
    )
    found = Submission(folder=tmp_path, strategy="continual", models=models)
    assert found.concepts == ("a", "b", "c") and found.final == models[2:]
    assert Submission(folder=tmp_path, strategy="continual", models=models[2:]).concepts == ("a", "b", "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "else"}, "its format is not"),
        ({"models": 7}, "is no manifest"),
        ({"models": [{"concepts": ["a"]}]}, "KeyError"),
        ({"models": [{"path": "/etc/passwd", "concepts": ["a"]}]}, "leads out of the submission"),
        ({"models": [{"path": "../original", "concepts": ["a"]}]}, "leads out of the submission"),
        ({"models": [{"path": "models/nothing", "concepts": ["a"]}]}, "which is not there"),
        ({"models": [{"path": "models", "concepts": "abc"}]}, "a list of names"),
        ({"models": [{"path": "models", "concepts": ["a"]}]}, "holds 2 files|whole"),
        ({"models": [{"path": "README.md", "concepts": ["a"]}]}, "no safetensors file"),
    ],
)
def test_manifests_that_cannot_be_meant(folder, change, message):
    manifest = json.loads((folder / MANIFEST).read_text()) | change
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InvalidInput, match=message):
        open_submission(folder)


def test_a_model_outside_is_not_saved(tmp_path):
    model = SubmittedModel(name="x", concepts=("a",), path=tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="lies outside"):
        Submission(folder=tmp_path / "s", strategy="multi", models=(model,)).save()


# ---- hostile folders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unet/diffusion_pytorch_model.bin", "pickle.*save_pretrained"),
        ("model.ckpt", "pickle"),
        ("model.PT", "pickle"),
        ("run.py", "is code"),
        ("lib.so", "is code"),
        ("more.zip", "is an archive"),
        ("strange.xyz", "no kind of file"),
        ("bad\x1b[31m.txt", "cannot be printed"),
    ],
)
def test_kinds_of_files_that_are_refused(folder, name, message):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    with pytest.raises(InvalidInput, match=message):
        open_submission(folder)


def test_a_pickle_under_another_name_is_not_opened(folder):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(folder / "ran"),)

    (folder / "models" / "blue-jay.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InvalidInput, match="'blue-jay'.*but a pickle"):
        open_submission(folder)
    assert not (folder / "ran").exists()


def test_links(folder, tmp_path):
    (folder / "inside.md").symlink_to(folder / "README.md")
    check_folder(folder)
    (folder / "outside.md").symlink_to(tmp_path / "original")
    with pytest.raises(InvalidInput, match="leads out of the submission"):
        check_folder(folder)
    (folder / "outside.md").unlink()
    (folder / "nothing.md").symlink_to(folder / "none.md")
    with pytest.raises(InvalidInput, match="link to nothing"):
        check_folder(folder)
    (folder / "nothing.md").unlink()
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(InvalidInput, match="neither a file nor a folder"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "asks for code"),
        ("model_index.json", {"_class_name": "X", "unet": ["evil", "UNet"]}, "unet comes from 'evil'"),
    ],
)
def test_configurations_that_ask_for_code(folder, name, content, message):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(InvalidInput, match=message):
        open_submission(folder)
    (folder / name).write_text("{")
    with pytest.raises(InvalidInput, match="is not JSON"):
        open_submission(folder)
    (folder / name).write_text(
        json.dumps({"unet": ["diffusers", "UNet2DConditionModel"], "vae": [None, None]})
    )
    open_submission(folder)


def test_too_much(folder):
    with pytest.raises(InvalidInput, match="more than 20000 files or 1,000 bytes"):
        check_folder(folder, max_bytes=1000)
    with pytest.raises(Unavailable):
        open_submission(folder / "none")
    with pytest.raises(InvalidInput, match="a submission is a folder"):
        open_submission(folder / "README.md")


@given(st.text(max_size=20))
def test_any_name_is_let_pass_or_refused(name):
    try:
        check_kind(name)
    except InvalidInput as error:
        assert (name and repr(name) in str(error)) or not name
    else:
        assert Path(name).suffix.lower() in hostile.HARMLESS or Path(name).name.lower() in hostile.BARE


# ---- archives ------------------------------------------------------------------------------------------------


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def tarred(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_good_archive(folder, tmp_path, kind):
    path = tmp_path / f"s.{kind}"
    files = [(p.relative_to(folder.parent).as_posix(), p) for p in sorted(folder.rglob("*")) if p.is_file()]
    if kind == "zip":
        zipped(path, [(name, p.read_bytes()) for name, p in files])
    else:
        tarred(path, [(tarfile.TarInfo(name), p.read_bytes()) for name, p in files])
    found = open_submission(unpack(path, tmp_path / "unpacked"))
    assert found.concepts == open_submission(folder).concepts
    with pytest.raises(Unavailable, match="exists already"):
        unpack(path, tmp_path / "unpacked")


def link(name, to):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, to
    return info


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: zipped(p, [("a.txt", bytes(10**8))]), "unpacks to more than"),
        (lambda p: zipped(p, [("../a.txt", b"x")]), "leads out"),
        (lambda p: zipped(p, [("/a.txt", b"x")]), "leads out"),
        (lambda p: zipped(p, [("C:\\a.txt", b"x")]), "leads out"),
        (lambda p: zipped(p, [("a.bin", b"x")]), "pickle"),
        (lambda p: zipped(p, [("a.zip", b"x")]), "is an archive"),
        (lambda p: tarred(p, [(tarfile.TarInfo("../../a.txt"), b"x")]), "leads out"),
        (lambda p: tarred(p, [(link("a.txt", "/etc/passwd"), b"")]), "a link or a device"),
        (lambda p: tarred(p, [(tarfile.TarInfo("a.txt"), b"x")] * 2), "twice"),
        (lambda p: tarred(p, [(tarfile.TarInfo("a.txt"), bytes(10**8))]), "unpacks to more than"),
        (lambda p: p.write_bytes(b"nothing of the kind"), "no archive that can be read"),
        (lambda p: p.write_bytes(b""), "no archive that can be read"),
    ],
)
def test_hostile_archives_leave_nothing(tmp_path, make, message):
    path = tmp_path / "in" / "s.archive"
    path.parent.mkdir()
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidInput, match=message):
        unpack(path, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(Unavailable):
        unpack(tmp_path / "none.zip", tmp_path / "out")
