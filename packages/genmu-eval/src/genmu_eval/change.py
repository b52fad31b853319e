"""How the weights of two models differ, tensor by tensor in bounded memory."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from genmu_eval.architecture import architecture, is_adapter
from genmu_eval.fingerprint import check_delta
from genmu_eval.names import foreign
from genmu_eval.safetensors_file import StoredTensor, rounded, wide
from genmu_eval.weights import PARTS, Weights, part_of
from unlearn_core.errors import InvalidInput

NOISE = 0.5
"""Relative change from which weights are called noise: unlearning moves them by a few per cent; independent weights of
equal size are the square root of 2 away."""


@dataclass(kw_only=True)
class _Sums:
    squares: float = 0.0
    absolute: float = 0.0
    largest: float = 0.0
    changed: int = 0

    def add(self, numbers: Any) -> None:
        """Count `numbers`, which are overwritten: a billion of them are quicker without copies."""
        self.squares += float(np.dot(numbers, numbers))
        magnitude = np.abs(numbers, out=numbers)
        self.absolute += float(magnitude.sum())
        self.largest = max(self.largest, float(magnitude.max(initial=0.0)))
        self.changed += int(np.count_nonzero(magnitude))


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of the parameters of the original, and what was added to them."""

    parameters: int
    """Of the original in the parts looked at."""
    l2: float
    """Norm of the change."""
    l1: float
    max_abs: float
    rms: float
    """`l2` over the square root of the number of parameters: does not shrink with every frozen weight."""
    relative: float
    """`l2` over the norm of the original."""
    changed: float
    """Share of parameters that differ."""
    rounding: float
    """Norm of the change that saving the original as narrow as this model was saved makes by itself; 0 where it was
    saved alike."""
    parts: dict[str, float]
    """Part -> norm of its change."""
    added: int
    """Parameters that the original lacks: adapters, routers."""
    added_l2: float
    added_l1: float
    added_max: float
    absent: tuple[str, ...] = field(default=())
    """Parts of the original that this model does not hold, taken as unchanged."""
    of_this_base: bool | None = None
    """Whether the fingerprint in a delta is the original's; None where there is none to compare."""

    @property
    def kind(self) -> str:
        """What the weights by themselves give away: "identity", "noise", "adapter" or "edit"."""
        if self.max_abs == 0:
            return "adapter" if self.added else "identity"
        return "noise" if self.relative >= NOISE else "edit"

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"absent": list(self.absent), "kind": self.kind}


def change(
    original: Weights, unlearned: Weights, *, parts: Sequence[str] = PARTS, any_base: bool = False
) -> Change:
    """Return how `unlearned` differs from `original` in `parts`.

    A part that `unlearned` does not hold at all is taken as unchanged, and named. A tensor missing from a part that it
    holds is another architecture.

    Args:
        original: a whole model.
        unlearned: a model, some parts of one, or a delta.
        parts: those to look at.
        any_base: whether to take a delta's word for the model that it was made from, rather than to read all of the
            original.

    Raises:
        InvalidInput: a delta as the original or of another model, none of the parts in it, other tensors or shapes,
            numbers that are not finite.
    """
    if original.is_delta:
        raise InvalidInput(f"{str(original.source)!r} is a delta; the original is a whole model")
    base = {n: t for n, t in original.tensors.items() if part_of(n) in parts and t.floating}
    if not base:
        raise InvalidInput(
            f"{str(original.source)!r} holds none of the parts {', '.join(parts)}, only "
            f"{', '.join(original.parts) or 'none known'}"
        )
    theirs = {n: t for n, t in unlearned.tensors.items() if part_of(n) in parts and t.floating}
    check_same_model(original, unlearned, parts)
    of_this_base = None if any_base or not unlearned.is_delta else check_delta(original, unlearned)
    before, rounding = 0.0, 0.0
    by_part = {part: _Sums() for part in parts if any(part_of(n) == part for n in base)}
    for name, tensor in base.items():
        sums, other = by_part[part_of(name)], theirs.get(name)
        for old, new, noise in _pairs(name, tensor, other):
            before += float(np.dot(old, old))
            if new is not None:
                sums.add(np.subtract(new, old, out=new))
                rounding += noise
    extra = _Sums()
    for name in sorted(theirs.keys() - base.keys()):
        for numbers in theirs[name].chunks():
            extra.add(wide(numbers, theirs[name].dtype))
    if not math.isfinite(extra.squares):
        raise InvalidInput(f"{str(unlearned.source)!r} adds numbers that are not finite")
    count = sum(t.size for t in base.values())
    squares = math.fsum(s.squares for s in by_part.values())
    held = {part_of(n) for n in theirs}
    return Change(
        parameters=count,
        l2=math.sqrt(squares),
        l1=math.fsum(s.absolute for s in by_part.values()),
        max_abs=max(s.largest for s in by_part.values()),
        rms=math.sqrt(squares / count),
        relative=math.sqrt(squares / before) if before else math.inf if squares else 0.0,
        changed=sum(s.changed for s in by_part.values()) / count,
        rounding=math.sqrt(rounding),
        parts={part: math.sqrt(s.squares) for part, s in by_part.items()},
        added=sum(theirs[n].size for n in theirs.keys() - base.keys()),
        added_l2=math.sqrt(extra.squares),
        added_l1=extra.absolute,
        added_max=extra.largest,
        absent=() if unlearned.is_delta else tuple(part for part in by_part if part not in held),
        of_this_base=of_this_base,
    )


