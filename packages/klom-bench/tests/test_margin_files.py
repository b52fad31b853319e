"""Margin files: what is read, and one clear message for everything else."""

import contextlib
import io
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klom_bench.margin_files import read_margins
from unlearn_core.errors import InvalidInput, Unavailable

TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_every_kind_comes_back(tmp_path):
    np.save(tmp_path / "a.npy", TABLE)
    np.savez(tmp_path / "a.npz", margins=TABLE)
    np.savez_compressed(tmp_path / "b.npz", TABLE)
    torch.save(torch.from_numpy(TABLE), tmp_path / "a.pt")
    torch.save(torch.from_numpy(TABLE).requires_grad_(), tmp_path / "a.pth")
    for path in sorted(tmp_path.iterdir()):
        read = read_margins(path)
        assert isinstance(read, np.ndarray) and read.dtype == np.float32
        np.testing.assert_array_equal(read, TABLE)
    torch.save(torch.from_numpy(TABLE).bfloat16(), tmp_path / "c.pt")
    np.testing.assert_array_equal(read_margins(tmp_path / "c.pt"), TABLE)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def bytes_of(save, value):
    file = io.BytesIO()
    save(file, value)
    return file.getvalue()


NPY, PT = bytes_of(np.save, TABLE), bytes_of(lambda f, v: torch.save(v, f), torch.from_numpy(TABLE))
NPZ = bytes_of(np.savez_compressed, np.random.default_rng(0).normal(size=(20, 20)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"0.1 0.2\n", "is not a .npy file of numbers: it does not begin as one"),
        ("a.npy", b"", "does not begin as one"),
        ("a.npy", NPY[:-5], "is not a .npy file of numbers"),
        ("a.npy", NPY[:20], "is not a .npy file of numbers"),
        ("a.npy", pickle.dumps(TABLE), "does not begin as one"),
        ("a.npy", NPZ, "does not begin as one"),
        (
            "a.npy",
            bytes_of(lambda f, v: np.save(f, v, allow_pickle=True), np.array([Evil()])),
            "is not a .npy",
        ),
        ("a.npz", b"text", "is not a .npz file of numbers"),
        ("a.npz", NPZ[:-30], "is not a .npz file of numbers"),
        ("a.npz", pickle.dumps(TABLE), "is not a .npz file of numbers"),
        ("a.npz", bytes_of(lambda f, v: np.savez(f, a=v, b=v), TABLE), "must hold one array, it holds a, b"),
        ("a.npz", bytes_of(lambda f, v: np.savez(f), None), "must hold one array, it holds none"),
        ("a.pt", b"text", "is not a .pt file of numbers"),
        ("a.pt", b"", "is not a .pt file of numbers"),
        ("a.pt", PT[: len(PT) // 2], "is not a .pt file of numbers"),
        ("a.pt", bytes_of(lambda f, v: torch.save(v, f), Evil()), "is not a .pt file of numbers"),
        (
            "a.pt",
            bytes_of(lambda f, v: torch.save(v, f), {"a": torch.ones(1)}),
            "one tensor, it holds a dict",
        ),
        (
            "a.pt",
            bytes_of(lambda f, v: torch.save(v, f), torch.eye(3).to_sparse()),
            "is not a .pt file of numbers",
        ),
        ("a.csv", b"1,2", "margins are read from .npy, .npz, .pt, .pth files"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_anything_else_is_one_clear_message(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as caught:
        read_margins(tmp_path / name)
    assert name in str(caught.value) and len(str(caught.value)) < 600 and "\n" not in str(caught.value)
    assert not (tmp_path / "evil").exists()  # no pickle was run


@given(kind=st.sampled_from([(".npy", NPY), (".npz", NPZ), (".pt", PT)]), data=st.data())
def test_a_flipped_byte_or_a_short_file_is_never_a_crash(kind, data, tmp_path_factory):
    suffix, content = kind
    at = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[at] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        del damaged[at:]
    path = tmp_path_factory.mktemp("damaged") / f"a{suffix}"
    path.write_bytes(damaged)
    with contextlib.suppress(InvalidInput, Unavailable):
        assert isinstance(read_margins(path), np.ndarray)


def test_what_cannot_be_opened_is_unavailable(tmp_path):
    for path in (tmp_path / "absent.npy", tmp_path / "absent.npz", tmp_path / "absent.pt"):
        with pytest.raises(Unavailable, match="cannot read .*No such file"):
            read_margins(path)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(Unavailable, match="cannot read .*directory"):
        read_margins(tmp_path / "folder.npy")
