"""Margin matrices from files that anybody may have written: .npy, .npz, .pt; never a pickle."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearn_core.errors import InvalidInput, Unavailable


def read_margins(path: Path) -> NDArray[Any]:
    """Return the one array in `path`.

    Raises:
        Unavailable: it cannot be read.
        InvalidInput: of another kind, damaged, or holding more or less than one array.
    """
    readers = {".npy": _npy, ".npz": _npz, ".pt": _pt, ".pth": _pt}
    if path.suffix not in readers:
        raise InvalidInput(f"{str(path)!r}: margins are read from {', '.join(readers)} files")
    try:
        return readers[path.suffix](path)
    except OSError as error:
        raise Unavailable(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except InvalidInput:
        raise
    except Exception as error:  # numpy, zipfile and torch raise anything at all on a damaged file
        raise InvalidInput(f"{str(path)!r} is not a {path.suffix} file of numbers: {_brief(error)}") from None


def _npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("it does not begin as one")
        file.seek(0)
        array: NDArray[Any] = np.load(file, allow_pickle=False)
        return array


def _npz(path: Path) -> NDArray[Any]:
    with zipfile.ZipFile(path):  # np.load would take other files for pickles
        pass
    with np.load(path, allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            names = ", ".join(arrays.files) or "none"
            raise InvalidInput(f"{str(path)!r} must hold one array, it holds {names}")
        array: NDArray[Any] = arrays[arrays.files[0]]
        return array


def _pt(path: Path) -> NDArray[Any]:
    import torch

    tensor = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensor, torch.Tensor):
        raise InvalidInput(f"{str(path)!r} must hold one tensor, it holds a {type(tensor).__name__}")
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
