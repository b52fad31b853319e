"""Counts of successes by concept and axis, and what a bootstrap makes of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genmu_eval.table import AXES, PRESERVED, Judgement
from unlearn_core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """How many images of each target and axis there are and how many of them fell into each class of outcomes.

    A single submission has two classes, (failure, success). Two submissions on the same images have four, so that what
    they share stays shared when images are drawn.
    """

    targets: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    """Per axis, the concepts whose rows it has: the targets, or others that serve all of them."""
    counts: tuple[NDArray[np.int64], ...]
    """Per axis (groups, classes)."""

    @classmethod
    def of(cls, *tables: Iterable[Judgement]) -> "Cells":
        """Return the cells of one table, or of several of the same images.

        Raises:
            InvalidInput: no rows, an image judged twice, a missing component, tables of different images.
        """
        outcomes = [_by_key(rows) for rows in tables]
        if any(other.keys() != outcomes[0].keys() for other in outcomes):
            missing = min(set.union(*map(set, outcomes)) - set.intersection(*map(set, outcomes)))
            raise InvalidInput(
                f"only tables of the same images can be compared: {' '.join(missing)!r} is not in all of them"
            )
        counted: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        for key in outcomes[0]:
            concept, axis, _ = key
            counted[concept, axis][sum(table[key] << i for i, table in enumerate(outcomes))] += 1
        targets = sorted({c for c, axis in counted if axis not in PRESERVED})
        if not targets:
            raise InvalidInput("no component fgt, ind or adv: a table without a target has no ERR")
        groups = tuple(_group(axis, sorted(c for c, a in counted if a == axis), targets) for axis in AXES)
        classes = range(2 ** len(outcomes))
        counts = tuple(
            np.array([[counted[c, axis][k] for k in classes] for c in names])
            for axis, names in zip(AXES, groups, strict=True)
        )
        return cls(targets=tuple(targets), groups=groups, counts=counts)

    def rates(self, table: int = 0) -> NDArray[np.float64]:
        """Return the success rates (targets, axes) of a table, by its position."""
        return np.stack(
            [self._spread(axis, _rates(counts[None], table))[0] for axis, counts in enumerate(self.counts)],
            -1,
        )

    def total(self, axis: int) -> tuple[int, int]:
        """Return (successes, images) of the first table on an axis, by its position."""
        counts = self.counts[axis].sum(0)
        return int(counts[1::2].sum()), int(counts.sum())

    def draw(
        self, rng: np.random.Generator, resamples: int, *, concepts: bool, tables: Sequence[int] = (0,)
    ) -> NDArray[np.float64]:
        """Return success rates of bootstrap samples, (tables,) resamples, targets, axes; one table has no first axis.

        Args:
            rng: source of the draws.
            resamples: how many samples.
            concepts: whether concepts are drawn too, or images of these concepts alone.
            tables: positions of the tables whose rates are wanted; they share the images drawn.
        """
        n = len(self.targets)
        chosen = _chosen(rng, resamples, n, concepts)
        found = np.empty((len(tables), resamples, n, len(AXES)))
        for axis, counts in enumerate(self.counts):
            picked = chosen if self._own(axis) else _chosen(rng, resamples, len(counts), concepts)
            totals = counts.sum(1)
            sample = rng.multinomial(totals[picked], (counts / totals[:, None])[picked])
            for t, table in enumerate(tables):
                found[t, :, :, axis] = self._spread(axis, _rates(sample, table))
        return found[0] if len(tables) == 1 else found

    def _own(self, axis: int) -> bool:
        return self.groups[axis] == self.targets

    def _spread(self, axis: int, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return rates (samples, groups) as (samples, targets): a shared group's mean is every target's."""
        if self._own(axis):
            return rates
        return np.repeat(rates.mean(1, keepdims=True), len(self.targets), 1)


def _by_key(rows: Iterable[Judgement]) -> dict[tuple[str, str, str], bool]:
    found: dict[tuple[str, str, str], bool] = {}
    for row in rows:
        if row.key in found:
            raise InvalidInput(f"{' '.join(row.key)!r} was judged twice")
        found[row.key] = row.success
    if not found:
        raise InvalidInput("a table without rows has no ERR")
    return found


def _group(axis: str, names: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """Return the concepts of an axis: all targets, or on ret and adj others in their place."""
    own = [name for name in names if name in targets]
    others = [name for name in names if name not in targets]
    if not names:
        raise InvalidInput(f"the component {axis} is missing: no row of the table has this axis")
    if axis in PRESERVED and not own:
        return tuple(others)
    if missing := [name for name in targets if name not in own]:
        raise InvalidInput(
            f"the component {axis} is missing for {', '.join(map(repr, missing))}; a component that is not there is "
            "never left out of the mean"
        )
    if others:
        raise InvalidInput(
            f"{axis}: the rows of {others[0]!r} count for no target, since every target has rows of its own; "
            "the concept of a row is the target that it counts under"
        )
    return tuple(own)


def _chosen(rng: np.random.Generator, resamples: int, n: int, drawn: bool) -> NDArray[np.int64]:
    if drawn:
        return rng.integers(n, size=(resamples, n))
    return np.broadcast_to(np.arange(n), (resamples, n))


def _rates(counts: NDArray[np.int64], table: int) -> NDArray[np.float64]:
    """Return the success rates of a table from counts (..., classes); bit `table` of a class is its success."""
    wins = (np.arange(counts.shape[-1]) >> table) & 1
    return (counts * wins).sum(-1) / counts.sum(-1)
