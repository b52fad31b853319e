"""How values of eval-learn's configuration files become ours; each function raises InvalidInput for what is none."""

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from unlearn_core.errors import InvalidInput, one_of


class Key(NamedTuple):
    """What becomes of a key."""

    to: str
    """"own.NAME": a setting of the technique or metric; "rows.GROUP": a number of prompts; else a place in `Config`."""
    convert: Callable[[Any], Any] = lambda value: value
    """Value there -> value here; None where our schema has nothing to say."""
    why: str = ""
    """Said in a note where the value changes."""


def text(value: Any) -> str:
    """Return a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"this is a text, got {reprlib.repr(value)}")
    return value


def number(value: Any) -> float:
    """Return a finite number, also of a text: YAML reads 1e-5 as one."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InvalidInput(f"this is a number, got {reprlib.repr(value)}")
    return found


def count(value: Any) -> int:
    """Return a whole number from 1."""
    found = number(value)
    if found < 1 or found != int(found):
        raise InvalidInput(f"this is a whole number from 1, got {reprlib.repr(value)}")
    return int(found)


def words(value: Any) -> list[str]:
    """Return a text or a list of them as a list."""
    return [text(word) for word in value] if isinstance(value, list) and value else [text(value)]


def prompts(value: Any) -> list[str]:
    """Return a list of texts, where "" is the prompt of nothing."""
    if not isinstance(value, list) or not value or not all(isinstance(prompt, str) for prompt in value):
        raise InvalidInput(f"this is a list of texts, got {reprlib.repr(value)}")
    return value


def choice(options: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a function that gives the option of a name, in whatever case."""

    def convert(value: Any) -> Any:
        if (name := text(value).lower()) not in options:
            raise InvalidInput(one_of("value", value, options))
        return options[name]

    return convert


def device(value: Any) -> str:
    """Return a device; "cuda" is wherever there is one."""
    return "auto" if text(value) == "cuda" else text(value)


def dtype(value: Any) -> str:
    """Return what `use_fp16` stands for."""
    if not isinstance(value, bool):
        raise InvalidInput(f"this is true or false, got {reprlib.repr(value)}")
    return "auto" if value else "fp32"


def switch(on: str) -> Callable[[Any], str]:
    """Return a function that gives `on` for true and "off" for false."""

    def convert(value: Any) -> str:
        if not isinstance(value, bool):
            raise InvalidInput(f"this is true or false, got {reprlib.repr(value)}")
        return on if value else "off"

    return convert


def negative(value: Any) -> float:
    """Return a number with the other sign."""
    return -number(value)


CLIP = choice({
    "openai/clip-vit-base-patch16": "ViT-B-16-quickgelu",
    "openai/clip-vit-base-patch32": "ViT-B-32-quickgelu",
    "openai/clip-vit-large-patch14": "ViT-L-14-quickgelu",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336-quickgelu",
})  # fmt: skip
