"""KLoM: the KL divergence of margins between unlearned models and oracles, per sample.

For one sample, N oracle margins and N unlearned margins are counted in K bins; with the bin frequencies q
(oracle) and p (unlearned), and eps = 1e-5,

    KLoM = KL(p || q) = sum_k p_k log(p_k / max(q_k, eps)),        natural logarithm, at most log(1/eps) = 11.51.

There is no single KLoM: the public codes differ in edges, smoothing and direction, and all of them can be
gamed (docs/klom.md). Each is here under its own name, equal to its code to 1e-12 in every corner, and
`robust` is ours.

Sources: EasyDUB, arXiv 2602.16400 (easydub/EasyDUB-code 5de3c4c, and e0781a9 before its release);
RoyRin/data-unlearning-bench eb261f9; Attribute-to-Delete, arXiv 2410.23232. No code of theirs is used.
"""

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearn_core.errors import InvalidInput, one_of

EPS = 1e-5
MAXIMUM = float(np.log(1 / EPS))
BINS = 20
_CHUNK = 1024  # samples at a time: 1024 x 100 float32 margins stay in the second-level cache

Array = NDArray[Any]


def klom(
    oracle: Any, unlearned: Any, variant: str = "easydub", *, clip: tuple[float, float] = (-100.0, 100.0)
) -> NDArray[np.float64]:
    """Return the KLoM of every sample, (n_samples,) float64; lower is closer to the oracles.

    Args:
        oracle: margins of models that never saw the forget set, (n_models, n_samples), array or tensor.
        unlearned: margins of the unlearned models, same shape.
        variant: one of `VARIANTS`.
        clip: range that margins are clipped to; the published codes use +-100, `robust` does not clip.

    Raises:
        InvalidInput: unknown variant, not two matrices of one shape, empty, or (`robust`) not finite.
    """
    check_variant(variant)
    oracle, unlearned = margin_matrices(oracle, unlearned)
    score = VARIANTS[variant]
    parts = []
    # inf and NaN have a defined fate in every variant; numpy's warnings about them would only be noise.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for start in range(0, oracle.shape[1], _CHUNK):
            chunk = slice(start, start + _CHUNK)
            p, q = (np.ascontiguousarray(m[:, chunk]) for m in (unlearned, oracle))
            parts.append(score(p, q, clip, start))
    return np.concatenate(parts)


def check_variant(variant: str) -> None:
    """Raise InvalidInput, with the nearest right name, if there is no such variant."""
    if variant not in VARIANTS:
        raise InvalidInput(one_of("KLoM variant", variant, VARIANTS))


def margin_matrices(oracle: Any, unlearned: Any) -> tuple[Array, Array]:
    """Return both margin matrices as numpy arrays of floats.

    Raises:
        InvalidInput: not two-dimensional, different shapes, or empty.
    """
    pair = _array("oracle", oracle), _array("unlearned", unlearned)
    if pair[0].shape != pair[1].shape:
        raise InvalidInput(
            f"oracle margins are {pair[0].shape} and unlearned margins {pair[1].shape}; "
            "both must be (n_models, n_samples) with the same models and samples"
        )
    return pair


def _array(name: str, margins: Any) -> Array:
    if hasattr(margins, "detach"):  # a torch tensor; numpy has no bfloat16
        margins = margins.detach().cpu()
        margins = margins.float() if str(margins.dtype) == "torch.bfloat16" else margins
    array = np.asarray(margins)
    if array.ndim != 2:
        raise InvalidInput(f"{name} margins must be (n_models, n_samples), got shape {array.shape}")
    if array.size == 0:
        raise InvalidInput(f"{name} margins are empty: shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} margins must be real numbers, got dtype {array.dtype}")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


# ---- bins -------------------------------------------------------------------------------------------------


def _edges(start: Array, end: Array, n: int) -> Array:
    """Return n equally spaced edges from `start` to `end` per sample, (n, S), rounded as numpy.linspace does.

    One column equals numpy.linspace(start[s], end[s], n) to the bit; linspace itself on arrays does not,
    because one zero step makes it take another route for all columns.
    """
    width = end - start
    step = width / (n - 1)
    k = np.arange(n, dtype=start.dtype)[:, None]
    edges = np.where(step == 0, k / start.dtype.type(n - 1) * width, k * step) + start
    edges[-1] = end
    return edges


