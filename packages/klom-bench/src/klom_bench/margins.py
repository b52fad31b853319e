"""The margin: how sure a classifier is of the right class.

    m(x, y) = z_y - log sum_{j != y} exp z_j,

the logit of the softmax probability of the true class, log p - log(1 - p). EasyDUB section 2.2.
"""

import torch
from torch import Tensor


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the margins (..., n) of logits (..., n, classes) for integer labels (n,).

    Computed in the dtype of `logits`; pass float32 or float64 for saturated networks.
    """
    index = labels.long().expand(logits.shape[:-1])[..., None]
    right = logits.gather(-1, index).squeeze(-1)
    return right - logits.scatter(-1, index, -torch.inf).logsumexp(-1)


def margins_from_log_probs(log_probs: Tensor) -> Tensor:
    """Return log p - log(1 - p) for log-probabilities of the true class, any shape, all <= 0.

    For models that give only the probability of the right token or class. Loses precision as p -> 1 in
    float32, where `margins` does not: prefer logits when you have them.
    """
    return log_probs - torch.log(-torch.expm1(log_probs))
