"""Concept graphs: which texts are to be forgotten and which, near them, are to be kept. CoGFD trains on them.

A graph is JSON in the form of CoGFD's official code, so its files can be read here and ours there:

    {"alcohol and driving": {
        "Conjunction": ["alcohol", "driving"],
        "entailment": ["beer in a car", "wine on a motorcycle"],
        "equivalence": ["a drunk driver"],
        "alcohol": {"entailment": ["beer", "wine"], "equivalence": ["liquor"]},
        "driving": {"entailment": ["a car", "a motorcycle"], "equivalence": ["traffic"]}}}

The combination, what it entails and what equals it are forgotten. Its parts, each under its name, are kept, with what
they entail and what equals them. Several combinations may stand side by side, or in "iteration_0", "iteration_1", …
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.minors import sexual_and_minor

_LISTS = ("entailment", "equivalence")


def draft_graph(concept: Concept) -> dict[str, Any]:
    """Return a graph made of the concept's own words, to be used as it is or edited.

    "alcohol and driving" is a combination: its parts are kept, and its phrases are forgotten with it. Any other concept
    is taken as what it shares with its neighbours together with what sets it apart, and its neighbours stand for what
    it shares: the name and the phrases are forgotten, `adjacent` and `anchor` are kept.

    Raises:
        InvalidInput: a single concept that has neither neighbours nor an anchor.
    """
    parts = [part.strip() for part in re.split(r"\band\b|&|\+|_and_", concept.name) if part.strip()]
    combined = len(parts) > 1
    kept = dict.fromkeys(
        [*(parts if combined else ()), *concept.adjacent, *([concept.anchor] if concept.anchor else [])]
    )
    if not kept:
        raise InvalidInput(
            f"the concept {concept.name!r} has no adjacent concepts and no anchor, so nothing says what is to be kept: "
            "name some, or give a graph"
        )
    return {
        concept.name: {
            "Conjunction": parts if combined else [],
            "entailment": list(concept.phrases),
            "equivalence": [],
            **{word: {"entailment": [], "equivalence": []} for word in kept},
        }
    }


def read_graph(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return a graph as a mapping of combinations, from a JSON file or the mapping itself, and check it.

    Raises:
        InvalidInput: no such file, no JSON, a graph of another form, or a text that is sexual and mentions a minor.
    """
    where = "the graph"
    if not isinstance(source, Mapping):
        where = f"the graph {str(source)!r}"
        try:
            source = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{where} cannot be read: {error}") from None
    if not isinstance(source, Mapping) or not source:
        raise InvalidInput(
            f"{where} is an object of combinations, such as {{'dog': {{'cat': {{}}}}}}; got {source!r:.80}"
        )
    graph: dict[str, Any] = {}
    for key, entry in source.items():
        iteration = re.fullmatch(r"iteration_\d+", key) and isinstance(entry, Mapping)
        for name, own in (entry if iteration else {key: entry}).items():
            _check_combination(where, name, own)
            graph[plain(name)] = _merged(graph.get(plain(name), {}), own)
    forgotten, kept = texts_of(graph)
    for text in (*forgotten, *kept):
        if sexual_and_minor(text):
            raise InvalidInput(f"{where}: {text!r} is sexual and mentions a minor, no picture is drawn of it")
    if not kept:
        raise InvalidInput(f"{where} names no part that is kept, such as {{'dog': {{'cat': {{}}}}}}")
    if both := [text for text in forgotten if text in kept]:
        raise InvalidInput(f"{where} has {both[0]!r} both among what is forgotten and among what is kept")
    return graph


def texts_of(graph: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the texts that are forgotten (D_-) and those that are kept (D_+), in the graph's order, each once."""
    forgotten: dict[str, None] = {}
    kept: dict[str, None] = {}
    for name, entry in graph.items():
        forgotten |= dict.fromkeys([name, *_texts(entry)])
        parts = [
            *entry.get("Conjunction", ()),
            *(key for key, value in entry.items() if isinstance(value, Mapping)),
        ]
        for part in parts:
            kept |= dict.fromkeys([part, *_texts(entry.get(part, {}))])
    return list(forgotten), list(kept)


def plain(name: str) -> str:
    """Return the name of a combination as it is said: "alcohol_and_driving" is "alcohol and driving"."""
    return " ".join(name.replace("_", " ").split())


def joined(graphs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one graph of several drafts; a part that one of them forgets is left out."""
    graphs = list(graphs)
    forgotten = {text for graph in graphs for text in texts_of(graph)[0]}
    found: dict[str, Any] = {}
    for name, entry in (item for graph in graphs for item in graph.items()):
        parts = [part for part in entry["Conjunction"] if part not in forgotten]
        left = {k: v for k, v in entry.items() if not (isinstance(v, Mapping) and k in forgotten)}
        found[name] = {**left, "Conjunction": parts}
    return found


def _texts(entry: Mapping[str, Any]) -> list[str]:
    return [text for key in _LISTS for text in entry.get(key, ())]


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(one)
    for key, value in other.items():
        if isinstance(value, Mapping):
            found[key] = _merged(one.get(key, {}), value)
        else:
            found[key] = [*one.get(key, ()), *(text for text in value if text not in one.get(key, ()))]
    return found


def _check_combination(where: str, name: str, entry: Any) -> None:
    if not isinstance(entry, Mapping) or not name.strip():
        raise InvalidInput(
            f"{where}: {name!r} is a name, and holds an object of lists and parts; got {entry!r:.80}"
        )
    for key, value in entry.items():
        if not isinstance(value, Mapping):
            _check_list(f"{where}: {name!r}", key, value, ("Conjunction", *_LISTS))
            continue
        if not key.strip() or key in ("Conjunction", *_LISTS):
            raise InvalidInput(f"{where}: {name!r} has a part called {key!r}, which is no text to be kept")
        for inner, texts in value.items():
            _check_list(f"{where}: {name!r}, {key!r}", inner, texts, _LISTS)


def _check_list(where: str, key: str, texts: Any, allowed: Sequence[str]) -> None:
    if key not in allowed:
        raise InvalidInput(f"{where}: " + one_of("list", key, allowed))
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str) and t.strip() for t in texts):
        raise InvalidInput(f"{where}: {key!r} is a list of texts, got {texts!r:.80}")
