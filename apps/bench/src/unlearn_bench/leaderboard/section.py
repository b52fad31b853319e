"""One table of a leaderboard: its rows as JSON values, and which of them are columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unlearn_core.errors import InvalidInput, one_of


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a printed table."""

    key: str
    """Of the rows; "published.average" is one below another."""
    heading: str
    better: str = ""
    """"up", "down", or "" where neither end is."""
    digits: int = 3


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows that can be compared, and what a reader of them must know."""

    kind: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[dict[str, Any]]
    hidden: Sequence[Column] = ()
    """Not printed, but to be sorted by."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    apart: str = ""
    notes: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    """What the JSON says of the group besides."""


def of(row: Mapping[str, Any], key: str) -> Any:
    """Return the value of a row under a dotted key, None where there is none."""
    found: Any = row
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def number(value: Any) -> float | None:
    """Return the number that a cell shows, None where it shows none."""
    if isinstance(value, Mapping):
        value = value.get("value")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def sort(sections: Sequence[Section], key: str) -> list[Section]:
    """Return the sections with their rows in the order of a column, best first and the baseline on top.

    Raises:
        InvalidInput: no section has such a column.
    """
    known = {
        column.key: column
        for section in sections
        for column in [*section.columns, *section.hidden]
        if column.better or column.key == "technique"
    }
    if key not in known:
        raise InvalidInput(one_of("column to sort by", key, known))
    return [
        replace(section, rows=sorted(section.rows, key=lambda row: _place(row, known[key])))
        if any(column.key == key for column in [*section.columns, *section.hidden])
        else section
        for section in sections
    ]


def document(sections: Sequence[Section], left_out: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the JSON of a leaderboard: all rows with the number of their group, the groups, and who is left out."""
    rows = [{"group": i, **row} for i, section in enumerate(sections, 1) for row in section.rows]
    groups = [
        {
            "group": i,
            "kind": section.kind,
            "title": section.title,
            "apart": section.apart,
            "conditions": section.conditions,
            **section.more,
            "notes": list(section.notes),
        }
        for i, section in enumerate(sections, 1)
    ]
    return {"rows": rows, "groups": groups, "left_out": list(left_out)}


def _place(row: Mapping[str, Any], column: Column) -> tuple[Any, ...]:
    value = of(row, column.key)
    first = not row.get("baseline")
    if isinstance(value, str):
        return first, False, value.lower()
    x = number(value)
    return first, x is None, (-x if column.better == "up" else x) if x is not None else 0.0
