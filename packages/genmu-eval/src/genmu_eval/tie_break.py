"""The tie-break: how far the weights moved, as the challenge states it.

``(1 / N_c) sum_i ||theta_orig^i - theta_un^i|| / total parameters``; the smaller wins. Norm and parameters are not
published, so they are arguments here and stand in the result.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from genmu_eval.change import Change, change
from genmu_eval.weights import PARTS, Weights, open_weights
from unlearn_core.errors import InvalidInput, one_of

Norm = Literal["l2", "l1", "max"]
Added = Literal["count", "apart", "refuse"]
"""What becomes of tensors that the original lacks, such as adapters and routers: counted as a change from 0, reported
apart, or refused."""


@dataclass(frozen=True, kw_only=True)
class TieBreak:
    """The weight change of a submission of one or more models."""

    value: float
    """The published formula."""
    amortised: float
    """For one model that forgot N concepts, `value` / N: the published formula counts its change N times."""
    norm: Norm
    parts: tuple[str, ...]
    total_parameters: int
    """Of the original, in these parts; buffers such as position ids are none."""
    models: Mapping[str, Change]
    added_parameters: int
    """In all models."""

    @property
    def edits_weights(self) -> bool:
        """Whether some original weight changed; a submission of adapters alone is compared apart."""
        return any(change.max_abs > 0 for change in self.models.values())

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "value": self.value,
            "amortised": self.amortised,
            "norm": self.norm,
            "parts": list(self.parts),
            "total_parameters": self.total_parameters,
            "added_parameters": self.added_parameters,
            "edits_weights": self.edits_weights,
            "models": {name: change.document() for name, change in self.models.items()},
        }


def tie_break(
    original: str | Path | Weights,
    unlearned: Mapping[str, str | Path | Weights] | Sequence[str | Path | Weights] | str | Path | Weights,
    *,
    norm: Norm = "l2",
    parts: Sequence[str] | str = "everything",
    added: Added = "count",
    n_concepts: int | None = None,
    any_base: bool = False,
) -> TieBreak:
    """Return how far one or more unlearned models are from the original, per total parameter.

    Args:
        original: the model that was edited; what `open_weights` reads.
        unlearned: the submitted models, by name or in order; a single one that forgot several concepts counts once.
        norm: over all parameters of a model: "l2", the heading of the published tables; "l1", their first revision,
            which makes the value a mean absolute change; "max".
        parts: of "unet", "text_encoder" and "vae", or "everything". Text encoders may be edited, so all count.
        added: what becomes of tensors that the original lacks.
        n_concepts: how many concepts a single model forgot, for `amortised`; by default one per model.
        any_base: whether deltas may be of another model than the original, or are known to be of this one.

    Raises:
        Unavailable: a file cannot be read.
        InvalidInput: other shapes than the original's, a delta of another model, numbers that are not finite, an
            unknown setting.
    """
    for what, given, known in (("norm", norm, get_args(Norm)), ("choice of added", added, get_args(Added))):
        if given not in known:
            raise InvalidInput(one_of(what, str(given), known))
    chosen = choose(parts)
    if n_concepts is not None and n_concepts < 1:
        raise InvalidInput(f"a model forgot at least one concept, got {n_concepts}")
    base = original if isinstance(original, Weights) else open_weights(original)
    changes = {
        name: change(
            base,
            model if isinstance(model, Weights) else open_weights(model),
            parts=chosen,
            any_base=any_base,
        )
        for name, model in _by_name(unlearned).items()
    }
    total = next(iter(changes.values())).parameters
    extra = sum(found.added for found in changes.values())
    if added == "refuse" and extra:
        name = next(name for name, found in changes.items() if found.added)
        raise InvalidInput(
            f"{name} adds {changes[name].added} parameters to the model, which is refused here"
        )
    norms = [_norm(found, norm, with_added=added == "count") for found in changes.values()]
    value = math.fsum(norms) / len(norms) / total
    shared = n_concepts if n_concepts and len(norms) == 1 else 1
    return TieBreak(
        value=value,
        amortised=value / shared,
        norm=norm,
        parts=chosen,
        total_parameters=total,
        models=changes,
        added_parameters=extra,
    )


def choose(parts: Sequence[str] | str) -> tuple[str, ...]:
    """Return the parts meant by "everything", "unet,vae" or a list, in their usual order.

    Raises:
        InvalidInput: an unknown part, or none.
    """
    names = parts.split(",") if isinstance(parts, str) else list(parts)
    names = [name.strip() for name in names]
    if names == ["everything"]:
        return PARTS
    for name in names or [""]:
        if name not in PARTS:
            raise InvalidInput(one_of("part", name, ("everything", *PARTS)))
    return tuple(part for part in PARTS if part in names)


def _by_name(unlearned: Any) -> dict[str, Any]:
    if isinstance(unlearned, Mapping):
        found = dict(unlearned)
    else:
        several = [unlearned] if isinstance(unlearned, str | Path | Weights) else list(unlearned)
        found = {}
        for number, model in enumerate(several, 1):
            path = model.source if isinstance(model, Weights) else Path(model)
            found[path.stem if path.stem not in found else f"{path.stem} ({number})"] = model
    if not found:
        raise InvalidInput("a weight change takes at least one unlearned model")
    return found


def _norm(found: Change, norm: Norm, *, with_added: bool) -> float:
    if norm == "l2":
        return math.hypot(found.l2, found.added_l2 if with_added else 0.0)
    if norm == "l1":
        return found.l1 + (found.added_l1 if with_added else 0.0)
    return max(found.max_abs, found.added_max if with_added else 0.0)
