"""EasyDUB's evaluation functions under their own names: replace `easydub.eval` by `klom_bench.eval`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from klom_bench.data import load_margins_array
from klom_bench.klom import klom


def klom_from_margins(
    oracle_margins: Any, unlearned_margins: Any, clip_min: float = -100.0, clip_max: float = 100.0
) -> np.ndarray:
    """Return the KLoM of every sample, (n_samples,) float64, exactly as EasyDUB computes it, only faster.

    Args:
        oracle_margins: (n_models, n_samples), tensor or array.
        unlearned_margins: same shape.
        clip_min: margins below count as this.
        clip_max: margins above count as this.

    Raises:
        InvalidInput: not two matrices of one shape.
    """
    return klom(oracle_margins, unlearned_margins, variant="easydub", clip=(clip_min, clip_max))


def load_margins_matrix(
    data_root: Path, kind: str, split: str, forget_id: int | None, n_models: int
) -> Tensor:
    """Return the margins of models 0 to `n_models` - 1, (n_models, n_samples) float32.

    The other arguments and the errors are those of `klom_bench.data.load_margins_array`.
    """
    rows = [load_margins_array(data_root, kind, split, forget_id, i) for i in range(n_models)]
    return torch.from_numpy(np.stack(rows))
