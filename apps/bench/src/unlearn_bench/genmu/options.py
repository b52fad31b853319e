"""What the options of `bench genmu` mean as values."""

import json
from collections.abc import Sequence
from typing import Any

from unlearn_core.errors import InvalidInput, one_of


def names(text: str | None) -> tuple[str, ...]:
    """Return the names in a text, separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def settings(assignments: Sequence[str] | None) -> dict[str, Any]:
    """Return name -> value of texts NAME=VALUE; a value in brackets is JSON.

    Raises:
        InvalidInput: a text that is none, or no JSON.
    """
    found: dict[str, Any] = {}
    for text in assignments or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidInput(
                f"--judge-set {text!r}: write NAME=VALUE, for example --judge-set model=ViT-B-32"
            )
        try:
            found[name.strip().replace("-", "_")] = json.loads(value) if value[:1] in "[{" else value
        except ValueError as error:
            raise InvalidInput(f"--judge-set {text!r} is no JSON: {error}") from None
    return found


def chosen(what: str, value: str, known: tuple[str, ...]) -> Any:
    """Return `value`, which is among `known`.

    Raises:
        InvalidInput: it is not.
    """
    if value not in known:
        raise InvalidInput(one_of(what, value, known))
    return value
