"""A tiny copy of the published CIFAR-10 data in their real layouts, for tests of whatever reads them.

60 train and 12 validation images, forget set 1 of 5 images, 8 pretrain models and 8 oracles, as files that
differ from the published ones in nothing but size and content.
"""

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klom_bench.datasets.cifar10 import SPLITS, margin_path

N_TRAIN, N_VAL, N_MODELS = 60, 12, 8
FORGET = np.array([41, 3, 17, 58, 22])  # not sorted, like forget set 10


@dataclass(frozen=True)
class TinyCifar10:
    """The numbers that the written files hold.

    Attributes:
        pretrain: (8, 72) float32 margins on the 60 train and then the 12 validation images.
        oracle: the same of the oracles of forget set 1.
    """

    pretrain: np.ndarray
    oracle: np.ndarray

    def split(self, kind: str, split: str) -> np.ndarray:
        """Return the (8, n) columns of one split as `Cifar10.margins` orders them."""
        retain = np.setdiff1d(np.arange(N_TRAIN), FORGET)
        columns = {"retain": retain, "forget": FORGET, "val": np.arange(N_TRAIN, N_TRAIN + N_VAL)}
        return getattr(self, kind)[:, columns[split]]


def tiny_margins(seed: int = 0) -> TinyCifar10:
    """Return random margins."""
    rng = np.random.default_rng(seed)
    shape = (N_MODELS, N_TRAIN + N_VAL)
    return TinyCifar10(*(rng.normal(8, 2, shape).astype(np.float32) for _ in range(2)))


def write_easydub(folder: Path, tiny: TinyCifar10, *, dtype: str = "float32") -> None:
    """Write margins and the forget set as in easydub/EasyDUB-dataset, every file of `dtype`."""
    for kind in ("pretrain", "oracle"):
        for split in SPLITS:
            table = tiny.split(kind, split)
            if (kind, split) == ("pretrain", "retain"):
                table = tiny.pretrain[:, :N_TRAIN]
            for model, row in enumerate(table):
                _save(folder / margin_path(kind, split, 1, model), row.astype(dtype))
    _save(folder / "forget_sets/cifar10/forget_set_1.npy", FORGET)


def write_klom_models(folder: Path, tiny: TinyCifar10) -> None:
    """Write the same margins as in royrin/KLOM-models."""
    import torch

    folders = {"pretrain": "full_models/CIFAR10", "oracle": "oracle_models/CIFAR10/only_margins/forget_set_1"}
    for kind, name in folders.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        table = torch.from_numpy(getattr(tiny, kind))
        torch.save(table[:, :N_TRAIN].clone(), folder / name / "train_margins_all.pt")
        torch.save(table[:, N_TRAIN:].clone(), folder / name / "val_margins_all.pt")
    _save(folder / "forget_set_indices/CIFAR10/forget_set_1.npy", FORGET)


def write_checkpoints(folder: Path, models: Iterable[int], *, prefix: str = "") -> None:
    """Write pretrain checkpoints of real ResNet-9s with random weights (9 MB each), seeded by model id."""
    import torch

    from klom_bench.ensemble import initialise
    from klom_bench.resnet9 import ResNet9

    path = folder / "models/cifar10/pretrain/resnet9"
    path.mkdir(parents=True, exist_ok=True)
    for model in models:
        state = initialise(ResNet9(), [model]).state_dict()
        torch.save({prefix + k: v for k, v in state.items()}, path / f"id_{model}_epoch_23.pt")


def write_images(root: Path, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Write random images as `root`/cifar-10-batches-py, the layout of CIFAR-10's own archive.

    Returns:
        (72, 3, 32, 32) uint8 pixels and (72,) labels, train first.
    """
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (N_TRAIN + N_VAL, 3072), dtype=np.uint8)
    labels = rng.integers(0, 10, len(pixels))
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rows = slice(12 * i, 12 * i + 12)
        batch = {"batch_label": name, "labels": labels[rows].tolist(), "data": pixels[rows], "filenames": []}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return pixels.reshape(-1, 3, 32, 32), labels


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
