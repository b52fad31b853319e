"""Sheets of prompts: the challenge's CSV, and a set of our own whose adjacent and retained concepts are open.

The challenge's texts are not ours to ship: they are loaded from their publisher or from a file, and their bytes are
compared with what is known. Official adjacent and retained concepts were held out.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from genmu_eval.questions import TARGETED, Draw, Question, Sheet
from unlearn_core import hub, tables
from unlearn_core.errors import InvalidInput

__all__ = [
    "CHALLENGE",
    "CHALLENGE_SHA256",
    "COLUMNS",
    "Draw",
    "Question",
    "Sheet",
    "challenge",
    "own",
    "read_sheet",
    "sheet_of",
]

CHALLENGE = "Unlearningltd/datasets:ERR/raw_csv_data/challenge_dataset.csv"
CHALLENGE_SHA256 = "b1aa4a0dae3a9133acdf04c143ad2a24da1e30d61accff8b87bc33a306ff8659"
"""Of its bytes; a file of its name that holds others is refused."""

COLUMNS = {"direct_prompt": "fgt", "indirect_prompt": "ind", "adversarial_prompt": "adv"}


def challenge(source: str | Path = CHALLENGE, *, sha256: str | None = None) -> Sheet:
    """Return the prompts of the challenge's CSV, or of a file with its columns.

    A column `adjacent_concepts` (names parted by ";") adds adjacent questions; the official ones were held out.

    Args:
        source: a path, or a data set of the Hugging Face Hub (``owner/name[@revision]:file``).
        sha256: what the bytes of the file must hash to; by default `CHALLENGE_SHA256` for a file of the challenge's
            name, wherever it lies, and anything for others.

    Raises:
        Unavailable: it cannot be read or fetched.
        MissingExtra: a Hub id, without huggingface_hub.
        InvalidInput: other bytes, a missing column, an empty cell.
    """
    path = _file(source)
    rows, escaped = _rows(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    wanted = sha256 or (CHALLENGE_SHA256 if path.name == _NAME else found)
    if found != wanted:
        raise InvalidInput(
            f"{str(source)!r} has the sha256 {found}, not {wanted}: it is another file; prompts of your own need a "
            "name of their own"
        )
    questions, types = [], {}
    for place, row in rows:
        _check_columns(place, row, ("concept_name", *COLUMNS))
        name = str(row["concept_name"] or "").strip()
        types[name] = str(row.get("concept_type") or "").strip()
        asked = [(axis, name, row[column]) for column, axis in COLUMNS.items()]
        near = str(row.get("adjacent_concepts") or "").split(";")
        asked += [("adj", n.strip(), _photo(n.strip())) for n in near if n.strip()]
        for axis, asks, text in asked:
            questions.append(
                _question(place, concept=name, axis=axis, asks=asks, text=text, source=str(source))
            )
    return Sheet(
        name=Path(source).stem, questions=tuple(questions), types=types, sha256=found, escaped=escaped
    )


def sheet_of(source: str | Path) -> Sheet:
    """Return the sheet in a file or a data set of the Hub, in the challenge's columns or in ours.

    Raises:
        Unavailable: it cannot be read or fetched.
        InvalidInput: it is none.
    """
    path = _file(source)
    columns = _rows(path)[0][0][1]
    return read_sheet(path) if "axis" in columns and "direct_prompt" not in columns else challenge(source)


def own() -> Sheet:
    """Return our own prompts for the 20 concepts: two direct, two indirect, two adversarial, five neighbours each.

    Adjacent and retained concepts are disjoint from the targets and from each other. Every row states its source.
    """
    with resources.as_file(resources.files("genmu_eval") / "data" / "prompts.csv") as path:
        return read_sheet(path, name="genmu-eval")


def read_sheet(path: str | Path, *, name: str = "") -> Sheet:
    """Return the sheet in a table with the columns type, concept, axis, asks, text, source.

    Raises:
        Unavailable: it cannot be read.
        InvalidInput: a missing column or an empty cell; the message holds the line.
    """
    path, questions, types = Path(path), [], {}
    for place, row in tables.read(path):
        _check_columns(place, row, ("concept", "axis", "asks", "text"))
        q = _question(
            place, **{c: row[c] for c in ("concept", "axis", "asks", "text")}, source=row.get("source") or ""
        )
        questions.append(q)
        if q.axis in TARGETED and row.get("type"):
            types[q.concept] = str(row["type"])
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return Sheet(name=name or path.stem, questions=tuple(questions), types=types, sha256=sha256)


def _file(source: str | Path) -> Path:
    path = Path(source)
    if path.exists() or not (isinstance(source, str) and hub.is_hub_id(source)):
        return path
    return hub.fetch(source)[0]


def _check_columns(place: str, row: Mapping[str, Any], columns: Iterable[str]) -> None:
    if missing := [column for column in columns if column not in row]:
        raise InvalidInput(f"{place}: no column {missing[0]!r}; columns found: {', '.join(map(repr, row))}")


def _question(place: str, **fields: Any) -> Question:
    try:
        return Question(**fields)
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error}") from None


_NAME = CHALLENGE.rpartition("/")[2]


def _photo(name: str) -> str:
    return f"a photo of {'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _rows(path: Path) -> tuple[tables.Rows, bool]:
    """Return the rows of a table, and whether its quotes are escaped by a backslash as the challenge's are."""
    try:
        return tables.read(path), False
    except InvalidInput:
        if path.suffix.lower() != ".csv" or b'\\"' not in path.read_bytes():
            raise
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file, escapechar="\\", doublequote=False, strict=True)
                rows = [(f"{str(path)!r}, line {reader.line_num}", row) for row in reader]
        except (csv.Error, UnicodeDecodeError):
            rows = []
        if not rows or any(None in row or None in row.values() for _, row in rows):
            raise
        return rows, True
