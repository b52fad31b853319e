"""What the `bench genmu` commands print."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unlearn_bench.tables import console, say

AXES = ("fgt", "ret", "adj", "ind", "adv")
Doc = Mapping[str, Any]


def print_errs(named: Mapping[str, Doc], *, title: str = "", concepts: bool = True) -> None:
    """Print ERR and its components, a line for each name; below the first, its concepts.

    Args:
        named: name -> what `err.Err.document` returns.
        title: what stands above.
        concepts: whether the first one's concepts are shown.
    """
    table = _table(title, ["", "ERR pooled", "ERR macro", *AXES])
    for number, (name, doc) in enumerate(named.items()):
        cells = [doc["err_pooled"], doc["err_macro"], *(doc["components"][axis] for axis in AXES)]
        _row(table, name, *map(_cell, cells), style=None if not number else "dim")
        if number == 0 and concepts and len(doc["concepts"]) > 1:
            for concept, row in doc["concepts"].items():
                values = [f"{row[axis]['value']:.3f}" for axis in AXES]
                _row(table, f"  {concept}", "", f"{row['err']:.3f}", *values)
            table.add_section()
    _print(table)


def print_run(document: Doc, record: Any, path: Any) -> None:
    """Print a run: its scores beside the trivial baselines, what each request did, and where everything is."""
    spec = record.spec
    names = ", ".join(concept["name"] for concept in spec["concepts"])
    scores = {spec["technique"]: record.scores["submission"], "identity": record.scores["identity"],
              "noise": record.scores["noise"]}  # fmt: skip
    print_errs(scores, title=f"{spec['technique']}, {spec['strategy']}: {names} forgotten by {spec['model']}")
    print_judges(record.scores.get("panel"), record.scores.get("corrected"))
    gain = record.scores["gain"]
    say("")
    say(f"against doing nothing: {gain['value']:+.3f} ERR pooled [{gain['low']:+.3f}, {gain['high']:+.3f}]")
    print_weight_change(record.scores["tie_break"])
    if claimed := record.scores.get("claimed"):
        print_claim(claimed)
    if found := record.scores.get("continual"):
        print_continual(found)
    for note in record.notes:
        say(f"note: {note}")
    images = document["images"]
    say(f"pictures: {images['generated']} drawn, {images['reused']} found again; judged: {document['n']}")
    if document["reused"]:
        say(f"reused the record of {record.created:%Y-%m-%d %H:%M} UTC (--force scores again)")
    else:
        spent = ((name, stage.seconds) for name, stage in record.stages.items() if stage.seconds >= 0.05)
        say("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent))
    for role, word in (("heat_map", "heat map"), ("components", "components"), ("sheet", "sheet")):
        if role in record.files:
            say(f"{word}: {path.parent / record.files[role]}")
    say(f"folder: {path.parent}")


def print_judges(panel: Doc | None, corrected: Doc | None) -> None:
    """Print how far several judges agree, and the components as they would be without a judge's errors."""
    if corrected:
        cells = [corrected["err_pooled"], *(corrected["components"][axis] for axis in AXES)]
        said = f"sensitivity {corrected['sensitivity']:.3f}, specificity {corrected['specificity']:.3f}"
        table = _table(f"corrected for a judge of {said}", ["", "ERR pooled", *AXES])
        _row(table, "corrected", *map(_cell, cells))
        say("")
        _print(table)
    if panel:
        pairs = [f"{' and '.join(p['judges'])} {_kappa(p['kappa'])}" for p in panel["cohen_kappa"]]
        say("")
        say(
            f"judges: {', '.join(panel['judges'])}, agreement on {panel['n']} answers: Fleiss' kappa "
            f"{_kappa(panel['fleiss_kappa'])}; Cohen's: {', '.join(pairs)}; {panel['draws']} draws count as not shown"
        )


