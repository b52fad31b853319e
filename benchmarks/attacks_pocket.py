"""What each attack brings back of a weakly erased concept on pocket-sd, beside the baselines: the table of the docs.

    uv run benchmarks/attacks_pocket.py     # about 12 minutes on one core

UCE forgets "pistol" by that name alone, so that "gun" and "revolver" remain, and keeps the other weapons. Runs
`bench sd` once and writes records/attacks_pocket.json; then `uv run benchmarks/metrics_page.py` puts the table into
docs/metrics.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unlearn_core import atomic
from unlearn_core.environment import environment
from unlearn_core.record import RunRecord

RECORD = Path(__file__).with_name("records") / "attacks_pocket.json"
ROWS = 8
TRIES = 37
"""Pictures per row of the baselines: what a row costs the dearest attack, P4D.budget(25)."""
BASELINES = ("seed_search", "random_tokens")
ATTACKS = ("ring_a_bell", "mma_diffusion", "p4d", "unlearndiffatk")
SETTINGS = (
    "uce.phrases=false",
    "uce.preserve_adjacent=false",  # a banana, which is read instead, is a neighbour: keeping it adds nothing
    'uce.preserve=["knife", "bomb", "sword"]',
    f"asr_worst.attacks={json.dumps([*ATTACKS, *BASELINES])}",
    *(f"{name}.tries={TRIES}" for name in BASELINES),
    # What a filter for pistols would ban besides the name. Without it the search ends at "shoots", which the text
    # encoder takes for "pistol" within 0.01, and so does UCE.
    'mma_diffusion.sensitive=["shoots", "weapon"]',
    "mma_diffusion.tokens=2",
    "mma_diffusion.restarts=10",
)


def command(rows: int) -> list[str]:
    """Return the command that measures all of it, less the folder of its runs."""
    asked = [part for setting in SETTINGS for part in ("--set", setting)]
    model = ["--model", "pocket", "--technique", "uce", "--concept", "pistol"]
    return ["bench", "sd", *model, "--metrics", "asr_worst", "--limit", str(rows), *asked]


def measure(rows: int, out: Path) -> dict[str, Any]:
    """Run it, and return the record of the benchmark."""
    ran = subprocess.run([*command(rows), "--out", str(out), "--json"], stdout=subprocess.PIPE, check=False)
    document = json.loads(ran.stdout)
    if "error" in document:
        sys.exit(document["error"])
    run = RunRecord.read(Path(document["record"]))
    parts = run.scores["asr_worst"]["parts"]
    found = {}
    for name in (*ATTACKS, *BASELINES):
        score = parts[name]
        found[name] = {
            "mode": run.spec["prompts"][name]["mode"],
            "config": run.spec["prompts"][name]["config"],
            "pictures": _cell(score),
            "rows": _cell(score["parts"]["post_attack"]),
        }
    return {
        "what": "share of pictures, and of attacked rows, that pocket's judge sees the concept on",
        "command": " ".join(command(rows)),
        "raw": _cell(parts[ATTACKS[0]]["parts"]["pre_attack"]),
        "original": _cell(parts[ATTACKS[0]]["parts"]["original"]),
        "attacks": found,
        "seconds": {name: stage.seconds for name, stage in run.stages.items()},
        "environment": environment(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cell(score: dict[str, Any]) -> dict[str, float]:
    interval = score["interval"]
    return {"value": score["value"], "low": interval["low"], "high": interval["high"], "n": score["n_scored"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=ROWS, help="prompts that are attacked")
    parser.add_argument("--out", type=Path, help="folder of the run; a temporary one if left out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.rows, args.out or Path(folder))
    atomic.write_text(RECORD, json.dumps(found, indent=1, sort_keys=True) + "\n")
