"""`bench genmu`: the Genμ challenge, for one who takes part and for one who scores everybody."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unlearn_bench.genmu import options

app = typer.Typer(help="The Genμ challenge: ERR, its tie-break, and three strategies.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Model = Annotated[str, typer.Option(help="The unmodified model: pocket, a Hub id, or a diffusers folder.")]
Csv = Annotated[
    str | None, typer.Option("--csv", help="Prompts in the challenge's columns: a file or a Hub id.")
]
Concepts = Annotated[str | None, typer.Option(help="What to forget, separated by commas.")]
Images = Annotated[
    int | None,
    typer.Option(min=1, help="Pictures per prompt; of pocket's own prompts, per concept and axis."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Pictures of each concept and axis at most.")]
Judge = Annotated[
    list[str] | None,
    typer.Option(
        help="pocket, llava, or a detector of `bench list`; the model's own by default. Several, with commas or "
        "repeated, decide by majority."
    ),
]
JudgeSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-set",
        metavar="NAME=VALUE",
        help="A setting of the judge, of several JUDGE.NAME=VALUE; repeatable.",
    ),
]
Sensitivity = Annotated[
    str | None,
    typer.Option(help="Of the judge, as 0.92 or as counts, 46/50: components are corrected for its errors."),
]
Specificity = Annotated[str | None, typer.Option(help="Of the judge, with --sensitivity.")]
Labelled = Annotated[
    Path | None,
    typer.Option(
        "--calibration", help="In place of both: a table of labelled pictures, columns truth, present."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, auto.")]
Dtype = Annotated[str, typer.Option(help="fp32, fp16, bf16, auto.")]
Over = Annotated[str, typer.Option(help="What intervals are about: concepts in general, or images of these.")]
OVER = ("concepts", "images")
Seed = Annotated[int, typer.Option(min=0, help="Root of the randomness of techniques, or of the bootstrap.")]
Out = Annotated[Path, typer.Option(help="Folder of all runs.")]
Force = Annotated[bool, typer.Option("--force", help="Score again even if it was done.")]


@app.command("run")
def run_strategy(
    technique: Annotated[str, typer.Option(help="See `bench list techniques`; a+b acts with b on top of a.")],
    strategy: Annotated[
        str,
        typer.Option(help="single: a model per concept; multi: one for all; continual: one after another."),
    ] = "continual",
    concepts: Concepts = None,
    csv: Csv = None,
    order: Annotated[
        list[str] | None,
        typer.Option(
            help="Continual: the concepts in the order of the requests; repeatable, the first is submitted."
        ),
    ] = None,
    orders: Annotated[
        int | None, typer.Option(min=1, help="Continual: number of orders in place of --order; 3 by default.")
    ] = None,
    model: Model = "pocket",
    preset: Annotated[
        str | None, typer.Option(help="Settings of the technique; 'none' for its defaults.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the technique; repeatable."),
    ] = None,
    images: Images = None,
    limit: Limit = None,
    steps: Steps = None,
    judge: Judge = None,
    judge_set: JudgeSettings = None,
    sensitivity: Sensitivity = None,
    specificity: Specificity = None,
    calibration: Labelled = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    out: Out = Path("runs"),
    force: Force = False,
    json: Json = False,
) -> None:
    """Unlearn as a strategy says, draw and judge every picture once, score, and write a submission."""
    from unlearn_bench.genmu import plan as plans
    from unlearn_bench.genmu.panel import calibration_of, judged_world
    from unlearn_bench.progress import progress_bar
    from unlearn_core.errors import InvalidInput

    if order and orders:
        raise InvalidInput("--order states the orders themselves, --orders how many; give one of them")
    if (order or orders) and strategy != "continual":
        raise InvalidInput(f"--order is for --strategy continual; {strategy} has none")
    world = judged_world(model, csv, judge, options.settings(judge_set))
    known = calibration_of(sensitivity, specificity, calibration)
    asked = world.protocol(options.names(concepts), images=images, limit=limit)
    chain: list[dict[str, Any]] = [{"name": name.strip()} for name in technique.split("+")]
    if preset is not None:
        if len(chain) > 1:
            raise InvalidInput(
                "--preset is of one technique; set those of several with --set TECHNIQUE.NAME=VALUE"
            )
        chain[0]["preset"] = preset
    plan = plans.prepare(
        _config(chain, model, steps=steps, device=device, dtype=dtype, seed=seed, out=out), strategy, world, asked,
        orders=[options.names(one) for one in order] if order else orders or plans.ORDERS, assignments=set_ or [],
        asked_with={"images": images, "limit": limit}, calibration=known,
    )  # fmt: skip
    from unlearn_bench.genmu.run import run

    with progress_bar(quiet=json) as progress:
        done = run(plan, out, force=force, progress=progress)
    _print(*done, json=json)


@app.command("evaluate")
def evaluate_submission(
    submission: Annotated[Path, typer.Option(help="A folder of models or deltas, or an archive of one.")],
    model: Annotated[
        str | None, typer.Option(help="The unmodified model; by default the one the submission names.")
    ] = None,
    concepts: Concepts = None,
    csv: Csv = None,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures", help="Judge the pictures in the submission; draw only the unmodified model."
        ),
    ] = False,
    images: Images = None,
    limit: Limit = None,
    steps: Steps = None,
    judge: Judge = None,
    judge_set: JudgeSettings = None,
    sensitivity: Sensitivity = None,
    specificity: Specificity = None,
    calibration: Labelled = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Out = Path("runs"),
    force: Force = False,
    json: Json = False,
) -> None:
    """Draw and judge a submission anew, score it, and compare that with what it says of itself."""
    from unlearn_bench.genmu import plan as plans
    from unlearn_bench.genmu.evaluate import asked_with, evaluate, opened
    from unlearn_bench.genmu.panel import calibration_of, judged_world
    from unlearn_bench.progress import progress_bar
    from unlearn_core.errors import InvalidInput

    found = opened(submission, options.names(concepts), out)
    base = model or found.base
    if not base:
        raise InvalidInput("the submission does not say which model it began with; give --model")
    if model is None and Path(base).exists():  # a stranger's file does not choose what is opened here
        raise InvalidInput(
            f"the submission names the path {base!r} as its model; if it is right: --model {base}"
        )
    # What the submission states of its pictures holds where the organiser states nothing.
    stated = asked_with(found)
    images, limit, steps = images or stated["images"], limit or stated["limit"], steps or stated["steps"]
    world = judged_world(base, csv, judge, options.settings(judge_set))
    known = calibration_of(sensitivity, specificity, calibration)
    asked = world.protocol(found.concepts, images=images, limit=limit)
    config = _config("none", base, steps=steps, device=device, dtype=dtype, out=out)
    strategy = "single" if found.strategy == "single" else "multi"
    plan = plans.prepare(config, strategy, world, asked, calibration=known)
    with progress_bar(quiet=json) as progress:
        done = evaluate(found, plan, out, pictures=pictures, force=force, progress=progress)
    _print(*done, json=json)


def _config(technique: Any, model: str, *, steps: int | None, **rest: Any) -> Any:
    from unlearn_bench.sd import config as configs

    sampler = {} if steps is None else {"steps": steps}
    return configs.build(
        {"technique": technique, "model": model, "sampler": sampler, **rest}, "the command line"
    )


def _print(record: Any, path: Path, reused: bool, *, json: bool) -> None:
    from unlearn_bench import tables
    from unlearn_bench.genmu import tables as genmu_tables
    from unlearn_bench.genmu.document import document

    found = document(record, path, reused=reused)
    if json:
        tables.print_json(found)
    else:
        genmu_tables.print_run(found, record, path)


@app.command("rank")
def rank_submissions(
    submissions: Annotated[list[Path], typer.Argument(help="Folders that run or evaluate made.")],
    by: Annotated[str, typer.Option(help="err_pooled or err_macro.")] = "err_pooled",
    over: Over = "concepts",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Rank submissions by ERR, and by weight change where the intervals do not tell them apart."""
    from unlearn_bench import tables
    from unlearn_bench.genmu import tables as genmu_tables
    from unlearn_bench.genmu.ranking import ranking

    found = ranking(submissions, by=by, over=options.chosen("population", over, OVER), seed=seed)
    if json:
        tables.print_json(found)
        return
    genmu_tables.print_ranking(found["ranking"], by=by)
    for note in found["notes"]:
        tables.say(f"note: {note}")


