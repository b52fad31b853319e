"""Do nothing: the baseline of every table.

Paper: none needed; EasyDUB and data-unlearning-bench register it as `do_nothing`.
Idea: theta' = theta. What it scores on the forget set is what there is to forget.
Deviations: the public registries return it under an epoch key; here it is one step like any other.
Cost: none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from klom_bench.split import Split
from klom_bench.training import snapshot


@dataclass(frozen=True, kw_only=True)
class DoNothing:
    """Return the model as it was; the baseline."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def steps(
        self, model: nn.Module, split: Split, *, seed: int = 0, ids: Sequence[int] | None = None
    ) -> Iterator[nn.Module]:
        """Yield one copy of `model`."""
        yield snapshot(model)
