"""Images on disk: a folder in the Hugging Face *imagefolder* convention, append-only and resumable.

``metadata.jsonl`` holds one line per image (``file_name``, the fields of its prompt, ``sha256``); the images
lie beside it. An image is whole before its line is begun, so a line vouches for its image: whatever a kill
leaves behind (half a line, an image without a line, a line without an image) counts as not done.
"""

import copy
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Self

from unlearn_core import atomic, tables
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.prompts import Prompt, prompt_of, selected, stated
from unlearn_core.spec import canonical_json
from unlearn_core.tables import SUFFIXES, json_object


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A prompt and its image."""

    prompt: Prompt
    path: Path
    sha256: str
    """Of the bytes of the image file, in hex."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    prompt: Prompt
    path: Path
    sha256: str | None
    """As recorded; None where the tool that made the folder records none."""
    stated: frozenset[str]
    """Fields of the prompt that the folder states, not we."""


class SampleSet:
    """The samples of a folder in the order of their lines; a folder that does not exist yet holds none.

    Any tool may have made it: a line needs no more than ``file_name``, and a folder of PNG and JPEG files
    without ``metadata.jsonl`` is read too, the id of each being its path without suffix; `table`, a CSV, TSV, JSONL or
    Parquet file elsewhere, may hold their lines. `group` and `concept` are those of the lines that state none. Lines
    that are sexual and mention a minor are left out and counted in `dropped`.

    Raises:
        InvalidInput: a malformed line, two images under one id, a path that leaves the folder.
        Unavailable: the folder cannot be read.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        group: str = "target",
        concept: str | None = None,
        table: Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._defaults = {"group": group, "concept": concept}
        self._entries: dict[str, _Entry] = {}
        self._hashes: dict[str, str] = {}
        self._refused: set[Path] = set()
        self._read, self._lines = 0, 0  # bytes and lines of metadata.jsonl that are in _entries
        self._closed = ""  # why nothing can be added, if so
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidInput(f"{str(folder)!r} is a file; a sample set is a folder of images")
        self._root = self.folder.resolve()
        try:
            if table is not None:
                self._take_table(table)
            elif self._metadata.is_file():
                self._take(self._metadata.read_bytes())
            else:
                self._take_bare()
        except Unavailable:
            raise
        except OSError as error:
            raise Unavailable(f"cannot read {str(folder)!r}: {error.strerror or error}") from error

    @classmethod
    def existing(
        cls,
        folder: str | Path,
        *,
        group: str = "target",
        concept: str | None = None,
        table: Path | None = None,
    ) -> Self:
        """Return the samples of `folder`, which must hold some.

        Raises:
            Unavailable: there is no such folder.
            InvalidInput: it holds no samples.
        """
        if not Path(folder).exists():
            raise Unavailable(f"there is no folder {str(folder)!r}")
        samples = cls(folder, group=group, concept=concept, table=table)
        if not len(samples):
            raise InvalidInput(
                f"{str(folder)!r} holds no images that metadata.jsonl names, nor PNG or JPEG files"
            )
        return samples

    @property
    def dropped(self) -> int:
        """Number of images left out because their prompt is sexual and mentions a minor."""
        return len(self._refused)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Sample]:
        return (self._sample(entry) for entry in list(self._entries.values()))

    def select(self, *, group: str | None = None, concept: str | None = None) -> "SampleSet":
        """Return a view of the samples of `group` and `concept`, None standing for any; possibly none."""
        view = copy.copy(self)
        prompts = (entry.prompt for entry in self._entries.values())
        view._entries = {p.id: self._entries[p.id] for p in selected(prompts, group, concept)}
        view._closed = "it is a selection of a larger set"
        return view

    def only(self, prompts: Iterable[Prompt]) -> "SampleSet":
        """Return a view of the samples of these rows, of those that are there."""
        wanted = {prompt.id for prompt in prompts}
        view = copy.copy(self)
        view._entries = {ident: entry for ident, entry in self._entries.items() if ident in wanted}
        view._closed = "it is a selection of a larger set"
        return view

    def missing(self, prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
        """Return those of `prompts` that have no image here, in their order.

        Raises:
            InvalidInput: the image of an id was drawn from another text or seed.
        """
        return tuple(prompt for prompt in prompts if self._done(prompt) is None)

    def add(self, prompt: Prompt, png: bytes) -> Sample:
        """Store the image of `prompt`: first the file, then its line. Adding the same image again is no harm.

        Raises:
            InvalidInput: not a PNG, another image or row under that id, a refused prompt, a foreign folder.
            Unavailable: the folder cannot be written or the disk is full.
        """
        if self._closed:
            raise InvalidInput(f"nothing can be added to {str(self.folder)!r}: {self._closed}")
        if not png.startswith(b"\x89PNG\r\n\x1a\n"):
            raise InvalidInput(f"the image of the prompt {prompt.id!r} is no PNG: it begins with {png[:8]!r}")
        if prompt.refused:
            raise InvalidInput(f"the prompt {prompt.id!r} is sexual and mentions a minor: no image is stored")
        digest = hashlib.sha256(png).hexdigest()
        with atomic.appending(self._metadata) as file:  # it exists from now on: the folder is ours, not bare
            self._catch_up(file)
            done = self._done(prompt)
            if done is not None and _digest(done.path) == digest:
                return self._sample(done)
            if done is not None and (done.sha256 is None or _digest(done.path) == done.sha256):
                raise InvalidInput(
                    f"{str(self.folder)!r} already holds another image of the prompt {prompt.id!r}; "
                    f"images are never replaced: delete {done.path.name!r} or use another folder"
                )
            path = self._place(prompt) if done is None else done.path  # a damaged image is mended in place
            with atomic.replacing(path) as image:
                image.write(png)
            line = {
                "file_name": path.relative_to(self.folder).as_posix(),
                **prompt.to_mapping(),
                "sha256": digest,
            }
            file.write(canonical_json(line).encode() + b"\n")
            entry = _Entry(prompt=prompt, path=path, sha256=digest, stated=frozenset(prompt.to_mapping()))
        self._entries[prompt.id] = entry
        return self._sample(entry)

    def verify(self) -> tuple[Sample, ...]:
        """Return the samples whose image is gone or differs from the hash recorded with it; () is well."""
        recorded = (e for e in self._entries.values() if e.sha256 is not None)
        return tuple(self._sample(e) for e in recorded if _digest(e.path) != e.sha256)

    @property
    def _metadata(self) -> Path:
        return self.folder / "metadata.jsonl"

    def _sample(self, entry: _Entry) -> Sample:
        digest = entry.sha256 or self._hashes.get(entry.prompt.id) or _digest(entry.path)
        if digest is None:
            raise Unavailable(f"cannot read {str(entry.path)!r}: it was there when the folder was opened")
        self._hashes[entry.prompt.id] = digest
        return Sample(prompt=entry.prompt, path=entry.path, sha256=digest)

    def _done(self, prompt: Prompt) -> _Entry | None:
        entry = self._entries.get(prompt.id)
        if entry is None or not _whole(entry.path):
            return None
        depends = entry.stated & {"text", "seed"}
        if "seed" in depends:  # whoever states the seed would have stated a guidance too
            depends |= {"guidance"}
        for field in sorted(depends):
            drawn, asked = getattr(entry.prompt, field), getattr(prompt, field)
            if drawn != asked:
                raise InvalidInput(
                    f"{str(self.folder)!r}: the image of the prompt {prompt.id!r} was drawn with the {field} "
                    f"{drawn!r}, not {asked!r}; use another folder for other prompts"
                )
        return entry

    def _take(self, data: bytes) -> bytes:
        """Take the lines of `data`, the next bytes of the metadata; return what a kill left of a last one."""
        *lines, tail = data.split(b"\n")
        for line in lines:
            self._lines += 1
            self._read += len(line) + 1
            self._take_line(line, f"{str(self._metadata)!r}, line {self._lines}")
        place = f"{str(self._metadata)!r}, line {self._lines + 1}"
        try:
            json_object(tail, place)
        except InvalidInput:
            return tail
        self._take_line(tail, place)  # whole: other tools end their last line without \n
        return b""

    def _take_table(self, table: Path) -> None:
        for place, row in tables.read(table):
            self._take_row({name: cell for name, cell in row.items() if cell not in (None, "")}, place)
        self._closed = f"its rows stand in {str(table)!r}"

    def _take_line(self, line: bytes, place: str) -> None:
        if line.strip():
            self._take_row(json_object(line, place), place)

    def _take_row(self, row: dict[str, object], place: str) -> None:
        name = row.get("file_name")
        if not isinstance(name, str) or not PurePosixPath(name).name:
            raise InvalidInput(f"{place}: 'file_name' is the path of an image in this folder, got {name!r}")
        self._index(row, name, place)

    def _take_bare(self) -> None:
        files = sorted(f.relative_to(self.folder) for f in self.folder.rglob("*") if f.is_file())
        files = [f for f in files if not any(part.startswith(".") for part in f.parts)]
        if tables := [f for f in files if f.stem == "metadata" and f.suffix.lower() in SUFFIXES]:
            raise InvalidInput(
                f"{str(self.folder)!r} is described by {str(tables[0])!r}, which is not read: "
                "open the folder that holds a metadata.jsonl beside its images"
            )
        for file in files:
            if file.suffix.lower() in (".png", ".jpg", ".jpeg"):
                self._index({}, file.as_posix(), repr(str(self.folder / file)))
        if self._entries:
            self._closed = "another tool made it, without metadata.jsonl"

    def _index(self, row: dict[str, object], name: str, place: str) -> None:
        path = self._inside(name, place)
        if not _whole(path):
            return
        fields = stated(row if row.keys() & {"text", "prompt"} else {**row, "text": ""}, place)
        own = {"id": PurePosixPath(name).with_suffix("").as_posix(), "text": ""}
        prompt = prompt_of({**own, **self._defaults, **fields}, place)
        if prompt.refused:
            self._refused.add(path)
            return
        before = self._entries.get(prompt.id)
        if before is not None and before.path != path and _whole(before.path):
            raise InvalidInput(f"{place}: the id {prompt.id!r} is that of {before.path.name!r} already")
        digest = row.get("sha256")
        if digest is not None and not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
            raise InvalidInput(f"{place}: 'sha256' is 64 hex digits, got {digest!r}")
        self._entries[prompt.id] = _Entry(prompt=prompt, path=path, sha256=digest, stated=frozenset(fields))

    def _inside(self, name: str, place: str) -> Path:
        """Return the path of the image `name`, refusing names that lead out of the folder."""
        path = self.folder / name
        flavours = (PurePosixPath(name), PureWindowsPath(name))
        leaves = any(f.is_absolute() or f.drive or ".." in f.parts for f in flavours)
        try:
            leaves = leaves or not path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, a zero byte
            raise InvalidInput(f"{place}: {name!r} is no path of a file: {error}") from None
        if leaves:
            raise InvalidInput(f"{place}: {name!r} leads out of the folder")
        return path

    def _catch_up(self, file: IO[bytes]) -> None:
        """Take what other processes added, and cut or close the last line if it has no end."""
        file.seek(self._read)
        data = file.read()
        half = self._take(data)
        if half:
            file.truncate(self._read)
        elif data and not data.endswith(b"\n"):
            file.write(b"\n")
            file.flush()
            self._read, self._lines = self._read + len(data.split(b"\n")[-1]) + 1, self._lines + 1

    def _place(self, prompt: Prompt) -> Path:
        """Return where the image of `prompt` goes: never onto an image that belongs to another."""
        path = self.folder / _file_name(prompt.id)
        if path.exists() and any(e.path == path and e.prompt.id != prompt.id for e in self._entries.values()):
            raise InvalidInput(f"{str(path)!r} is the image of another prompt; use another folder")
        return path


def _file_name(prompt_id: str) -> str:
    """Return a file name that differs for different ids, also where case does not count.

    >>> _file_name("i2p-0042")
    'i2p-0042.png'
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", prompt_id) and not re.search(r"-[0-9a-f]{16}$", prompt_id):
        return f"{prompt_id}.png"
    slug = re.sub(r"[^a-z0-9]+", "-", prompt_id.lower())[:40].strip("-") or "image"
    return f"{slug}-{hashlib.sha256(prompt_id.encode()).hexdigest()[:16]}.png"


def _whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
