"""The CIFAR-10 images, from the publisher's own archive or a folder that torchvision made of it.

Needs no torchvision: the archive holds six pickles of arrays, which are read by an unpickler that can build
nothing but arrays, text, numbers, lists and dicts. The published files are recognised by their MD5.
"""

import hashlib
import http.client
import io
import os
import pickle
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from klom_bench.hub import INSTEAD
from unlearn_core.atomic import make_folder, replacing
from unlearn_core.errors import InvalidInput, Unavailable

MEAN = (0.4914, 0.4822, 0.4465)  # EasyDUB's, also data-unlearning-bench's and Attribute-to-Delete's
STD = (0.2023, 0.1994, 0.2010)
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
FOLDER = "cifar-10-batches-py"
TRAIN = {  # file -> MD5; the order is the order of the train set
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
VAL = {"test_batch": "40351d587109b95175f43aff81a1287e"}


def load(root: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Return the images (n, 3, 32, 32) float32, normalised, and the labels (n,) int64.

    Args:
        root: the folder of the folder cifar-10-batches-py.
        train: the train set, or else the validation set (CIFAR-10's test set).

    Raises:
        Unavailable: a file is not there.
        InvalidInput: a file is damaged, or is one of 50,000 (10,000) images but not the published one.
    """
    files = TRAIN if train else VAL
    folder = root / FOLDER
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        raise Unavailable(
            f"{folder} has no {absent[0]}; CIFAR-10 is expected there as {', '.join([*TRAIN, *VAL])}, "
            f"the content of {URL}"
        )
    contents = {name: (folder / name).read_bytes() for name in files}
    batches = [_batch(folder / name, content) for name, content in contents.items()]
    pixels, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    # Folders of another size are small stand-ins for tests; the real one must be the one the models saw.
    if len(pixels) == 10_000 * len(files):
        for name, content in contents.items():
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != files[name]:
                raise InvalidInput(f"{folder / name} is not the published file (MD5 {files[name]})")
    return _normalised(pixels), torch.from_numpy(labels)


def download(root: Path, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Fetch CIFAR-10 (170 MB) into `root`/cifar-10-batches-py unless it is there.

    Args:
        root: the folder that `load` is given.
        progress: called with (bytes done, bytes in all).

    Raises:
        Unavailable: no connection, HF_HUB_OFFLINE is set, the archive is not the published one, disk full.
    """
    folder = root / FOLDER
    if all((folder / name).is_file() for name in (*TRAIN, *VAL)):
        return
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise Unavailable(f"CIFAR-10 is not in {folder} and HF_HUB_OFFLINE is set; unset it, {INSTEAD}")
    make_folder(root)
    with tempfile.TemporaryFile(dir=root) as archive:
        if _copy(URL, archive, progress) != ARCHIVE_MD5:
            raise Unavailable(f"{URL} arrived damaged (its MD5 is not {ARCHIVE_MD5}); run the command again")
        archive.seek(0)
        with tarfile.open(fileobj=archive, mode="r:gz") as tar:
            for name in (*TRAIN, *VAL):
                member = tar.extractfile(f"{FOLDER}/{name}")
                assert member is not None
                with replacing(folder / name) as file:
                    file.write(member.read())


def _copy(url: str, to: Any, progress: Callable[[int, int], None] | None) -> str:
    """Copy the content of `url` to an open file and return its MD5."""
    digest, done = hashlib.md5(usedforsecurity=False), 0
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            total = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(1 << 20):
                to.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"cannot fetch {url}: {error}; {INSTEAD}") from error
    return digest.hexdigest()


def _batch(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (n, 3, 32, 32) uint8 and labels (n,) int64 of one of the six files."""
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
        pixels = np.asarray(batch["data"])
        labels = np.asarray(batch["labels"])
    # A damaged pickle raises nearly anything: UnpicklingError, EOFError, KeyError, UnicodeDecodeError, ...
    except Exception as error:
        raise InvalidInput(f"{path} is not a batch of CIFAR-10: {type(error).__name__}: {error}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072) or labels.dtype.kind != "i":
        found = f"{pixels.dtype} {pixels.shape}"
        raise InvalidInput(f"{path} holds {found}, expected uint8 ({len(labels)}, 3072)")
    if not ((labels >= 0) & (labels < 10)).all():
        raise InvalidInput(f"{path} holds labels outside 0 to 9")
    return pixels.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def _normalised(pixels: np.ndarray) -> Tensor:
    """Return (pixels / 255 - mean) / std as float32, in torchvision's order of operations, so to the bit."""
    images = torch.from_numpy(pixels).float().div_(255)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return images.sub_(mean).div_(std)


class _ArraysOnly(pickle.Unpickler):
    """An unpickler for numpy arrays and plain values; anything else is refused, so no file can run code."""

    def find_class(self, module: str, name: str) -> Any:
        # The module of `_reconstruct` was renamed in NumPy 2; the archive is of 2009.
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR-10 needs")
        return _ADMITTED[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode(encoding)  # how Python 3 writes bytes in the old pickle protocols


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}