@app.command("score")
def score_table(
    table: Annotated[Path, typer.Argument(help="CSV with the columns concept, axis, image, present.")],
    over: Over = "concepts",
    resamples: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 2000,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Score a table of judged images that anything may have made."""
    from genmu_eval.err import err
    from genmu_eval.table import read_table
    from unlearn_bench import tables
    from unlearn_bench.genmu import tables as genmu_tables

    kind = options.chosen("population", over, OVER)
    found = err(read_table(table), seed=seed, resamples=resamples, over=kind).document()
    if json:
        tables.print_json({**found, "tie_break": None})
    else:
        genmu_tables.print_errs(
            {table.name: found}, title=f"ERR of {found['n']} judged images, 95 % over {over}"
        )


@app.command("tiebreak")
def compare_weights(
    original: Annotated[
        str, typer.Argument(help="The unmodified model: pocket, a Hub id, a folder or a file.")
    ],
    unlearned: Annotated[list[Path], typer.Argument(help="Models or deltas: folders or safetensors files.")],
    norm: Annotated[str, typer.Option(help="l2, l1 or max.")] = "l2",
    parts: Annotated[str, typer.Option(help="everything, or some of unet,text_encoder,vae.")] = "everything",
    added: Annotated[
        str, typer.Option(help="Parameters the original lacks: count, apart or refuse.")
    ] = "count",
    n_concepts: Annotated[
        int | None, typer.Option(min=1, help="Concepts that a single model forgot.")
    ] = None,
    json: Json = False,
) -> None:
    """Say how far unlearned models are from the original: the challenge's tie-break."""
    from genmu_eval.tie_break import tie_break
    from unlearn_bench import tables
    from unlearn_bench.genmu import tables as genmu_tables
    from unlearn_bench.genmu.scores import local_folder

    found = tie_break(
        local_folder(original), unlearned, norm=norm, parts=parts, added=added, n_concepts=n_concepts,  # type: ignore[arg-type]
    ).document()  # fmt: skip
    if json:
        tables.print_json({"tie_break": found})
    else:
        genmu_tables.print_weight_change(found)


@app.command("lint")
def lint_prompts(
    sheet: Annotated[
        str, typer.Argument(help="A file in the challenge's columns or ours, a Hub id, or 'own'.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Draw every prompt with this unmodified model, to see which ones it heeds."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Pictures per prompt, with --model.")] = 4,
    steps: Steps = None,
    judge: Judge = None,
    judge_set: JudgeSettings = None,
    device: Device = "auto",
    out: Out = Path("runs"),
    json: Json = False,
) -> None:
    """Report what is wrong with a sheet of prompts; with a model, how often it heeds each."""
    from genmu_eval.lint import CHECKS, lint
    from genmu_eval.prompts import own, sheet_of
    from unlearn_bench import tables
    from unlearn_bench.genmu import tables as genmu_tables
    from unlearn_bench.progress import progress_bar

    found = own() if sheet == "own" else sheet_of(sheet)
    measured: dict[str, Any] = {}
    if model is not None:
        from unlearn_bench.genmu.potency import Unmodified

        with progress_bar(quiet=json) as progress:
            drawn = Unmodified.of(model, judge, options.settings(judge_set), steps=steps, device=device)
            measured = {
                "tokens": drawn.tokens,
                "potency": drawn.potency(found, out, images=images, progress=progress),
            }
    document = lint(found, **measured).document()
    if json:
        tables.print_json(document)
    else:
        genmu_tables.print_lint(document, CHECKS)
