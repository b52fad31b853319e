"""`bench sd`, `run`, `score`, `show`, `validate`, `schema`: concept unlearning of Stable Diffusion."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlearn_core.errors import InvalidInput, UnlearnError

if TYPE_CHECKING:
    from unlearn_bench.sd.config import Config

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Force = Annotated[bool, typer.Option("--force", help="Measure again even if it was done.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting of the technique, or METRIC.NAME=VALUE; repeatable."
    ),
]
ConfigFile = Annotated[Path, typer.Option("--config", help="YAML or JSON, ours or eval-learn's.")]


def run_technique(
    technique: Annotated[
        str | None,
        typer.Option(help="See `bench list`; a+b acts with b on top of a; a,b or all: one after another."),
    ] = None,
    concept: Annotated[str | None, typer.Option(help="What to forget; dog for pocket, else nudity.")] = None,
    model: Annotated[
        str | None, typer.Option(help="auto, pocket, a Hub id, or a folder in diffusers layout.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Names, separated by commas, or all.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings of the technique; 'none' for its defaults.")
    ] = None,
    set_: Settings = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts of each group at most.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance scale.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="ddim, pndm, euler, dpm, …, model.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures per call; found if left out.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, auto.")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp32, fp16, bf16, auto.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Root of the technique's randomness.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of all runs.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML or JSON; options take precedence.")] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a Stable Diffusion forget a concept, and say what it still draws and how well."""
    from unlearn_bench.sd import config as configs
    from unlearn_core import registry

    found = configs.load(config) if config else configs.Config()
    sampler = {"steps": steps, "guidance_scale": guidance, "scheduler": scheduler, "batch": batch}
    top = {
        "concept": concept, "model": model, "limit": limit, "device": device, "dtype": dtype,
        "seed": seed, "out": out,
    }  # fmt: skip
    mapping = found.model_dump(exclude_unset=True)
    if metrics is not None:
        stated = {m["name"]: m for m in mapping.get("metrics") or []}
        names = registry.names("unlearn.metrics") if metrics == "all" else metrics.split(",")
        top["metrics"] = [stated.get(name.strip(), name.strip()) for name in names]
    mapping |= {key: value for key, value in top.items() if value is not None}
    mapping["sampler"] = {**mapping.get("sampler", {}), **{k: v for k, v in sampler.items() if v is not None}}
    stated_techniques = {one["name"]: one for one in mapping.get("technique", [])}
    place = str(config) if config else "the command line"

    def build(names: str | None) -> "Config":
        chain = mapping.get("technique", ["uce"])
        if names is not None:  # the settings of those in the file stay
            chain = [stated_techniques.get(n.strip(), {"name": n.strip()}) for n in names.split("+")]
        if preset is not None:
            if len(chain) > 1:
                raise InvalidInput(
                    "--preset is of one technique; of several state it in a file: technique: [{name, preset}]"
                )
            only = chain[0] if isinstance(chain[0], dict) else {"name": chain[0]}
            chain = [{**only, "preset": preset}]
        return configs.build({**mapping, "technique": chain}, place)

    if technique is not None and (technique == "all" or "," in technique):
        _run_several(technique, build, set_ or [], force, json)
    else:
        _run(build(technique), set_ or [], force, json)


def run_config(config: ConfigFile, set_: Settings = None, force: Force = False, json: Json = False) -> None:
    """Run what a configuration file describes: ours, or one of eval-learn as it is."""
    from unlearn_bench.sd.config import load

    _run(load(config), set_ or [], force, json)


def validate_config(config: ConfigFile, set_: Settings = None) -> None:
    """Check a configuration file: every name, type and file in it, without loading a model."""
    from unlearn_bench import tables
    from unlearn_bench.sd import tables as sd_tables
    from unlearn_bench.sd.config import load
    from unlearn_bench.sd.experiment import prepare

    experiment = prepare(load(config), set_ or [])
    tables.say(f"{config}: well-formed")
    for line in sd_tables.summary(experiment):
        tables.say(f"  {line}")


def print_schema() -> None:
    """Print the JSON Schema of configuration files, for editors."""
    from unlearn_bench import tables
    from unlearn_bench.sd.config import schema

    tables.print_json(schema())


def show_card(
    name: Annotated[str, typer.Argument(help="A technique, method or metric; see `bench list`.")],
) -> None:
    """Print the card of a technique, method or metric: paper, idea, defaults and where they come from."""
    import inspect

    from unlearn_bench import tables
    from unlearn_core import registry
    from unlearn_core.errors import NotRegistered, one_of

    groups = (
        "unlearn.techniques",
        "unlearn.metrics",
        "unlearn.methods",
        "unlearn.attacks",
        "eval_unlearn.techniques",
    )
    group = next((g for g in groups if name in registry.names(g)), None)
    if group is None:
        everything = [known for g in groups for known in registry.names(g)]
        raise NotRegistered(one_of("technique, method or metric", name, everything))
    cls = registry.load(group, name)
    module = inspect.getmodule(cls)
    tables.print_card(name, inspect.cleandoc(module.__doc__ or ""), cls)


