"""What the commands about Stable Diffusion print."""

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from unlearn_bench.tables import console, say, settings_text
from unlearn_core.spec import settings_of

if TYPE_CHECKING:
    from unlearn_bench.sd.series import Outcome
    from unlearn_core.record import RunRecord


def summary(experiment: Any) -> list[str]:
    """Return what a run is going to do, in lines."""
    counts = {group: len(rows) for group, rows in experiment.prompts.items()}
    counts |= {group: len(one.prompts) for group, one in experiment.attacks.items()}
    rows = ", ".join(f"{n} {group}" for group, n in counts.items())
    return [
        f"model: {experiment.model} ({experiment.why}), {experiment.device}, {experiment.dtype}",
        *(
            f"technique: {one.name}({settings_text(settings_of(one.technique))}), preset {one.preset or 'none'}"
            for one in experiment.chain
        ),
        f"concept: {experiment.concept.name} ({experiment.concept.kind})",
        f"prompts: {rows}",
        f"metrics: {', '.join(experiment.metrics)}",
        *(f"note: {note}" for note in experiment.notes),
    ]


def print_run(record: "RunRecord", document: dict[str, Any]) -> None:
    """Print the table of a run, its notes, what it cost, and where everything is."""
    spec = record.spec
    title = f"{spec['technique']}: {spec['concept']['name']!r} taken out of {spec['model']}"
    print_scores(record.scores, title=title)
    say("")
    say("before: the unmodified model; the change is paired, over the same prompts and seeds")
    for note in record.notes:
        say(f"note: {note}")
    images = document["images"]
    say(f"pictures: {images['generated']} drawn, {images['reused']} found again, in {images['folder']}")
    if attacks := record.environment.get("attacks"):
        again = [name for name, info in attacks.items() if info["reused"]]
        say(f"attacks: {len(attacks) - len(again)} run, {len(again)} found again {', '.join(again)}".rstrip())
    if verdicts := record.environment.get("verdicts"):
        say(f"verdicts: {verdicts['computed']} given, {verdicts['reused']} found again")
    if document["reused"]:
        say(f"reused the record of {record.created:%Y-%m-%d %H:%M} UTC (--force measures again)")
    else:
        spent = ((name, stage.seconds) for name, stage in record.stages.items() if stage.seconds >= 0.05)
        say("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent))
    say(f"sheet:  {document['sheet']}")
    say(f"record: {document['record']}")


def print_scores(scores: dict[str, Any], *, title: str = "", with_baseline: bool = True) -> None:
    """Print metric, value, interval, n, and the unmodified model's value and the paired difference."""
    from unlearn_metrics.references import BY_IMAGE

    table = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    headings = ["metric", "", "value", "95 %", "n"] + ["before", "change", "95 %"] * with_baseline
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("metric", "") else "right", no_wrap=True)
    for name, score in scores.items():
        if "error" in score:
            table.add_row(name, "!", "failed", style="red")
            continue
        if "not_applicable" in score:
            table.add_row(name, "", "n/a", style="dim")
            continue
        arrow = {"up": "↑", "down": "↓"}[score["direction"]]
        differences, baseline = score.get("difference", {}), score.get("baseline") or {"parts": {}}
        table.add_row(*_score_row(name, arrow, score, baseline, differences.get("value"), with_baseline))
        for part, value in score["parts"].items():
            if isinstance(value, dict) and part != BY_IMAGE:  # which says the same again
                other = baseline["parts"].get(part)
                row = _score_row(f"  {part}", "", value, other, differences.get(part), with_baseline)
                table.add_row(*row, style="dim")
    console.print(table)
    for name, score in scores.items():
        if "error" in score:
            say(f"{name} failed: {score['error']}")
        elif "not_applicable" in score:
            say(f"{name} is not applicable: {score['not_applicable']}")
        elif score["n_unscored"]:
            reasons = ", ".join(f"{reason} ({n})" for reason, n in score["reasons"].items())
            say(f"{name}: {score['n_unscored']} pictures unscored: {reasons}")


