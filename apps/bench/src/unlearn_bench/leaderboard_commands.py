"""`bench leaderboard`, `compare`: many runs in one table, and two of them side by side."""

from pathlib import Path
from typing import Annotated

import typer

from unlearn_core.errors import UnlearnWarning, one_of

FORMATS = ("table", "csv", "json", "markdown", "latex", "html")
VERSIONS = ("0.1.6", "corrected", "absolute")


def show_leaderboard(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders with records of bench sd, genmu or klom run.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="A published table to show besides: eval-learn-0.1.6.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Of BenchScore: 0.1.6, corrected (the default), absolute.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Weight of safety in the ranking, 0 to 1.")] = 0.5,
    sort: Annotated[
        str | None, typer.Option(help="Column to sort by, such as clip_score; by default the rank.")
    ] = None,
    collapsed: Annotated[
        Path | None, typer.Option(help="What bench score --json printed of pictures of noise, for absolute.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "table",
    out: Annotated[Path | None, typer.Option(help="File to write; by default it is printed.")] = None,
) -> None:
    """Rank the runs below some folders, each table of runs that were measured alike."""
    import sys
    import warnings

    from unlearn_core import atomic
    from unlearn_core.errors import InvalidInput

    if format_ not in FORMATS:
        raise InvalidInput(one_of("format", format_, FORMATS))
    if version is not None and version not in VERSIONS:
        raise InvalidInput(one_of("version of BenchScore", version, VERSIONS))
    from unlearn_bench.leaderboard.board import leaderboard
    from unlearn_bench.leaderboard.formats import render
    from unlearn_bench.leaderboard.scoring import noise_of

    sections, left_out = leaderboard(
        folders or [],
        reference=reference,
        version=version,  # type: ignore[arg-type]
        alpha=alpha,
        collapsed=noise_of(collapsed) if collapsed else None,
        sort_by=sort,
    )
    if format_ == "csv":  # which has no place for it
        for one in left_out:
            warnings.warn(f"left out: {one['record']}: {one['reason']}", UnlearnWarning, stacklevel=1)
    text = render(sections, left_out, format_)
    if out is None:
        sys.stdout.write(text)
        return
    atomic.write_text(out, text)
    sys.stdout.write(f"leaderboard: {out}\n")


def compare_runs(
    run_a: Annotated[Path, typer.Argument(help="Folder of a run, or its record.json.")],
    run_b: Annotated[Path, typer.Argument(help="The same of the run to compare with it.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Say how much more run B gets than run A, on the prompts and seeds that both drew."""
    import sys

    from unlearn_bench import tables
    from unlearn_bench.leaderboard.compare import compare
    from unlearn_bench.leaderboard.formats import comparison
    from unlearn_bench.leaderboard.records import read_run

    found = compare(read_run(run_a), read_run(run_b))
    if json:
        tables.print_json(found)
    else:
        sys.stdout.write(comparison(found))


COMMANDS = {"leaderboard": show_leaderboard, "compare": compare_runs}
