"""What the settings of every plugin have to do: methods, techniques, metrics, detectors."""

import dataclasses
import json
from typing import Any

from unlearn_core.errors import InvalidInput
from unlearn_core.spec import build, canonical_json, settings_of


def check_settings(plugin: Any) -> None:
    """Check that settings are frozen, survive JSON and build from every preset, and that an unknown one is an error.

    Raises:
        AssertionError: one of these does not hold.
    """
    cls = type(plugin)
    require(dataclasses.is_dataclass(plugin), "a plugin is a dataclass whose fields are its settings")
    require(cls.__dataclass_params__.frozen, "the dataclass is frozen")
    again = build(cls, json.loads(canonical_json(settings_of(plugin))))
    require(again == plugin, f"settings survive JSON: {plugin} came back as {again}")
    for name, preset in getattr(cls, "presets", {}).items():
        built = settings_of(build(cls, preset))
        require(all(built[k] == v for k, v in preset.items()), f"preset {name!r} builds what it says")
    try:
        build(cls, {"no_such_setting": 1})
    except InvalidInput:
        return
    raise AssertionError("an unknown setting is an error")


def require(holds: bool, what: str) -> None:
    """Raise an AssertionError that names the property, also where Python runs without assertions."""
    if not holds:
        raise AssertionError(f"does not hold: {what}")
