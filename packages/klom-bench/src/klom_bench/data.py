"""EasyDUB's data functions under their own names: replace `easydub.data` by `klom_bench.data`.

They differ in three ways: nothing is downloaded before it is needed, and then only that; files are checked;
mistakes raise `UnlearnError`s. For new code, `klom_bench.datasets.cifar10.Cifar10` is shorter.
"""

from pathlib import Path

import numpy as np

from klom_bench import hub
from klom_bench.datasets import cifar10_files as files
from klom_bench.datasets.cifar10 import REPOS, Cifar10, margin_path
from unlearn_core.errors import Unavailable

DATASET_REPO = REPOS["easydub"]
_AHEAD = 20  # ids fetched together; one file at a time would be slow, all 200 more than most want


def ensure_dataset(data_dir: Path | str | None = None) -> Path:
    """Return the root folder that the other functions take.

    Args:
        data_dir: a local copy of the data set, only read. Without it the root is huggingface_hub's folder of
            the newest commit, which the functions below fill as needed.

    Raises:
        Unavailable: `data_dir` has no folder `margins`, or there is no connection to find the newest commit.
    """
    if data_dir is None:
        return hub.snapshot(DATASET_REPO, Cifar10().commit)
    root = Path(data_dir).expanduser()
    if not (root / "margins").is_dir():
        raise Unavailable(
            f"{root} has no folder 'margins'; it should be laid out like "
            f"https://huggingface.co/datasets/{DATASET_REPO}"
        )
    return root


def load_forget_indices(dataset_root: Path, forget_id: int) -> np.ndarray:
    """Return forget set `forget_id` (1 to 10): (n_forget,) int64 train indices, in file order."""
    root = Path(dataset_root)
    if _is_ours(root):
        return Cifar10(revision=root.name).forget_indices(forget_id)
    return Cifar10(data_dir=root).forget_indices(forget_id)


def retain_mask(n_total: int, forget_indices: np.ndarray) -> np.ndarray:
    """Return (n_total,) bool, True for every index that is not to be forgotten."""
    mask = np.ones(n_total, dtype=bool)
    mask[forget_indices] = False
    return mask


def load_margins_array(
    dataset_root: Path, kind: str, phase: str, forget_id: int | None, model_id: int
) -> np.ndarray:
    """Return the margins of one model, (n_samples,) float32.

    Args:
        dataset_root: what `ensure_dataset` returned.
        kind: "pretrain" or "oracle".
        phase: "retain", "forget" or "val"; "retain" of "pretrain" is the whole train set.
        forget_id: 1 to 10; may be None for "pretrain" unless `phase` is "forget".
        model_id: 0 to 199.

    Raises:
        InvalidInput: an unknown kind or phase, no forget set where one is needed, a damaged file.
        Unavailable: the file is not there and cannot be fetched.
    """
    root = Path(dataset_root)
    path = root / margin_path(kind, phase, forget_id, model_id)
    if not path.is_file() and _is_ours(root):
        hub.download(DATASET_REPO, root.name, [margin_path(kind, phase, forget_id, model_id)])
        first = model_id - model_id % _AHEAD
        block = [margin_path(kind, phase, forget_id, m) for m in range(first, first + _AHEAD)]
        hub.download(DATASET_REPO, root.name, block, skip_absent=True)
    return files.read_margins(path, model=model_id)


def _is_ours(root: Path) -> bool:
    """Tell whether `root` is the folder of a commit that `ensure_dataset` returned and that may be filled."""
    return root == hub.snapshot(DATASET_REPO, root.name)
