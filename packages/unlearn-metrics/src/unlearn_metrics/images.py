"""Images from files to arrays: uint8 RGB (h, w, 3), each exactly as it would be shown."""

import collections
import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unlearn_core.errors import InvalidInput, Unavailable, UnlearnError
from unlearn_core.samples import Sample

Array = NDArray[np.uint8]


def read(sample: Sample) -> Array:
    """Return the image of `sample`, uint8 RGB (h, w, 3).

    Raises:
        Unavailable: the file is gone or cannot be read.
        InvalidInput: it is no image, is damaged, or is not the one whose sha256 the sample states.
    """
    data = contents(sample.path)
    # Features are kept under this hash: those of another image must never get there.
    if hashlib.sha256(data).hexdigest() != sample.sha256:
        raise InvalidInput(f"the image {str(sample.path)!r} was changed: its sha256 is not the one recorded")
    return decode(data, str(sample.path))


def decode(data: bytes, name: str) -> Array:
    """Return the image in the file contents `data` as uint8 RGB (h, w, 3); `name` is for the message.

    It is turned as its EXIF orientation says, transparent parts lie on white, grey levels of 16 bits are
    rounded to 8, and of an animation the first frame is taken.

    Raises:
        InvalidInput: no image, a damaged one, or one whose values have no known range.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(_rgb(ImageOps.exif_transpose(image), name))
    except InvalidInput:
        raise
    except Exception as error:
        # Pillow's decoders raise whatever a damaged file makes them: SyntaxError, struct.error, ValueError, …
        reason = str(error).partition("<_io")[0].strip() or type(error).__name__
        raise InvalidInput(f"{name!r} is no image that can be read: {reason}") from error


def contents(path: Path) -> bytes:
    """Return the bytes of the file at `path`.

    Raises:
        Unavailable: it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"cannot read the image {str(path)!r}: {error.strerror or error}") from error


def batches(
    samples: Iterable[Sample], n: int, unreadable: dict[str, str] | None = None
) -> Iterator[tuple[list[Sample], list[Array]]]:
    """Yield up to `n` samples at a time with their images, in order; the next ones are read meanwhile.

    Args:
        samples: what to read.
        n: samples in a batch, at least 1.
        unreadable: where given, images that cannot be read are left out of the batches and stand in it as
            prompt id -> reason. Without it the first of them ends the reading.

    Raises:
        Unavailable: see `read`.
        InvalidInput: see `read`.
    """
    waiting, found = itertools.tee(samples)
    loads = (partial(read, sample) for sample in waiting)
    for images in decoded(loads, n):
        part: list[tuple[Sample, Array]] = []
        for sample, image in zip(itertools.islice(found, len(images)), images, strict=True):
            if not isinstance(image, UnlearnError):
                part.append((sample, image))
            elif unreadable is None:
                raise image
            else:
                unreadable[sample.prompt.id] = str(image)
        if part:
            yield [sample for sample, _ in part], [image for _, image in part]


def decoded(loads: Iterable[Callable[[], Array]], n: int) -> Iterator[list[Array | UnlearnError]]:
    """Yield what the functions `loads` return, or the error they raise, up to `n` at a time and in order.

    Threads run the next batch while the caller works on this one; Pillow decodes without Python's lock.

    Raises:
        InvalidInput: n is not positive.
    """
    if n < 1:
        raise InvalidInput(f"a batch holds at least one image, got {n}")
    loads = iter(loads)
    with ThreadPoolExecutor() as pool:
        ahead = collections.deque(pool.submit(_attempt, load) for load in itertools.islice(loads, n))
        while ahead:
            batch = [ahead.popleft() for _ in range(min(n, len(ahead)))]
            ahead.extend(pool.submit(_attempt, load) for load in itertools.islice(loads, n))
            yield [task.result() for task in batch]


def _attempt(load: Callable[[], Array]) -> Array | UnlearnError:
    try:
        return load()
    except UnlearnError as error:
        return error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey; convert("RGB") would cut them off at 255
        levels = np.asarray(image).astype(np.int64)
        if not 0 <= levels.min() <= levels.max() <= 65535:
            raise InvalidInput(
                f"{name!r} holds grey levels outside of 0 to 65535: save it with 8 bits a channel"
            )
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise InvalidInput(f"{name!r} holds floats, whose range is not known: save it with 8 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
