"""Files that are either whole or not there, and folders that can be written.

A killed process, a full disk or a second process at the same work leaves the old file or the new one, never
half of one.
"""

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from unlearn_core.errors import Unavailable


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place when the block ends without an exception.

    Raises:
        Unavailable: the folder cannot be written or the disk is full.
    """
    make_folder(path.parent)
    with _explained(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)  # mkstemp's 0600 would hide shared results from colleagues
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def appending(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` to read it and to append whole lines, alone among processes, and sync it at the end.

    Raises:
        Unavailable: the file cannot be written or the disk is full.
    """
    make_folder(path.parent)
    with _explained(path), path.open("a+b") as file:
        # Some network file systems have no locks; one writer at a time is safe there without.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Create the folder `path` and those above it unless they exist, and check that it can be written.

    Raises:
        Unavailable: it cannot be created or written.
    """
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except Unavailable:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise Unavailable(f"cannot write {str(path)!r}: {reason}") from error


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "it is a file, not a folder",
}