def _kappa(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def print_claim(claimed: Doc) -> None:
    """Print what a submission says of itself beside what was found."""
    if "error" in claimed:
        say(f"its own table cannot be scored: {claimed['error']}")
        return
    agreed = claimed["shared"] - claimed["different"]
    say(
        f"its own table: {claimed['err_pooled']['value']:.3f} ERR pooled; {agreed} of {claimed['images']} answers are "
        "those found here"
    )


def print_continual(found: Doc) -> None:
    """Print what each request of each order did."""
    for number, run in enumerate(found["orders"]):
        order = run["order"]
        title = "submitted order" if not number else f"order {number + 1}"
        table = _table(
            f"{title}: share of direct prompts that show", ["after", *order, "ERR pooled", "drift"]
        )
        rows = [run["base"], *run["detection"]]
        for t, row in enumerate(rows):
            err = _cell(run["steps"][t - 1]["err_pooled"]).replace("\n", " ") if t else ""
            drift = f"{run['weights'][t - 1]['drift']:.3g}" if t else ""
            shares = [
                f"{value:.2f}{'*' if t and order[t - 1] == c else ''}"
                for c, value in zip(order, row, strict=True)
            ]
            _row(table, f"{t}. {order[t - 1]}" if t else "nothing", *shares, err, drift)
        say("")
        _print(table)
        for key, word in (("persistence", "stays forgotten"), ("resurgence", "comes back"),
                          ("premature_loss", "lost before its request")):  # fmt: skip
            if run[key]:
                say(f"  {word}: " + ", ".join(f"{c} {value:.2f}" for c, value in run[key].items()))
        if run["retention_slope"] is not None:
            say(
                f"  retained, change per request: {run['retention_slope']:+.3f}; path of the weights {run['path']:.3g}"
            )
    say("  *: the request for it")
    if spread := found.get("spread"):
        final = spread["final"]
        say(
            f"{len(spread['orders'])} orders: final ERR {final['mean']:.3f}, from {final['low']:.3f} to "
            f"{final['high']:.3f}, sd {final['sd']:.3f}"
        )


def print_weight_change(found: Doc | None) -> None:
    """Print the tie-break."""
    if found is None:
        say("weight change: none to be seen: the submission holds no weights")
        return
    say(
        f"weight change: {found['value']:.4g} ({found['norm']} per parameter, {', '.join(found['parts'])}, "
        f"{found['total_parameters']:,} parameters; amortised {found['amortised']:.4g})"
    )
    for name, change in found["models"].items():
        parts = ", ".join(f"{part} {norm:.3g}" for part, norm in change["parts"].items() if norm)
        say(
            f"  {name}: {change['kind']}, L2 {change['l2']:.4g}{f' ({parts})' if parts else ''}, "
            f"{change['changed']:.2%} of the parameters, relative {change['relative']:.3g}"
        )
        if change["added"]:
            say(f"    {change['added']:,} parameters added, L2 {change['added_l2']:.4g}")


def print_ranking(places: Sequence[Doc], *, by: str) -> None:
    """Print a ranking, a table for each strategy."""
    for strategy in dict.fromkeys(place["strategy"] for place in places):
        _print_places(
            [place for place in places if place["strategy"] == strategy], f"{strategy}, by {by}", by
        )


def _print_places(places: Sequence[Doc], title: str, by: str) -> None:
    table = _table(
        f"{title}; within a tie by weight change", ["", "", by, "weight change", "behind its leader", "by"]
    )
    for place in places:
        lead, change = place["lead"], place["weight_change"]
        behind = "" if lead is None else f"{lead['value']:.3f} [{lead['low']:+.3f}, {lead['high']:+.3f}]"
        _row(
            table, str(place["rank"]), place["name"], _cell(place).replace("\n", " "),
            "" if change is None else f"{change:.3g}", behind, place["decided_by"],
            style="dim" if place["baseline"] else None,
        )  # fmt: skip
    _print(table)


def print_lint(document: Doc, checks: Mapping[str, str]) -> None:
    """Print the defects of a sheet."""
    known = " (the challenge's own file)" if document["published"] else ""
    say(
        f"{document['sheet']}: {document['questions']} prompts, sha256 "
        f"{document['sha256'] or 'of no single file'}{known}"
    )
    for check, meaning in checks.items():
        found = [f for f in document["findings"] if f["check"] == check]
        if not found:
            continue
        say(f"\n{check} ({len(found)}): {meaning}")
        for finding in found:
            where = " ".join(filter(None, [finding["concept"] or "the file", finding["axis"]]))
            text = f" {finding['text'][:60]!r}" if finding["text"] else ""
            say(f"  {where}:{text} {finding['note']}".rstrip(" :"))
    if not document["findings"]:
        say("no defects")


def _cell(found: Doc) -> str:
    ends = "-".join(f"{found[end]:.2f}".removeprefix("0") for end in ("low", "high"))
    return f"{found['value']:.3f}\n{ends}"


def _row(table: Table, *cells: str, style: str | None = None) -> None:
    # Names are others': they are shown as they are, never read as markup.
    table.add_row(*map(Text, cells), style=style)


def _table(title: str, headings: Iterable[str]) -> Table:
    table = Table(
        title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False,
        pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for number, heading in enumerate(headings):
        table.add_column(Text(heading), justify="left" if not number else "right", no_wrap=True)
    return table


def _print(table: Table) -> None:
    # A table that is cut off is of no use: lines may be longer than the terminal.
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    Console(highlight=False, width=max(console.width, needed)).print(table)
