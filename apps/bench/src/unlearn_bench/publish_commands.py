"""`bench report`, `push`, `pull`, `submit`: from runs to something that others read, fetch and check."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="Folder of runs.")]
Title = Annotated[str, typer.Option(help="Title of the page; by default what the runs forget.")]
NoUnsafe = Annotated[bool, typer.Option("--no-unsafe", help="Leave unsafe pictures and their prompts out.")]


def report(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    title: Title = "",
    no_unsafe: NoUnsafe = False,
) -> None:
    """Make one HTML file of all runs: tables, plots, pictures, commands; it opens from disk without a network."""
    from unlearn_bench import tables
    from unlearn_bench.report import page

    held = page.write(folder, out, title=title, unsafe=not no_unsafe)
    size = out.stat().st_size / 2**20
    counts = ", ".join(f"{n} {what}" for what, n in held.items())
    tables.say(f"report: {out} ({counts}, {size:.1f} MB)")


def push(
    source: Annotated[
        Path, typer.Argument(help="Folder of runs; edits/….safetensors for a model; report.html for a Space.")
    ],
    repo: Annotated[str, typer.Option(help="Id on the Hub: owner/name. It is created if it is not there.")],
    space: Annotated[
        bool, typer.Option("--space", help="A static Space with the report of the runs.")
    ] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    title: Title = "",
    no_unsafe: NoUnsafe = False,
) -> None:
    """Publish runs as a data set, a weight edit as a model, or a report as a Space of the Hugging Face Hub.

    The token is that of HF_TOKEN or `hf auth login`.
    """
    from unlearn_bench import tables
    from unlearn_bench.leaderboard.records import read_runs
    from unlearn_bench.publish import hub
    from unlearn_bench.publish import push as gathered
    from unlearn_bench.report import page
    from unlearn_bench.report.files import root_of
    from unlearn_core.errors import InvalidInput, Unavailable

    if not source.exists():
        raise Unavailable(f"there is no {str(source)!r}")
    suffix = source.suffix if source.is_file() else ""
    if suffix == ".html":
        kind, files = "space", gathered.space(source, title or source.stem)
    elif suffix == ".safetensors" and not space:
        kind, files = "model", gathered.model(source, repo)
    elif source.is_dir() and space:
        found = page.collect(read_runs([source]), root_of(source), title=title, unsafe=not no_unsafe)
        kind, files = "space", gathered.space(page.render(found), found["title"])
    elif source.is_dir():
        if no_unsafe:
            raise InvalidInput(
                "--no-unsafe is for reports (--space): a data set holds what its records were scored on"
            )
        kind, files = "dataset", gathered.dataset(source, repo)
    else:
        raise InvalidInput(
            f"{str(source)!r}: push a folder of runs, edits/….safetensors, or a report (.html)"
        )
    done = hub.push(repo, kind, files, f"Unlearn Bench: {source.name}", create_pr=create_pr)
    tables.say(f"{kind}: {done.pull_request or done.url} ({done.files} files)")


def pull(
    repo: Annotated[str, typer.Argument(help="Id on the Hub: owner/name.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; by default the name.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    type_: Annotated[str, typer.Option("--type", help="dataset, model or space.")] = "dataset",
) -> None:
    """Fetch what `bench push` published, and check that every record and picture is what it says it is."""
    from unlearn_bench import tables
    from unlearn_bench.publish import hub
    from unlearn_bench.publish.submit import damaged
    from unlearn_core.errors import InvalidInput

    folder = out or Path(repo.rpartition("/")[2])
    names, commit = hub.pull(repo, type_, folder, revision=revision)
    if type_ == "dataset" and (found := damaged(folder)):
        raise InvalidInput(f"{repo}@{commit[:12]} is in {str(folder)!r}, but {found[0]}")
    tables.say(f"{len(names)} files of {repo}@{commit[:12]} in {folder}")


def submit(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of several.")],
    sample: Annotated[int, typer.Option(min=0, help="Pictures of each group to rate again; 0 for none.")] = 8,
    all_: Annotated[bool, typer.Option("--all", help="Rate every picture again.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the choice of pictures; drawn if left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Check that records are complete and honest enough for a leaderboard; exit code 1 if one is not."""
    import dataclasses
    import secrets

    from unlearn_bench import tables
    from unlearn_bench.publish.submit import submission

    seed = secrets.randbelow(2**31) if seed is None else seed
    found = submission(folder, sample=None if all_ else sample, seed=seed)
    wrong = [finding for finding in found if finding.problem]
    if json:
        rows = [dataclasses.asdict(finding) for finding in found]
        tables.print_json({"accepted": not wrong, "seed": seed, "findings": rows})
    else:
        for finding in found:
            mark = "missing" if finding.problem else "ok"
            said = [finding.check, finding.problem, finding.note and f"not rated again: {finding.note}"]
            tables.say(f"{mark:8}{finding.record}: " + ": ".join(filter(None, said)))
        rated = "all pictures" if all_ else f"{sample} pictures of each group, seed {seed}"
        tables.say(f"rated again: {rated}; no check sees whether the model that is named drew the pictures")
        tables.say("accepted" if not wrong else f"not accepted: {len(wrong)} of {len(found)} checks failed")
    if wrong:
        raise typer.Exit(1)


COMMANDS = {"report": report, "push": push, "pull": pull, "submit": submit}
