"""Features of images, computed once per (image, extractor) whatever metric, run or process asks.

The cache is a folder per extractor revision with *shards*: safetensors files with `images` (the sha256 of each
image, uint8 (n, 32)), `features` (float32 (n, d)) and a checksum of both. A shard is written whole and never
changed, so processes share the folder without locks: at worst two of them compute the same.
"""

import contextlib
import hashlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from unlearn_core import atomic
from unlearn_core.errors import InvalidInput, UnlearnError, UnlearnWarning
from unlearn_core.protocols import Extractor
from unlearn_core.samples import Sample
from unlearn_metrics.images import Array, decoded, read

Features = NDArray[np.float32]
Image = tuple[str, Callable[[], Array]]
"""The sha256 of an image file and what reads it."""

BATCH = 64  # images in memory
SHARD = 1024  # images that a killed process loses at most


def cache_folder() -> Path:
    """Return the folder in which metrics keep features.

    It is below the one that the environment variable ``UNLEARN_BENCH_CACHE`` names, else below the user's
    cache folder.
    """
    named = os.environ.get("UNLEARN_BENCH_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(named) if named else Path(user) / "unlearn-bench").expanduser() / "features"


def features(samples: Iterable[Sample], extractor: Extractor, cache: Path | None) -> Features:
    """Return the features (n, d) float32 of `samples`, in order; a row of NaN is an image that cannot be read.

    Args:
        samples: images; those with the same sha256 are looked at once.
        extractor: what looks at them.
        cache: folder of shards, see `cache_folder`; None: nothing is kept.

    Raises:
        InvalidInput: the extractor returns something else than one row of finite numbers per image.
        Unavailable: the cache cannot be written.
    """
    return features_of([(s.sha256, partial(read, s)) for s in samples], extractor, cache)


def features_of(images: Sequence[Image], extractor: Extractor, cache: Path | None) -> Features:
    """Return the features of `images`, which need not be files; otherwise as `features`."""
    folder = None
    if cache is not None:
        folder = cache / hashlib.sha256(extractor.revision.encode()).hexdigest()[:32]
        atomic.make_folder(folder)  # a folder that cannot be written is known now, not after the work
    found = {} if folder is None else _stored(folder, {digest for digest, _ in images})
    missing = {digest: load for digest, load in images if digest not in found}
    found |= _computed(missing, extractor, folder)
    if not found:
        if images:
            raise InvalidInput(f"none of the {len(images)} images can be read")
        raise InvalidInput("there are no images to take features of")
    sizes = {row.shape for row in found.values()}
    if len(sizes) > 1:
        raise InvalidInput(f"features of {extractor.revision!r} differ in length: {sorted(sizes)}")
    unread = np.full(sizes.pop(), np.nan, np.float32)
    return np.stack([found.get(digest, unread) for digest, _ in images])


def _computed(
    images: dict[str, Callable[[], Array]], extractor: Extractor, folder: Path | None
) -> dict[str, Features]:
    """Return the features of the images that can be read, and store them as they come."""
    found: dict[str, Features] = {}
    unsaved: list[str] = []
    digests = iter(images)
    for batch in decoded(images.values(), BATCH):
        readable: dict[str, Array] = {}
        for digest, image in zip(itertools.islice(digests, len(batch)), batch, strict=True):
            if isinstance(image, UnlearnError):
                warnings.warn(f"left out: {image}", UnlearnWarning, stacklevel=4)
            else:
                readable[digest] = image
        if readable:
            found |= zip(readable, _looked_at(list(readable.values()), extractor), strict=True)
            unsaved += readable
        if folder is not None and len(unsaved) >= SHARD:
            _store(folder, unsaved, found)
            unsaved = []
    if folder is not None and unsaved:
        _store(folder, unsaved, found)
    return found


def _looked_at(images: list[Array], extractor: Extractor) -> Features:
    rows = np.asarray(extractor.features(images), np.float32)
    if rows.ndim != 2 or len(rows) != len(images) or not np.isfinite(rows).all():
        raise InvalidInput(
            f"the extractor {extractor.revision!r} returned {rows.shape} for {len(images)} images"
            + ("" if np.isfinite(rows).all() else ", and not all of it is finite")
        )
    return rows


def _store(folder: Path, digests: list[str], found: dict[str, Features]) -> None:
    images = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32)
    rows = np.stack([found[digest] for digest in digests])
    data = save({"images": images, "features": rows}, {"sha256": _checksum(images, rows)})
    with atomic.replacing(folder / f"{hashlib.sha256(images).hexdigest()[:32]}.safetensors") as file:
        file.write(data)


def _stored(folder: Path, wanted: set[str]) -> dict[str, Features]:
    """Return what the shards of `folder` hold of `wanted`; a damaged one is removed, with a warning."""
    found: dict[str, Features] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if len(found) == len(wanted):
            break
        try:
            found |= _rows(path, wanted - found.keys())
        except FileNotFoundError:  # another process found it damaged and removed it
            continue
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            warnings.warn(
                f"features are computed again, the cache file {str(path)!r} is damaged: {error}",
                UnlearnWarning,
                stacklevel=4,
            )
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    return found


def _rows(path: Path, wanted: set[str]) -> dict[str, Features]:
    with safe_open(path, "np") as file:
        images = file.get_tensor("images")
        places = {digest: i for i, digest in enumerate(_hex(images)) if digest in wanted}
        if not places:
            return {}
        rows = file.get_tensor("features")
        if (file.metadata() or {}).get("sha256") != _checksum(images, rows):
            raise ValueError("its checksum is wrong")
    return {digest: rows[i].copy() for digest, i in places.items()}  # a view would keep the whole shard


def _hex(images: NDArray[np.uint8]) -> Iterator[str]:
    if images.ndim != 2 or images.shape[1] != 32:
        raise ValueError(f"'images' is {images.shape}")
    return (row.tobytes().hex() for row in images)


def _checksum(images: NDArray[np.uint8], rows: Features) -> str:
    digest = hashlib.sha256(f"{images.shape} {rows.shape} {rows.dtype}".encode())
    digest.update(np.ascontiguousarray(images))
    digest.update(np.ascontiguousarray(rows))
    return digest.hexdigest()