def draft_graph(
    concept: Annotated[str, typer.Argument(help="What is to be forgotten.")],
    model: Annotated[
        str, typer.Option(help="Whose world knows the concept: pocket, or a Stable Diffusion.")
    ] = "pocket",
    adjacent: Annotated[
        str | None, typer.Option(help="What is near it and kept, separated by commas.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; by default the graph is printed.")] = None,
) -> None:
    """Draft the concept graph that CoGFD trains on, as JSON to be read and edited."""
    import json

    from unlearn_bench import tables
    from unlearn_bench.sd.config import ConceptConfig
    from unlearn_bench.sd.worlds import world_of
    from unlearn_core import atomic
    from unlearn_techniques.concept_graph import draft_graph as draft

    near = {"adjacent": [word.strip() for word in adjacent.split(",")]} if adjacent else {}
    graph = draft(world_of(model).concept(ConceptConfig(name=concept, **near)))
    if out is None:
        tables.print_json(graph)
        return
    atomic.write_text(out, json.dumps(graph, indent=1, ensure_ascii=False) + "\n")
    tables.say(f"graph: {out}; use it with --technique cogfd --set graph={out}")


def score_folder(
    folder: Annotated[
        Path, typer.Argument(help="Images: an imagefolder with metadata.jsonl, or plain files.")
    ],
    metrics: Annotated[str, typer.Option(help="Names, separated by commas.")],
    prompts: Annotated[
        Path | None, typer.Option(help="A table with a column file_name that says what each image shows.")
    ] = None,
    group: Annotated[str, typer.Option(help="Group of the images that state none.")] = "target",
    concept: Annotated[str | None, typer.Option(help="Concept of the images that state none.")] = None,
    model: Annotated[
        str | None, typer.Option(help="What drew them: pocket, whose judge then looks, or another.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Images of the unmodified model for the same prompts.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METRIC.NAME=VALUE", help="A setting of a metric; repeatable."),
    ] = None,
    json: Json = False,
) -> None:
    """Rate images that anything may have made."""
    from unlearn_bench import tables
    from unlearn_bench.sd import tables as sd_tables
    from unlearn_bench.sd.config import ConceptConfig, Plug
    from unlearn_bench.sd.experiment import build_metrics
    from unlearn_bench.sd.scoring import score
    from unlearn_bench.sd.worlds import Open, world_of

    world = world_of(model) if model else Open()
    about = world.concept(ConceptConfig(name=concept) if concept else None)
    asked = [Plug(name=name.strip()) for name in metrics.split(",")]
    chosen = build_metrics(asked, world.settings(about), set_ or [])
    found = score(folder, chosen, table=prompts, group=group, concept=concept, baseline=baseline)
    if json:
        tables.print_json(found)
    else:
        sd_tables.print_scores(found["scores"], with_baseline=baseline is not None)
        for note in found["notes"]:
            tables.say(f"note: {note}")
    if any("error" in entry for entry in found["scores"].values()):
        raise typer.Exit(1)


def _run_several(
    asked: str, build: Callable[[str], "Config"], assignments: list[str], force: bool, json: bool
) -> None:
    """Run techniques one after another; of "all", one that does not fit the concept is a line of the table."""
    from unlearn_bench import tables
    from unlearn_bench.progress import progress_bar
    from unlearn_bench.sd import tables as sd_tables
    from unlearn_bench.sd.experiment import Experiment, prepare
    from unlearn_bench.sd.series import document, draw_sheet, run_series
    from unlearn_core import registry

    everything = asked == "all"
    names = registry.names("unlearn.techniques") if everything else [n.strip() for n in asked.split(",")]
    if bare := next((a for a in assignments if "." not in a.partition("=")[0]), None):
        raise InvalidInput(f"--set {bare}: say of which technique or metric, such as {names[0]}.{bare}")
    of_others = {one for name in names for one in name.split("+")}
    experiments: dict[str, Experiment | str] = {}
    for name in names:
        own = [a for a in assignments if a.partition(".")[0] not in of_others.difference(name.split("+"))]
        try:
            experiments[name] = prepare(build(name), own)
        except UnlearnError as error:
            if not everything:
                raise
            experiments[name] = str(error)
    fitting = [e for e in experiments.values() if isinstance(e, Experiment)]
    if not fitting:
        raise InvalidInput("no technique can be run: " + "; ".join(map(str, experiments.values())))
    if not json:
        tables.say(f"model {fitting[0].model}: {fitting[0].why}")
    outcomes, out = [], build(names[0]).out
    with progress_bar(quiet=json) as progress:
        for outcome in run_series(experiments, out, force=force, progress=progress):
            outcomes.append(outcome)
    sheet = draw_sheet(outcomes, out)
    if json:
        tables.print_json(document(outcomes, sheet))
    else:
        sd_tables.print_series(outcomes, f"{fitting[0].concept.name!r} taken out of {fitting[0].model}")
        if sheet:
            tables.say(f"sheet:  {sheet}")
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(1)


def _run(config: "Config", assignments: list[str], force: bool, json: bool) -> None:
    from unlearn_bench import tables
    from unlearn_bench.progress import progress_bar
    from unlearn_bench.sd import tables as sd_tables
    from unlearn_bench.sd.experiment import prepare

    experiment = prepare(config, assignments)
    if not json:
        tables.say(f"model {experiment.model}: {experiment.why}")
    from unlearn_bench.sd import runner

    with progress_bar(quiet=json) as progress:
        record, path, reused = runner.run(experiment, config.out, force=force, progress=progress)
    found: dict[str, Any] = runner.document(record, path, reused=reused)
    if json:
        tables.print_json(found)
    else:
        sd_tables.print_run(record, found)
    if any("error" in entry for entry in record.scores.values()):
        raise typer.Exit(1)


COMMANDS = {
    "sd": run_technique,
    "run": run_config,
    "score": score_folder,
    "show": show_card,
    "graph": draft_graph,
    "validate": validate_config,
    "schema": print_schema,
}