def _at_least(values: Array, edges: Array) -> NDArray[np.int64]:
    """Return how many of the N values (N, S) of each sample are >= each edge (K, S): (K, S) counts.

    A bin's count is the difference of two of these, exactly as numpy.digitize has it; NaN is in no bin.
    """
    counts = np.zeros(edges.shape, np.int64)
    for start in range(0, len(values), 255):  # counted in bytes: eight times faster than in int64
        part = values[start : start + 255]
        reached = np.empty(part.shape, np.bool_)
        for k, edge in enumerate(edges):
            np.greater_equal(part, edge, out=reached)
            counts[k] += np.add.reduce(reached.view(np.uint8), axis=0, dtype=np.uint8)
    return counts


def _lowest(p: Array, q: Array) -> Array:
    """Return the lower minimum of both samples; a NaN in p wins, a NaN in q is passed over (Python's `min`)."""
    a, b = p.min(axis=0), q.min(axis=0)
    return np.where(b < a, b, a)


def _highest(p: Array, q: Array) -> Array:
    """Return the higher maximum, with NaN treated as in `_lowest`."""
    a, b = p.max(axis=0), q.max(axis=0)
    return np.where(b > a, b, a)


def _half_open(values: Array, edges: Array) -> Array:
    """Return counts (K - 1, S) in [e_k, e_k+1): a value on the last edge is in no bin."""
    at_least = _at_least(values, edges)
    return at_least[:-1] - at_least[1:]


def _closed(values: Array, edges: Array) -> Array:
    """Return counts as numpy.histogram has them: the last bin includes its right edge, and takes the NaN."""
    counts = _half_open(values, edges)
    counts[-1] += (values == edges[-1]).sum(axis=0)
    # numpy.histogram sorts NaN behind everything; with NaN edges (a NaN among the values) every NaN, and
    # nothing else, lies between the last two.
    broken = np.isnan(edges[-1])
    counts[:, broken] = 0
    counts[-1, broken] = np.isnan(values[:, broken]).sum(axis=0)
    return counts


def _frequencies(counts: Array, empty: float) -> Array:
    total = counts.sum(axis=0)
    return np.where(total > 0, counts / np.maximum(total, 1), empty)


def _kl(p: Array, q: Array) -> NDArray[np.float64]:
    """Return sum over bins of p log(p / q), 0 where p is 0."""
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), np.where(np.isnan(p), np.nan, 0)).sum(
        axis=0
    )


# ---- the public variants -----------------------------------------------------------------------------------


def _shared(p: Array, q: Array, clip: tuple[float, float]) -> tuple[Array, Array]:
    """Return counts of both in 20 half-open bins over their common range: the largest value is dropped."""
    p, q = np.clip(p, *clip), np.clip(q, *clip)
    start, end = _lowest(p, q), _highest(p, q)
    end = np.where(start >= end, start + start.dtype.type(1), end)
    edges = _edges(start, end, BINS + 1)
    return _half_open(p, edges), _half_open(q, edges)


def _easydub(p: Array, q: Array, clip: tuple[float, float], _: int) -> Array:
    """EasyDUB HEAD: q smoothed where p > 0 and not renormalised; 0 where every unlearned value was dropped."""
    p, q = (_frequencies(c, 0.0) for c in _shared(p, q, clip))
    return _kl(p, np.maximum(q, EPS))


def _data_unlearning_bench(p: Array, q: Array, clip: tuple[float, float], _: int) -> Array:
    """data-unlearning-bench: as `easydub`, q renormalised; NaN where every unlearned value was dropped."""
    p, q = (_frequencies(c, 0.0) for c in _shared(p, q, clip))
    q = np.where(p > 0, np.maximum(q, EPS), q)
    return np.where(p.sum(axis=0) > 0, _kl(p, np.maximum(q, EPS) / q.sum(axis=0)), np.nan)


def _attribute_to_delete(p: Array, q: Array, clip: tuple[float, float], _: int) -> Array:
    """Attribute-to-Delete: 20 edges, so 19 bins and an empty one below; only p clipped; q smoothed everywhere."""
    p = np.clip(p, *clip)
    edges = _edges(_lowest(p, q), _highest(p, q), BINS)

    def frequencies(values: Array) -> Array:
        below = (values < edges[0]).sum(axis=0)  # only where a NaN among the oracles hid their minimum
        return _frequencies(np.concatenate([below[None], _half_open(values, edges)]), np.nan)

    p, q = frequencies(p), np.maximum(frequencies(q), EPS)
    return _kl(p, q / q.sum(axis=0))


def _easydub_pre_release(p: Array, q: Array, clip: tuple[float, float], _: int) -> Array:
    """EasyDUB before its release: each side in bins over its own range, so blind to shift and scale."""

    def frequencies(values: Array) -> Array:
        values = np.clip(values, *clip)
        return _frequencies(_closed(values, _edges(values.min(axis=0), values.max(axis=0), BINS + 1)), 0.0)

    return _kl(frequencies(p), np.maximum(frequencies(q), EPS))


