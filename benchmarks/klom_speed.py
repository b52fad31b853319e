"""KLoM of 100 models x 10,000 samples: every variant against the published per-sample loop, in one run.

    uv run benchmarks/klom_speed.py [--peer PATH_TO_EASYDUB_CODE]

The loop is written here from EasyDUB's formula (one sample after another, numpy.digitize, one sum per bin),
as its published code has it; with --peer its own `klom_from_margins` is timed as well. CPU seconds of this
process, the least of several rounds; what counts is the ratio. Writes records/klom_speed.json.
"""

import argparse
import importlib.util
import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

from klom_bench.klom import VARIANTS, klom
from unlearn_core.environment import environment

EPS = 1e-5


def per_sample_loop(oracle: np.ndarray, unlearned: np.ndarray) -> np.ndarray:
    """Return KLoM as the published loop computes it: sheet formula, one sample at a time."""
    scores = []
    for q, p in zip(np.clip(oracle, -100, 100).T, np.clip(unlearned, -100, 100).T, strict=True):
        start, end = min(p.min(), q.min()), max(p.max(), q.max())
        edges = np.linspace(start, end if end > start else start + 1.0, 21)
        in_p, in_q = np.digitize(p, edges), np.digitize(q, edges)
        counts_p = np.array([np.sum(in_p == k) for k in range(1, 21)])
        counts_q = np.array([np.sum(in_q == k) for k in range(1, 21)])
        if counts_p.sum() == 0:
            scores.append(0.0)
            continue
        p, q = counts_p / counts_p.sum(), counts_q / max(counts_q.sum(), 1)
        used = p > 0
        scores.append(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], EPS))))
    return np.array(scores)


def seconds(function, rounds: int) -> float:
    """Return the least CPU time of `rounds` calls."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def load_peer(path: Path):
    """Return klom_from_margins of a checkout of easydub/EasyDUB-code."""
    spec = importlib.util.spec_from_file_location("easydub_eval", path / "easydub" / "eval.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.klom_from_margins


def main() -> None:
    """Time everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, help="a checkout of easydub/EasyDUB-code")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "klom_speed.json")
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    oracle, unlearned = (rng.normal(m, 2, (100, 10_000)).astype(np.float32) for m in (3, 4))
    loop = seconds(lambda: per_sample_loop(oracle, unlearned), 2)
    difference = np.abs(per_sample_loop(oracle, unlearned) - klom(oracle, unlearned)).max()
    record = {
        "what": "KLoM of 100 models x 10,000 samples, float32, CPU seconds",
        "per_sample_loop": round(loop, 3),
        "largest_difference_to_loop": float(difference),
        "variants": {},
        "environment": environment(),
    }
    print(f"per-sample loop {loop:.3f} s; largest difference to ours {difference:.1e}")
    if arguments.peer:
        import torch

        peer, pair = load_peer(arguments.peer), (torch.from_numpy(oracle), torch.from_numpy(unlearned))
        record["easydub_code"] = round(seconds(lambda: peer(*pair), 2), 3)
        print(f"EasyDUB's own klom_from_margins {record['easydub_code']:.3f} s")
    for variant in VARIANTS:
        ours = seconds(lambda v=variant: klom(oracle, unlearned, v), 9)
        record["variants"][variant] = {"seconds": round(ours, 4), "times_faster": round(loop / ours, 1)}
        print(f"{variant:>24} {ours:.4f} s, {loop / ours:.0f} times faster than the loop")

    many = [rng.normal(m, 2, (100, 60_000)).astype(np.float32) for m in (3, 4)]
    record["easydub_60000_samples"] = round(seconds(lambda: klom(*many), 3), 3)
    tracemalloc.start()
    klom(*many)
    record["peak_extra_memory_60000_samples_MiB"] = round(tracemalloc.get_traced_memory()[1] / 2**20, 1)
    tracemalloc.stop()
    print(
        f"60,000 samples {record['easydub_60000_samples']:.3f} s, "
        f"{record['peak_extra_memory_60000_samples_MiB']} MiB beyond the input"
    )
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
