"""A leaderboard as text: terminal table, CSV, JSON, Markdown, LaTeX, HTML."""

import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unlearn_bench.leaderboard.section import Column, Section, document, number, of

LeftOut = Sequence[Mapping[str, str]]
ARROWS = {"up": " ↑", "down": " ↓", "": ""}


def heading(column: Column) -> str:
    """Return the heading of a column with an arrow to its better end."""
    return column.heading + ("" if column.key == "rank" else ARROWS[column.better])


def cell(row: Mapping[str, Any], column: Column) -> str:
    """Return what a table shows: a number, with the ends of its interval in brackets where it has one."""
    value = of(row, column.key)
    if column.key == "ranks":
        return f"{row['rank_low']}-{row['rank_high']}" if row.get("rank") else ""
    if column.key == "interval" and isinstance(value, Mapping):
        return f"{value['low']:.2f}-{value['high']:.2f}"
    if isinstance(value, str):
        return " ".join(value.splitlines())
    x = number(value)
    if x is None:
        return ""
    digits = 1 if abs(x) >= 10 and column.digits else column.digits
    text = f"{x:.{digits}f}"
    if isinstance(value, Mapping) and value.get("low") is not None:
        text += f" [{value['low']:.{min(digits, 2)}f}, {value['high']:.{min(digits, 2)}f}]"
    return text


def render(sections: Sequence[Section], left_out: LeftOut, form: str) -> str:
    """Return the leaderboard in one of `FORMATS`."""
    return printable(FORMATS[form](sections, left_out))


def printable(text: str) -> str:
    """Return text without the control characters that a record of somebody else may hold, such as a terminal's."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def remarks(section: Section) -> list[str]:
    """Return what is to be known of a table, in lines."""
    lines = [f"a table of its own: {section.apart}"] if section.apart else []
    found = section.more.get("rankings", [])
    if len(found) > 1 and len(found[0]["order"]) > 1:
        leaders: list[tuple[float, str]] = []
        for one in found:
            if not leaders or leaders[-1][1] != one["order"][0]:
                leaders.append((one["from"], one["order"][0]))
        first = ", ".join(f"{name} from {start:.2f}" if start else name for start, name in leaders)
        lines.append(
            f"first as alpha goes from 0 (quality) to 1 (safety): {first}; {len(found)} orders in all"
        )
    return [*lines, *section.notes]


def _table(sections: Sequence[Section], left_out: LeftOut) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    out = io.StringIO()
    console = Console(file=out, width=1000, highlight=False, markup=False, emoji=False, color_system=None)
    for section in sections:
        out.write(f"{section.title}\n\n")
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for column in section.columns:
            left = column.key == "technique"
            # Two lines: headings and intervals are wider than the numbers.
            table.add_column(_two_lines(heading(column)), justify="left" if left else "right", no_wrap=True)
        first = next((row for row in section.rows if not row.get("baseline")), None)
        for row in section.rows:
            if row is first:
                table.add_section()
            cells = (cell(row, column) for column in section.columns)
            table.add_row(*(text.replace(" [", "\n[") for text in cells))
        console.print(table)
        out.write("".join(f"\nnote: {line}" for line in remarks(section)) + "\n\n")
    out.write("".join(f"left out: {one['record']}: {one['reason']}\n" for one in left_out))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines()) + "\n"


def comparison(found: Mapping[str, Any]) -> str:
    """Return what `compare` found as a terminal table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    out = io.StringIO()
    console = Console(file=out, width=1000, highlight=False, markup=False, emoji=False, color_system=None)
    for side in ("a", "b"):
        out.write(f"{side.upper()}: {found[side]['name']}, {found[side]['record']}\n")
    out.write("\n")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for head in ("metric", "", "A", "B", "B - A", "95 %", "n", "p"):
        table.add_column(head, justify="left" if head in ("metric", "") else "right", no_wrap=True)
    for row in found["rows"]:
        digits = 1 if max(abs(row["a"]), abs(row["b"])) >= 10 else 3
        bounds = (
            ""
            if row["low"] is None
            else f"[{row['low']:+.{min(digits, 2)}f}, {row['high']:+.{min(digits, 2)}f}]"
        )
        table.add_row(
            f"  {row['part']}" if row["part"] else row["metric"],
            "" if row["part"] else ARROWS[row["direction"]].strip(),
            f"{row['a']:.{digits}f}", f"{row['b']:.{digits}f}", f"{row['difference']:+.{digits}f}",
            bounds + ("" if row["how"] == "paired" else " *"),
            "" if row["n"] is None else str(row["n"]), "" if row["p"] is None else f"{row['p']:.4f}",
        )  # fmt: skip
    console.print(table)
    notes = [f"differ in {', '.join(found['differs'])}"] if found["differs"] else []
    if any(row["how"] == "paired" for row in found["rows"]):
        notes.append(
            "paired over the pictures of the same prompts and seeds; p is not corrected for how many there are"
        )
    if any(row["how"] != "paired" for row in found["rows"]):
        notes.append("* of the two values as if independent, which is wider than need be")
    notes += [f"{name} left out: {reason}" for name, reason in found["left_out"].items()]
    out.write("".join(f"\nnote: {note}" for note in [*notes, *found["notes"]]) + "\n")
    return printable("\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n")


