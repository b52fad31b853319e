"""Settings as data: build a dataclass from a mapping, write it back, and name it by its content.

A technique, method or metric *is* a frozen dataclass: its fields are its settings. These functions are all
that a configuration file, the command line and the records need to know of it.
"""

import dataclasses
import functools
import hashlib
import json
import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar

from unlearn_core.errors import InvalidInput, one_of

T = TypeVar("T")


def build(cls: type[T], settings: Mapping[str, Any]) -> T:
    """Return `cls(**settings)` with every value checked against the annotation of its field.

    Text is converted where the field is a number ("0.1" from the command line).

    Raises:
        InvalidInput: an unknown field (with the nearest right one) or a value of the wrong type or range.
    """
    fields = [f.name for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    for name in settings:
        if name not in fields:
            raise InvalidInput(f"{cls.__name__}: " + one_of("setting", name, fields))
    from pydantic import ValidationError

    try:
        return _adapter(cls).validate_python(dict(settings))  # type: ignore[no-any-return, arg-type]
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False)
        said = first.get("ctx", {}).get("error")
        # What the dataclass itself says may be of a kind of its own, such as "not applicable".
        if isinstance(said, InvalidInput) and type(said) is not InvalidInput:
            raise said from None
        whose = f"{cls.__name__}: "
        raise InvalidInput(whose + explain(error).removeprefix(whose)) from None


def explain(error: Any) -> str:
    """Return a pydantic `ValidationError` as one line: each field, what is wrong, what was given."""
    return "; ".join(map(_explain_one, error.errors(include_url=False)))


def settings_of(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass `instance` as a mapping that `build` accepts."""
    return {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance) if f.init}


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces: equal values, equal text.

    Raises:
        InvalidInput: `value` holds NaN, infinity or something JSON cannot express.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        text.encode()  # half a surrogate pair, as in an argument that was not UTF-8, is no JSON text
        return text
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"not expressible as JSON: {error}") from None


def fingerprint(value: Any) -> str:
    """Return the sha256 (hex) of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _explain_one(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "value_error":  # raised by the dataclass itself, which has said what it got
        return f"{where}: {error['ctx']['error']}" if where else str(error["ctx"]["error"])
    # Short: the input of a file that is no JSON is the whole file.
    got = "" if error["type"] == "missing" else f", got {reprlib.repr(error['input'])}"
    return f"{where or 'value'}: {error['msg']}{got}"


@functools.cache
def _adapter(cls: type) -> Any:
    from pydantic import TypeAdapter  # imported late: it costs more than the rest of the core

    return TypeAdapter(cls)