def check_same_model(original: Weights, unlearned: Weights, parts: Sequence[str] = PARTS) -> None:
    """Check that `unlearned` has the tensors of `original` in the parts that it holds; added ones are fine.

    Raises:
        InvalidInput: another architecture, named with the first tensor that differs.
    """
    base = {n: t for n, t in original.tensors.items() if part_of(n) in parts and t.floating}
    theirs = {n: t for n, t in unlearned.tensors.items() if part_of(n) in parts and t.floating}
    source, other = str(unlearned.source), architecture(unlearned)
    said = f"{source!r} ({other}) is not the model {str(original.source)!r} ({architecture(original)})"
    for name in sorted(theirs.keys() & base.keys()):
        if theirs[name].shape != base[name].shape:
            raise InvalidInput(f"{said}: {name} is {theirs[name].shape}, not {base[name].shape}")
    if unlearned.is_delta:
        if unknown := sorted(theirs.keys() - base.keys()):
            raise InvalidInput(f"{said}: the delta changes {unknown[0]}, which that model lacks")
        return
    if not theirs:
        raise InvalidInput(f"{source!r} holds none of the parts {', '.join(parts)}")
    if is_adapter(unlearned):
        return
    held = {part_of(n) for n in theirs}
    for weights, names in ((unlearned, theirs.keys() - base.keys()), (original, base.keys() - theirs.keys())):
        if unread := sorted(n for n in names if foreign(n) and part_of(n) in held):
            name = unread[0].partition(".")[2]
            raise InvalidInput(
                f"{str(weights.source)!r}: what {name!r} is in a folder of diffusers is not known; save the model with "
                "pipe.save_pretrained(FOLDER) and give that folder"
            )
    if missing := sorted(n for n in base if part_of(n) in held and n not in theirs):
        raise InvalidInput(
            f"{said}: it lacks {missing[0]}" + f" and {len(missing) - 1} more" * (len(missing) > 1)
        )


def _pairs(name: str, old: StoredTensor, new: StoredTensor | None) -> Iterator[tuple[Any, Any, float]]:
    """Yield stretches (original, unlearned or None where equal, squared norm of what rounding alone changes)."""
    if new is None:
        for stretch in old.chunks():
            yield wide(stretch, old.dtype), None, 0.0
        return
    alike = old.dtype == new.dtype
    for stretch, other in zip(old.chunks(), new.chunks(), strict=True):
        numbers = wide(stretch, old.dtype)
        if alike and np.array_equal(_bits(stretch), _bits(other)):
            yield numbers, None, 0.0
            continue
        noise = 0.0
        if not alike:
            lost = rounded(numbers, new.dtype) - numbers
            noise = float(np.dot(lost, lost))
        edited = wide(other, new.dtype)
        if not np.isfinite(edited).all():
            raise InvalidInput(f"{str(new.path)!r}: {name} holds numbers that are not finite")
        yield numbers, edited, noise


def _bits(stretch: Any) -> Any:
    return stretch.view(f"u{stretch.itemsize}")  # equal bits, so that NaN equals itself and 0 is not -0
