"""Blocks of models on disk: computed once, found again by the hash of their recipe.

A block is a fixed range of model ids (`digits`: 0-24, 25-49, ...), whatever number a command asks for, so
a result does not depend on which command computed it first. A block is written when it is complete: a
killed run loses at most the block it was at.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from unlearn_core import atomic


def blocks(models: range, size: int) -> list[range]:
    """Return the blocks of `size` ids that cover `models`.

    >>> blocks(range(10, 30), 25)
    [range(0, 25), range(25, 50)]
    """
    first = models.start // size * size
    return [range(start, start + size) for start in range(first, models.stop, size)]


def block_tensors(
    folder: Path, ids: range, compute: Callable[[], dict[str, Tensor]], *, force: bool = False
) -> dict[str, Tensor]:
    """Return the tensors of block `ids` from `folder`, computing and storing them if they are not there.

    `force` computes them in any case.

    A file that is damaged (a disk that filled up under another program, say) is computed again.
    """
    path = folder / f"{ids.start:03d}-{ids.stop - 1:03d}.safetensors"
    if path.exists() and not force:
        try:
            return load_file(path)
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
    atomic.make_folder(folder)  # a folder that cannot be written is known now, not after the work
    tensors = {k: v.detach().cpu().contiguous() for k, v in compute().items()}
    with atomic.replacing(path) as file:
        file.write(save(tensors))
    return tensors


def rows(parts: list[Tensor], covered: list[range], models: range) -> Tensor:
    """Return the rows of `models` from tables whose rows are the ids of `covered`, block after block."""
    table = torch.cat(parts)
    return table[models.start - covered[0].start :][: len(models)]
