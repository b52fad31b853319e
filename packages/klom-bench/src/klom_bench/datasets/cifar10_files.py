"""The files of the published CIFAR-10 ensembles: read, check, pack.

Every reader says which file, model and sample is wrong. Packing turns hundreds of small files into one
memory-mapped table per split.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_core.atomic import replacing
from unlearn_core.errors import InvalidInput, Unavailable


def read_margins(path: Path, *, model: int, width: int | None = None) -> np.ndarray:
    """Return the margins of one model, (n_samples,) float32, from a `.npy` file of any float type.

    Args:
        path: the file.
        model: its model id, for the messages.
        width: the number of samples it should have, None if anything will do.

    Raises:
        Unavailable: there is no such file.
        InvalidInput: truncated, not a `.npy` file, not floats, wrong shape, or not finite.
    """
    array = _read_npy(path)
    expected = "(n_samples,)" if width is None else f"({width},)"
    if array.ndim != 1 or (width is not None and len(array) != width):
        raise InvalidInput(f"{path} (model {model}) has shape {array.shape}, expected {expected}")
    if array.dtype.kind != "f":
        raise InvalidInput(f"{path} (model {model}) holds {array.dtype}, expected floats")
    array = array.astype(np.float32, copy=False)
    check_finite(array[None], [model], path)
    return array


def check_finite(table: np.ndarray, models: Sequence[int], path: Path) -> None:
    """Raise `InvalidInput` if a margin of `table` (n_models, n_samples) is not finite; name the first."""
    if not np.isfinite(table).all():
        row, sample = np.argwhere(~np.isfinite(table))[0]
        value = table[row, sample]
        raise InvalidInput(f"{path}: the margin of model {models[row]} for sample {sample} is {value}")


def read_indices(path: Path) -> np.ndarray:
    """Return the forget set in a `.npy` file, (n,) int64 in file order.

    Raises:
        Unavailable: there is no such file.
        InvalidInput: truncated, not a `.npy` file, or not distinct indices.
    """
    array = _read_npy(path)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
        raise InvalidInput(f"{path} holds {array.dtype} of shape {array.shape}, expected integers (n,)")
    array = array.astype(np.int64)
    if array.min() < 0 or len(np.unique(array)) != len(array):
        raise InvalidInput(f"{path} holds a negative or repeated index; a forget set names each image once")
    return array


def read_table(path: Path, models: Sequence[int]) -> np.ndarray:
    """Return the rows `models` of a matrix of margins (N, n_samples) in a torch file, as float32.

    Raises:
        Unavailable: there is no such file.
        InvalidInput: not a torch file of one float matrix, too few models, or not finite.
    """
    import torch

    table = _read_torch(path)
    if not isinstance(table, torch.Tensor) or table.ndim != 2 or not table.is_floating_point():
        found = f"{type(table).__name__} {list(getattr(table, 'shape', []))}"
        raise InvalidInput(f"{path} holds a {found}, expected floats [n_models, n_samples]")
    n = len(table)
    if max(models) >= n:
        raise InvalidInput(f"{path} holds {n} models, ids 0 to {n - 1}; asked for {max(models)}")
    rows = table[list(models)].float().numpy()
    check_finite(rows, models, path)
    return rows


def read_checkpoint(path: Path, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict in a torch file, without the prefixes `model.` and `module.` of its keys.

    Args:
        path: the file.
        expected: a state dict (key -> tensor) whose keys and shapes it must have.

    Raises:
        Unavailable: there is no such file.
        InvalidInput: not a state dict, a missing or unknown key, a wrong shape, or not finite.
    """
    import torch

    state = _read_torch(path)
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InvalidInput(f"{path} does not hold a state dict of tensors")
    state = {_PREFIX.sub("", key): value for key, value in state.items()}
    for key in sorted(expected.keys() | state.keys()):
        if key not in state:
            raise InvalidInput(f"{path} has no tensor {key!r}; it is not a ResNet-9 of EasyDUB")
        if key not in expected:
            raise InvalidInput(f"{path} has a tensor {key!r} that ResNet-9 does not have")
        if state[key].shape != expected[key].shape:
            found, right = tuple(state[key].shape), tuple(expected[key].shape)
            raise InvalidInput(f"{path}: {key!r} has shape {found}, expected {right}")
        if not torch.isfinite(state[key]).all():
            raise InvalidInput(f"{path}: {key!r} holds values that are not finite")
    return state


def unpack(folder: Path, models: range) -> np.ndarray | None:
    """Return the packed margins (len(models), n_samples) float32, memory-mapped, of `models` in `folder`.

    Any whole pack that holds these models will do; None if there is none.
    """
    for path in sorted(folder.glob("*.npy")):
        name = re.fullmatch(r"(\d+)-(\d+)-(\d+)", path.stem)
        packed = range(*map(int, name.groups())) if name else range(0)
        if any(m not in packed for m in models):
            continue
        # A file shorter than its header says cannot be mapped: ValueError, the next pack's turn.
        with contextlib.suppress(ValueError, EOFError, OSError):
            table = np.load(path, mmap_mode="r", allow_pickle=False)
            if table.ndim == 2 and len(table) == len(packed) and table.dtype == np.float32:
                rows = [packed.index(m) for m in models]
                whole = rows == list(range(rows[0], rows[0] + len(rows)))
                return table[rows[0] : rows[0] + len(rows)] if whole else table[rows]
    return None


def pack(folder: Path, models: range, table: np.ndarray) -> np.ndarray:
    """Write margins (len(models), n_samples) float32 into `folder` and return them memory-mapped."""
    path = folder / f"{models.start}-{models.stop}-{models.step}.npy"
    with replacing(path) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(table, dtype=np.float32), allow_pickle=False)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def again(path: Path) -> str:
    """Return the advice for a damaged file; in the Hub's cache the file is a link to the content."""
    return f"delete {path.resolve()} and fetch it again"


def _read_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            start = file.read(40)
            file.seek(0)
            if not start.startswith(np.lib.format.MAGIC_PREFIX):
                is_pointer = b"git-lfs" in start
                found = "a Git LFS pointer to it" if is_pointer else f"it starts with {start[:16]!r}"
                raise InvalidInput(f"{path} is not a .npy file ({found}); {again(path)}")
            return np.load(file, allow_pickle=False)
    except InvalidInput:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise Unavailable(f"{path} does not exist") from None
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # ValueError, EOFError, TokenError, MemoryError, ... depending on the byte
        raise InvalidInput(f"{path} is truncated or damaged ({error}); {again(path)}") from error


def _read_torch(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, NotADirectoryError):
        raise Unavailable(f"{path} does not exist") from None
    # torch reports damage as RuntimeError, EOFError, UnpicklingError, KeyError, ... depending on the byte.
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InvalidInput(
            f"{path} is not a whole torch file of tensors ({reason}); {again(path)}"
        ) from error


_PREFIX = re.compile(r"^(?:(?:model|module)\.)+")
