"""Errors a user can mend: one message that says what was wrong and what would be right.

The command line prints the message of an `UnlearnError` and exits with code 2. Any other exception is a
defect of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class UnlearnError(Exception):
    """Something the user can put right; printed without a traceback."""


class InvalidInput(UnlearnError, ValueError):
    """A value, file or array that cannot be what was meant."""


class NotRegistered(UnlearnError, LookupError):
    """No plugin of that name; the message holds the nearest right one."""


class Unavailable(UnlearnError, OSError):
    """A file, host or device that cannot be reached or written."""

    # OSError formats its arguments as errno and text; the message is all we have.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingExtra(UnlearnError, ImportError):
    """An optional dependency is not installed; the message holds the command that installs it."""


class UnlearnWarning(UserWarning):
    """A result that holds but needs a second look, or a plugin that could not be loaded."""


def one_of(what: str, name: str, options: Iterable[str]) -> str:
    """Return the message for a `name` that is none of `options`, with the nearest right one first.

    >>> one_of("method", "noisy_decent", ["noisy_descent", "scrub"])
    "unknown method 'noisy_decent'; did you mean 'noisy_descent'? Known: noisy_descent, scrub"
    """
    known = sorted(options)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(known) or 'none'}"
