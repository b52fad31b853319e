"""Small runs with real records and pictures that nothing had to compute, for tests of what reads runs."""

import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn_core import atomic
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.record import RunRecord, Stage, run_id
from unlearn_core.samples import SampleSet
from unlearn_core.score import Score, wilson
from unlearn_core.seeds import derive

TECHNIQUES = {"uce": (0.75, 1.0), "esd": (1.0, 0.5), "sld": (0.5, 0.75)}
"""Name -> (UA, IRA); no order of them is the same for both."""
N = 4  # prompts of each group
SIDE = 24  # of a picture, in pixels


def write_runs(
    folder: Path,
    techniques: Mapping[str, tuple[float, float]] = TECHNIQUES,
    *,
    concept: str = "dog",
    kind: str = "object",
    edits: bool = False,
) -> list[Path]:
    """Write a run for each technique below `folder`, as `bench sd` lays them out; return the paths of the records.

    Args:
        folder: of all runs.
        techniques: name -> (UA, IRA).
        concept: what they forget.
        kind: of the concept; "unsafe" makes pictures of it unsafe.
        edits: whether to write a weight delta for each as well.
    """
    rows = {
        "target": _rows("target", concept, N),
        "adjacent": _rows("adjacent", "wolf", N),
        "quality": _rows("quality", "", N),
    }
    slug = "".join(c for c in concept if c.isalnum())
    before = _draw(folder / "images" / f"before-{slug}", rows, (200, 120, 60))
    paths = []
    for number, (name, (ua, ira)) in enumerate(techniques.items()):
        after = _draw(folder / "images" / f"{name}-{slug}", rows, (40 * number, 90, 200))
        spec = _spec(name, concept, kind, rows)
        record = RunRecord.of("sd", spec)
        record.scores = _scores(rows, (ua, ira), (0.0, 1.0), clip=80.0 - number)
        record.stages = {
            "unlearn": Stage(seconds=1.5 + number, peak_memory=100.0),
            "pictures": Stage(seconds=2),
        }
        record.notes = [f"{name}: made for a test"]
        path = folder / f"sd-{name}-{slug}-{run_id(spec)}" / "record.json"
        record.files = {
            role: f"../images/{s.folder.name}" for role, s in (("images", after), ("baseline_images", before))
        }
        record.write(path)
        paths.append(path)
        if edits:
            _write_edit(folder / "edits" / f"{name}-{slug}-0123456789ab.safetensors", spec)
    return paths


def _rows(group: str, concept: str, n: int) -> PromptSet:
    rows = (
        Prompt(
            id=f"{group}-{concept or 'any'}-{i}",
            text=f"a {concept or 'lemon'}, number {i}",
            seed=derive(0, group, i),
            group=group,
            concept=concept or None,
            origin="test",
        )
        for i in range(n)
    )
    return PromptSet(name=f"test/{group}", rows=tuple(rows))


def _draw(folder: Path, rows: Mapping[str, PromptSet], color: tuple[int, int, int]) -> SampleSet:
    from PIL import Image

    samples = SampleSet(folder)
    for number, row in enumerate(row for prompts in rows.values() for row in prompts):
        picture = Image.new("RGB", (SIDE, SIDE), color)
        picture.paste((255, 20 * number, 255), (4, 4, 12, 12))
        data = io.BytesIO()
        picture.save(data, "PNG")
        samples.add(row, data.getvalue())
    return samples


def _spec(name: str, concept: str, kind: str, rows: Mapping[str, PromptSet]) -> dict[str, Any]:
    return {
        "technique": name,
        "config": {"lamb": 0.1, "templates": ["a {}"]},
        "concept": {"name": concept, "phrases": [], "kind": kind, "anchor": "cat", "adjacent": ["wolf"]},
        "model": "pocket",
        "model_fingerprint": "f" * 64,
        "sampler": {"scheduler": "ddim", "steps": 5, "guidance_scale": 4.0, "height": None, "width": None,
                    "batch": None},
        "metrics": {"ua_ira": {"classifier": "pocket", "classifier_settings": {}}, "clip_score": {"scale": "100cos"}},
        "prompts": {
            group: {"name": s.name, "revision": "", "rows": len(s), "dropped": 0, "fingerprint": s.fingerprint}
            for group, s in rows.items()
        },
        "seed": 0,
        "dtype": "fp32",
        "code": "0" * 12,
    }  # fmt: skip


def _scores(
    rows: Mapping[str, PromptSet], rates: tuple[float, float], before: tuple[float, float], clip: float
) -> dict[str, Any]:
    captions = {row.id: clip for row in rows["quality"]}
    real = dict.fromkeys(captions, 81.0)
    found: dict[str, Any] = {}
    for name, after, baseline in (
        ("ua_ira", _accuracies(rows, rates), _accuracies(rows, before)),
        ("clip_score", _mean("clip_score", captions), _mean("clip_score", real)),
    ):
        change = {
            "value": after.value - baseline.value,
            "low": None,
            "high": None,
            "n": after.n_scored,
            "p": None,
        }
        found[name] = {
            **after.to_mapping(),
            "baseline": baseline.to_mapping(),
            "difference": {"value": change},
        }
    return found


def _accuracies(rows: Mapping[str, PromptSet], rates: tuple[float, float]) -> Score:
    parts = {}
    for name, prompts, rate in zip(("UA", "IRA"), (rows["target"], rows["adjacent"]), rates, strict=True):
        hits = {row.id: float(i < rate * N) for i, row in enumerate(prompts)}
        parts[name] = _mean(name, hits)
    each = {**parts["UA"].per_sample, **parts["IRA"].per_sample}  # type: ignore[dict-item]
    return Score(
        metric="ua_ira",
        value=sum(rates) / 2,
        direction="up",
        n_scored=len(each),
        parts=parts,
        per_sample=each,
    )


def _mean(name: str, values: Mapping[str, float]) -> Score:
    value = sum(values.values()) / len(values)
    interval = wilson(round(value * len(values)), len(values)) if value <= 1 else None
    return Score(
        metric=name,
        value=value,
        direction="up",
        interval=interval,
        n_scored=len(values),
        per_sample=dict(values),
    )


def _write_edit(path: Path, spec: Mapping[str, Any]) -> None:
    """Write a delta of one tensor: safetensors is a header in JSON, its length before it, the numbers behind it."""
    keys = ("technique", "config", "concept", "seed")
    made_by = json.dumps({key: spec[key] for key in keys})
    header = {
        "__metadata__": {"format": "unlearn-delta-1", "base": spec["model_fingerprint"], "record": made_by},
        "unet.to_k.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    text = json.dumps(header).encode()
    with atomic.replacing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text + struct.pack("<6f", *range(6)))
