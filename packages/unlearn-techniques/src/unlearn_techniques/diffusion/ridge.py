"""The closed form that UCE, MACE and RECE share: a linear map that sends some vectors elsewhere and keeps others."""

import torch
from torch import Tensor


def change_of_reading(
    edited: Tensor, read: Tensor, kept: Tensor, *, lamb: float, erase: float, preserve: float
) -> Tensor:
    """Return M (d, d) float64 such that ``W' = W M`` for every linear map W of the text.

    ``W'`` minimises ``erase sum ||W'c - Wr||^2 + preserve sum ||W'p - Wp||^2 + lamb ||W' - W||^2``, so

        W' = W (erase R C^T + preserve P P^T + lamb I) (erase C C^T + preserve P P^T + lamb I)^-1

    with the vectors as columns. M does not depend on W where what is wanted is ``W r``: one solve serves all layers.
    In float64: a float32 inverse loses percents when padding tokens dominate.

    Args:
        edited: c, (n, d).
        read: r, (n, d): what is read in place of each.
        kept: p, (m, d).
        lamb: weight of staying as it was.
        erase: weight of the edited vectors.
        preserve: weight of the kept ones.
    """
    c, r, p = (x.double() for x in (edited, read, kept))
    keep = preserve * p.T @ p + lamb * torch.eye(c.shape[1], dtype=torch.float64, device=c.device)
    return torch.linalg.solve(keep + erase * c.T @ c, keep + erase * r.T @ c, left=False)  # type: ignore[no-any-return]


def ridge_edit(
    weight: Tensor,
    edited: Tensor,
    wanted: Tensor,
    kept: Tensor,
    *,
    lamb: float,
    erase: float,
    preserve: float,
) -> Tensor:
    """Return W' (out, d) float64 where the wanted outputs (n, out) are given themselves, as UCE's `tensor` edit does.

    The same minimum as `change_of_reading`, with ``wanted`` in place of ``W r``.
    """
    w, c, v, p = (x.double() for x in (weight, edited, wanted, kept))
    keep = preserve * p.T @ p + lamb * torch.eye(c.shape[1], dtype=torch.float64, device=c.device)
    return torch.linalg.solve(keep + erase * c.T @ c, w @ keep + erase * v.T @ c, left=False)  # type: ignore[no-any-return]
