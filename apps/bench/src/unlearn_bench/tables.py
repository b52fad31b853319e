"""What the commands print; the only module besides `progress` that knows rich."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from unlearn_core.spec import settings_of

if TYPE_CHECKING:
    from klom_bench.scoring import SplitScore
    from unlearn_bench.sd.series import Outcome
    from unlearn_core.record import RunRecord

# Paths and commands are there to be copied: never wrapped, never coloured by guess.
_console = Console(highlight=False, soft_wrap=False)

SPLITS = ("retain", "forget", "val")


def say(text: str) -> None:
    """Print one line of plain text, unwrapped."""
    _console.print(text, markup=False, soft_wrap=True)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))  # noqa: T201


def print_plugins(kind: str, found: dict[str, str]) -> None:
    """Print the names registered for one kind, with their first docstring line."""
    table = Table("name", "what it is", title=kind, title_justify="left", box=None, padding=(0, 2))
    for name, summary in found.items():
        table.add_row(name, summary)
    _console.print(table)


def print_methods(methods: dict[str, Any]) -> None:
    """Print every method with its settings; a preset shows what it changes."""
    for name, cls in methods.items():
        say(f"{name}: {cls.__doc__.splitlines()[0]}")
        defaults = {f.name: f.default for f in dataclasses.fields(cls)}
        for preset, changes in {"published": defaults, **cls.presets}.items():
            say(f"    {preset}: {_settings(changes) or 'no settings'}")


def print_klom_run(record: "RunRecord", path: Path, *, reused: bool) -> None:
    """Print the table of a run, its notes, the time of each stage, and where everything is."""
    spec = record.spec
    table = Table(
        title=f"KLoM ({spec['variant']}) on {spec['dataset']['name']}, forget set {spec['forget_set']}, "
        f"{spec['n_models']} models; lower is better",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,  # with the numbers of a small ensemble ("10.88 (10.62-11.25)") it is 80 wide
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in ("", "mean (95 %)", "P95 (95 %)", "floor", "above it"):
        table.add_column(heading, justify="right" if heading else "left")
    labels = {"do_nothing": "do nothing", "oracle": "held-out oracle"}
    for split in SPLITS:
        table.add_row(f"{split}, {record.scores['do_nothing'][split]['n_samples']:,} images", style="italic")
        for name, splits in record.scores.items():
            score = splits[split]
            table.add_row(
                "  " + labels.get(name, name),
                f"{_number(score['mean'])} {_interval(score['mean_low'], score['mean_high'])}",
                f"{_number(score['p95'])} {_interval(score['low'], score['high'])}",
                _number(score["floor"]),
                _number(score["debiased"]),
                style="bold" if name == spec["method"] else None,
            )
        table.add_section()
    _console.print(table)
    say("")
    source = record.scores["do_nothing"]["forget"]["floor_from"]
    say(f"mean and P95 over images; intervals by bootstrap over models; floor of P95 from {source}")
    for note in record.notes:
        say(f"note: {note}")
    say(f"{spec['method']}: {_settings(spec['config']) or 'no settings'}, seed={spec['seed']}")
    if reused:
        say(f"reused the record of {record.created:%Y-%m-%d %H:%M} UTC (--force computes it again)")
    else:
        say("seconds: " + ", ".join(f"{name} {stage.seconds:.1f}" for name, stage in record.stages.items()))
    say(f"record: {path}")
    if "plot" in record.files:
        say(f"plot:   {path.parent / record.files['plot']}")


def print_klom_score(result: "SplitScore", variant: str, notes: list[str]) -> None:
    """Print the score of two margin matrices."""
    table = Table(
        title=f"KLoM ({variant}), {result.n_models} models, {result.n_samples:,} samples, lower is better",
        title_justify="left",
    )
    for heading in ("", "score", "95 % interval", f"floor ({result.floor_from})", "above floor"):
        table.add_column(heading, justify="left" if not heading else "right")
    r = result.to_mapping()
    interval = _interval(r["mean_low"], r["mean_high"])
    table.add_row(
        "mean", *map(_number, [r["mean"]]), interval, _number(r["mean_floor"]), _number(r["mean_debiased"])
    )
    table.add_row(
        "P95", _number(r["p95"]), _interval(r["low"], r["high"]), _number(r["floor"]), _number(r["debiased"])
    )
    _console.print(table)
    say(f"clipped margins: {result.clipped:.2%}")
    for note in notes:
        say(f"note: {note}")


def summary(experiment: Any) -> list[str]:
    """Return what a run is going to do, in lines."""
    rows = ", ".join(f"{len(rows)} {group}" for group, rows in experiment.prompts.items())
    return [
        f"model: {experiment.model} ({experiment.why}), {experiment.device}, {experiment.dtype}",
        *(
            f"technique: {one.name}({_settings(settings_of(one.technique))}), preset {one.preset or 'none'}"
            for one in experiment.chain
        ),
        f"concept: {experiment.concept.name} ({experiment.concept.kind})",
        f"prompts: {rows}",
        f"metrics: {', '.join(experiment.metrics)}",
        *(f"note: {note}" for note in experiment.notes),
    ]


def print_card(name: str, card: str, cls: type) -> None:
    """Print the card of a plugin: the docstrings of its module and class, its settings and presets."""
    say(f"{name}\n\n{card}")
    doc = inspect.cleandoc(cls.__doc__ or "")
    if doc and doc.splitlines()[0] not in card:
        say(f"\n{doc}")
    if not dataclasses.is_dataclass(cls):
        return
    say("\nSettings:")
    for f in dataclasses.fields(cls):
        kind = f.type if isinstance(f.type, str) else getattr(f.type, "__name__", str(f.type))
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        say(f"    {f.name}: {kind.replace('typing.', '')} = {default!r}")
    for preset, changes in getattr(cls, "presets", {}).items():
        say(f"    preset {preset}: {_settings(changes) or 'the defaults'}")


def print_sd_run(record: "RunRecord", document: dict[str, Any]) -> None:
    """Print the table of a run, its notes, what it cost, and where everything is."""
    spec = record.spec
    title = f"{spec['technique']}: {spec['concept']['name']!r} taken out of {spec['model']}"
    print_sd_scores(record.scores, title=title)
    say("")
    say("before: the unmodified model; the change is paired, over the same prompts and seeds")
    for note in record.notes:
        say(f"note: {note}")
    images = document["images"]
    say(f"pictures: {images['generated']} drawn, {images['reused']} found again, in {images['folder']}")
    if document["reused"]:
        say(f"reused the record of {record.created:%Y-%m-%d %H:%M} UTC (--force measures again)")
    else:
        spent = ((name, stage.seconds) for name, stage in record.stages.items() if stage.seconds >= 0.05)
        say("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent))
    say(f"sheet:  {document['sheet']}")
    say(f"record: {document['record']}")


def print_sd_scores(scores: dict[str, Any], *, title: str = "", with_baseline: bool = True) -> None:
    """Print metric, value, interval, n, and the unmodified model's value and the paired difference."""
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
        arrow = {"up": "↑", "down": "↓"}[score["direction"]]
        differences, baseline = score.get("difference", {}), score.get("baseline") or {"parts": {}}
        table.add_row(*_score_row(name, arrow, score, baseline, differences.get("value"), with_baseline))
        for part, value in score["parts"].items():
            if isinstance(value, dict):
                other = baseline["parts"].get(part)
                row = _score_row(f"  {part}", "", value, other, differences.get(part), with_baseline)
                table.add_row(*row, style="dim")
    _console.print(table)
    for name, score in scores.items():
        if "error" in score:
            say(f"{name} failed: {score['error']}")
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
    needed = _console.measure(table, options=_console.options.update(width=1000)).maximum
    Console(highlight=False, width=max(_console.width, needed)).print(table)
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
            if "error" in score:
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


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in settings.items())


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None else f"({low:.2f}-{high:.2f})"
