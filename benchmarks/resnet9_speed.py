"""noisy_descent on CIFAR-size ResNet-9: M models at once against one at a time, in one run on one GPU.

    uv run benchmarks/resnet9_speed.py                      # on a CUDA device: the record to commit
    uv run benchmarks/resnet9_speed.py --device cpu --width 4 --images 512 --models 2   # does it run at all

Random data of the right shape: speed does not depend on what the images show. For each precision the same
steps are timed with the ensemble as grouped convolutions and, in turn, one model after another; seconds per
model, and what 100 models through the published noisy_descent (5 epochs, 195 steps each) would take.
Goal: batched at least 4 times faster. Writes records/resnet9_speed.json.
"""

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path

import torch

from klom_bench.ensemble import initialise
from klom_bench.methods.noisy_descent import NoisyDescent
from klom_bench.resnet9 import ResNet9
from klom_bench.split import Split
from klom_bench.training import last
from unlearn_core.environment import environment

STEPS_OF_THE_METHOD = 5 * 195  # 49,990 retain images in batches of 256, five epochs
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def random_split(images: int, device: str) -> Split:
    """Return CIFAR-shaped random data, ten images to forget."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images + 10, 3, 32, 32, generator=generator)
    y = torch.randint(10, (images + 10,), generator=generator)
    return Split.of(x, y, torch.arange(10), x[:10], y[:10]).to(device)


def seconds(model: ResNet9, split: Split, method: NoisyDescent, dtype: torch.dtype | None) -> float:
    """Return the wall time of one epoch of `method` on `model`."""
    device = split.images.device.type
    synchronise = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    context = torch.autocast(device, dtype) if dtype else contextlib.nullcontext()
    synchronise()
    start = time.perf_counter()
    with context:
        last(method.steps(model, split))
    synchronise()
    return time.perf_counter() - start


def main() -> None:
    """Time every precision and number of models, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--images", type=int, default=256 * 10, help="retain images: ten steps an epoch")
    parser.add_argument("--width", type=int, default=64, help="64 is the published network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "resnet9_speed.json")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    split = random_split(arguments.images, arguments.device)
    method = NoisyDescent(epochs=1)
    steps = -(-arguments.images // method.batch_size)
    rows = []
    for name, dtype in PRECISIONS.items():
        single = initialise(ResNet9(width=arguments.width), [0]).to(arguments.device)
        for m in arguments.models:
            ensemble = initialise(ResNet9(m, width=arguments.width), range(m)).to(arguments.device)
            seconds(ensemble, split, method, dtype)  # warm-up: cudnn picks its kernels
            seconds(single, split, method, dtype)
            if arguments.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            batched, alone = [], []
            for _ in range(arguments.rounds):
                batched.append(seconds(ensemble, split, method, dtype) / m)
                alone.append(seconds(single, split, method, dtype))
            row = {
                "precision": name,
                "models": m,
                "batched_seconds_per_model_and_step": statistics.median(batched) / steps,
                "alone_seconds_per_model_and_step": statistics.median(alone) / steps,
                "times_faster": round(
                    statistics.median(a / b for a, b in zip(alone, batched, strict=True)), 2
                ),
            }
            for kind in ("batched", "alone"):
                per_step = row[f"{kind}_seconds_per_model_and_step"]
                row[f"{kind}_seconds_for_100_models"] = round(100 * STEPS_OF_THE_METHOD * per_step, 1)
            if arguments.device == "cuda":
                row["peak_device_memory_GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            rows.append(row)
            print(json.dumps(row))
            del ensemble
    record = {"what": __doc__.splitlines()[0], "rows": rows, "environment": environment()}
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
