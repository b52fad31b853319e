"""The page: records in, one HTML file out that opens from disk and asks no network for anything."""

import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from unlearn_bench.leaderboard.concepts import BASELINE, ConceptRun
from unlearn_bench.leaderboard.groups import grouped
from unlearn_bench.leaderboard.klom import KlomRun
from unlearn_bench.leaderboard.records import Run, read_runs
from unlearn_bench.report import genmu, groups, klom, pictures
from unlearn_bench.report.files import root_of
from unlearn_core import atomic


def write(folder: Path, out: Path, *, title: str = "", unsafe: bool = True) -> dict[str, int]:
    """Write the report of every record below `folder` to `out`; return what it holds, by kind.

    Args:
        folder: of runs.
        out: the HTML file.
        title: of the page; by default what the runs forget.
        unsafe: whether unsafe pictures are in it, blurred until clicked.

    Raises:
        UnlearnError: no records, records that contradict each other, a file that cannot be written.
    """
    page = collect(read_runs([folder]), root_of(folder), title=title, unsafe=unsafe)
    atomic.write_text(out, render(page))
    prompts = [prompt for group in page["groups"] for prompt in group["gallery"]["prompts"]]
    return {
        "runs": page["runs"],
        "tables": len(page["groups"]) + len(page["genmu"]) + len(page["klom"]),
        "pictures": sum(len(prompt["pictures"]) for prompt in prompts)
        + sum("src" in figure for group in page["genmu"] for figure in group["figures"]),
    }


def collect(runs: list[Run], root: Path, *, title: str = "", unsafe: bool = True) -> dict[str, Any]:
    """Return everything that the page shows as JSON values; `root` holds the pictures."""
    concept_runs, klom_runs, genmu_runs, left_out = [], [], [], []
    for run in runs:
        if run.record.kind in genmu.KINDS:
            genmu_runs.append(run)
            continue
        kind = {"sd": ConceptRun, "klom": KlomRun}.get(run.record.kind)
        entry = kind.of(run) if kind else f"reports have no table of the kind {run.record.kind!r}"
        if isinstance(entry, ConceptRun):
            concept_runs.append(entry)
        elif isinstance(entry, KlomRun):
            klom_runs.append(entry)
        else:
            left_out.append({"name": run.path.parent.name, "why": entry})
    tables = []
    for number, group in enumerate(grouped(concept_runs), 1):
        table = groups.table(group, number)
        members = groups.members(group)
        shown = members or {BASELINE: group.entries[0]}
        risky = table["unsafe"]
        table["gallery"] = pictures.gallery(shown, root, unsafe=risky, leave_out=not unsafe)
        table["concepts"] = pictures.by_concept(shown, root)
        tables.append(table)
    other = [klom.table(group, number, root) for number, group in enumerate(grouped(klom_runs), 1)]
    submissions = genmu.tables(genmu_runs, root, leave_out=not unsafe)
    forgotten = dict.fromkeys(table["concept"] for table in tables)
    forgotten |= dict.fromkeys(concept for table in submissions for concept in table["concepts"])
    return {
        "title": title or _title(list(forgotten), bool(other)),
        "made": f"{datetime.now(UTC):%Y-%m-%d}",
        "runs": len(runs),
        "groups": tables,
        "across": _across(tables),
        "genmu": submissions,
        "klom": other,
        "unsafe_left_out": not unsafe,
        "left_out": left_out,
    }


def render(page: dict[str, Any]) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, StrictUndefined

    own = files(__package__)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((own / "page.html.jinja").read_text(encoding="utf-8"))
    data = {
        "alphas": groups.ALPHAS,
        "groups": [
            {
                "id": group["id"],
                "prompts": group["gallery"]["prompts"],
                "rows": [_plotted(row) for row in group["rows"]],
            }
            for group in page["groups"]
        ],
    }
    return template.render(
        **page,
        css=(own / "page.css").read_text(encoding="utf-8"),
        script=(own / "page.js").read_text(encoding="utf-8"),
        # A prompt that holds "</script>" must not end the script.
        data=json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
    )


def _plotted(row: dict[str, Any]) -> dict[str, Any]:
    keys = ("id", "name", "baseline", "safety", "quality", "spread", "ranked")
    return {key: row[key] for key in keys if key in row}


def _title(concepts: list[str], with_klom: bool) -> str:
    if not concepts:
        return "Data unlearning, measured" if with_klom else "Unlearning, measured"
    return "Forgetting " + ", ".join(concepts[:3]) + (" and more" if len(concepts) > 3 else "")


def _across(tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each model with several concepts, technique x concept: what was forgotten and what was kept."""
    found = []
    for model in dict.fromkeys(group["model"] for group in tables):
        own = [group for group in tables if group["model"] == model]
        if len(own) < 2:
            continue
        names = dict.fromkeys(row["name"] for group in own for row in group["rows"])
        rows = {name: [_forgotten_and_kept(group, name) for group in own] for name in names}
        concepts = [{"name": group["concept"], "id": group["id"]} for group in own]
        found.append({"model": model, "concepts": concepts, "rows": rows})
    return found


def _forgotten_and_kept(group: dict[str, Any], name: str) -> dict[str, str] | None:
    row = next((row for row in group["rows"] if row["name"] == name), None)
    if row is None:
        return None
    values = {
        column["name"]: cell["value"]
        for column, cell in zip(group["columns"], row["cells"], strict=True)
        if "value" in cell
    }
    forgotten = values.get("UA", 1 - values["asr_i2p"] if "asr_i2p" in values else None)
    kept = values.get("IRA")
    return {
        "forgotten": "–" if forgotten is None else f"{forgotten:.0%}",
        "kept": "–" if kept is None else f"{kept:.0%}",
    }