def print_series(outcomes: list["Outcome"], title: str) -> None:
    """Print one line per technique, the unmodified model first: every metric with its interval, and the time."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )  # fmt: skip
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    columns = _columns(records)
    table.add_column("technique", no_wrap=True)
    for metric, part, arrow in columns:
        table.add_column(f"{part or metric} {arrow}".replace("_", "\n", 1), justify="right", no_wrap=True)
    table.add_column("seconds\nshare", justify="right", no_wrap=True)
    total = sum(outcome.seconds for outcome in outcomes) or 1.0
    shared = sum(outcome.shared_seconds for outcome in outcomes)
    if records:
        before = {name: score.get("baseline", {}) for name, score in records[0].scores.items()}
        cells = [_cell(before, *column) for column in columns]
        table.add_row("unmodified", *cells, _share(shared, total), style="italic")
    for outcome in outcomes:
        cells = [_cell(outcome.record.scores, *c) for c in columns] if outcome.record else ["failed"]
        cells += [""] * (len(columns) - len(cells))
        spent = _share(outcome.seconds - outcome.shared_seconds, total)
        table.add_row(outcome.name, *cells, spent, style=None if outcome.record else "red")
    # A table that is cut off is of no use: lines may be longer than the terminal.
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    Console(highlight=False, width=max(console.width, needed)).print(table)
    say("")
    for outcome in outcomes:
        if outcome.error:
            say(f"{outcome.name} failed: {outcome.error}")
        for name, score in outcome.record.scores.items() if outcome.record else ():
            if "error" in score:
                say(f"{outcome.name}: {name} failed: {score['error']}")
    for note in dict.fromkeys(note for record in records for note in record.notes):
        say(f"note: {note}")
    reused = [outcome.name for outcome in outcomes if outcome.reused]
    if reused:
        say(f"reused the records of {', '.join(reused)} (--force measures again)")
    drawn = sum(
        0 if o.reused or not o.record else o.record.environment["images"]["generated"] for o in outcomes
    )
    say(f"{drawn} pictures drawn; a line is a record: bench sd --technique NAME shows it with its changes")


def _columns(records: list["RunRecord"]) -> list[tuple[str, str, str]]:
    """Return (metric, part, arrow) of each column: the parts of a metric that is an average of parts, else itself."""
    found: dict[tuple[str, str], str] = {}
    for record in records:
        for metric, score in record.scores.items():
            if "value" not in score:
                continue
            arrow = {"up": "↑", "down": "↓"}[score["direction"]]
            parts = [name for name, part in score["parts"].items() if isinstance(part, dict)]
            found |= {(metric, part): arrow for part in (parts if metric == "ua_ira" else [""])}
    return [(metric, part, arrow) for (metric, part), arrow in found.items()]


def _cell(scores: dict[str, Any], metric: str, part: str, _: str) -> str:
    score = scores.get(metric, {})
    score = score.get("parts", {}).get(part, {}) if part else score
    if "value" not in score:
        return "failed" if "error" in score else ""
    digits = 1 if abs(score["value"]) >= 10 else 3
    interval = score["interval"]
    ends = [f"{interval[end]:.{0 if digits == 1 else 2}f}" for end in ("low", "high")] if interval else []
    return f"{score['value']:.{digits}f}\n{'-'.join(end.removeprefix('0') or '0' for end in ends)}"


def _share(seconds: float, total: float) -> str:
    return f"{seconds:.1f}\n{seconds / total:.0%}"


def _score_row(
    name: str, arrow: str, score: dict[str, Any], baseline: Any, difference: Any, with_baseline: bool
) -> list[str]:
    digits = 1 if abs(score["value"]) >= 10 else 3
    n = f"{score['n_scored']}" + (f"+{score['n_unscored']}?" if score["n_unscored"] else "")
    row = [name, arrow, f"{score['value']:.{digits}f}", _between(score["interval"], digits), n]
    if with_baseline:
        row.append(f"{baseline['value']:.{digits}f}" if baseline and "value" in baseline else "")
        row += (
            [f"{difference['value']:+.{digits}f}", _between(difference, digits)] if difference else ["", ""]
        )
    return row


def _between(interval: Any, digits: int) -> str:
    if not interval or interval["low"] is None:
        return ""
    digits = min(digits, 2)
    return f"[{interval['low']:.{digits}f}, {interval['high']:.{digits}f}]"
