"""Plugins by entry point: one line of a pyproject per item, ours and everybody else's alike.

Nothing is imported before it is used, so a broken plugin costs its user one message and nobody else
anything. Groups in use: ``unlearn.techniques``, ``unlearn.metrics``, ``unlearn.attacks``,
``unlearn.methods``, ``unlearn.models``, ``unlearn.datasets``, and ``eval_unlearn.techniques`` of another project.
"""

import ast
import importlib.util
import warnings
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from unlearn_core.errors import NotRegistered, UnlearnError, UnlearnWarning, one_of


def names(group: str) -> list[str]:
    """Return the sorted names registered under `group`, importing nothing."""
    return sorted(_entries(group))


def load(group: str, name: str) -> Any:
    """Import and return the object registered as `name` under `group`.

    Raises:
        NotRegistered: there is no such name; the message holds the nearest one.
        UnlearnError: the plugin is registered but does not import.
    """
    entries = _entries(group)
    if name not in entries:
        raise NotRegistered(one_of(group.removeprefix("unlearn.").removesuffix("s"), name, entries))
    try:
        return entries[name].load()
    except UnlearnError:
        raise
    except Exception as error:
        # Foreign code may raise anything while it is imported; it must not take the command down unexplained.
        raise UnlearnError(_broken(entries[name], error)) from error


def describe(group: str) -> dict[str, str]:
    """Return name -> first docstring line of everything under `group`, parsed from source, not imported.

    A plugin whose source cannot be found or parsed is one warning and an empty description.
    """
    found = {}
    for name, entry in sorted(_entries(group).items()):
        try:
            found[name] = _first_line(entry)
        except Exception as error:  # a broken plugin must not hide the others
            warnings.warn(_broken(entry, error), UnlearnWarning, stacklevel=2)
            found[name] = ""
    return found


def _entries(group: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        known = found.setdefault(entry.name, entry)
        if known.value != entry.value:
            warnings.warn(
                f"{group}: {entry.name!r} is registered twice, as {known.value} and {entry.value}; "
                f"using {known.value}",
                UnlearnWarning,
                stacklevel=3,
            )
    return found


def _broken(entry: EntryPoint, error: Exception) -> str:
    owner = f" of {entry.dist.name}" if entry.dist else ""
    return f"plugin {entry.name!r}{owner} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}"


def _first_line(entry: EntryPoint) -> str:
    # find_spec imports the parent packages only; their __init__ files are empty of code by our rule.
    spec = importlib.util.find_spec(entry.module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {entry.module!r}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    nodes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    passed_on = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    if entry.attr not in {*nodes, *passed_on}:
        raise AttributeError(f"{entry.module} defines no {entry.attr!r}")
    own = ast.get_docstring(nodes[entry.attr]) if entry.attr in nodes else None
    doc = own or ast.get_docstring(tree) or ""
    return doc.splitlines()[0].rstrip(".") if doc else ""
