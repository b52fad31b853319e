"""Gradient ascent on the forget set, then descent on the retain set, epoch by epoch.

Paper: Attribute-to-Delete (arXiv 2410.23232) and "Ascent Fails to Forget" (arXiv 2509.26427), there GDA.
Idea: in each of the first `ascent_epochs` epochs one pass of theta <- theta + lr grad L_forget; in every
    epoch one pass of theta <- theta - lr grad L_retain.
Defaults: lr 1e-3, 5 epochs, 3 of them with ascent, both batches 64: within the published grid (lr 5e-5, 5e-4,
    1e-3, 5e-3; epochs 5, 7, 10; ascent 3, 5; forget batch 32, 64) and its choice for forget set 2.
Deviations: none with batch_norm="train"; the public loaders never shuffle, ours do.
Reference code: RoyRin/data-unlearning-bench `ascent_descent`, MIT.
Cost: epochs of retain training plus ascent_epochs passes over the forget set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt
from torch import nn

from klom_bench.split import Split
from klom_bench.training import SGD, BatchNorm, cross_entropy, shuffled, snapshot, step, streams, student_of


@dataclass(frozen=True, kw_only=True)
class AscentDescent:
    """Climb the loss on the forget set, descend it on the retain set."""

    epochs: Annotated[int, Ge(1)] = 5
    ascent_epochs: Annotated[int, Ge(0)] = 3
    lr: Annotated[float, Gt(0)] = 1e-3
    forget_batch_size: Annotated[int, Ge(1)] = 64
    retain_batch_size: Annotated[int, Ge(1)] = 64
    batch_norm: BatchNorm = "train"

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def steps(
        self, model: nn.Module, split: Split, *, seed: int = 0, ids: Sequence[int] | None = None
    ) -> Iterator[nn.Module]:
        """Yield a copy of the model after each epoch."""
        student = student_of(model, self.batch_norm)
        orders = streams(student, seed, "ascent_descent", ids)
        optimizer = SGD(student, self.lr)
        for epoch in range(self.epochs):
            if epoch < self.ascent_epochs:
                for batch in shuffled(split.forget, self.forget_batch_size, orders):
                    step(optimizer, -cross_entropy(student, split, batch))
            for batch in shuffled(split.retain, self.retain_batch_size, orders):
                step(optimizer, cross_entropy(student, split, batch))
            yield snapshot(student)
