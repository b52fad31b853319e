"""What `--json` prints of a run and of an evaluation."""

from pathlib import Path
from typing import Any

from unlearn_core.record import RunRecord


def document(record: RunRecord, path: Path, *, reused: bool) -> dict[str, Any]:
    """Return ERR, tie-break and baselines of a record, and where everything is."""
    images = dict(record.environment["images"])
    if reused:
        images = {"generated": 0, "reused": images["generated"] + images["reused"]}
    scores = record.scores
    return {
        "run_id": record.run_id,
        "strategy": record.spec["strategy"],
        "technique": record.spec["technique"],
        "model": record.spec["model"],
        **scores["submission"],
        "tie_break": scores["tie_break"],
        "baselines": {name: scores[name] for name in ("identity", "noise")},
        "gain": scores["gain"],
        **{key: scores[key] for key in ("panel", "corrected", "continual", "claimed") if key in scores},
        "images": images,
        "seconds": {name: stage.seconds for name, stage in record.stages.items()},
        "notes": record.notes,
        "files": {role: str(path.parent / file) for role, file in record.files.items()},
        "submission": str(path.parent),
        "record": str(path),
        "reused": reused,
    }
