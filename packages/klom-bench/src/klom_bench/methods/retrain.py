"""Retrain from scratch without the forget set: the oracle, and the recipe of every ensemble we train.

Paper: the definition of exact unlearning; EasyDUB (arXiv 2602.16400) calls its models oracles.
Idea: theta_0 drawn anew, then SGD with momentum on the cross-entropy over the retain set, learning rate
    lr * triangle(t).
Defaults: the recipe of the published CIFAR-10 ResNet-9 ensembles (data-unlearning-bench `train.py`): SGD
    lr 0.4, momentum 0.9, weight decay 5e-4 on all parameters, batch 256, 24 epochs, learning rate from 0 to
    its peak in 5 epochs and back to 0, no augmentation, no label smoothing.
Deviations: float32 unless the caller opens an autocast context (the published ensembles used float16).
Cost: one training; the reference for every other method's cost.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt
from torch import nn

from klom_bench.ensemble import initialise, seeds_of, size
from klom_bench.split import Split
from klom_bench.training import SGD, cross_entropy, shuffled, snapshot, step, streams, triangle


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Train anew on the retain set; the gold standard, at full cost."""

    epochs: Annotated[int, Ge(1)] = 24
    lr: Annotated[float, Gt(0)] = 0.4
    momentum: Annotated[float, Ge(0)] = 0.9
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    batch_size: Annotated[int, Ge(1)] = 256
    peak_epoch: Annotated[float, Ge(0)] = 5.0

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "digits": {"epochs": 120, "lr": 0.05, "weight_decay": 0.0, "batch_size": 32, "peak_epoch": 0.0},
    }

    def steps(
        self,
        model: nn.Module,
        split: Split,
        *,
        seed: int = 0,
        ids: Sequence[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[nn.Module]:
        """Yield a copy of the model after each epoch; only the architecture of `model` is used."""
        student = copy.deepcopy(model).train()
        initialise(student, seeds_of(seed, "initialise", range(size(student)) if ids is None else ids))
        orders = streams(student, seed, "order", ids)
        optimizer = SGD(student, self.lr, self.momentum, self.weight_decay)
        batches = -(-len(split.retain) // self.batch_size)
        for epoch in range(self.epochs):
            for i, batch in enumerate(shuffled(split.retain, self.batch_size, orders)):
                done = (epoch * batches + i) / (self.epochs * batches)
                lr = self.lr * triangle(done, self.peak_epoch / self.epochs)
                step(optimizer, cross_entropy(student, split, batch), lr=lr)
            if progress:
                progress(epoch + 1, self.epochs)
            yield snapshot(student)
