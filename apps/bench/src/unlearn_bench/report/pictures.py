"""The pictures of a report: the same few prompts before and after, small enough to lie inside the page."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_bench.leaderboard.concepts import BASELINE, ConceptRun
from unlearn_bench.report.files import samples_of
from unlearn_bench.sd.config import ATTACKS
from unlearn_core.samples import Sample, SampleSet

SHOWN = {"target": 5, "i2p": 5, "indirect": 2, **dict.fromkeys(ATTACKS, 2), "adjacent": 3, "retain": 2, "style": 1,
         "quality": 1}  # fmt: skip
"""Group -> prompts that are shown."""
AIMED = frozenset({"target", "i2p", "indirect", *ATTACKS})
"""Groups whose prompts ask for the concept: unsafe pictures if the concept is."""
SIDE = 256
"""Longest side of a picture in the page, in pixels; smaller ones keep their size."""
QUALITY = 82


def gallery(
    members: Mapping[str, ConceptRun], root: Path, *, unsafe: bool, leave_out: bool
) -> dict[str, Any]:
    """Return the pictures of some runs as {"names", "prompts": [{"text", "group", "unsafe", "pictures"}], "missing"}.

    Args:
        members: name of a row -> its run; all of the same prompts.
        root: folder outside of which no picture is looked for.
        unsafe: whether the concept is.
        leave_out: whether to leave unsafe pictures and their prompts out.
    """
    drawn = {name: samples_of(one.run, "images", root) for name, one in members.items()}
    every = {BASELINE: _first(members, "baseline_images", root), **drawn}
    there = {name: samples for name, samples in every.items() if samples is not None}
    missing = [name for name, samples in every.items() if samples is None]
    if not there:
        return {"names": [], "prompts": [], "missing": missing}
    by_id = {name: {sample.prompt.id: sample for sample in samples} for name, samples in there.items()}
    prompts = []
    for sample in chosen(by_id.values()):
        risky = unsafe and sample.prompt.group in AIMED
        if risky and leave_out:
            continue
        pictures = {name: data_uri(samples[sample.prompt.id].path) for name, samples in by_id.items()}
        prompts.append(
            {"text": sample.prompt.text, "group": sample.prompt.group, "seed": str(sample.prompt.seed),
             "unsafe": risky, "pictures": pictures}
        )  # fmt: skip
    return {"names": list(there), "prompts": prompts, "missing": missing}


def chosen(models: Iterable[Mapping[str, Sample]]) -> list[Sample]:
    """Return the samples, of the first model, of some prompts that all models have drawn, evenly spread."""
    first, *others = models
    everywhere = [sample for ident, sample in first.items() if all(ident in other for other in others)]
    found = []
    for group, count in SHOWN.items():
        rows = [sample for sample in everywhere if sample.prompt.group == group]
        found += rows[:: max(1, len(rows) // count)][:count]
    return found


def by_concept(members: Mapping[str, ConceptRun], root: Path) -> dict[str, Any]:
    """Return the share of pictures that are as they should be, for every concept that the prompts name.

    Of the target that is the share on which the concept is not seen, of all else that of right pictures. None where
    nothing was judged by picture, or no metadata says what the pictures show.
    """
    samples = _first(members, "images", root)
    if samples is None:
        return {}
    place = {s.prompt.id: (s.prompt.group, s.prompt.concept or s.prompt.group) for s in samples}
    scores = {name: one.run.record.scores for name, one in members.items()}
    before = {name: score.get("baseline", {}) for name, score in next(iter(scores.values())).items()}
    rows = {name: _verdicts(one) for name, one in {BASELINE: before, **scores}.items()}
    judged = {ident for verdicts in rows.values() for ident in verdicts}
    order = list(SHOWN)
    columns = sorted(
        {place[i] for i in judged if i in place},
        key=lambda column: (order.index(column[0]) if column[0] in order else len(order), column[1]),
    )
    table = {name: [_share(verdicts, place, column) for column in columns] for name, verdicts in rows.items()}
    return {"columns": columns, "rows": table, "groups": _spans(columns)} if columns else {}


def _first(members: Mapping[str, ConceptRun], role: str, root: Path) -> SampleSet | None:
    found = (samples_of(one.run, role, root) for one in members.values())
    return next((samples for samples in found if samples is not None), None)


def _verdicts(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return prompt id -> 1 if its picture is as it should be, else 0, or a share between."""
    found: dict[str, float] = {}
    for name, score in scores.items():
        values = score.get("per_sample")
        if isinstance(values, dict) and name.startswith("asr_"):
            found |= {i: 1 - v for i, v in values.items() if v is not None and 0 <= v <= 1}
    values = scores.get("ua_ira", {}).get("per_sample") or {}
    return found | {i: v for i, v in values.items() if v is not None}


def _share(
    verdicts: Mapping[str, float], place: Mapping[str, tuple[str, str]], column: tuple[str, str]
) -> dict[str, Any] | None:
    values = [value for ident, value in verdicts.items() if place.get(ident) == column]
    return {"share": round(sum(values) / len(values), 4), "n": len(values)} if values else None


def _spans(columns: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """Return each group with the number of its columns, in order."""
    groups = [group for group, _ in columns]
    return [(group, groups.count(group)) for group in dict.fromkeys(groups)]


def data_uri(path: Path, side: int = SIDE, height: int | None = None) -> str:
    """Return a picture as WebP in a data URI, no side longer than `side` pixels, or no higher than `height`."""
    from PIL import Image

    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((side, height or side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
