"""`bench klom`: run an experiment, score two margin matrices, list the methods."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from unlearn_core.record import RunRecord

app = typer.Typer(help="KLoM: data unlearning of classifiers.", no_args_is_help=True)


@app.command("run")
def run_experiment(
    method: Annotated[
        str, typer.Option(help="Registered method; see `bench klom methods`.")
    ] = "noisy_descent",
    forget_set: Annotated[int, typer.Option(help="Number of the forget set, from 1.")] = 1,
    n_models: Annotated[int, typer.Option(help="Unlearned models, and oracles to compare them with.")] = 100,
    dataset: Annotated[str, typer.Option(help="digits, cifar10, a plugin's, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Root of the method's randomness.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder that gets a folder per run.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    variant: Annotated[str, typer.Option(help="KLoM variant; see docs/klom.md.")] = "easydub",
    preset: Annotated[
        str | None,
        typer.Option(
            help="'published' for the paper's settings; default: the data set's tuned ones if there are any."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting of the method; repeatable."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="A local copy of the data set's Hub folder.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Unlearn and score again even if it was done.")
    ] = False,
) -> None:
    """Unlearn an ensemble and say how far it is from models that never saw the forget set."""
    from klom_bench import experiment as klom_experiment
    from unlearn_bench import tables
    from unlearn_bench.progress import progress_bar

    data, why = choose_dataset(dataset, data_dir)
    chosen = klom_experiment.Experiment(
        dataset=data,
        method=configure(method, data.name, preset, set_ or []),
        method_name=method,
        forget_set=forget_set,
        n_models=n_models,
        variant=variant,
        seed=seed,
    )
    path = klom_experiment.record_path(chosen, out)
    reused = path.exists() and not force
    if not json:
        tables.say(f"data set {data.name}: {why}")
    with progress_bar(quiet=json) as progress:
        reason = {"dataset_reason": why}
        record = klom_experiment.run(chosen, out=out, force=force, circumstances=reason, progress=progress)
    if json:
        tables.print_json({**document(record, path), "dataset_reason": why, "reused": reused})
    else:
        tables.print_klom_run(record, path, reused=reused)


@app.command("score")
def score_margins(
    oracle: Annotated[
        Path, typer.Argument(help="Margins (n_models, n_samples) of the oracles: .npy, .npz or .pt.")
    ],
    unlearned: Annotated[Path, typer.Argument(help="Margins of the unlearned models, same shape.")],
    variant: Annotated[str, typer.Option(help="KLoM variant; see docs/klom.md.")] = "easydub",
    held_out: Annotated[
        Path | None, typer.Option(help="Margins of as many further oracles, for the floor.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Score two margin matrices that anything may have made."""
    from klom_bench.klom import check_variant
    from klom_bench.margin_files import read_margins
    from klom_bench.scoring import score, too_few_models, warnings_of
    from unlearn_bench import tables

    check_variant(variant)
    a, b = read_margins(oracle), read_margins(unlearned)
    result = score(a, b, variant, held_out=read_margins(held_out) if held_out else None)
    notes = too_few_models(result) + warnings_of(unlearned.name, a, b, result, variant)
    if json:
        tables.print_json({"variant": variant, "score": result.to_mapping(), "warnings": notes})
    else:
        tables.print_klom_score(result, variant, notes)


@app.command("methods")
def list_methods() -> None:
    """List the unlearning methods with their settings and presets."""
    from unlearn_bench.tables import print_methods
    from unlearn_core.errors import UnlearnError, UnlearnWarning
    from unlearn_core.registry import load, names

    methods = {}
    for name in names("unlearn.methods"):
        try:
            methods[name] = load("unlearn.methods", name)
        except UnlearnError as error:  # a broken plugin must not hide the others
            warnings.warn(str(error), UnlearnWarning, stacklevel=1)
    print_methods(methods)


def choose_dataset(name: str, data_dir: Path | None) -> tuple[Any, str]:
    """Return the data set called `name`, and why it was taken.

    "auto" is cifar10 where a CUDA device and the data are at hand, else digits.
    """
    from unlearn_core.errors import InvalidInput
    from unlearn_core.registry import load
    from unlearn_core.spec import build

    if data_dir is not None and not data_dir.is_dir():
        raise InvalidInput(f"--data-dir {str(data_dir)!r}: there is no such folder")

    def make(name: str) -> Any:
        cls = load("unlearn.datasets", name)
        if data_dir is None:
            return build(cls, {})
        if "data_dir" not in cls.__dataclass_fields__:
            raise InvalidInput(f"--data-dir: the data set {name!r} has none; it is for cifar10")
        return build(cls, {"data_dir": data_dir})

    if name != "auto":
        return make(name), "as asked"
    cifar10 = make("cifar10")
    missing = cifar10.missing()
    if missing is None:
        return cifar10, "a CUDA device and the data are here"
    from klom_bench.datasets.digits import Digits

    ignored = "; --dataset cifar10 uses --data-dir all the same" if data_dir else ""
    return Digits(), f"auto takes cifar10 where it can, but {missing}{ignored}"


def configure(method: str, dataset: str, preset: str | None, assignments: list[str]) -> Any:
    """Return the method with the settings of its preset and of the command line."""
    from unlearn_core.errors import InvalidInput, one_of
    from unlearn_core.registry import load
    from unlearn_core.spec import build

    cls = load("unlearn.methods", method)
    presets = {"published": {}, **cls.presets}
    if preset is None:
        preset = dataset if dataset in presets else "published"
    if preset not in presets:
        raise InvalidInput(one_of(f"preset of {method}", preset, presets))
    given = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"--set {text!r}: write NAME=VALUE, for example --set lr=0.1")
        given[name.strip().replace("-", "_")] = value.strip()
    return build(cls, {**presets[preset], **given})


def document(record: "RunRecord", path: Path) -> dict[str, Any]:
    """Return what `--json` prints of a run."""
    spec = record.spec
    plot = record.files.get("plot")  # none without matplotlib
    return {
        "dataset": spec["dataset"]["name"],
        "method": spec["method"],
        "config": spec["config"],
        "forget_set": spec["forget_set"],
        "n_models": spec["n_models"],
        "seed": spec["seed"],
        "variant": spec["variant"],
        "scores": record.scores,
        "seconds": {name: stage.seconds for name, stage in record.stages.items()},
        "notes": record.notes,
        "record": str(path),
        "plot": str(path.parent / plot) if plot else None,
    }
