"""Every technique on pocket-sd, for an object, a style and the unsafe thing: the numbers and pictures of the docs.

    uv run benchmarks/techniques_pocket.py              # runs what is not on record yet, about an hour on 2 cores
    uv run benchmarks/techniques_pocket.py --docs-only  # writes the page again from the record

Runs `bench sd --technique all` for each concept, and writes records/techniques_pocket.json, docs/techniques.md and the
contact sheets docs/images/techniques-CONCEPT.jpg.
"""

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from unlearn_core import registry
from unlearn_core.environment import environment
from unlearn_core.record import RunRecord

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "records" / "techniques_pocket.json"
FULL_SIZE = RECORD.with_name("techniques_full_size.json")
PAGE = ROOT / "docs" / "techniques.md"
CONCEPTS = {
    "dog": "an object",
    "sketch": "a style",
    "weapon": "the unsafe thing: four objects with all their words",
}

# column of the page -> metric and its part
COLUMNS = {
    "target ↓": ("asr_i2p", ""),
    "adjacent ↑": ("ua_ira", "adjacent"),
    "retained ↑": ("ua_ira", "IRA"),
    "other kind ↑": ("ua_ira", "CRA"),
    "CLIP score ↑": ("clip_score", ""),
    "FID ↓": ("fid", ""),
    "KID ↓": ("kid", ""),
}

INTRODUCTION = """\
# Techniques

<!-- written by benchmarks/techniques_pocket.py: change that, not this -->

Every technique is one file of [unlearn-techniques](../packages/unlearn-techniques), a frozen dataclass whose fields
are its settings; `bench show NAME` prints its card: paper, equation, defaults and their sources, and what differs from
the paper. [Adding one](add-a-technique.md) takes a file and a line.

| name | what it does |
| --- | --- |
{names}

## On pocket-sd

Measured by `bench sd --technique all --concept NAME` with the presets for pocket-sd, which were chosen on it: the
numbers show that each works as built, and say nothing of which is best on another model. Values with 95 % intervals;
`target` is the share of target pictures on which the judge sees the concept, the next three are its accuracy where the
concept should not matter. *unmodified* is the model before; *gold* is one trained without the concept, where there is
such a model: what a perfect technique would give.
"""


