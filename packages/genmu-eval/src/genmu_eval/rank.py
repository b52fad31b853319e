"""A ranking that does not pretend: by ERR where it tells submissions apart, by weight change where it does not.

Two submissions tie when the interval of the difference of their ERR, on the same images, covers 0. Ties are not
transitive, so they are made group by group: the best of those left leads a group, which takes in every submission that
ties with the leader; within a group the smaller weight change wins. There the trivial baselines come last, and
whoever changed no weight: nothing changes less than doing nothing, which must not win by that.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from genmu_eval.cells import Cells
from genmu_eval.err import LEVEL, Estimate, Over, err, harmonic_mean
from genmu_eval.table import Judgement
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.seeds import derive

Statistic = Literal["err_pooled", "err_macro"]

IDENTITY, NOISE = "identity", "noise"
"""The trivial baselines: the model as it was, and one that draws nothing anybody would recognise."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A submission to rank.

    Raises:
        InvalidInput: a blank name, a weight change that is negative or no number.
    """

    name: str
    rows: tuple[Judgement, ...]
    weight_change: float | None = None
    """`tie_break.TieBreak.value`; None where it is not known, which loses every tie."""
    baseline: bool = False

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InvalidInput(f"the name of a submission is not blank, got {self.name!r}")
        if self.weight_change is not None and not 0 <= self.weight_change < math.inf:
            raise InvalidInput(f"{self.name}: a weight change is a number from 0, got {self.weight_change!r}")
        object.__setattr__(self, "rows", tuple(self.rows))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a submission came, and by what."""

    rank: int
    """From 1; submissions that nothing tells apart share one."""
    entry: Entry
    estimate: Estimate
    """Of the statistic ranked by."""
    lead: Estimate | None
    """How much better the leader of its group is; None for the leader. Covers 0: they tie."""
    decided_by: str
    """In words: what put it behind the one before."""

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "rank": self.rank,
            "name": self.entry.name,
            "baseline": self.entry.baseline,
            **self.estimate.document(),
            "weight_change": self.entry.weight_change,
            "lead": None if self.lead is None else self.lead.document(),
            "decided_by": self.decided_by,
        }


def noise_of(rows: Iterable[Judgement]) -> Entry:
    """Return the baseline of pure noise on the images of `rows`: nothing is ever present, so nothing is kept either."""
    return Entry(name=NOISE, rows=tuple(replace(row, present=False) for row in rows), baseline=True)


def rank(
    entries: Sequence[Entry],
    *,
    identity: Sequence[Judgement],
    noise: Sequence[Judgement] | None = None,
    by: Statistic = "err_pooled",
    over: Over = "concepts",
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[Place, ...]:
    """Return the places of `entries` and of the trivial baselines, best first; the order given changes nothing.

    Args:
        entries: submissions, all judged on the same images.
        identity: the unmodified model on the same images; no ranking goes without it.
        noise: a noise model on the same images; by default one on which nothing is ever seen.
        by: which of the two statistics.
        over: what the bootstrap draws anew; "concepts" asks who is better at concepts in general.
        seed: of the bootstrap.
        resamples: its number of draws.

    Raises:
        InvalidInput: no submission, a name twice, tables of different images, a missing component.
    """
    if by not in get_args(Statistic):
        raise InvalidInput(one_of("statistic", by, get_args(Statistic)))
    if not entries:
        raise InvalidInput("a ranking takes at least one submission")
    drawn_nothing = (
        noise_of(identity) if noise is None else Entry(name=NOISE, rows=tuple(noise), baseline=True)
    )
    known = Entry(name=IDENTITY, rows=tuple(identity), weight_change=0.0, baseline=True)
    everyone = [*entries, known, drawn_nothing]
    names = [entry.name for entry in everyone]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(f"two submissions are named {twice[0]!r}")
    estimates = {}
    for entry in everyone:
        try:
            found = err(entry.rows, seed=seed, resamples=resamples, over=over)
        except InvalidInput as error:
            raise InvalidInput(f"{entry.name}: {error}") from None
        estimates[entry.name] = found.err_pooled if by == "err_pooled" else found.err_macro
    left = sorted(everyone, key=lambda e: (-estimates[e.name].value, e.name))
    places: list[Place] = []
    while left:
        leader, *others = left
        leads = {
            e.name: difference(leader, e, by=by, over=over, seed=seed, resamples=resamples) for e in others
        }
        group = [leader, *(e for e in others if leads[e.name].low <= 0 <= leads[e.name].high)]
        left = [e for e in left if e not in group]
        group.sort(key=lambda e: (_trivial(e), _cost(e), -estimates[e.name].value, e.name))
        places += _placed(group, leader, leads, estimates, len(places))
    return tuple(places)


def difference(
    a: Entry,
    b: Entry,
    *,
    by: Statistic = "err_pooled",
    over: Over = "concepts",
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """Return how much better `a` is than `b`: both are drawn anew on the same concepts and images.

    Raises:
        InvalidInput: they were not judged on the same images, or a component is missing.
    """
    try:
        cells = Cells.of(a.rows, b.rows)
    except InvalidInput as error:
        raise InvalidInput(f"{a.name} and {b.name}: {error}") from None
    rng = np.random.default_rng(derive(seed, "difference"))
    drawn = cells.draw(rng, resamples, concepts=over == "concepts", tables=(0, 1))
    if by == "err_pooled":
        values = [float(harmonic_mean(cells.rates(table).mean(0))) for table in (0, 1)]
        draws = harmonic_mean(drawn.mean(2))
    else:
        values = [float(harmonic_mean(cells.rates(table)).mean()) for table in (0, 1)]
        draws = harmonic_mean(drawn).mean(-1)
    value = values[0] - values[1]
    low, high = np.quantile(draws[0] - draws[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def _cost(entry: Entry) -> float:
    return math.inf if entry.weight_change is None else entry.weight_change


def _trivial(entry: Entry) -> bool:
    return entry.baseline or entry.weight_change == 0


def _placed(
    group: list[Entry], leader: Entry, leads: dict[str, Estimate], estimates: dict[str, Estimate], before: int
) -> list[Place]:
    found: list[Place] = []
    for position, entry in enumerate(group):
        before_it = group[position - 1] if position else None
        shared = before_it is not None and _cost(before_it) == _cost(entry)
        decided = "ERR" if len(group) == 1 else "weight change within a tie"
        if shared:
            decided = "nothing: a tie, and the same weight change"
        elif len(group) > 1 and _trivial(entry):
            decided = "a tie, in which doing nothing comes last"
        elif len(group) > 1 and entry.weight_change is None:
            decided += " (not known, so last)"
        found.append(
            Place(
                rank=found[-1].rank if shared else before + position + 1,
                entry=entry,
                estimate=estimates[entry.name],
                lead=None if entry is leader else leads[entry.name],
                decided_by=decided,
            )
        )
    return found
