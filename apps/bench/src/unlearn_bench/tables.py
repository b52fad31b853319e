"""What the commands print; the only module besides `progress` that knows rich."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from klom_bench.scoring import SplitScore
    from unlearn_core.record import RunRecord

# Paths and commands are there to be copied: never wrapped, never coloured by guess.
console = Console(highlight=False, soft_wrap=False)

SPLITS = ("retain", "forget", "val")


def say(text: str) -> None:
    """Print one line of plain text, unwrapped."""
    console.print(text, markup=False, soft_wrap=True)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))  # noqa: T201


def print_plugins(kind: str, found: dict[str, str]) -> None:
    """Print the names registered for one kind, with their first docstring line."""
    table = Table("name", "what it is", title=kind, title_justify="left", box=None, padding=(0, 2))
    for name, summary in found.items():
        table.add_row(name, summary)
    console.print(table)


def print_methods(methods: dict[str, Any]) -> None:
    """Print every method with its settings; a preset shows what it changes."""
    for name, cls in methods.items():
        say(f"{name}: {cls.__doc__.splitlines()[0]}")
        defaults = {f.name: f.default for f in dataclasses.fields(cls)}
        for preset, changes in {"published": defaults, **cls.presets}.items():
            say(f"    {preset}: {settings_text(changes) or 'no settings'}")


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
    console.print(table)
    say("")
    source = record.scores["do_nothing"]["forget"]["floor_from"]
    say(f"mean and P95 over images; intervals by bootstrap over models; floor of P95 from {source}")
    for note in record.notes:
        say(f"note: {note}")
    say(f"{spec['method']}: {settings_text(spec['config']) or 'no settings'}, seed={spec['seed']}")
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
    console.print(table)
    say(f"clipped margins: {result.clipped:.2%}")
    for note in notes:
        say(f"note: {note}")


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
        say(f"    preset {preset}: {settings_text(changes) or 'the defaults'}")


def settings_text(settings: dict[str, Any]) -> str:
    """Return settings in one line."""
    return ", ".join(f"{k}={v}" for k, v in settings.items())


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None else f"({low:.2f}-{high:.2f})"
