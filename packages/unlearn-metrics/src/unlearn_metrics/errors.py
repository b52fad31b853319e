"""What is said where a metric has no meaning, and where something that it needs is not installed."""

import importlib.util

from unlearn_core.errors import InvalidInput, MissingExtra


class NotApplicable(InvalidInput):
    """The metric, detector or prompt set does not exist for such a concept; the message has the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not applicable: {reason}")


def need(package: str, extra: str, note: str = "") -> None:
    """Check that `package` is installed, importing nothing: said before hours of drawing, not after.

    Raises:
        MissingExtra: it is not; the message has the command that installs it with the extra of this package.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(f"this needs {package}: pip install 'unlearn-metrics[{extra}]'{note}")
