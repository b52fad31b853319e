"""The folder of a submission: weights, pictures, judged tables, figures, and the record of what made them.

submission.json        which model forgot what: `genmu_eval.submission`
record.json            scores with intervals, environment, seconds
weights/NAME.safetensors   per model, the tensors that changed
images/NAME/           the pictures that were judged
judged.csv identity.csv    what the judge saw, here and of the unmodified model on the same prompts and seeds
steps/                 the same after each request of each order
*.png                  components, contact sheet, heat map
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genmu_eval.rank import IDENTITY
from genmu_eval.table import write_table
from unlearn_bench.genmu import figures
from unlearn_bench.genmu.plan import Plan
from unlearn_bench.genmu.scores import Taken
from unlearn_bench.genmu.sheet import draw_sheet
from unlearn_bench.sd import runner
from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet

RECORD = "record.json"


def name_of(label: str, targets: Sequence[str]) -> str:
    """Return the name of a model's files: that of its target, in letters that every file system takes."""
    slug = re.sub(r"[^a-z0-9]+", "-", label.casefold()).strip("-")
    same = [t for t in targets if re.sub(r"[^a-z0-9]+", "-", t.casefold()).strip("-") == slug]
    return (
        slug
        if slug and len(same) < 2
        else f"{slug}-{hashlib.sha256(label.encode()).hexdigest()[:8]}".strip("-")
    )


def save_weights(base: Any, model: Any, path: Path, made_by: Mapping[str, Any]) -> Path | None:
    """Write what `model` changed in the weights of `base`; None for one that shows no weights."""
    from unlearn_techniques.diffusion.delta import Delta

    if not hasattr(model, "parts"):
        return None
    Delta.between(base, model, record=made_by).save(path)
    return path


def copy_pictures(samples: Iterable[Any], folder: Path) -> None:
    """Add the pictures of `samples` to the folder; those that are there already stay."""
    copied = SampleSet(folder)
    for sample in samples:
        copied.add(sample.prompt, sample.path.read_bytes())


def write_tables(place: Path, taken: Taken) -> dict[str, str]:
    """Write the judged tables and return role -> file."""
    write_table(place / "judged.csv", taken.rows)
    write_table(place / "identity.csv", taken.identity)
    for number, tables in enumerate(taken.steps.values(), 1):
        for t, table in enumerate(tables, 1):
            write_table(place / "steps" / f"order-{number}-request-{t}.csv", table)
    return {"table": "judged.csv", IDENTITY: "identity.csv"}


def draw_pictures(plan: Plan, record: RunRecord, place: Path, taken: Taken, name: str) -> None:
    """Draw the figures of a run or an evaluation called `name` and note them in its record."""
    words = {"single": "a model for each of", "multi": "one model without", "continual": "one after another:"}
    title = f"{name}, {words[plan.strategy]} {', '.join(plan.asked.targets)}"
    with record.stage("figures"):
        shown = {name: record.scores["submission"], "unmodified": record.scores[IDENTITY]}
        figures.components(place / "components.png", shown, title)
        runner.save_picture(draw_sheet(plan.asked, taken.before, taken.after, title), place / "sheet.png")
        record.files |= {"components": "components.png", "sheet": "sheet.png"}
        if "continual" in record.scores:
            figures.heat_map(place / "heatmap.png", record.scores["continual"]["orders"], title)
            record.files["heat_map"] = "heatmap.png"
