"""What odd margins score in each KLoM variant, and what a perfect method scores: two tables of docs/klom.md.

    uv run benchmarks/klom_gaming.py

A toy of 100 models and 2,000 samples: oracles N(3, 2), doing nothing N(9, 2). A game takes the do-nothing
models and does something to their margins that has nothing to do with forgetting.
"""

import numpy as np

from klom_bench.klom import VARIANTS, klom
from klom_bench.scoring import simulated_floor, summary
from unlearn_core.errors import InvalidInput

GAMES = {
    "do nothing": lambda u: u,
    "an honest retrain": None,
    "every margin +100": lambda u: np.full_like(u, 100),
    "every margin 3, the oracles' mean": lambda u: np.full_like(u, 3),
    "logits x 10,000 (accuracy kept)": lambda u: u * 1e4,
    "one model NaN": lambda u: _set(u, slice(1), np.nan),
    "one model at -100": lambda u: _set(u, slice(1), -100),
    "three models at -100": lambda u: _set(u, slice(3), -100),
    "every margin -20": lambda u: np.full_like(u, -20),
}


def _set(margins: np.ndarray, models: slice, value: float) -> np.ndarray:
    changed = margins.copy()
    changed[models] = value
    return changed


def main() -> None:
    """Print both tables as Markdown."""
    rng = np.random.default_rng(0)
    oracle, nothing, honest = (rng.normal(m, 2, (100, 2000)).astype(np.float32) for m in (3, 9, 3))
    print(
        "| mean / P95 | "
        + " | ".join(f"`{v}`" for v in VARIANTS)
        + " |\n"
        + "|---" * (len(VARIANTS) + 1)
        + "|"
    )
    for name, game in GAMES.items():
        unlearned = honest if game is None else game(nothing)
        cells = []
        for variant in VARIANTS:
            try:
                scores = klom(oracle, unlearned, variant)
            except InvalidInput:
                cells.append("refused")
            else:
                mean, p95 = summary(scores)
                cells.append("undefined" if np.isnan(scores).all() else f"{mean:.2f} / {p95:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        "\n| models | " + " | ".join(f"`{v}`" for v in VARIANTS) + " |\n" + "|---" * (len(VARIANTS) + 1) + "|"
    )
    for n in (10, 20, 50, 80, 100, 200, 400):
        floors = (simulated_floor(n, 2000, v) for v in VARIANTS)
        print(f"| {n} | " + " | ".join(f"{mean:.2f} / {p95:.2f}" for mean, p95 in floors) + " |")


if __name__ == "__main__":
    main()
