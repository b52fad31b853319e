"""A training that may be stopped: its steps, its way down the gradient, and the file it resumes from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from progress import load_state, save_state
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR


def one_cycle(
    model: nn.Module, steps: int, *, rate: float, rise: float, **settings: Any
) -> tuple[AdamW, OneCycleLR]:
    """Return AdamW and a schedule that rises to `rate` over the share `rise` of the steps, and falls to nothing.

    Args:
        model: whose parameters are trained.
        steps: of the whole training.
        rate: the largest learning rate.
        rise: share of the steps.
        settings: of AdamW.
    """
    optimizer = AdamW(model.parameters(), lr=rate, **settings)
    return optimizer, OneCycleLR(optimizer, rate, steps, pct_start=rise)


class Training:
    """Iterates over the steps that are left.

    Attributes:
        done: steps behind us.
        numbers: what was saved besides, by its name.
    """

    def __init__(
        self,
        path: Path,
        steps: int,
        optimizer: Optimizer,
        schedule: LRScheduler | None = None,
        **models: nn.Module,
    ) -> None:
        self.path, self.steps, self.done = path, steps, 0
        self.optimizer, self.schedule = optimizer, schedule
        self.numbers: dict[str, float] = {}
        self.parts = {**models, "optimizer": optimizer}
        if schedule is not None:
            self.parts["schedule"] = schedule
        if state := load_state(path):
            for name, part in self.parts.items():
                part.load_state_dict(state.pop(name))
            self.done = state.pop("step")
            self.numbers = state

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.done, self.steps))

    def descend(self, loss: Tensor, *, largest: float | None = None) -> None:
        """Go one step down the gradient of `loss`, its norm cut off at `largest`."""
        self.optimizer.zero_grad()
        loss.backward()
        if largest is not None:
            groups = self.optimizer.param_groups
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], largest)
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.done += 1

    def due(self, every: int) -> bool:
        """Return whether it is time to look and save: every so many steps, and at the end."""
        return self.done % every == 0 or self.done == self.steps

    def save(self, **numbers: float) -> None:
        """Write everything to resume from, and `numbers` beside it."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        save_state(self.path, **states, step=self.done, **numbers)
