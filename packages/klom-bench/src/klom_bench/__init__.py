"""KLoM: is an unlearned classifier distributed like one that was never trained on the forget set?

    klom_bench.klom(oracle, unlearned, variant="easydub")

is the metric; `klom_bench.scoring.score` puts floor and interval beside it, `klom_bench.experiment.run` is a
whole experiment, `klom_bench.methods` holds the algorithms. EasyDUB's own names live in `klom_bench.data`
and `klom_bench.eval`.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """Import `klom_bench.klom` when it is first asked for: the package itself imports nothing."""
    if name == "klom":
        return importlib.import_module("klom_bench.klom")
    raise AttributeError(f"module 'klom_bench' has no attribute {name!r}")
