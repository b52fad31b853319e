"""Tensors of safetensors files, read a stretch at a time without torch; the file may be anybody's.

The format: eight bytes with the length of a JSON header, little-endian; the header, tensor name -> dtype, shape and
offsets; the bytes of the tensors, one after another without gaps (huggingface/safetensors, README, "Format").
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlearn_core.errors import InvalidInput, Unavailable

MAX_HEADER = 10_000_000
"""Bytes: a tenth of the format's own limit, at which names alone fill a machine's memory; the 1,130 tensors of Stable
Diffusion 1 take about 150,000."""
CHUNK = 1 << 16
"""Numbers in memory at a time: a stretch and its copies stay in a processor's cache."""

_ITEM = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where the numbers of one tensor lie."""

    path: Path
    dtype: str
    """As the format writes it: "F32", "F16", "BF16", …"""
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file."""

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether these are numbers that training changes; position ids and the like are not."""
        return self.dtype in FLOATS

    def raw(self) -> NDArray[np.generic]:
        """Return all numbers as `chunks` yields them, joined.

        Raises:
            InvalidInput: as for `chunks`.
        """
        return np.concatenate([np.empty(0, _NUMPY.get(self.dtype)), *self.chunks()])

    def chunks(self) -> Iterator[NDArray[np.generic]]:
        """Yield the numbers as they lie in the file, flat, at most `CHUNK` at a time; bfloat16 as uint16.

        Raises:
            InvalidInput: a dtype that is no plain float, or a file that was cut off since its header was read.
        """
        if not self.floating:
            raise InvalidInput(f"{str(self.path)!r}: the dtype {self.dtype} is none of {', '.join(FLOATS)}")
        with self.path.open("rb", buffering=0) as file:  # read, not mapped: a page fault per 4 KB costs more
            file.seek(self.offset)
            for start in range(0, self.size, CHUNK):
                count = min(CHUNK, self.size - start)
                numbers = np.fromfile(file, _NUMPY[self.dtype], count)
                if len(numbers) != count:
                    raise InvalidInput(f"{str(self.path)!r} was cut off while it was read")
                yield numbers


def wide(numbers: NDArray[np.generic], dtype: str) -> NDArray[np.float64]:
    """Return a stretch of `chunks` as float64."""
    if dtype == "BF16":  # the upper half of a float32
        return (numbers.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return numbers.astype(np.float64)


def rounded(numbers: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    """Return `numbers` as saving them as `dtype` and loading them again would, rounding half to even."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return numbers.astype(_NUMPY[dtype]).astype(np.float64)
    bits = numbers.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def as_dtype(numbers: NDArray[np.generic], dtype: str, wanted: str) -> NDArray[np.generic]:
    """Return a stretch of `chunks` as the file would hold it in the dtype `wanted`; bfloat16 as uint16."""
    if dtype == wanted:
        return numbers
    if wanted == "BF16":
        bits = rounded(wide(numbers, dtype), wanted).astype(np.float32).view(np.uint32)
        return (bits >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return (wide(numbers, dtype) if dtype == "BF16" else numbers).astype(_NUMPY[wanted])


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the tensors and the metadata of the file at `path`; no tensor is read.

    Raises:
        Unavailable: there is no such file.
        InvalidInput: it is no whole safetensors file: a pickle, cut off, tensors that overlap or reach beyond it.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(8)
            if len(start) < 8 or (length := struct.unpack("<Q", start)[0]) > min(MAX_HEADER, size - 8):
                raise InvalidInput(f"{str(path)!r} is no safetensors file{_looks_like(start)}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise Unavailable(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise InvalidInput(f"{str(path)!r} is no safetensors file: its header is no JSON") from None
    if not isinstance(header, dict):
        raise InvalidInput(f"{str(path)!r} is no safetensors file: its header is no JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, Mapping):
        raise InvalidInput(f"{str(path)!r} is no safetensors file: its metadata are no JSON object")
    tensors, ends = {}, []
    for name, entry in header.items():
        tensor, begin, end = _tensor(path, name, entry, 8 + length)
        tensors[name] = tensor
        ends.append((begin, end))
    position = 0
    for begin, end in sorted(ends):
        if begin != position:
            raise InvalidInput(
                f"{str(path)!r} is damaged: its tensors overlap or leave a gap at byte {position}"
            )
        position = end
    if 8 + length + position != size:
        raise InvalidInput(
            f"{str(path)!r} is not whole: {size} bytes, its header speaks of {8 + length + position}"
        )
    return tensors, {str(k): str(v) for k, v in metadata.items()}


def _tensor(path: Path, name: str, entry: object, start: int) -> tuple[StoredTensor, int, int]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]  # type: ignore[index]
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        fits = whole and len(shape) <= 8 and math.prod(shape) * _ITEM[dtype] == end - begin
    except (TypeError, KeyError, ValueError):
        fits = False
    if not fits:
        raise InvalidInput(f"{str(path)!r} is damaged: the header's entry of {name!r} cannot be")
    return StoredTensor(path=path, dtype=dtype, shape=tuple(shape), offset=start + begin), begin, end


def _looks_like(start: bytes) -> str:
    if start.startswith(b"PK"):
        return " but a zip archive or a pickle of torch"
    return " but a pickle" if start[:1] == b"\x80" else ": its header is cut off"
