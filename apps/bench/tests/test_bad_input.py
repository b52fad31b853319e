"""A user's mistake, or their machine's, is exit code 2, one line that helps, and nothing half done."""

import builtins
import errno
import json
import os
import pickle
import re
import time

import numpy as np
import pytest
import torch

from klom_bench import testing
from klom_bench.datasets.cifar10 import Cifar10, margin_path
from unlearn_core.testing.hub_server import HubServer

RUN = ("klom", "run", "--dataset", "digits", "--n-models", 3)
CIFAR = ("klom", "run", "--dataset", "cifar10", "--method", "do_nothing", "--n-models", 4)


def below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


# ---- names and numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "noisy_decent"], "unknown method 'noisy_decent'; did you mean 'noisy_descent'?"),
        (["--method", ""], "unknown method ''. Known: ascent_descent, "),
        (["--dataset", "digit"], "unknown dataset 'digit'; did you mean 'digits'? Known: "),
        (["--variant", "easydubb"], "unknown KLoM variant 'easydubb'; did you mean 'easydub'?"),
        (["--preset", "publishd"], "unknown preset of noisy_descent 'publishd'; did you mean 'published'?"),
        (["--set", "lrr=1"], "NoisyDescent: unknown setting 'lrr'; did you mean 'lr'? Known: batch_norm, "),
        (["--set", "lr"], "--set 'lr': write NAME=VALUE"),
        (["--set", "lr=fast"], "NoisyDescent: lr: .*number.*'fast'"),
        (["--set", "lr=-1"], "NoisyDescent: lr: .*greater than 0.*-1"),
        (["--set", "epochs=0"], "NoisyDescent: epochs: .*greater than or equal to 1"),
        (["--set", "lr=nan"], "lr"),
        (["--set", "noise=inf"], "noise|JSON"),
        (["--set", "schedule=linar"], "schedule: .*'constant' or 'linear'"),
        (["--forget-set", 0], "forget set 0 does not exist: digits has 1 to 10"),
        (["--forget-set", 11], "forget set 11 does not exist: digits has 1 to 10"),
        (["--forget-set", -1], "forget set -1 does not exist: digits has 1 to 10"),
        (["--n-models", 101], "101 models: digits has 100, and 2 are the least"),
        (["--n-models", 1], "1 models: digits has 100, and 2 are the least"),
        (["--n-models", 0], "0 models: digits has 100, and 2 are the least"),
        (["--n-models", -5], "-5 models: digits has 100"),
        (["--data-dir", "."], "--data-dir: the data set 'digits' has none; it is for cifar10"),
        (["--data-dir", "nowhere"], "--data-dir 'nowhere': there is no such folder"),
        (["--dataset", "cifar10", "--data-dir", "nowhere"], "--data-dir 'nowhere': there is no such folder"),
        (["--dataset", "cifar10", "--data-dir", "."], "has no forget_sets/cifar10/forget_set_1.npy"),
    ],
)
def test_names_and_numbers(error, tmp_path, arguments, message, more):
    line = error(*RUN, *arguments, *more)
    assert re.search(
        message.replace("(", r"\(").replace("?", r"\?") if "*" not in message else message, line
    ), line
    assert below(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["klom", "run", "--forget-set", "one"], "'--forget-set'.*integer"),
        (["klom", "run", "--n-models", "1.5"], "'--n-models'.*integer"),
        (["klom", "run", "--n-modles", "3"], "No such option.*--n-modles.*--n-models"),
        (["klom", "rum"], "No such command 'rum'"),
        (["klom", "score", "only-one.npy"], "(?i)Missing argument 'unlearned'"),
    ],
)
def test_usage(bench, arguments, message):
    result = bench(*arguments)
    assert result.code == 2 and result.out == ""
    assert re.search(message, result.err, re.S) and "Traceback" not in result.err


def test_unknown_kind(error):
    assert "unknown kind of plugin 'metods'; did you mean 'methods'?" in error("list", "metods")


# ---- margin files ---------------------------------------------------------------------------------------------


@pytest.fixture
def margins(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "oracle.npy", rng.normal(8, 2, (10, 30)).astype(np.float32))
    np.save(tmp_path / "good.npy", rng.normal(8, 2, (10, 30)).astype(np.float32))
    return tmp_path


