"""Continual unlearning: what each request did to all concepts, and what later requests did to it.

Step t is the model after the first t requests; step 0, where it was judged, is the original. At each step all concepts
of the order are asked for by their direct prompts, those not yet requested too.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genmu_eval.err import Err, err
from genmu_eval.table import Judgement
from unlearn_core.errors import InvalidInput

Matrix = tuple[tuple[float | None, ...], ...]
"""Steps 1, 2, … by concepts in their order."""


@dataclass(frozen=True, kw_only=True)
class Continual:
    """One sequence of requests, scored after each."""

    order: tuple[str, ...]
    detection: Matrix
    """Share of direct-prompt images that show the concept, requested or not."""
    errs: Matrix
    """ERR of each concept requested so far; None before."""
    steps: tuple[Err, ...]
    """ERR over the concepts requested so far, after each request."""
    base: tuple[float, ...] | None
    """Share of direct-prompt images of the original that show each concept, where it was judged."""

    @property
    def persistence(self) -> dict[str, float]:
        """Concept -> mean forgetting over the steps after its own; the last request has none yet."""
        return {
            c: statistics.fmean(1 - self._seen(t, s) for t in range(s + 1, len(self.order)))
            for s, c in enumerate(self.order[:-1])
        }

    @property
    def resurgence(self) -> dict[str, float]:
        """Concept -> the most forgetting that was lost again after its own step; 0 where it held."""
        return {
            c: max(0.0, max(self._seen(t, s) for t in range(s, len(self.order))) - self._seen(s, s))
            for s, c in enumerate(self.order)
        }

    @property
    def premature_loss(self) -> dict[str, float]:
        """Concept -> how much of it was lost before anybody asked, mean over the steps before its own.

        Relative to the original where it was judged (and shows the concept), else to all images.
        """
        lost = {}
        for s, c in enumerate(self.order[1:], 1):
            before = 1.0 if self.base is None else self.base[s]
            if before:
                shares = [min(1.0, self._seen(t, s) / before) for t in range(s)]
                lost[c] = 1 - statistics.fmean(shares)
        return lost

    @property
    def retention_slope(self) -> float | None:
        """Change of A_ret per request, by least squares; None for a single request."""
        values = [step.components["ret"].value for step in self.steps]
        return None if len(values) < 2 else statistics.linear_regression(range(len(values)), values).slope

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        pooled = [step.err_pooled.value for step in self.steps]
        return {
            "order": list(self.order),
            "err": {"final": pooled[-1], "mean": statistics.fmean(pooled), "min": min(pooled)},
            "steps": [step.document() for step in self.steps],
            "errs": [list(row) for row in self.errs],
            "detection": [list(row) for row in self.detection],
            "base": None if self.base is None else list(self.base),
            "persistence": self.persistence,
            "resurgence": self.resurgence,
            "premature_loss": self.premature_loss,
            "retention_slope": self.retention_slope,
        }

    def _seen(self, step: int, concept: int) -> float:
        value = self.detection[step][concept]
        assert value is not None
        return value


def continual(
    steps: Sequence[Sequence[Judgement]],
    order: Sequence[str],
    *,
    base: Sequence[Judgement] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Continual:
    """Return the scores along one sequence of requests.

    Args:
        steps: the judged images after each request, as many as `order` is long. The direct prompts (fgt) of every
            concept of the order are in each; ind, adv and adj are needed of those requested so far.
        order: the concepts in the order of the requests.
        base: the judged images of the original, for relative losses.
        seed: of the bootstrap.
        resamples: its number of draws.

    Raises:
        InvalidInput: not one table per request, a concept twice, a table without direct prompts of a concept or
            without a component; the message names the step.
    """
    order = tuple(order)
    if len(set(order)) != len(order) or not order:
        raise InvalidInput(f"an order names each concept once, got {', '.join(order) or 'none'}")
    if len(steps) != len(order):
        raise InvalidInput(f"{len(order)} requests take as many tables, one after each, got {len(steps)}")
    found: list[Err] = []
    for t, rows in enumerate(steps, 1):
        pending = set(order[t:])
        try:
            found.append(
                err([row for row in rows if row.concept not in pending], seed=seed, resamples=resamples)
            )
        except InvalidInput as error:
            raise InvalidInput(f"after request {t} ({order[t - 1]}): {error}") from None
        if strangers := sorted(found[-1].concepts.keys() - set(order)):
            raise InvalidInput(
                f"after request {t}: {strangers[0]!r} is a target that the order does not name"
            )
    return Continual(
        order=order,
        detection=tuple(
            tuple(_seen(rows, c, f"request {t}") for c in order) for t, rows in enumerate(steps, 1)
        ),
        errs=tuple(tuple(e.concepts[c].err if c in e.concepts else None for c in order) for e in found),
        steps=tuple(found),
        base=None if base is None else tuple(_seen(base, c, "no request") for c in order),
    )


def spread(runs: Sequence[Continual]) -> dict[str, Any]:
    """Return how much the order of the requests matters: final, mean and least ERR over several orders.

    Raises:
        InvalidInput: no run, an order twice, or orders of other concepts.
    """
    orders = [run.order for run in runs]
    if not orders or len(set(orders)) != len(orders) or len({frozenset(order) for order in orders}) != 1:
        raise InvalidInput("a spread is over different orders of the same concepts")
    statistics_of = [run.document()["err"] for run in runs]
    return {
        "orders": [list(order) for order in orders],
        **{key: _summary([values[key] for values in statistics_of]) for key in ("final", "mean", "min")},
        "resurgence": _summary([max(run.resurgence.values()) for run in runs]),
    }


def _summary(values: Sequence[float]) -> Mapping[str, float | None]:
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "low": min(values),
        "high": max(values),
    }


def _seen(rows: Sequence[Judgement], concept: str, step: str) -> float:
    found = [row.present for row in rows if row.concept == concept and row.axis == "fgt"]
    if not found:
        raise InvalidInput(f"after {step}: no direct prompt (fgt) of {concept!r} was judged")
    return sum(found) / len(found)
