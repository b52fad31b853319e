"""Which runs may stand in one table: those that were measured alike and say the same of the unmodified model."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from unlearn_bench.leaderboard.records import Run


class Bounded(NamedTuple):
    """A number and where it may lie; without an interval that is itself."""

    value: float
    low: float
    high: float


class Entry(Protocol):
    """A run with what it must share with the others of its table."""

    @property
    def run(self) -> Run: ...  # noqa: D102
    @property
    def conditions(self) -> Mapping[str, Any]:
        """Name -> JSON value, the same in every run of a table."""
        ...

    @property
    def anchor(self) -> Mapping[str, Bounded]:
        """What the run measured of the model before unlearning."""
        ...


T = TypeVar("T", bound=Entry)


@dataclass(frozen=True, kw_only=True)
class Group(Generic[T]):
    """Runs that can be compared."""

    entries: Sequence[T]
    apart: str
    """Why it is not part of the first group of its kind; "" for that one itself."""
    notes: Sequence[str]


def grouped(entries: Sequence[T]) -> list[Group[T]]:
    """Return the groups in the order of their first runs."""
    found: list[list[T]] = []
    for entry in entries:
        for group in found:
            if group[0].conditions == entry.conditions and not _contradicts(group[0], entry):
                group.append(entry)
                break
        else:
            found.append([entry])
    return [
        Group(entries=group, apart=_apart(found[0][0], group[0]) if i else "", notes=_drift(group))
        for i, group in enumerate(found)
    ]


def portable(settings: Any) -> Any:
    """Return settings of a metric without what does not change its numbers.

    The device goes, and the folder in which a package is installed: the weights of pocket-sd are the same wherever
    they lie.
    """
    if isinstance(settings, Mapping):
        return {key: portable(value) for key, value in settings.items() if key != "device"}
    if isinstance(settings, str):
        return re.sub(r"(^|:)/.*/(?:src|site-packages|dist-packages)/(?=[a-z_]+/)", r"\1", settings)
    return settings


def labels(runs: Sequence[Run], key: str) -> list[str]:
    """Return a name for each run: `spec[key]`, and in brackets what tells runs of one name apart."""
    names = [str(run.stated(key)) for run in runs]
    settings = [
        _flat({"config": run.record.spec.get("config", {}), "seed": run.record.spec.get("seed")})
        for run in runs
    ]
    found = []
    for name, own in zip(names, settings, strict=True):
        same = [other for other_name, other in zip(names, settings, strict=True) if other_name == name]
        differing = [k for k in own if any(other.get(k) != own[k] for other in same)]
        text = ", ".join(f"{k.removeprefix('config.')}={own[k]}" for k in differing[:3])
        found.append(f"{name} ({text}{', …' if len(differing) > 3 else ''})" if differing else name)
    twice = Counter(found)
    return [
        f"{label} [{run.record.run_id}]" if twice[label] > 1 else label
        for label, run in zip(found, runs, strict=True)
    ]


def notes_of(runs: Sequence[Run]) -> list[str]:
    """Return the notes of several records, each once, with the names of all runs that it is said of."""
    heads: dict[str, list[str]] = {}
    for run in runs:
        for note in run.record.notes:
            head, colon, rest = note.partition(": ")
            named = colon and head in str(run.record.spec.get("technique", "")).split("+")
            names = heads.setdefault(rest if named else note, [])
            if named and head not in names:
                names.append(head)
    return [f"{', '.join(names)}: {note}" if names else note for note, names in heads.items()]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return "name: a / b" for what two mappings have different, where they are nested the innermost of it."""
    flat_a, flat_b = _flat(a), _flat(b)
    names = dict.fromkeys([*flat_a, *flat_b])
    return [
        f"{name}: {_short(flat_a, name)} / {_short(flat_b, name)}"
        for name in names
        if flat_a.get(name, _NONE) != flat_b.get(name, _NONE)
    ]


def _apart(first: Entry, other: Entry) -> str:
    found = differences(first.conditions, other.conditions)
    return "; ".join(found) or _contradicts(first, other)


def _contradicts(a: Entry, b: Entry) -> str:
    """Return where two runs disagree on the unmodified model by more than their intervals allow, else ""."""
    for name, (value, low, high) in a.anchor.items():
        other = b.anchor.get(name)
        if other is not None and not (
            low <= other.value <= high or other.low <= value <= other.high or _close(value, other.value)
        ):
            return f"{name} of the unmodified model: {value:g} / {other.value:g}"
    return ""


def _drift(group: Sequence[Entry]) -> list[str]:
    """Return a note where runs of a group disagree a little, as another device makes them do."""
    first = group[0]
    found = {
        name
        for entry in group[1:]
        for name, one in entry.anchor.items()
        if name in first.anchor and not _close(one.value, first.anchor[name].value)
    }
    if not found:
        return []
    return [
        f"the runs' own numbers of the unmodified model differ a little in {', '.join(sorted(found))}, as on another "
        "device; the row shows those of the oldest run"
    ]


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-4 * max(1.0, abs(a), abs(b))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else str(key))
    return found


def _short(flat: Mapping[str, Any], name: str) -> str:
    if name not in flat:
        return "none"
    text = str(flat[name])
    return text if len(text) <= 40 else text[:12] + "…"


_NONE = object()
