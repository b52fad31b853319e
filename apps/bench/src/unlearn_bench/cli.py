"""The `bench` command.

Commands import what they need when they run: `bench --help` loads neither torch nor numpy.
"""

import sys
import warnings
from typing import Annotated

import typer

from unlearn_bench import (
    attack_commands,
    genmu_commands,
    klom_commands,
    leaderboard_commands,
    publish_commands,
    sd_commands,
)
from unlearn_core.errors import UnlearnError, UnlearnWarning

app = typer.Typer(
    help="Did this model really forget? Benchmarks of machine unlearning.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: importing rich would double the time of `bench --help`
    pretty_exceptions_enable=False,
)
app.add_typer(klom_commands.app, name="klom")
app.add_typer(genmu_commands.app, name="genmu")
for _name, _command in (
    attack_commands.COMMANDS
    | sd_commands.COMMANDS
    | leaderboard_commands.COMMANDS
    | publish_commands.COMMANDS
).items():
    app.command(_name)(_command)

GROUPS = {
    "methods": "unlearn.methods",
    "datasets": "unlearn.datasets",
    "techniques": "unlearn.techniques",
    "eval_unlearn": "eval_unlearn.techniques",
    "metrics": "unlearn.metrics",
    "attacks": "unlearn.attacks",
    "models": "unlearn.models",
    "detectors": "unlearn.detectors",
    "classifiers": "unlearn.classifiers",
    "extractors": "unlearn.extractors",
}


@app.command("list")
def list_plugins(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(GROUPS)}; all if left out.")] = None,
) -> None:
    """List everything that is registered, ours and that of installed plugins."""
    from unlearn_bench.tables import print_plugins
    from unlearn_core.errors import InvalidInput, one_of
    from unlearn_core.registry import describe

    if kind is not None and kind not in GROUPS:
        raise InvalidInput(one_of("kind of plugin", kind, GROUPS))
    for name in [kind] if kind else GROUPS:
        found = describe(GROUPS[name])
        if found or kind:
            print_plugins(name, found)


@app.callback()
def _() -> None:
    """Did this model really forget? Benchmarks of machine unlearning."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one message on stderr and exit code 2, never a traceback."""
    warnings.showwarning = _show_warning
    try:
        app(arguments)
    except UnlearnError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        # Typer makes a silent exit of Ctrl-C.
        print("stopped; the same command goes on from here", file=sys.stderr)  # noqa: T201
        sys.exit(130)


def _show_warning(message: Warning | str, category: type[Warning], *where: object, **_: object) -> None:
    if issubclass(category, UnlearnWarning):
        print(f"warning: {message}", file=sys.stderr)  # noqa: T201
