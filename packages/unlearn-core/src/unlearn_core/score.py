"""What a metric found: a value, how sure it is, and what it could not judge.

A crash is not a score and a sample that could not be judged is not a zero: there is no way to write either.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal, Self, cast

from unlearn_core.errors import InvalidInput, one_of

Direction = Literal["up", "down"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Where the value may lie, and how that was worked out.

    Raises:
        InvalidInput: bounds that are not finite or in the wrong order, a level outside (0, 1).
    """

    low: float
    high: float
    level: float = 0.95
    how: str
    """The method: "wilson", "bootstrap by prompt", …"""

    def __post_init__(self) -> None:
        for name in ("low", "high", "level"):
            object.__setattr__(self, name, _finite(f"{name} of an interval", getattr(self, name)))
        if self.low > self.high:
            raise InvalidInput(f"an interval runs from low to high, got [{self.low}, {self.high}]")
        if not 0 < self.level < 1:
            raise InvalidInput(f"the level of an interval is in (0, 1), such as 0.95, got {self.level}")
        if not isinstance(self.how, str) or not self.how:
            raise InvalidInput(f"an interval says how it was worked out, got {self.how!r}")


@dataclass(frozen=True, kw_only=True)
class Score:
    """The value of one metric on one set of samples.

    Raises:
        InvalidInput: nothing was scored, a number is not finite, the value is outside its interval, or the
            reasons do not account for the unscored samples.
    """

    metric: str
    value: float
    direction: Direction
    """Whether more is better ("up") or worse ("down")."""
    interval: Interval | None = None
    n_scored: int
    n_unscored: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why samples could not be judged -> how many; adds up to `n_unscored`."""
    parts: Mapping[str, "Score | float"] = field(default_factory=dict)
    """What the value is made of, such as the arms of a harmonic mean."""
    per_sample: Mapping[str, float | None] | tuple[float | None, ...] | None = None
    """By prompt id or in order; None where a sample could not be judged."""

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise InvalidInput(f"a score names its metric, got {self.metric!r}")
        name = f"score of {self.metric}"
        if self.direction not in ("up", "down"):
            raise InvalidInput(f"{name}: " + one_of("direction", str(self.direction), ("up", "down")))
        _set(self, "value", _finite(name, self.value))
        _set(self, "n_scored", _count(f"{name}: n_scored", self.n_scored))
        _set(self, "n_unscored", _count(f"{name}: n_unscored", self.n_unscored))
        _set(self, "reasons", {r: _count(f"{name}: {r}", n) for r, n in dict(self.reasons).items()})
        if self.n_scored == 0:
            why = ", ".join(f"{reason} ({n})" for reason, n in self.reasons.items()) or "there were none"
            raise InvalidInput(f"{name}: no sample could be judged: {why}")
        if sum(self.reasons.values()) != self.n_unscored:
            raise InvalidInput(
                f"{name}: {self.n_unscored} samples are unscored, the reasons account for "
                f"{sum(self.reasons.values())}"
            )
        if self.interval is not None and not self.interval.low <= self.value <= self.interval.high:
            raise InvalidInput(
                f"{name}: {self.value} is outside its interval [{self.interval.low}, {self.interval.high}]"
            )
        parts = dict(self.parts)
        for part, value in parts.items():
            parts[part] = value if isinstance(value, Score) else _finite(f"{name}: part {part!r}", value)
        _set(self, "parts", parts)
        if isinstance(self.per_sample, Mapping):
            found = {k: _maybe(f"{name}: sample {k!r}", v) for k, v in self.per_sample.items()}
            _set(self, "per_sample", found)
        elif self.per_sample is not None:
            each = enumerate(self.per_sample)
            _set(self, "per_sample", tuple(_maybe(f"{name}: sample {i}", v) for i, v in each))

    def to_mapping(self) -> dict[str, Any]:
        """Return the score as JSON values."""
        mapping = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        mapping["interval"] = None if self.interval is None else dataclasses.asdict(self.interval)
        mapping["parts"] = {k: v.to_mapping() if isinstance(v, Score) else v for k, v in self.parts.items()}
        if isinstance(self.per_sample, tuple):
            mapping["per_sample"] = list(self.per_sample)
        return mapping

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Return the score that `to_mapping` wrote.

        Raises:
            InvalidInput: an unknown or missing key, or a value that is no score's.
        """
        found = _fields(cls, mapping)
        if found.get("interval") is not None:
            found["interval"] = Interval(**_fields(Interval, found["interval"]))
        for key in ("parts", "reasons"):
            if not isinstance(found.get(key, {}), Mapping):
                raise InvalidInput(f"a score: {key!r} is a mapping, got {found[key]!r}")
        parts = found.get("parts", {}).items()
        found["parts"] = {k: cls.from_mapping(v) if isinstance(v, Mapping) else v for k, v in parts}
        if not isinstance(found.get("per_sample"), Mapping | list | tuple | None):
            raise InvalidInput(f"a score: 'per_sample' is a mapping or a list, got {found['per_sample']!r}")
        return cls(**found)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of the rate `successes / n` (fractions), without continuity correction.

    With p = successes / n and z the normal quantile, ``(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)``
    (E. B. Wilson, JASA 22, 1927; method 3 of R. G. Newcombe, Statistics in Medicine 17, 1998).

    Raises:
        InvalidInput: n is not positive, successes is not in [0, n], the level is not in (0, 1).
    """
    successes, n = _count("successes", successes), _count("n", n)
    if not 0 < n >= successes:
        raise InvalidInput(f"a rate has 0 <= successes <= n and n > 0, got {successes} of {n}")
    if not 0 < _finite("level", level) < 1:
        raise InvalidInput(f"the level of an interval is in (0, 1), such as 0.95, got {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, w = successes / n, z * z / n
    middle = p + w / 2
    half = math.sqrt(w * p * (1 - p) + w * w / 4)
    # At the ends the formula gives exactly 0 and 1; rounding would put the value outside its own interval.
    low = 0.0 if successes == 0 else (middle - half) / (1 + w)
    high = 1.0 if successes == n else (middle + half) / (1 + w)
    return Interval(low=low, high=high, level=level, how="wilson")


def _fields(cls: type[Any], mapping: Any) -> dict[str, Any]:
    what = f"{'an' if cls is Interval else 'a'} {cls.__name__.lower()}"
    if not isinstance(mapping, Mapping):
        raise InvalidInput(f"{what} is a mapping, got {mapping!r}")
    known = dataclasses.fields(cls)
    for key in mapping:
        if key not in {f.name for f in known}:
            raise InvalidInput(f"{what}: " + one_of("key", str(key), [f.name for f in known]))
    for f in known:
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in mapping:
            raise InvalidInput(f"{what} lacks {f.name!r}")
    return dict(mapping)


def _finite(what: str, value: Any) -> float:
    # numbers.Real takes NumPy's scalars too, and leaves out text and arrays.
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise InvalidInput(f"{what}: a number is needed, got {value!r}")
    if not math.isfinite(value):
        raise InvalidInput(f"{what}: {value!r} cannot be reported; leave unscored samples out and count them")
    return float(value)


def _maybe(what: str, value: Any) -> float | None:
    return None if value is None else _finite(what, value)


def _count(what: str, value: Any) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"{what}: a count is needed, got {value!r}")
    return int(value)


def _set(score: Score, name: str, value: object) -> None:
    object.__setattr__(cast(Any, score), name, value)
