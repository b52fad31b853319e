"""What FID, KID and CMMD compare images with: a folder, a data set of the Hub, saved features, another run."""

import functools
import hashlib
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from unlearn_core.errors import InvalidInput, MissingExtra, Unavailable
from unlearn_core.hub import is_hub_id
from unlearn_core.prompts import Prompt
from unlearn_core.protocols import Extractor
from unlearn_core.samples import Sample, SampleSet
from unlearn_core.score import Score
from unlearn_metrics.features import Features, Image, cache_folder, features, features_of
from unlearn_metrics.groups import of_groups
from unlearn_metrics.images import Array, decode
from unlearn_metrics.statistics import influence_interval

Matrix = NDArray[np.float64]

BY_IMAGE = "by image"
"""The part of a distance that has a value for each image."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A set of images as features (n, d), or as the mean (d,) and covariance (d, d) of such."""

    name: str
    """Which set it is, for the record."""
    features: Features | None = None
    mean: Matrix | None = None
    cov: Matrix | None = None
    n: int | None = None
    """Number of images; None where a file of statistics does not say."""

    def features_of(self, metric: str, dimension: int) -> Features:
        """Return the features, which must have `dimension` components.

        Raises:
            InvalidInput: it has only mean and covariance, or other features.
        """
        if self.features is None:
            raise InvalidInput(
                f"{metric} compares features, and {self.name!r} holds only their mean and covariance"
            )
        self._check(self.features.shape[1], dimension)
        return self.features

    def statistics(self, dimension: int) -> tuple[Matrix, Matrix]:
        """Return mean and unbiased covariance in float64, of features with `dimension` components.

        Raises:
            InvalidInput: it has features of another length, or fewer than two images.
        """
        if self.mean is not None and self.cov is not None:
            self._check(len(self.mean), dimension)
            return self.mean, self.cov
        assert self.features is not None
        self._check(self.features.shape[1], dimension)
        return moments(self.features, self.name)

    def _check(self, ours: int, dimension: int) -> None:
        if ours != dimension:
            raise InvalidInput(
                f"the features of the reference {self.name!r} have {ours} components and those of the images "
                f"{dimension}: both must come from the same extractor"
            )


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Images and their reference in the same features."""

    features: Features
    """(n, d), of the images that could be read."""
    prompts: list[Prompt]
    """Of these images."""
    unread: int
    reference: Reference

    def score(
        self,
        metric: str,
        value: float,
        influence: NDArray[np.float64],
        parts: Mapping[str, float] | None = None,
    ) -> Score:
        """Return a distance with the delta method's interval, and as a part of it each image's share.

        Args:
            metric: its name.
            value: the distance.
            influence: n times the change of `value` by one image's share, centred on 0, (n,).
            parts: what else is to be told.
        """
        interval = influence_interval(value, influence, [prompt.text for prompt in self.prompts])
        shares = zip(self.prompts, value + influence, strict=True)
        by_image = Score(
            metric=BY_IMAGE,
            value=value,
            direction="down",
            interval=interval,
            n_scored=len(self.prompts),
            per_sample={prompt.id: float(share) for prompt, share in shares},
        )
        about = {f"images of the reference {self.reference.name}": float(self.reference.n or 0)}
        return Score(
            metric=metric,
            value=value,
            direction="down",
            interval=interval,
            n_scored=len(self.prompts),
            n_unscored=self.unread,
            reasons={"the image cannot be read": self.unread} if self.unread else {},
            parts={**about, **(parts or {}), BY_IMAGE: by_image},
        )


def moments(rows: Features, name: str) -> tuple[Matrix, Matrix]:
    """Return mean (d,) and unbiased covariance (d, d) of `rows` (n, d) in float64.

    Raises:
        InvalidInput: a covariance takes two images.
    """
    if len(rows) < 2:
        raise InvalidInput(
            f"{name}: a distance between sets of images takes two or more in each, got {len(rows)}"
        )
    rows = rows.astype(np.float64)
    mean = rows.mean(0)
    centred = rows - mean
    return mean, centred.T @ centred / (len(rows) - 1)


def compared(
    metric: str,
    samples: SampleSet,
    groups: Sequence[str],
    extractor: Extractor,
    source: str,
    baseline: SampleSet | None,
) -> Compared:
    """Return the features of the images of `groups` in `samples`, and of what they are compared with.

    Args:
        metric: its name, for messages.
        samples: the images to rate.
        groups: groups of their prompts.
        extractor: what looks at them.
        source: folder of images, data set of the Hub ``owner/name[@revision]``, or file with `features` or
            with `mean`, `cov` and `n` (pytorch-fid's `mu` and `sigma` will do), safetensors or npz. Empty:
            the images of `groups` in `baseline`.
        baseline: images of another model.

    Raises:
        InvalidInput: nothing to compare with, fewer than two images, a file that is no reference.
        Unavailable: the reference cannot be read or downloaded.
        MissingExtra: a data set of the Hub without huggingface_hub and pyarrow.
    """
    rows = of_groups(metric, samples, groups)
    real = _reference(metric, source, baseline, groups, extractor)
    found = features(rows, extractor, cache_folder())
    read = np.isfinite(found).all(1)
    if read.sum() < 2:
        raise InvalidInput(f"{metric} compares sets of two or more images, and can read {read.sum()} here")
    prompts = [row.prompt for row, good in zip(rows, read, strict=True) if good]
    return Compared(features=found[read], prompts=prompts, unread=int((~read).sum()), reference=real)


def _reference(
    metric: str, source: str, baseline: SampleSet | None, groups: Sequence[str], extractor: Extractor
) -> Reference:
    if not source:
        if baseline is None:
            raise InvalidInput(
                f"{metric} compares with other images: write reference=, a folder of images, a data set of the Hub "
                "(owner/name) or a file of features, or give it the images of the unmodified model"
            )
        images = of_groups(metric, baseline, groups)
        return _of_features(str(baseline.folder), features(images, extractor, cache_folder()))
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_features(source, features(_images_in(path), extractor, cache_folder()))
    if path.is_file():
        return _of_file(path)
    if not is_hub_id(source) or source.startswith((".", "/", "~")):
        raise InvalidInput(
            f"the reference {source!r} is no folder, no file and no data set of the Hub (owner/name)"
        )
    return _of_hub(source, extractor)


def _images_in(folder: Path) -> list[Sample]:
    return sorted(SampleSet.existing(folder), key=lambda sample: sample.prompt.id)


def _of_features(name: str, found: Features) -> Reference:
    found = found[np.isfinite(found).all(1)]  # what could not be read was named in a warning
    return Reference(name=name, features=found, n=len(found))


def _of_file(path: Path) -> Reference:
    try:
        if path.suffix == ".safetensors":
            arrays = load_file(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        else:
            raise InvalidInput(f"a file of reference features is .safetensors or .npz, got {str(path)!r}")
    except InvalidInput:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        raise InvalidInput(f"{str(path)!r} is no file of features or statistics: {error}") from error
    names = {"mu": "mean", "sigma": "cov"}  # as pytorch-fid and clean-fid write them
    arrays = {names.get(name, name): array.astype(np.float64) for name, array in arrays.items()}
    for name, array in arrays.items():
        if name in ("features", "mean", "cov") and not (array.size and np.isfinite(array).all()):
            raise InvalidInput(f"{str(path)!r}: {name!r} is empty or not finite")
    if "features" in arrays and arrays["features"].ndim == 2:
        return _of_features(path.name, arrays["features"].astype(np.float32))
    mean, cov = arrays.get("mean"), arrays.get("cov")
    if mean is None or cov is None or mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise InvalidInput(
            f"{str(path)!r} needs 'features' (n, d), or 'mean' (d,) and 'cov' (d, d); it has {shapes}"
        )
    n = int(arrays["n"].ravel()[0]) if "n" in arrays and arrays["n"].size == 1 else None
    return Reference(name=path.name, mean=mean, cov=cov, n=n)


def _of_hub(source: str, extractor: Extractor) -> Reference:
    try:
        import pyarrow.parquet  # noqa: F401
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra(f'the reference {source!r} needs pip install "unlearn-metrics[hub]"') from error
    source, _, pattern = source.partition(":")
    repo, _, revision = source.partition("@")
    wanted = [pattern] if pattern else ["*.parquet", "*.png", "*.jpg", "*.jpeg", "metadata.jsonl"]
    try:
        folder = Path(
            snapshot_download(repo, repo_type="dataset", revision=revision or None, allow_patterns=wanted)
        )
    except Exception as error:
        # The client raises a dozen unrelated types (HTTP, offline, gated, …); none is a defect of ours.
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise Unavailable(
            f"cannot fetch the reference {source!r} from the Hugging Face Hub: {reason}"
        ) from error
    name = f"{repo}@{folder.name[:12]}"
    tables = sorted(
        path for path in folder.rglob("*.parquet") if not pattern or path.relative_to(folder).match(pattern)
    )
    if not tables:
        return _of_features(name, features(_images_in(folder), extractor, cache_folder()))
    images = [image for table in tables for image in _images_of(table)]
    return _of_features(name, features_of(images, extractor, cache_folder()))


def _images_of(path: Path) -> list[Image]:
    """Return the images of a table in the layout of `datasets`: a column of {bytes, path}."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = [
                f.name
                for f in file.schema_arrow
                if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0
            ]
            groups = file.num_row_groups
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{str(path)!r} is no Parquet file: {error}") from error
    if not columns:
        raise InvalidInput(f"{path.name!r} has no column of images")
    found: list[Image] = []
    for group in range(groups):
        for row, data in enumerate(_row_group(path, group, columns[0])):
            if data is None:
                raise InvalidInput(
                    f"{path.name!r}: an image of the column {columns[0]!r} is a link, not its bytes"
                )
            load = partial(_image, path, group, columns[0], row)
            found.append((hashlib.sha256(data).hexdigest(), load))
    return found


def _image(path: Path, group: int, column: str, row: int) -> Array:
    with _reading:  # else every thread would read the same row group
        data = _row_group(path, group, column)[row]
    assert data is not None
    return decode(data, f"{path.name}, row {row} of group {group}")


_reading = threading.Lock()


@functools.lru_cache(maxsize=1)
def _row_group(path: Path, group: int, column: str) -> list[bytes | None]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return [cell and cell["bytes"] for cell in file.read_row_group(group, [column]).column(0).to_pylist()]
