"""The page docs/metrics.md: a card for every registered metric, attack and detector, made of their own docstrings.

    uv run benchmarks/metrics_page.py

What the docstrings say is repeated as it stands; what others get wrong and what eval-learn does stands beside this
file in metrics_notes.toml.
"""

import importlib
import inspect
import json
import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from unlearn_core import registry

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
RECORDS = Path(__file__).with_name("records")
WIDTH = 120

METRICS, ATTACKS, DETECTORS = "unlearn.metrics", "unlearn.attacks", "unlearn.detectors"
LABELS = {
    METRICS: {"Formula": "Definition", "Needs": "Protocol"},
    ATTACKS: {"Idea": "Definition", "Defaults": "Protocol"},
    DETECTORS: {},
}
"""Heading of a docstring -> heading of its card, where they differ."""

TITLES = {METRICS: "Metrics", ATTACKS: "Attacks", DETECTORS: "Detectors"}
TEXTS = tomllib.loads(Path(__file__).with_name("metrics_notes.toml").read_text(encoding="utf-8"))
NOTES = TEXTS["notes"]
"""Name -> known traps, and what eval-learn does."""


def page() -> str:
    """Return the page."""
    names = [
        _filled(f"{title}: {', '.join(f'[`{name}`](#{name})' for name in registry.names(group))}.", "- ")
        for group, title in TITLES.items()
    ]
    parts = [TEXTS["introduction"].lstrip().format(names="\n".join(names))]
    for group, title in TITLES.items():
        about = TEXTS["sections"][title.lower()]
        parts.append(f"## {title}\n" + (f"\n{_filled(about)}\n" if about else ""))
        if group == ATTACKS:
            parts += [
                table(json.loads((RECORDS / name).read_text(encoding="utf-8")))
                for name, table in (
                    ("attacks_pocket.json", brought_back),
                    ("attacks_full_size.json", full_size),
                )
            ]
        parts += [card(group, name) for name in registry.names(group)]
    return "\n".join(parts)


def brought_back(record: dict[str, Any]) -> str:
    """Return the table of what each attack brings back, of the record of attacks_pocket.py."""
    raw, rows = (
        record["raw"],
        {name: (a["mode"], a["pictures"], a["rows"]) for name, a in record["attacks"].items()},
    )
    lines = ["| prompts | mode | pictures with a pistol | rows with one |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {mode} | {_rate(pictures)} of {pictures['n']} | {_rate(of_rows)} |"
        for name, (mode, pictures, of_rows) in {"*as they are*": ("", raw, raw), **rows}.items()
    ]
    return "\n".join([f"{_filled(TEXTS['sections']['brought_back'])}\n", *lines]) + "\n"


def full_size(record: dict[str, Any]) -> str:
    """Return the table of what attacks and metrics cost, of the record of attacks_full_size.py."""
    what = {
        **{f"step of {name}": cost for name, cost in record["attack_steps"].items()},
        **{f"{record['pictures']} pictures, {name}": cost for name, cost in record["metric_passes"].items()},
    }
    lines = ["| | seconds | GiB beyond the model |", "| --- | ---: | ---: |"]
    lines += [
        f"| {n} | {cost['seconds']:.1f} | {cost['GiB_beyond_the_model']:.1f} |" for n, cost in what.items()
    ]
    about = _filled(TEXTS["sections"]["full_size"].format(**record))
    return "\n".join([f"{about}\n", *lines]) + "\n"


def _rate(cell: dict[str, float]) -> str:
    return f"{cell['value']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"


def card(group: str, name: str) -> str:
    """Return the card of a plugin."""
    cls = registry.load(group, name)
    summary, sections = parsed(inspect.getdoc(cls) or "")
    if group != METRICS:  # a module that is about this plugin
        _, of_module = parsed(inspect.getdoc(importlib.import_module(cls.__module__)) or "")
        sections = {**of_module, **sections}
    sections = {LABELS[group].get(heading, heading): text for heading, text in sections.items()}
    notes = NOTES.get(name, {})
    sections["Known traps"] = notes.get("traps", "")
    sections["eval-learn"] = notes.get("eval_learn", "")
    order = ["", "Paper", "Definition", "Protocol"]
    headings = sorted(sections, key=lambda h: order.index(h) if h in order else len(order))
    lines = [f"### `{name}`\n", f"{_filled(summary)}\n"]
    if text := sections.pop("", ""):
        lines.append(f"{_filled(text)}\n")
    for heading in headings:
        if text := sections.get(heading, "").strip():
            if re.match(r"(?!https?:)[a-z]+\b", text):
                text = text[0].upper() + text[1:]
            lines.append(_filled(f"**{heading}.** {text}", "- "))
    return "\n".join(lines) + "\n"


def parsed(doc: str) -> tuple[str, dict[str, str]]:
    """Return the first line of a docstring, and heading -> text; text under no heading stands under ""."""
    first, _, rest = doc.partition("\n")
    found: dict[str, list[str]] = {"": []}
    heading = ""
    for line in rest.splitlines():
        if match := re.match(r"([A-Z]\w*(?: \w+)?):(?: (.*))?$", line):
            heading = match[1]
            found[heading] = [match[2] or ""]
        elif line.strip() and not line.startswith(" ") and heading:
            heading = ""
            found[""].append(line)
        else:
            found[heading].append(line)
    found.pop("Raises", None)
    return first, {key: text for key, lines in found.items() if (text := " ".join(" ".join(lines).split()))}


def _filled(text: str, bullet: str = "") -> str:
    filled = textwrap.TextWrapper(
        WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet), break_long_words=False
    )
    filled.break_on_hyphens = False
    return filled.fill(" ".join(text.split()))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
