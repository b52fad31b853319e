"""Noisy descent on the retain set: fine-tune with clipped and noised gradients.

Paper: the quick-start method of EasyDUB (arXiv 2602.16400); noisy fine-tuning after Chien et al. 2024.
Idea: g = grad L_retain(theta) of a batch; g <- g min(1, max_norm / |g|) + N(0, noise^2 I);
    theta <- theta - lr g.
Defaults: EasyDUB's demo before its release: lr 1e-4, 5 epochs, batch 256, max_norm 1, noise 0.01. They move
    ResNet-9 by 0.05 in norm and hardly change any margin: the published quick-start is close to doing nothing.
    The preset "digits" was chosen among some thirty settings on forget sets 1, 2 and 8 of digits (docs/klom.md).
Deviations: the norm is clipped per model, over the batch gradient and not per example as DP-SGD would; so
    there is no privacy guarantee here, nor in the original. schedule="linear", which lets learning rate
    and noise fall to zero, is ours.
Reference code: easydub/EasyDUB-code before 2026-02-27, MIT.
Cost: epochs of retain training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt
from torch import nn

from klom_bench.split import Split
from klom_bench.training import (
    SGD,
    BatchNorm,
    add_gradient_noise,
    backward,
    clip_gradients,
    cross_entropy,
    shuffled,
    snapshot,
    streams,
    student_of,
)


@dataclass(frozen=True, kw_only=True)
class NoisyDescent:
    """Fine-tune on the retain set with clipped, noised gradients."""

    epochs: Annotated[int, Ge(1)] = 5
    lr: Annotated[float, Gt(0)] = 1e-4
    noise: Annotated[float, Ge(0)] = 0.01
    max_norm: Annotated[float, Gt(0)] = 1.0
    batch_size: Annotated[int, Ge(1)] = 256
    schedule: Literal["constant", "linear"] = "constant"
    batch_norm: BatchNorm = "train"

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "digits": {"epochs": 10, "lr": 1.0, "noise": 0.02, "batch_size": 32, "schedule": "linear"},
    }

    def steps(
        self, model: nn.Module, split: Split, *, seed: int = 0, ids: Sequence[int] | None = None
    ) -> Iterator[nn.Module]:
        """Yield a copy of the model after each pass over the retain set."""
        student = student_of(model, self.batch_norm)
        randomness = streams(student, seed, "noisy_descent", ids)
        optimizer = SGD(student, self.lr)
        total = self.epochs * -(-len(split.retain) // self.batch_size)
        done = 0
        for _ in range(self.epochs):
            for batch in shuffled(split.retain, self.batch_size, randomness):
                backward(optimizer, cross_entropy(student, split, batch))
                clip_gradients(student, self.max_norm)
                fade = 1 - done / total if self.schedule == "linear" else 1.0
                add_gradient_noise(student, self.noise * fade, randomness)
                optimizer.lr = self.lr * fade
                optimizer.step()
                done += 1
            yield snapshot(student)
