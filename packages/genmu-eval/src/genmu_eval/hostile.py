"""What others send: folders and archives that are looked at before anything in them is opened.

Nothing here runs, unpickles or imports what it finds.
"""

import json
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from unlearn_core import atomic
from unlearn_core.errors import InvalidInput, Unavailable

MAX_BYTES = 200 * 10**9
"""Twenty Stable Diffusion pipelines in float32 and some room."""
MAX_FILES = 20_000
MAX_RATIO = 100
"""Of unpacked to packed bytes; weights hardly shrink at all."""
MAX_JSON = 20 * 10**6
"""Of a file that is read as a whole; a tokenizer has about four million bytes."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
CODE = (
    ".py",
    ".pyc",
    ".pyd",
    ".so",
    ".dll",
    ".dylib",
    ".sh",
    ".bat",
    ".ps1",
    ".exe",
    ".ipynb",
    ".js",
    ".jar",
    ".whl",
)
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")
HARMLESS = (
    ".safetensors", ".json", ".jsonl", ".txt", ".md", ".csv", ".tsv", ".png", ".jpg", ".jpeg", ".webp", ".model",
    ".yaml", ".yml", ".log", ".lock", ".toml",
)  # fmt: skip
BARE = ("license", "licence", "readme", "notice", ".gitattributes", ".gitignore", "citation.cff")

_LIBRARIES = {"diffusers", "transformers", "stable_diffusion", "onnxruntime.training", None}


def check_folder(root: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Check that a submitted folder holds weights, texts and pictures alone, and nothing that leads out of it.

    Raises:
        Unavailable: there is no such folder.
        InvalidInput: a pickle (with how to convert it), code, an archive, a link that leads outside, a file that is
            none, a configuration that asks for code, more than `max_bytes`, an unknown kind of file.
    """
    if not root.is_dir():
        raise Unavailable(f"there is no folder {str(root)!r}")
    inside, total, count = root.resolve(), 0, 0
    for path in _entries(root):
        name = path.relative_to(root).as_posix()
        if not name.isprintable():
            raise InvalidInput(f"the submission holds a file whose name cannot be printed: {name!a}")
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise InvalidInput(
                f"{name!r} is a link that leads out of the submission; put the file itself there"
            )
        try:
            status = path.stat()
        except (OSError, RuntimeError):
            raise InvalidInput(f"{name!r} is a link to nothing") from None
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"{name!r} is neither a file nor a folder")
        count, total = count + 1, total + status.st_size
        if count > MAX_FILES or total > max_bytes:
            raise InvalidInput(f"the submission is more than {MAX_FILES} files or {max_bytes:,} bytes")
        check_kind(name)
        if path.suffix.lower() == ".json":
            _check_json(path, name, status.st_size)


def check_kind(name: str) -> None:
    """Check by its name that a file is of a kind that a submission may hold.

    Raises:
        InvalidInput: it is not; the message says what to do.
    """
    bare, suffix = PurePosixPath(name).name.lower(), PurePosixPath(name).suffix.lower()
    if suffix in PICKLES:
        raise InvalidInput(
            f"{name!r} may hold a pickle, which runs code when it is opened; save the model as safetensors: "
            "pipe.save_pretrained(FOLDER, safe_serialization=True) of diffusers, or "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')"
        )
    if suffix in CODE:
        raise InvalidInput(
            f"{name!r} is code; a submission is weights and tables, its code belongs in a repository"
        )
    if suffix in ARCHIVES:
        raise InvalidInput(f"{name!r} is an archive; a submission is a folder, or one archive of a folder")
    if suffix not in HARMLESS and bare not in BARE:
        raise InvalidInput(f"{name!r} is no kind of file that a submission holds ({', '.join(HARMLESS)})")


def unpack(archive: Path, into: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """Unpack a .zip or .tar(.gz, .bz2, .xz) into the new folder `into` and return the folder of the submission.

    Bytes are counted as they are written, whatever the archive says of itself. A refused archive leaves nothing.

    Raises:
        Unavailable: it cannot be read, or `into` exists or cannot be written.
        InvalidInput: it is no archive, would grow beyond `max_bytes` or `MAX_RATIO` times its size, or holds a name
            that leads out of it, a link, a device or a kind of file that no submission holds.
    """
    if not archive.is_file():
        raise Unavailable(f"there is no file {str(archive)!r}")
    if into.exists():
        raise Unavailable(f"{str(into)!r} exists already; an archive is unpacked into a folder of its own")
    limit = min(max_bytes, MAX_RATIO * archive.stat().st_size + 10**6)
    atomic.make_folder(into)
    try:
        _write(archive, into, limit)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        shutil.rmtree(into)
        raise InvalidInput(f"{str(archive)!r} is no archive that can be read: {error}") from None
    except BaseException:
        shutil.rmtree(into)
        raise
    held = [path for path in into.iterdir()]
    return held[0] if len(held) == 1 and held[0].is_dir() else into


def _write(archive: Path, into: Path, limit: int) -> None:
    written, seen = 0, set[str]()
    for name, source in _members(archive):
        path = PurePosixPath(name)
        if not name.isprintable() or "\\" in name or ":" in name or path.is_absolute() or ".." in path.parts:
            raise InvalidInput(f"{archive.name}: {name!r} leads out of the archive")
        if source is None:
            raise InvalidInput(f"{archive.name}: {name!r} is a link or a device, not a file")
        if name in seen or len(seen) >= MAX_FILES:
            raise InvalidInput(f"{archive.name} holds {name!r} twice, or more than {MAX_FILES} files")
        check_kind(name)
        seen.add(name)
        target = into / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("xb") as file:
                while block := source.read(1 << 20):
                    written += len(block)
                    if written > limit:
                        raise InvalidInput(
                            f"{archive.name} unpacks to more than {limit:,} bytes, which no model of that size does"
                        )
                    file.write(block)
        except OSError as error:
            raise Unavailable(
                f"cannot unpack {name!r} of {archive.name}: {error.strerror or error}"
            ) from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yield (name, content) of the files of an archive; content None for what is neither file nor folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                linked = stat.S_ISLNK(info.external_attr >> 16)
                if not info.is_dir():
                    yield info.filename, None if linked else packed.open(info)
        return
    with tarfile.open(archive) as stream:
        for member in stream:
            if not member.isdir():
                yield member.name, stream.extractfile(member) if member.isreg() else None


def _entries(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, followlinks=False):
        for name in sorted([*folders, *files]):
            yield Path(folder) / name


def _check_json(path: Path, name: str, size: int) -> None:
    """Check that a configuration asks for no code of its own: `trust_remote_code` is what loads it."""
    if size > MAX_JSON:
        raise InvalidInput(f"{name!r} is larger than {MAX_JSON:,} bytes")
    try:
        found: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InvalidInput(f"{name!r} is not JSON") from None
    if not isinstance(found, dict):
        return
    if "auto_map" in found or "custom_pipelines" in found:
        raise InvalidInput(
            f"{name!r} asks for code of its own (auto_map); a submission is weights of a known architecture"
        )
    if path.name == "model_index.json":
        for part, value in found.items():
            if isinstance(value, list) and value and value[0] not in _LIBRARIES:
                raise InvalidInput(
                    f"{name!r}: {part} comes from {value[0]!r}, which is neither diffusers nor transformers"
                )
