"""Every method on digits: the tables of docs/klom.md, from records.

    uv run benchmarks/klom_digits.py

Doing nothing and held-out oracles on all ten forget sets; every method, with its published settings and with
its digits preset where it has one, on forget sets 1, 8 and 10. Interrupted, it goes on where it was. Writes
records/klom_digits.json and prints the tables as Markdown.
"""

import argparse
import json
from pathlib import Path

from klom_bench.datasets.digits import Digits
from klom_bench.experiment import Experiment, run
from unlearn_core.environment import environment
from unlearn_core.registry import load, names
from unlearn_core.spec import build

SPLITS = ("forget", "retain", "val")


def cells(scores: dict) -> str:
    """Return mean / P95 of the three splits as Markdown cells."""
    return " | ".join(f"{scores[s]['mean']:.2f} / {scores[s]['p95']:.2f}" for s in SPLITS)


def main() -> None:
    """Run what is missing, write the record, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records" / "klom_digits.json")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--variant", default="easydub")
    arguments = parser.parse_args()
    data, rows = Digits(), []

    def scores(name: str, preset: str, forget_set: int) -> dict:
        cls = load("unlearn.methods", name)
        method = build(cls, {"published": {}, **cls.presets}[preset])
        experiment = Experiment(
            dataset=data, method=method, method_name=name, forget_set=forget_set, variant=arguments.variant
        )
        record = run(experiment, out=arguments.runs)
        seconds = record.stages[name].seconds if name in record.stages else 0.0
        rows.append(
            {
                "forget_set": forget_set,
                "method": name,
                "preset": preset,
                "config": record.spec["config"],
                "scores": record.scores,
                "seconds": seconds,
            }
        )
        return record.scores

    print(
        "| forget set | images | do nothing: forget | retain | val | held-out oracle: forget | retain | val |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for forget_set in range(1, data.n_forget_sets + 1):
        found = scores("do_nothing", "published", forget_set)
        n = found["do_nothing"]["forget"]["n_samples"]
        print(f"| {forget_set} | {n} | {cells(found['do_nothing'])} | {cells(found['oracle'])} |", flush=True)
    for forget_set in (1, 8, 10):
        print(
            f"\nForget set {forget_set}\n\n| method | settings | forget | retain | val |\n|---|---|---|---|---|"
        )
        found = scores("do_nothing", "published", forget_set)
        print(f"| do nothing | | {cells(found['do_nothing'])} |")
        for name in names("unlearn.methods"):
            # retrain's published settings are those of CIFAR-10: another training altogether
            presets = (
                ["digits"] if name == "retrain" else ["published", *load("unlearn.methods", name).presets]
            )
            for preset in presets if name != "do_nothing" else []:
                print(
                    f"| `{name}` | {preset} | {cells(scores(name, preset, forget_set)[name])} |", flush=True
                )
        print(f"| held-out oracle | | {cells(found['oracle'])} |")
    record = {"variant": arguments.variant, "n_models": 100, "rows": rows, "environment": environment()}
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
