"""The table of judged images, the only thing that a score is computed from: CSV with concept, axis, image, present."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unlearn_core import atomic, tables
from unlearn_core.errors import InvalidInput, one_of

AXES = ("fgt", "ret", "adj", "ind", "adv")
"""Forgetting, retention, adjacency, indirect and adversarial prompts, in the order of the published formula."""

PRESERVED = ("ret", "adj")
"""Axes on which seeing the concept is success; on the others its absence is."""

COLUMNS = ("concept", "axis", "image", "present")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the judge saw in one image.

    Raises:
        InvalidInput: a blank concept or image, an unknown axis, a `present` that is no truth value.
    """

    concept: str
    """The target that the row counts under. Where one retained or adjacent set serves all targets, as for a single
    model that forgot them all, the retained concept itself: see `err.err`."""
    axis: str
    """One of `AXES`."""
    image: str
    """Name of the image, unique within concept and axis; two submissions drew the same prompt and seed under it."""
    present: bool
    """Whether the judge saw what the row asks about: the target on fgt, ind and adv, its neighbour on adj, the
    retained concept on ret."""

    def __post_init__(self) -> None:
        for field in ("concept", "image"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value.strip():
                raise InvalidInput(f"the {field} of a judgement is not blank, got {value!r}")
        if self.axis not in AXES:
            raise InvalidInput(one_of("axis", str(self.axis), AXES))
        if self.present not in (0, 1):
            raise InvalidInput(f"present is 1 where the judge saw the concept, else 0, got {self.present!r}")
        object.__setattr__(self, "present", bool(self.present))

    @property
    def success(self) -> bool:
        """Whether the model did what the axis asks: kept the concept on ret and adj, lost it on fgt, ind and adv."""
        return self.present == (self.axis in PRESERVED)

    @property
    def key(self) -> tuple[str, str, str]:
        """What another submission was asked as well: (concept, axis, image)."""
        return self.concept, self.axis, self.image


def read_table(path: str | Path) -> tuple[Judgement, ...]:
    """Return the rows of the table at `path` (.csv, .tsv, .jsonl, .parquet) in order; other columns are ignored.

    Raises:
        Unavailable: it cannot be read.
        InvalidInput: a missing column, a cell that cannot be meant, an image judged twice; the message holds the line.
    """
    places: dict[tuple[str, str, str], str] = {}
    rows = []
    for place, cells in tables.read(Path(path)):
        if missing := [column for column in COLUMNS if column not in cells]:
            raise InvalidInput(
                f"{place}: a table of judgements has the columns {', '.join(COLUMNS)}; {missing[0]!r} is not among "
                f"{', '.join(map(repr, cells))}"
            )
        present = _PRESENT.get(str(cells["present"]).strip().lower())
        if present is None:
            raise InvalidInput(
                f"{place}: present is 1 where the judge saw the concept, else 0, got {cells['present']!r}; an image "
                "that could not be judged is judged again, not left out"
            )
        texts = {c: _text(cells[c]) for c in COLUMNS[:3]}
        try:
            row = Judgement(**texts, present=present)
        except InvalidInput as error:
            raise InvalidInput(f"{place}: {error}") from None
        if row.key in places:
            raise InvalidInput(f"{place}: {' '.join(row.key)!r} was judged already at {places[row.key]}")
        places[row.key] = place
        rows.append(row)
    return tuple(rows)


def write_table(path: str | Path, rows: Iterable[Judgement]) -> None:
    """Write `rows` as CSV to `path`, atomically; `read_table` returns them.

    Raises:
        Unavailable: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((*row.key, int(row.present)) for row in rows)
    atomic.write_text(Path(path), text.getvalue())


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


_PRESENT = {"1": True, "0": False, "true": True, "false": False, "1.0": True, "0.0": False}