def _fixed_bins(p: Array, q: Array, clip: tuple[float, float], _: int) -> Array:
    """A third party's: bins 10 wide over [-100, 100], eps added to every count, KL(oracle || unlearned)."""
    edges = np.broadcast_to(np.linspace(*clip, BINS + 1)[:, None], (BINS + 1, p.shape[1]))
    p, q = (_closed(np.clip(v, *clip), edges) + EPS for v in (p, q))
    return _kl(q / q.sum(axis=0), p / p.sum(axis=0))


# ---- ours ---------------------------------------------------------------------------------------------------

_TAIL = 2.5  # support ends this many median-to-5 %-quantile distances from the median: 4.1 sigma of a normal


def _robust(p: Array, q: Array, _: tuple[float, float], first_sample: int) -> Array:
    """Bins of equal oracle mass, one pooled bin for all that no oracle does; nothing to gain by odd margins.

    * Edges come from the oracles alone, so no unlearned model can stretch or shift them: 20 bins (fewer
      below N = 100: five oracles a bin) between robust limits, and one from there to the last oracle at
      either end.
    * All bins without an oracle are one bin of q = eps. Unlearned models that are all somewhere an oracle
      never is score the maximum, however they are spread; one more outlier can only raise the score.
    * If more than half of the models give one and the same margin, and the oracles do not, that mass has no
      density and KL is infinite: it counts as mass where no oracle is.
    * NaN and infinity are errors.
    """
    _finite("oracle", q, first_sample)
    _finite("unlearned", p, first_sample)
    n = len(q)
    k = min(BINS, max(2, n // 5))
    ordered = np.sort(q, axis=0)
    if ordered.dtype == np.float16:  # whose range the limits could leave
        ordered = ordered.astype(np.float32)
    low, median, high = (_quantile(ordered, level) for level in (0.05, 0.5, 0.95))
    low, high = median - _TAIL * (median - low), median + _TAIL * (high - median)
    inner = [_quantile(ordered, level) for level in np.arange(1, k) / k]
    above = high.dtype.type(np.inf)  # the last two bins include their upper edge
    last = np.nextafter(np.maximum(high, ordered[-1]), above)
    edges = np.stack([np.minimum(low, ordered[0]), low, *inner, np.nextafter(high, above), last])

    # A value that more than half of the models share is the middle one, and stands somewhere beside itself.
    repeats = (p[1:] == p[:-1]).any(axis=0) | (p[0] == p[-1])
    if repeats.any():
        middle = np.where(repeats, np.sort(p, axis=0)[n // 2], np.nan)
        tied = ((p == middle).sum(axis=0) > n / 2) & ((q == middle).sum(axis=0) <= n / 2)
        p = np.where(tied & (p == middle), np.inf, p)

    def frequencies(values: Array) -> Array:
        below_each = n - _at_least(values, edges)
        return np.diff(below_each, axis=0, prepend=0, append=n) / n

    p, q = frequencies(p), frequencies(q)
    supported = q > 0
    nowhere = np.where(supported, 0, p).sum(axis=0)
    return _kl(np.where(supported, p, 0), np.where(supported, q, 1)) + _kl(nowhere[None], np.float64(EPS))


def _quantile(ordered: Array, level: float) -> Array:
    """Return the quantile of each sorted column, linear between neighbours, in the dtype of `ordered`."""
    position = round(level * (len(ordered) - 1), 9)  # 0.55 * 100 is the 55th value, not a hair beyond it
    i = int(position)
    a, b = ordered[i], ordered[min(i + 1, len(ordered) - 1)]
    return a + (b - a) * ordered.dtype.type(position - i)


def _finite(name: str, margins: Array, first_sample: int) -> None:
    good = np.isfinite(margins)
    if not good.all():
        model, sample = np.argwhere(~good)[0]
        raise InvalidInput(
            f"{name} margin of model {model}, sample {sample + first_sample} is {margins[model, sample]}; "
            "drop or repair that model (the published variants let it improve the score)"
        )


Variant = Callable[[Array, Array, tuple[float, float], int], Array]

VARIANTS: dict[str, Variant] = {
    "easydub": _easydub,
    "data-unlearning-bench": _data_unlearning_bench,
    "attribute-to-delete": _attribute_to_delete,
    "easydub-pre-release": _easydub_pre_release,
    "fixed-bins": _fixed_bins,
    "robust": _robust,
}


class _Callable(types.ModuleType):
    """This module, callable: `klom_bench.klom(oracle, unlearned)` and `from klom_bench.klom import klom` both work."""

    def __call__(self, *margins: Any, **options: Any) -> NDArray[np.float64]:
        return klom(*margins, **options)


sys.modules[__name__].__class__ = _Callable