def _json(sections: Sequence[Section], left_out: LeftOut) -> str:
    return json.dumps(document(sections, left_out), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(sections: Sequence[Section], left_out: LeftOut) -> str:
    """Return every number of every row in full, one column each; tables are told apart by the column "group"."""
    rows = [_flat(row) for row in document(sections, ())["rows"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _markdown(sections: Sequence[Section], left_out: LeftOut) -> str:
    def escape(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

    lines = []
    for section in sections:
        head = [escape(heading(column)) for column in section.columns]
        rules = ["---" if column.key == "technique" else "---:" for column in section.columns]
        lines += [f"### {escape(section.title)}", "", _line(head), _line(rules)]
        lines += [_line([escape(cell(row, column)) for column in section.columns]) for row in section.rows]
        lines += ["", *(f"- {escape(line)}" for line in remarks(section)), ""]
    lines += [f"- left out: {escape(one['record'])}: {escape(one['reason'])}" for one in left_out]
    return "\n".join(lines).rstrip() + "\n"


def _latex(sections: Sequence[Section], left_out: LeftOut) -> str:
    """Return tables for the package booktabs."""
    lines = ["% needs \\usepackage{booktabs}"]
    for section in sections:
        align = "".join("l" if column.key == "technique" else "r" for column in section.columns)
        head = [_tex(heading(column)) for column in section.columns]
        lines += ["\\begin{table}", "\\centering", f"\\caption{{{_tex(section.title)}}}",
                  f"\\begin{{tabular}}{{{align}}}", "\\toprule", " & ".join(head) + " \\\\", "\\midrule"]  # fmt: skip
        lines += [
            " & ".join(_tex(cell(row, column)) for column in section.columns) + " \\\\"
            for row in section.rows
        ]
        lines += ["\\bottomrule", "\\end{tabular}", "\\end{table}"]
        lines += [f"% {line}" for line in remarks(section)]
    lines += [f"% left out: {one['record']}: {one['reason']}" for one in left_out]
    return "\n".join(" ".join(line.splitlines()) for line in lines) + "\n"


def _html(sections: Sequence[Section], left_out: LeftOut) -> str:
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Leaderboard</title>'
        "<style>:root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:1.5rem;overflow-x:auto}"
        "table{border-collapse:collapse;margin-top:1.5rem}caption{text-align:left;font-weight:600}"
        "th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #8885;white-space:nowrap}"
        ".name{text-align:left}.baseline{font-style:italic}</style></head><body>"
    ]
    for section in sections:
        parts.append(f"<table><caption>{html.escape(section.title)}</caption><thead><tr>")
        for column in section.columns:
            name = ' class="name"' if column.key == "technique" else ""
            parts.append(f'<th scope="col"{name}>{html.escape(heading(column))}</th>')
        parts.append("</tr></thead><tbody>")
        for row in section.rows:
            parts.append('<tr class="baseline">' if row.get("baseline") else "<tr>")
            for column in section.columns:
                text = html.escape(cell(row, column))
                named = column.key == "technique"
                parts.append(f'<th scope="row" class="name">{text}</th>' if named else f"<td>{text}</td>")
            parts.append("</tr>")
        parts.append("</tbody></table>" + _list(remarks(section)))
    left = [f"left out: {one['record']}: {one['reason']}" for one in left_out]
    return "\n".join([*parts, _list(left), "</body></html>"]) + "\n"


FORMATS: dict[str, Callable[[Sequence[Section], LeftOut], str]] = {
    "table": _table,
    "csv": _csv,
    "json": _json,
    "markdown": _markdown,
    "latex": _latex,
    "html": _html,
}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= {key if inner == "value" else f"{key}.{inner}": v for inner, v in value.items()}
        elif isinstance(value, list):
            found |= {f"{key}.{i}": v for i, v in enumerate(value, 1)}
        else:
            found[key] = value
    return found


def _two_lines(text: str) -> str:
    """Return a long heading broken after its first word."""
    for gap in " _":
        if gap in text[:-2] and len(text) > 10:
            return text.replace(gap, "\n" if gap == " " else "_\n", 1)
    return text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _tex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}"}
    special |= {"^": "\\textasciicircum{}", "↑": "$\\uparrow$", "↓": "$\\downarrow$"}
    return "".join(special.get(c, c) for c in text)