class Bomb:
    """Creates the file `path` when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (str(self.path), "w")


def text(folder):
    (folder / "bad.npy").write_text("1.0, 2.0\n3.0, 4.0\n")


def text_npz(folder):
    (folder / "bad.npz").write_text("1.0, 2.0\n")


def text_pt(folder):
    (folder / "bad.pt").write_text("1.0, 2.0\n")


def nothing(folder):
    (folder / "bad.npy").write_bytes(b"")


def nothing_pt(folder):
    (folder / "bad.pt").write_bytes(b"")


def missing(folder):
    (folder / "bad.npy").unlink(missing_ok=True)


def a_folder(folder):
    (folder / "bad.npy").mkdir()


def other_suffix(folder):
    (folder / "bad.csv").write_text("1,2\n")


def truncated(folder):
    content = (folder / "good.npy").read_bytes()
    (folder / "bad.npy").write_bytes(content[: len(content) // 2])


def truncated_header(folder):
    (folder / "bad.npy").write_bytes((folder / "good.npy").read_bytes()[:40])


def broken_header(folder):
    content = (folder / "good.npy").read_bytes()
    (folder / "bad.npy").write_bytes(content.replace(b"}", b"{", 1))


def absurd_header(folder):
    content = (folder / "good.npy").read_bytes()
    end = 10 + int.from_bytes(content[8:10], "little")
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000), }"
    (folder / "bad.npy").write_bytes(content[:10] + head.ljust(end - 11) + b"\n" + content[end:])


def truncated_npz(folder):
    np.savez(folder / "whole.npz", margins=np.load(folder / "good.npy"))
    content = (folder / "whole.npz").read_bytes()
    (folder / "bad.npz").write_bytes(content[: len(content) // 2])


def damaged_npz(folder):
    np.savez_compressed(folder / "whole.npz", margins=np.load(folder / "good.npy"))
    content = bytearray((folder / "whole.npz").read_bytes())
    content[100:140] = b"\xff" * 40
    (folder / "bad.npz").write_bytes(content)


def truncated_pt(folder):
    torch.save(torch.from_numpy(np.load(folder / "good.npy")), folder / "whole.pt")
    content = (folder / "whole.pt").read_bytes()
    (folder / "bad.pt").write_bytes(content[: len(content) // 2])


def truncated_old_pt(folder):
    tensor = torch.from_numpy(np.load(folder / "good.npy"))
    torch.save(tensor, folder / "whole.pt", _use_new_zipfile_serialization=False)
    content = (folder / "whole.pt").read_bytes()
    (folder / "bad.pt").write_bytes(content[: len(content) - 100])


def several(folder):
    np.savez(folder / "bad.npz", a=np.zeros((10, 30)), b=np.zeros((10, 30)))


def a_state_dict(folder):
    torch.save({"weight": torch.zeros(3)}, folder / "bad.pt")


def pickled_npy(folder):
    np.save(folder / "bad.npy", np.array([Bomb(folder / "executed")], dtype=object), allow_pickle=True)


def pickled_npz(folder):
    np.savez(folder / "bad.npz", a=np.array([Bomb(folder / "executed")], dtype=object), allow_pickle=True)


def pickled_pt(folder):
    torch.save(Bomb(folder / "executed"), folder / "bad.pt")


def a_bare_pickle(folder):
    (folder / "bad.npy").write_bytes(pickle.dumps(Bomb(folder / "executed")))


def a_bare_pickle_pt(folder):
    (folder / "bad.pt").write_bytes(pickle.dumps(Bomb(folder / "executed")))


def saved(array):
    return lambda folder: np.save(folder / "bad.npy", array)


FILES = {
    "text": (text, "bad.npy' is not a .npy file of numbers: it does not begin as one"),
    "text.npz": (text_npz, "bad.npz' is not a .npz file of numbers: File is not a zip file"),
    "text.pt": (text_pt, "bad.pt' is not a .pt file of numbers"),
    "nothing": (nothing, "bad.npy' is not a .npy file"),
    "nothing.pt": (nothing_pt, "bad.pt' is not a .pt file"),
    "missing": (missing, "cannot read '.*bad.npy': No such file or directory"),
    "a folder": (a_folder, "cannot read '.*bad.npy': Is a directory"),
    "other suffix": (other_suffix, "bad.csv': margins are read from .npy, .npz, .pt, .pth files"),
    "truncated": (truncated, "bad.npy' is not a .npy file of numbers"),
    "truncated header": (truncated_header, "bad.npy' is not a .npy file of numbers"),
    "broken header": (broken_header, "bad.npy' is not a .npy file of numbers"),
    "absurd header": (absurd_header, "bad.npy' is not a .npy file of numbers"),
    "truncated.npz": (truncated_npz, "bad.npz' is not a .npz file of numbers"),
    "damaged.npz": (damaged_npz, "bad.npz' is not a .npz file of numbers"),
    "truncated.pt": (truncated_pt, "bad.pt' is not a .pt file of numbers"),
    "truncated old.pt": (truncated_old_pt, "bad.pt' is not a .pt file of numbers"),
    "several arrays": (several, "bad.npz' must hold one array, it holds a, b"),
    "a state dict": (a_state_dict, "bad.pt' must hold one tensor, it holds a dict"),
    "pickled.npy": (pickled_npy, "bad.npy' is not a .npy file of numbers: Object arrays cannot be loaded"),
    "pickled.npz": (pickled_npz, "bad.npz' "),
    "pickled.pt": (pickled_pt, "bad.pt' is not a .pt file of numbers"),
    "a bare pickle": (a_bare_pickle, "bad.npy' is not a .npy file of numbers: it does not begin as one"),
    "a bare pickle.pt": (a_bare_pickle_pt, "bad.pt' is not a .pt file of numbers"),
    "fewer models": (saved(np.zeros((9, 30))), r"oracle margins are \(10, 30\) and unlearned margins \(9, 30\)"),
    "fewer samples": (saved(np.zeros((10, 29))), r"oracle margins are \(10, 30\) and unlearned margins \(10, 29\)"),
    "one dimension": (saved(np.zeros(30)), r"must be \(n_models, n_samples\), got shape \(30,\)"),
    "no samples": (saved(np.zeros((10, 0))), r"unlearned margins are empty: shape \(10, 0\)"),
    "no models": (saved(np.zeros((0, 30))), r"unlearned margins are empty: shape \(0, 30\)"),
    "text values": (saved(np.full((10, 30), "8.1")), "unlearned margins must be real numbers, got dtype <U3"),
    "complex": (saved(np.zeros((10, 30), complex)), "unlearned margins must be real numbers, got dtype complex128"),
}  # fmt: skip


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("case", FILES)
def test_margin_files(error, margins, case, more):
    make, message = FILES[case]
    make(margins)
    bad = next(margins.glob("bad.*"), margins / "bad.npy")
    before = below(margins)
    assert re.search(message, line := error("klom", "score", margins / "oracle.npy", bad, *more)), line
    assert "executed" not in below(margins) and below(margins) == before


def test_both_empty(error, margins):
    np.save(margins / "empty.npy", np.zeros((0, 0)))
    assert "oracle margins are empty" in error("klom", "score", margins / "empty.npy", margins / "empty.npy")


def test_a_wrong_variant_is_found_before_any_file_is_read(error):
    assert "did you mean 'robust'" in error("klom", "score", "no.npy", "no.npy", "--variant", "robustt")


def test_held_out_margins_of_another_shape(error, margins):
    np.save(margins / "held_out.npy", np.zeros((10, 7)))
    line = error(
        "klom", "score", margins / "oracle.npy", margins / "good.npy", "--held-out", margins / "held_out.npy"
    )
    assert "(10, 7)" in line


def test_nan_names_model_and_sample_in_robust_and_is_a_note_elsewhere(bench, error, margins):
    broken = np.load(margins / "good.npy")
    broken[4, 17] = np.nan
    np.save(margins / "bad.npy", broken)
    score = ("klom", "score", margins / "oracle.npy", margins / "bad.npy")
    assert "unlearned margin of model 4, sample 17 is nan" in error(*score, "--variant", "robust")
    note = "bad.npy: 1 margins of 1 unlearned models (first: model 4) are not finite"
    assert f"note: {note}" in bench(*score).out
    assert any(w.startswith(note) for w in json.loads(bench(*score, "--json").out)["warnings"])


# ---- folders and disks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_output_folder_below_a_file(error, digits, tmp_path, more):
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/deeper/runs"):
        line = error(*RUN, "--out", out, *more)
        assert re.search("cannot write 'file/.*': a part of the path is a file", line), line
    assert below(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine", "nothing was trained"


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EROFS, "the file system is read-only"), (errno.EACCES, "permission denied")],
)
def test_a_read_only_output_folder(error, digits, tmp_path, monkeypatch, number, reason):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("unlearn_core.atomic.tempfile.TemporaryFile", refuse)
    assert reason in error(*RUN, "--json")
    assert below(tmp_path) == [], "known before anything is trained"


def test_a_cache_folder_that_cannot_be_written(error, digits, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "file/cache"))
    assert "cache/digits" in error(*RUN, "--json")


@pytest.mark.parametrize(
    ("good_writes", "number"), [*((i, errno.ENOSPC) for i in range(5)), (1, errno.EDQUOT)]
)
def test_a_full_disk_leaves_nothing_half_written(
    bench, error, digits, no_picture, tmp_path, monkeypatch, good_writes, number
):
    real, left = os.fsync, iter(range(good_writes))

    def full(handle):
        if next(left, None) is None:
            raise OSError(number, os.strerror(number))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr("unlearn_core.atomic.os.fsync", full)
        result = bench(*RUN, "--json")
    if result.code == 0:
        assert good_writes >= 4, "three blocks and the record"
        return
    assert result.code == 2 and result.out == ""
    reason = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}[number]
    assert re.fullmatch(rf"error: cannot write '.*': {reason}\n", result.err)
    assert not [p for p in below(tmp_path) if ".part" in p]
    assert len([p for p in below(tmp_path) if p.endswith(".safetensors")]) == min(good_writes, 3)
    assert bench(*RUN, "--json").code == 0, "with space again, it goes on"


def test_a_record_that_was_edited(bench, error, digits, no_picture, tmp_path):
    bench(*RUN)
    (path,) = (tmp_path / "runs").rglob("record.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    assert "one of them was edited after the run" in error(*RUN, "--json")
    path.write_text("{")
    assert "is not a run record" in error(*RUN, "--json")
    assert bench(*RUN, "--force").code == 0


# ---- CIFAR-10 and its Hub ------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch, digits, no_picture):
    testing.write_easydub(tmp_path / "data", testing.tiny_margins())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(Cifar10, "block", 2, raising=False)
    with HubServer({"datasets/easydub/EasyDUB-dataset": tmp_path / "data"}) as hub:
        for name, value in hub.constants.items():
            monkeypatch.setattr(name, value)
        yield hub


FILE = margin_path("oracle", "retain", 1, 2)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda hub: hub.fail(FILE, status=404), "has no file .*id_2_epoch_23.npy"),
        (lambda hub: hub.fail(FILE, status=403), r"refuses .*id_2_epoch_23.npy.* \(403\).* HF_TOKEN"),
        (lambda hub: hub.truncate(FILE, 100), "id_2_epoch_23.npy .* arrived truncated and was thrown away"),
        (lambda hub: hub.fail("revision/main", status=503), "answered 503 for revision 'main'"),
        (lambda hub: hub.require_token("secret"), r"refuses revision 'main' .* \(401\)"),
    ],
)
def test_a_hub_that_fails(error, json_of, hub, tmp_path, fault, message):
    fault(hub)
    assert re.search(message, line := error(*CIFAR, "--json")), line
    assert not list((tmp_path / "runs").rglob("record.json")) and not list(tmp_path.rglob("*.part"))
    hub.mend()
    assert json_of(*CIFAR)["n_models"] == 4


def test_no_hub(error, hub, monkeypatch, closed_port):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed_port)
    start = time.perf_counter()
    line = error(*CIFAR, "--json")
    assert f"no connection to {closed_port}" in line and "--data-dir" in line and "--dataset digits" in line
    assert time.perf_counter() - start < 10


def test_no_hub_in_a_process_of_its_own(process, monkeypatch, closed_port):
    monkeypatch.setenv("HF_ENDPOINT", closed_port)
    child = process(*CIFAR, "--json")
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, "")
    assert len(err.splitlines()) == 1 and err.startswith(f"error: no connection to {closed_port}")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(54, np.float32), r"id_2_epoch_23.npy \(model 2\) has shape \(54,\), expected \(55,\)"),
        (np.zeros((55, 1), np.float32), r"has shape \(55, 1\)"),
        (np.full(55, np.nan, np.float32), "the margin of model 2 for sample 0 is nan"),
        (np.zeros(55, int), "holds int64, expected floats"),
        (np.array([{}] * 55), "is truncated or damaged"),
    ],
)
def test_a_bad_file_of_the_data_folder(error, hub, tmp_path, array, message):
    np.save(tmp_path / "data" / FILE, array)
    assert re.search(message, line := error(*CIFAR, "--json", "--data-dir", tmp_path / "data")), line


def test_more_than_the_data_folder_has(error, hub, tmp_path):
    local = ("--data-dir", tmp_path / "data", "--json")
    assert "forget_set_2.npy" in error(*CIFAR, *local, "--forget-set", 2)
    assert "id_8_epoch_23.npy" in error(*CIFAR, *local, "--n-models", 9)
    assert "201 models: cifar10 has 200" in error(*CIFAR, *local, "--n-models", 201)


def test_checkpoints_or_images_that_are_missing(error, hub, tmp_path):
    run = ("klom", "run", "--dataset", "cifar10", "--n-models", 2, "--data-dir", tmp_path / "data", "--json")
    assert "cifar-10-batches-py" in error(*run)
    testing.write_images(tmp_path / "data/data")
    assert "has no models/cifar10/pretrain/resnet9/id_0_epoch_23.pt" in error(*run)
