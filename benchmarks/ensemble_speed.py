"""The digits ensemble, 25 models at a time as one batched network, against one model at a time, in one run.

    uv run benchmarks/ensemble_speed.py [--models 100]

"One at a time" is the tightest loop that torch offers without batching models: data in memory, no
DataLoader, plain nn.Linear layers, fused SGD; "with a DataLoader" is the loop that the public codes use.
The recipe is the same in all three. The rounds alternate, so that a machine whose speed drifts is fair to
all. Wall seconds per model; what counts is the ratio. Writes records/ensemble_speed.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from klom_bench.datasets.digits import TRAINING, Digits
from klom_bench.mlp import MLP
from klom_bench.split import Split
from klom_bench.training import last, triangle
from unlearn_core.environment import environment


def network() -> nn.Module:
    """Return one MLP 64-64-64-10 of ordinary layers."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def train_one(split: Split, loader: DataLoader | None) -> nn.Module:
    """Train one ordinary network by the recipe, with batches from memory or from a DataLoader."""
    images, labels = split.images[split.retain], split.labels[split.retain]
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), TRAINING.lr, TRAINING.momentum, fused=True)
    total, done = TRAINING.epochs * -(-len(labels) // TRAINING.batch_size), 0
    for _ in range(TRAINING.epochs):
        batches = loader or (
            (images[i], labels[i]) for i in torch.randperm(len(labels)).split(TRAINING.batch_size)
        )
        for x, y in batches:
            optimizer.param_groups[0]["lr"] = TRAINING.lr * triangle(done / total)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            done += 1
    return model


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of right answers, to see that all loops learn the same."""
    return float((logits.argmax(-1) == labels).float().mean())


def main() -> None:
    """Time the three loops in turn and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=100, help="models trained in batches")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "ensemble_speed.json")
    arguments = parser.parse_args()
    data = Digits()
    split = data.split(1)
    kept = TensorDataset(split.images[split.retain], split.labels[split.retain])
    loader = DataLoader(kept, TRAINING.batch_size, shuffle=True)

    times: dict[str, list[float]] = {"batched": [], "one at a time": [], "with a DataLoader": []}
    right: dict[str, float] = {}
    for start in range(0, arguments.models, data.block):
        ids = range(start, start + data.block)
        begin = time.perf_counter()
        ensemble = last(TRAINING.steps(MLP(len(ids)), split, ids=ids))
        times["batched"].append((time.perf_counter() - begin) / len(ids))
        with torch.inference_mode():
            z = ensemble(split.val_images.expand(len(ids), *split.val_images.shape))
        right["batched"] = accuracy(z, split.val_labels)
        for name, source in (("one at a time", None), ("with a DataLoader", loader)):
            begin = time.perf_counter()
            model = train_one(split, source)
            times[name].append(time.perf_counter() - begin)
            right[name] = accuracy(model(split.val_images), split.val_labels)

    medians = {name: statistics.median(values) for name, values in times.items()}
    record = {
        "what": f"digits recipe, wall seconds per model, median of {len(times['batched'])} rounds",
        "seconds_per_model": {k: round(v, 4) for k, v in medians.items()},
        "times_faster_than_one_at_a_time": round(medians["one at a time"] / medians["batched"], 1),
        "times_faster_than_with_a_DataLoader": round(medians["with a DataLoader"] / medians["batched"], 1),
        "val_accuracy": {k: round(v, 3) for k, v in right.items()},
        "threads": torch.get_num_threads(),
        "environment": environment(),
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({k: v for k, v in record.items() if k != "environment"}, indent=1))


if __name__ == "__main__":
    main()
