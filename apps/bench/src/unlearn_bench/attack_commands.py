"""`bench attack`: prompts that bring a concept back, as a table for any tool."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlearn_core.errors import InvalidInput

if TYPE_CHECKING:
    from unlearn_bench.sd.experiment import Experiment
    from unlearn_core.prompts import PromptSet


def craft_prompts(
    name: Annotated[str, typer.Argument(help="An attack; see `bench list attacks`.")],
    technique: Annotated[
        str, typer.Option(help="What makes the model forget; a+b acts with b on top of a.")
    ] = "none",
    concept: Annotated[
        str | None, typer.Option(help="What is to come back; dog for pocket, else nudity.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="auto, pocket, a Hub id, or a folder in diffusers layout.")
    ] = "auto",
    mode: Annotated[
        str | None,
        typer.Option(help="transfer: the unmodified model is attacked; adaptive: the one that forgot."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A table of the prompts to attack; by default the concept's own.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings of the attack; 'none' for its defaults.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the attack, or TECHNIQUE.NAME=VALUE; repeatable.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts to attack at most.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance scale.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="fp32, fp16, bf16, auto.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Root of all randomness.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Table to write, .csv or .jsonl; its record is .json beside it.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs, where everything is found again.")] = Path(
        "runs"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Attack a model, with the defence of a technique, and write the prompts that were found."""
    from unlearn_bench import tables
    from unlearn_bench.progress import progress_bar
    from unlearn_bench.sd import config as configs
    from unlearn_bench.sd.experiment import prepare
    from unlearn_core import registry

    registry.load("unlearn.attacks", name)
    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise InvalidInput(f"--out {str(out)!r}: prompts are written as .csv or .jsonl")
    attack = {"name": name, "preset": preset, "mode": mode}
    sampler = {"steps": steps, "guidance_scale": guidance}
    mapping: dict[str, Any] = {
        "technique": technique, "model": model, "device": device, "dtype": dtype, "seed": seed, "out": runs,
        "limit": limit, "sampler": {k: v for k, v in sampler.items() if v is not None},
        "prompts": {name: {"attack": {k: v for k, v in attack.items() if v is not None}}},
    }  # fmt: skip
    if concept is not None:
        mapping["concept"] = concept
    if prompts is not None:
        mapping["prompts"]["target"] = str(prompts)
    own = [f"{name}.{one}" if "." not in one.partition("=")[0] else one for one in set_ or []]
    experiment = prepare(configs.build(mapping, "the command line"), own, measured=False)
    if not json:
        tables.say(f"model {experiment.model}: {experiment.why}")
    with progress_bar(quiet=json) as progress:
        found, info = _craft(experiment, name, runs, out, progress)
    if json:
        tables.print_json(info)
        return
    width = max(len(row.id) for row in found)
    for row in found:
        tables.say(f"{row.id:<{width}}  {row.text}")
    tables.say("")
    for note in experiment.notes:
        tables.say(f"note: {note}")
    tables.say(
        f"{info['rows']} prompts, {info['dropped']} dropped, {info['changed']} read as other tokens than were found; "
        f"{info['evaluations']} evaluations, {info['pictures']} pictures"
        + (", found again" if info["reused"] else "")
    )
    tables.say(f"prompts: {info['table']}")
    tables.say(f"record:  {info['record']}")


def _craft(
    experiment: "Experiment", name: str, runs: Path, out: Path | None, progress: Any
) -> tuple["PromptSet", dict[str, Any]]:
    """Return the prompts that an attack found, and all there is to say of them; both are written as well."""
    import functools
    import json

    from unlearn_bench.sd import runner
    from unlearn_bench.sd.attacks import Drawn, discover
    from unlearn_core import atomic
    from unlearn_core.environment import environment
    from unlearn_core.record import RunRecord

    plan = experiment.attacks[name]
    runner.check_out(runs)
    base = runner.load(experiment)
    adaptive = plan.mode == "adaptive"
    edited = runner.unlearn(experiment, base, runs / "edits", progress) if adaptive else base
    scratch = RunRecord.of("attack", {})  # counts pictures, and is not kept
    original, tested = (
        Drawn(
            model=one,
            sampler=experiment.sampler,
            pictures=runner.draw(experiment, one, runs, scratch, stage, progress) if plan.white_box else None,
        )
        for one, stage in ((base, "baseline"), (edited, "pictures"))
    )
    prompts, info = discover(
        plan, concept=experiment.concept, seed=experiment.seed, original=original, edited=tested,
        folder=runs / "attacks", progress=progress and functools.partial(progress, f"attack {name}"),
    )  # fmt: skip
    table = out or runs / "attacks" / info["file"]
    record = table.with_suffix(".json")
    about = {**info, "technique": experiment.name, "model": experiment.model, "table": str(table)}
    about |= {"record": str(record), "environment": environment()}
    if out is not None:
        prompts.save(out)
        atomic.write_text(record, json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    return prompts, about


COMMANDS = {"attack": craft_prompts}
