"""Rows of a table file, each with the place it came from for messages: CSV, TSV, JSONL, Parquet."""

import csv
import importlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from unlearn_core.errors import InvalidInput, MissingExtra, Unavailable

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

Rows = list[tuple[str, dict[str, Any]]]
"""("'file.csv', line 7", column -> cell) per row."""


def read(path: Path) -> Rows:
    """Return the rows of the table at `path`; its suffix decides the format.

    Raises:
        Unavailable: it cannot be read.
        MissingExtra: it is Parquet and pyarrow is not installed.
        InvalidInput: another suffix, not UTF-8, malformed, or without rows; the message holds the line.
    """
    if path.is_dir():
        files = (f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
        return read(path / only_table(str(path), files))
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(f"{str(path)!r}: a table ends in {', '.join(SUFFIXES)}, got {path.suffix!r}")
    try:
        with path.open("rb") as file:
            if suffix == ".parquet":
                rows = _parquet(path, file)
            elif suffix == ".jsonl":
                rows = _jsonl(path, file.read())
            else:
                rows = _csv(path, file.read(), "\t" if suffix == ".tsv" else ",")
    except OSError as error:
        raise Unavailable(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    if not rows:
        raise InvalidInput(f"{str(path)!r} holds no rows")
    return rows


def only_table(place: str, files: Iterable[str]) -> str:
    """Return the one table among the names `files`.

    Raises:
        InvalidInput: there is none, or several and only the user can choose.
    """
    tables = sorted(f for f in files if f.lower().endswith(SUFFIXES))
    if len(tables) == 1:
        return tables[0]
    if not tables:
        raise InvalidInput(f"{place!r} holds no table ({', '.join(SUFFIXES)})")
    shown = ", ".join(tables[:8]) + (", …" if len(tables) > 8 else "")
    raise InvalidInput(f"{place!r} holds {len(tables)} tables; say which: {shown}")


def json_object(line: bytes, place: str) -> dict[str, Any]:
    """Return one line of a JSONL file as a mapping.

    Raises:
        InvalidInput: it is not a JSON object in UTF-8.
    """
    try:
        value = json.loads(line.removeprefix(_BOM).decode())
    except UnicodeDecodeError:
        raise InvalidInput(f"{place}: not UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{place}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{place}: each line is one JSON object, got {type(value).__name__}")
    return value


def optional(module: str, extra: str) -> Any:
    """Import and return `module`, which comes with the extra `extra` of this package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f'this needs {module.partition(".")[0]}: pip install "unlearn-core[{extra}]"'
        ) from error


def _jsonl(path: Path, data: bytes) -> Rows:
    # Only \n ends a line of JSONL: str.splitlines would also cut at U+2028 inside a text.
    lines = data.split(b"\n")
    places = ((f"{str(path)!r}, line {n}", line) for n, line in enumerate(lines, 1) if line.strip())
    return [(place, json_object(line, place)) for place, line in places]


def _csv(path: Path, data: bytes, delimiter: str) -> Rows:
    try:
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        line = data.removeprefix(_BOM).count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{str(path)!r}, line {line}: not UTF-8; save the file as UTF-8") from None
    # strict: without it an unclosed quote swallows the rest of the file as one text.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: Rows = []
    end = 0
    try:
        for cells in reader:
            place, end = f"{str(path)!r}, line {end + 1}", reader.line_num
            if not any(cells):
                continue
            if not header:
                header = [name.strip() for name in cells]
                named = [name for name in header if name]
                if twice := {name for name in named if named.count(name) > 1}:
                    raise InvalidInput(f"{place}: two columns are named {min(twice)!r}")
            elif len(cells) != len(header):
                raise InvalidInput(
                    f"{place}: {len(cells)} cells under {len(header)} columns; "
                    "a text that holds a comma, a quote or a line break stands in double quotes"
                )
            else:
                rows.append((place, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise InvalidInput(f"{str(path)!r}, line {end + 1}: {error}; quotes in a text are doubled") from None
    return rows


def _parquet(path: Path, data: IO[bytes]) -> Rows:
    arrow = optional("pyarrow", "parquet")
    parquet = optional("pyarrow.parquet", "parquet")
    try:
        file = parquet.ParquetFile(data)
        # Published sets carry whole images beside their prompts: read what can be a cell of a prompt.
        kept = [f.name for f in file.schema_arrow if not _bulky(arrow, f.type)]
        rows = file.read(columns=kept).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise InvalidInput(f"{str(path)!r} is not Parquet: {error}") from None
    return [(f"{str(path)!r}, row {n}", row) for n, row in enumerate(rows, 1)]


def _bulky(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


_BOM = b"\xef\xbb\xbf"
