"""Gradient ascent on the forget set.

Paper: Golatkar et al. 2020; "Ascent Fails to Forget" (arXiv 2509.26427) shows why it disappoints.
Idea: theta <- theta + lr grad L_forget(theta), SGD steps over batches of the forget set.
Defaults: lr 1e-5 and one epoch, the setting that the published CIFAR-10 grid (lr 1e-5 ... 5e-2, epochs 1 ...
    10, batch 64, no momentum; data-unlearning-bench) selects most often by the mean of its three P95.
    The preset "digits" was chosen among four settings on forget sets 1 and 8 of digits (docs/klom.md).
Deviations: none with batch_norm="train"; "frozen" keeps the statistics of batch norm (see training.py).
Reference code: RoyRin/data-unlearning-bench `ascent_forget`, MIT.
Cost: epochs * |forget| / |train| of one training epoch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt
from torch import nn

from klom_bench.split import Split
from klom_bench.training import SGD, BatchNorm, cross_entropy, shuffled, snapshot, step, streams, student_of


@dataclass(frozen=True, kw_only=True)
class GradientAscent:
    """Climb the loss on the forget set."""

    epochs: Annotated[int, Ge(1)] = 1
    lr: Annotated[float, Gt(0)] = 1e-5
    batch_size: Annotated[int, Ge(1)] = 64
    batch_norm: BatchNorm = "train"

    presets: ClassVar[dict[str, dict[str, Any]]] = {"digits": {"epochs": 5, "lr": 0.2}}

    def steps(
        self, model: nn.Module, split: Split, *, seed: int = 0, ids: Sequence[int] | None = None
    ) -> Iterator[nn.Module]:
        """Yield a copy of the model after each pass over the forget set."""
        student = student_of(model, self.batch_norm)
        orders = streams(student, seed, "gradient_ascent", ids)
        optimizer = SGD(student, self.lr)
        for _ in range(self.epochs):
            for batch in shuffled(split.forget, self.batch_size, orders):
                step(optimizer, -cross_entropy(student, split, batch))
            yield snapshot(student)