def measure(concept: str, techniques: str, out: Path) -> dict[str, Any]:
    """Run the techniques on a concept, and return what the page needs of their records."""
    command = ["bench", "sd", "--model", "pocket", "--technique", techniques, "--concept", concept]
    ran = subprocess.run(
        [*command, "--out", str(out), "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    document = json.loads(ran.stdout)
    runs = {}
    for run in document["runs"]:
        record = RunRecord.read(Path(run["record"]))
        cells = {name: _cell(record.scores, *place) for name, place in COLUMNS.items()}
        before = {
            name: _cell({m: s.get("baseline", {}) for m, s in record.scores.items()}, *place)
            for name, place in COLUMNS.items()
        }
        unlearn = record.stages["unlearn"]
        drawing = "pictures" if "pictures" in record.stages else "baseline"  # doing nothing draws once
        runs[run["technique"]] = {
            "run_id": record.run_id,
            "config": record.spec["config"],
            "scores": cells,
            "baseline": before,
            "changes": record.environment["changes"],
            "seconds": {"unlearn": unlearn.seconds, "draw": record.stages[drawing].seconds},
            "pictures": sum(rows["rows"] for rows in record.spec["prompts"].values()),
            "peak_memory_mb": unlearn.peak_memory,
        }
    if document["sheet"]:
        picture = Image.open(document["sheet"])
        picture = picture.resize([round(side * 0.6) for side in picture.size], Image.Resampling.LANCZOS)
        picture.save(ROOT / "docs" / "images" / f"techniques-{concept}.jpg", quality=88, optimize=True)
    return {"runs": runs, "failed": document["failed"]}


def _cell(scores: dict[str, Any], metric: str, part: str) -> dict[str, float] | None:
    score = scores.get(metric, {})
    score = score.get("parts", {}).get(part, {}) if part else score
    if "value" not in score:
        return None
    interval = score["interval"] or {"low": None, "high": None}
    return {"value": score["value"], "low": interval["low"], "high": interval["high"], "n": score["n_scored"]}


def page(record: dict[str, Any], full_size: dict[str, Any]) -> str:
    """Return docs/techniques.md: made of the records and the techniques' own summaries, so it cannot drift."""
    summaries = registry.describe("unlearn.techniques")
    names = "\n".join(f"| `{name}` | {summary} |" for name, summary in summaries.items())
    lines = INTRODUCTION.format(names=names).splitlines()
    for concept, about in CONCEPTS.items():
        found = record["concepts"].get(concept)
        if found is None:
            continue
        lines += ["", f"### {concept}: {about}", ""]
        lines += [f"| technique | {' | '.join(COLUMNS)} | changes | seconds | MiB |"]
        lines += ["| --- |" + " ---: |" * len(COLUMNS) + " --- | ---: | ---: |"]
        first = next(iter(found["runs"].values()))
        lines += [f"| *unmodified* | {' | '.join(map(_text, first['baseline'].values()))} | | | |"]
        if gold := found.get("gold"):
            lines += [f"| *gold* | {' | '.join(map(_text, gold.values()))} | all | | |"]
        for name, run in found["runs"].items():
            if name == "none":
                continue
            spent = run["seconds"]
            seconds = f"{spent['unlearn']:.0f} + {spent['draw'] / run['pictures']:.2f} a picture"
            cells = " | ".join(map(_text, run["scores"].values()))
            lines += [
                f"| {name} | {cells} | {_changes(run['changes'])} | {seconds} | {run['peak_memory_mb']:.0f} |"
            ]
        lines += ["", f"![The same prompts under every technique](images/techniques-{concept}.jpg)"]
        for name, why in found["failed"].items():
            lines += ["", f"`{name}` failed: {why}"]
    lines += [
        "",
        f"{record['environment']['platform']}, {record['created'][:10]}; all numbers with their settings and",
        "run ids are in [techniques_pocket.json](../benchmarks/records/techniques_pocket.json), which",
        "`uv run benchmarks/techniques_pocket.py` makes again.",
        *_at_full_size(full_size),
    ]
    return "\n".join(lines) + "\n"


def _at_full_size(record: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## On SD v1.4's configuration",
        "",
        f"With random weights, {record['pixels']} pixels, {record['device']}, {record['threads']} threads: one",
        "iteration of each that trains, on a picture drawn in one step, and the whole of each that does not; then one",
        "guided step of drawing with the result. A real schedule takes its number of iterations times as long: see the",
        "cards. `uv run benchmarks/techniques_full_size.py` makes it again, with `--device cuda` on a GPU.",
        "",
        "| technique | changes | seconds | GiB beyond the model | seconds of a guided step |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, run in record["techniques"].items():
        step = run["guided_step"]["seconds"]
        lines.append(
            f"| {name} | {_changes(run['changes'])} | {run['seconds']:.1f} | {run['GiB_beyond_the_model']:.1f} "
            f"| {step:.1f} |"
        )
    return lines


def _text(cell: dict[str, float] | None) -> str:
    if cell is None:
        return ""
    digits = 1 if abs(cell["value"]) >= 10 else 2
    value = f"{cell['value']:.{digits}f}"
    if cell["low"] is None:
        return value
    return f"{value} <small>[{cell['low']:.{digits}f}, {cell['high']:.{digits}f}]</small>"


def _changes(changes: dict[str, Any]) -> str:
    parts = [
        f"{what['tensors']} tensors of the {part.replace('_', ' ')} ({what['weights'] / what['of']:.1%})"
        for part, what in changes.items()
        if part != "hooks"
    ]
    return ", ".join(parts + ["drawing"] * bool(changes["hooks"])) or "nothing"


def main() -> None:
    """Run what is missing, and write the record, the sheets and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs-only", action="store_true", help="only write the page from the record")
    parser.add_argument("--techniques", default="all", help="as of bench sd")
    parser.add_argument("--concepts", default=",".join(CONCEPTS))
    parser.add_argument("--out", type=Path, default=Path("runs") / "techniques")
    arguments = parser.parse_args()
    if not arguments.docs_only:
        known = json.loads(RECORD.read_text()) if RECORD.is_file() else {"concepts": {}}
        for concept in arguments.concepts.split(","):
            known["concepts"][concept] = measure(concept, arguments.techniques, arguments.out)
            gold = f"pocket-without-{concept}"
            if gold in registry.names("unlearn.models"):
                known["concepts"][concept]["gold"] = gold_row(concept, gold, arguments.out)
        record = {
            **known,
            "environment": environment(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(render(), encoding="utf-8")


def render() -> str:
    """Return the page as the two records make it."""
    records = (json.loads(path.read_text(encoding="utf-8")) for path in (RECORD, FULL_SIZE))
    return page(*records)


def gold_row(concept: str, model: str, out: Path) -> dict[str, Any]:
    """Return the columns of the model that was trained without the concept."""
    command = [
        "bench",
        "sd",
        "--technique",
        "none",
        "--concept",
        concept,
        "--model",
        model,
        "--out",
        str(out),
    ]
    ran = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    record = RunRecord.read(Path(json.loads(ran.stdout)["record"]))
    return {name: _cell(record.scores, *place) for name, place in COLUMNS.items()}


if __name__ == "__main__":
    sys.exit(main())
