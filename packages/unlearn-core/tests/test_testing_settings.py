from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from unlearn_core.testing.settings import check_settings


@dataclass(frozen=True, kw_only=True)
class Good:
    lr: float = 0.1
    presets: ClassVar[dict[str, dict[str, Any]]] = {"fast": {"lr": 1.0}}


@dataclass(kw_only=True)
class Loose:
    lr: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Wrong:
    lr: float = 0.1
    presets: ClassVar[dict[str, dict[str, Any]]] = {"fast": {"lr": "1"}}


def test_a_plugin_as_it_should_be():
    check_settings(Good())


@pytest.mark.parametrize(
    ("plugin", "what"), [(Loose(), "frozen"), (Wrong(), "preset 'fast'"), (object(), "is a dataclass")]
)
def test_what_is_wrong_is_named(plugin, what):
    with pytest.raises(AssertionError, match=what):
        check_settings(plugin)
