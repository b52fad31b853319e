"""Maximum mean discrepancy: what KID and CMMD have in common."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unlearn_metrics.references import Matrix

Kernel = Callable[[Matrix, Matrix], Matrix]
"""Maps (n, d) and (m, d) to (n, m)."""

_CELLS = 16_000_000  # kernel values in memory at a time


def row_means(kernel: Kernel, x: Matrix, y: Matrix) -> Matrix:
    """Return the mean over `y` (m, d) of the kernel of each row of `x` (n, d), (n,)."""
    step = max(1, _CELLS // len(y))
    return np.concatenate([kernel(x[i : i + step], y).mean(1) for i in range(0, len(x), step)])


def unbiased(kernel: Kernel, x: Matrix, y: Matrix) -> float:
    """Return the unbiased estimate of MMD², which may be slightly negative."""
    return float(
        _without_self(kernel, x).mean() + _without_self(kernel, y).mean() - 2 * row_means(kernel, x, y).mean()
    )


def biased(kernel: Kernel, x: Matrix, y: Matrix) -> float:
    """Return the V-statistic of MMD², which is never negative."""
    return float(sum(row_means(kernel, z, z).mean() for z in (x, y)) - 2 * row_means(kernel, x, y).mean())


def influence(kernel: Kernel, x: Matrix, y: Matrix) -> NDArray[np.float64]:
    """Return how much each row of `x` moves MMD², centred on 0, (n,)."""
    found = 2 * (_without_self(kernel, x) - row_means(kernel, x, y))
    return found - found.mean()


def _without_self(kernel: Kernel, x: Matrix) -> Matrix:
    """Return the mean kernel of each row with all others."""
    step = max(1, _CELLS // len(x))
    sums = []
    for start in range(0, len(x), step):
        values = kernel(x[start : start + step], x)
        sums.append(values.sum(1) - np.diagonal(values, offset=start))
    return np.concatenate(sums) / (len(x) - 1)
