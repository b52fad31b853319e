"""Gradient descent on the retain set: fine-tune and hope that what is not repeated is forgotten.

Paper: the fine-tuning baseline of Golatkar et al. 2020 and of Attribute-to-Delete (arXiv 2410.23232).
Idea: theta <- theta - lr grad L_retain(theta), SGD with momentum over batches of the retain set.
Defaults: momentum 0.9, weight decay 5e-4, batch 64 and the best point of the published grid (lr 1e-5, 1e-3,
    1e-2 x epochs 1 ... 10): lr 1e-4, 3 epochs (Attribute-to-Delete, `benchmark_GD_wrapper`).
Deviations: none with batch_norm="train".
Reference code: Attribute-to-Delete, MIT.
Cost: epochs of retain training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt
from torch import nn

from klom_bench.split import Split
from klom_bench.training import SGD, BatchNorm, cross_entropy, shuffled, snapshot, step, streams, student_of


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Fine-tune on the retain set."""

    epochs: Annotated[int, Ge(1)] = 3
    lr: Annotated[float, Gt(0)] = 1e-4
    momentum: Annotated[float, Ge(0)] = 0.9
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    batch_size: Annotated[int, Ge(1)] = 64
    batch_norm: BatchNorm = "train"

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def steps(
        self, model: nn.Module, split: Split, *, seed: int = 0, ids: Sequence[int] | None = None
    ) -> Iterator[nn.Module]:
        """Yield a copy of the model after each pass over the retain set."""
        student = student_of(model, self.batch_norm)
        orders = streams(student, seed, "descent", ids)
        optimizer = SGD(student, self.lr, self.momentum, self.weight_decay)
        for _ in range(self.epochs):
            for batch in shuffled(split.retain, self.batch_size, orders):
                step(optimizer, cross_entropy(student, split, batch))
            yield snapshot(student)
