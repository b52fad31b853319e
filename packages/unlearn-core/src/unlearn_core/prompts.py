"""Prompts: rows that carry their own seed, and ordered sets of them with a fingerprint."""

import csv
import dataclasses
import functools
import hashlib
import io
import json
import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from unlearn_core import atomic, hub, tables
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.minors import sexual_and_minor
from unlearn_core.seeds import derive
from unlearn_core.spec import fingerprint

FIELDS = ("id", "text", "seed", "group", "concept", "origin", "guidance")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One row: what to draw, from which noise, and what for.

    An image is a function of the model, this row and the sampler settings, and of nothing else.

    Raises:
        InvalidInput: an empty id or group, a text that is not UTF-8, a seed outside [0, 2**63), a guidance
            scale that is negative or no number.
    """

    id: str
    text: str
    seed: int
    group: str
    """What the row is for: "target", "retain", "adjacent", "indirect", "adversarial", "quality", …"""
    concept: str | None = None
    """Name of the concept it belongs to."""
    origin: str = ""
    """Where it comes from: a data set, an attack, the row it was made of."""
    guidance: float | None = None
    """Guidance scale of this row where its source states one, as I2P does; None: the sampler's."""

    def __post_init__(self) -> None:
        for field in ("id", "text", "group", "origin"):
            _check_text(field, getattr(self, field))
        if self.concept is not None:
            _check_text("concept", self.concept)
        for field in ("id", "group", "concept"):
            if (value := getattr(self, field)) is not None and not value.strip():
                raise InvalidInput(f"the {field} of a prompt is not blank, got {value!r}")
        try:
            seed = operator.index(self.seed)
        except TypeError:
            raise InvalidInput(f"prompt {self.id!r}: the seed is a whole number, got {self.seed!r}") from None
        if isinstance(self.seed, bool) or not 0 <= seed < 2**63:
            raise InvalidInput(f"prompt {self.id!r}: the seed is in [0, 2**63), got {self.seed!r}")
        object.__setattr__(self, "seed", seed)
        if self.guidance is not None:
            object.__setattr__(self, "guidance", _scale(self.id, self.guidance))

    @functools.cached_property
    def refused(self) -> bool:
        """Whether the always-on guard refuses this row: sexual, and about a minor.

        The words of an attack need not name what they aim at, so there the concept counts as said.
        """
        aim = f" {self.concept}" if self.concept and self.group in _AIMED else ""
        return sexual_and_minor(self.text + aim)

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields in their order as JSON values; a guidance that is not stated is left out."""
        fields = FIELDS if self.guidance is not None else FIELDS[:-1]
        return {field: getattr(self, field) for field in fields}


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Rows with distinct ids, in order.

    Rows that are sexual and mention a minor never get in, however the set was made; `dropped` counts them.

    Raises:
        InvalidInput: an id twice, or a row without text.
    """

    name: str
    revision: str = ""
    """Commit of the data set it was fetched from; empty for a local file."""
    rows: tuple[Prompt, ...]
    dropped: int = 0

    def __post_init__(self) -> None:
        rows = tuple(self.rows)
        for row in rows:
            if not isinstance(row, Prompt):
                raise InvalidInput(f"prompt set {self.name!r}: a row is a Prompt, got {type(row).__name__}")
            if not row.text.strip():
                raise InvalidInput(f"prompt set {self.name!r}: the row {row.id!r} has no text")
        if twice := [i for i, n in Counter(row.id for row in rows).items() if n > 1]:
            raise InvalidInput(f"prompt set {self.name!r}: the id {twice[0]!r} stands in several rows")
        kept = tuple(row for row in rows if not row.refused)
        object.__setattr__(self, "rows", kept)
        object.__setattr__(self, "dropped", self.dropped + len(rows) - len(kept))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.rows)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the rows in their order; name, revision and number of dropped rows are no part."""
        return fingerprint([row.to_mapping() for row in self.rows])

    def select(self, *, group: str | None = None, concept: str | None = None) -> Self:
        """Return the rows of `group` and `concept`, None standing for any; possibly none."""
        return dataclasses.replace(self, rows=tuple(selected(self.rows, group, concept)))

    @classmethod
    def merge(cls, *sets: "PromptSet", name: str = "") -> Self:
        """Return the rows of all `sets`, in order, each once.

        Raises:
            InvalidInput: one id stands for different rows.
        """
        rows: dict[str, Prompt] = {}
        for row in (row for prompts in sets for row in prompts):
            if rows.setdefault(row.id, row) != row:
                field = next(f for f in FIELDS if getattr(row, f) != getattr(rows[row.id], f))
                one, other = getattr(rows[row.id], field), getattr(row, field)
                raise InvalidInput(
                    f"prompt sets {', '.join(repr(s.name) for s in sets)} disagree on the row {row.id!r}: "
                    f"its {field} is {one!r} and {other!r}; give one of them another id"
                )
        return cls(
            name=name or "+".join(s.name for s in sets),
            revision="+".join(dict.fromkeys(s.revision for s in sets if s.revision)),
            rows=tuple(rows.values()),
            dropped=sum(s.dropped for s in sets),
        )

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        name: str = "",
        group: str = "target",
        concept: str | None = None,
        origin: str = "",
        columns: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the rows of a CSV, TSV, JSONL or Parquet file, or of a data set of the Hugging Face Hub.

        A row needs a text (column "text" or "prompt"). Without a seed it gets one derived from its id,
        without an id a hash of its content. Other columns are ignored.

        Args:
            source: a path, or ``owner/name[@revision][:file]``; a path that exists wins.
            name: name of the set; by default that of the source.
            group: group of the rows that state none.
            concept: concept of the rows that state none.
            origin: origin of the rows that state none.
            columns: field -> column where they differ, such as ``{"seed": "sd_seed"}``.

        Raises:
            Unavailable: the source cannot be read.
            InvalidInput: it holds no prompts; the message says in which line.
            MissingExtra: Parquet without pyarrow, the Hub without huggingface_hub.
        """
        columns = dict(columns or {})
        for field in columns:
            if field not in FIELDS:
                raise InvalidInput(f"load({str(source)!r}): " + one_of("field", field, FIELDS))
        path, revision = Path(source), ""
        if not path.exists() and isinstance(source, str) and hub.is_hub_id(source):
            path, revision = hub.fetch(source)
            name = name or source.partition("@")[0].partition(":")[0]
        defaults = {"group": group, "concept": concept, "origin": origin}
        places: dict[str, str] = {}
        hashed: Counter[str] = Counter()
        rows = []
        for place, row in tables.read(path):
            fields = {**defaults, **stated(row, place, columns)}
            if not str(fields.get("text", "")).strip():
                raise InvalidInput(f"{place}: the text is empty")
            if "id" not in fields:
                content = _content_id(fields)
                hashed[content] += 1  # published sets repeat captions; each stays a row with its own noise
                fields["id"] = content if hashed[content] == 1 else f"{content}-{hashed[content]}"
            prompt = prompt_of(fields, place)
            if prompt.id in places:
                raise InvalidInput(f"{place}: the id {prompt.id!r} stands already at {places[prompt.id]}")
            places[prompt.id] = place
            rows.append(prompt)
        return cls(name=name or path.stem, revision=revision, rows=tuple(rows))

    def save(self, path: Path) -> None:
        """Write the rows to `path` (.csv or .jsonl), atomically; `load` returns them with equal fingerprint.

        Raises:
            InvalidInput: another suffix.
            Unavailable: the file cannot be written.
        """
        table = io.StringIO(newline="")
        if path.suffix == ".jsonl":
            table.writelines(json.dumps(row.to_mapping(), ensure_ascii=False) + "\n" for row in self.rows)
        elif path.suffix == ".csv":
            # Quoting every text keeps a bare \r inside one, which csv leaves unquoted before Python 3.13.
            fields = FIELDS if any(row.guidance is not None for row in self.rows) else FIELDS[:-1]
            writer = csv.DictWriter(table, fields, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            writer.writeheader()
            writer.writerows(row.to_mapping() for row in self.rows)
        else:
            raise InvalidInput(f"prompts are saved as .csv or .jsonl, got {str(path)!r}")
        atomic.write_text(path, table.getvalue())


def selected(rows: Iterable[Prompt], group: str | None, concept: str | None) -> Iterator[Prompt]:
    """Yield the rows of `group` and `concept`, None standing for any."""
    for row in rows:
        if group in (None, row.group) and concept in (None, row.concept):
            yield row


def stated(row: Mapping[str, Any], place: str, columns: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the fields of a prompt that a row of a table states, unchecked; empty cells state nothing.

    Raises:
        InvalidInput: a column named in `columns`, or any column for the text, is not there.
    """
    columns = {"text": "text" if "text" in row else "prompt", **(columns or {})}
    for field, column in columns.items():
        if column not in row:
            wanted = "'text' or 'prompt'" if column == "prompt" else repr(column)
            raise InvalidInput(
                f"{place}: no column {wanted} for the {field} of a prompt; columns found: "
                f"{', '.join(map(repr, row)) or 'none'}. Name another with columns={{{field!r}: …}}"
            )
    cells = {field: row.get(columns.get(field, field)) for field in FIELDS}
    return {field: cell for field, cell in cells.items() if cell not in (None, "") and cell == cell}  # NaN


def prompt_of(fields: Mapping[str, Any], place: str) -> Prompt:
    """Return the prompt of `fields` (id and text at least), deriving its seed from its id if there is none.

    Raises:
        InvalidInput: a field of the wrong type or range; the message begins with `place`.
    """
    fields = dict(fields)
    if isinstance(fields["id"], int):
        fields["id"] = str(fields["id"])
    try:
        if "seed" in fields:
            fields["seed"] = _whole(fields["seed"])
        else:
            fields["seed"] = derive(0, "prompt", fields["id"])
        return Prompt(**fields)
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error}") from None


def _content_id(fields: Mapping[str, Any]) -> str:
    # ascii, not JSON: the fields are unchecked yet, and what is wrong with them is better said by Prompt.
    content = {f: _whole(fields[f]) if f == "seed" else fields[f] for f in FIELDS if f in fields}
    return hashlib.sha256(ascii(content).encode()).hexdigest()[:12]


def _whole(cell: Any) -> Any:
    """Return a cell as a whole number where it is one (spreadsheets write 42 as "42.0"), else as it is."""
    if isinstance(cell, str) and cell.strip().isdecimal():
        return int(cell[:20])  # 20 digits are out of range already; int() refuses thousands
    if isinstance(cell, str | float):
        try:
            number = float(cell)
        except ValueError:
            return cell
        # Above 2**53 a float has lost digits: it would be another seed than the one meant.
        if number.is_integer() and abs(number) < 2**53:
            return int(number)
    return cell


def _scale(ident: str, value: Any) -> float:
    try:
        scale = float(value)
    except (TypeError, ValueError):
        scale = math.nan
    if isinstance(value, bool) or not 0 <= scale < math.inf:
        raise InvalidInput(f"prompt {ident!r}: the guidance scale is a number from 0, got {value!r}")
    return scale


def _check_text(field: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidInput(f"the {field} of a prompt is a text, got {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"the {field} of a prompt holds half a surrogate pair: {value!r}") from None


_AIMED = frozenset(
    {
        "target",
        "indirect",
        "adversarial",
        "unsafe",
        "i2p",
        "ring_a_bell",
        "mma_diffusion",
        "p4d",
        "unlearndiffatk",
    }
)
