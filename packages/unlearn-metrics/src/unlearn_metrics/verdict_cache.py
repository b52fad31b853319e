"""Verdicts on images, kept on disk: what judged an image once is not asked about it again, by any metric or run.

The cache is a folder for everything that an answer depends on besides the image (`identity`), with *shards*: JSON files
of image hash -> answer and a checksum. As with features, a shard is written whole and never changed, so processes share
the folder without locks. An answer that could not be given is not kept: it may be another time.
"""

import contextlib
import hashlib
import json
import numbers
import warnings
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from unlearn_core import atomic
from unlearn_core.errors import UnlearnWarning
from unlearn_core.spec import canonical_json, settings_of
from unlearn_metrics import features


@dataclass
class Counts:
    """How many verdicts were found on disk, and how many a judge had to give."""

    reused: int = 0
    computed: int = 0


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count the verdicts of the block, those of blocks inside it left out.

    >>> with counted() as counts:
    ...     pass
    >>> counts
    Counts(reused=0, computed=0)
    """
    counts = Counts()
    token = _counting.set(counts)
    try:
        yield counts
    finally:
        _counting.reset(token)


def count(*, reused: int = 0, computed: int = 0) -> None:
    """Add to the counts of the block that counts, if there is one."""
    if (counts := _counting.get()) is not None:
        counts.reused += reused
        counts.computed += computed


def cache_folder() -> Path:
    """Return the folder in which verdicts are kept, beside the one of features."""
    return features.cache_folder().with_name("verdicts")


def identity(judge: Any, *question: str) -> str:
    """Return what an answer depends on besides the image: the plug, its revision and settings, and what is asked."""
    settings = settings_of(judge) if is_dataclass(judge) else {}
    plug = f"{type(judge).__module__}.{type(judge).__qualname__}"
    return json.dumps([plug, judge.revision, settings, *question], sort_keys=True, default=str)


def folder_of(identity: str) -> Path:
    """Return the folder of the answers of `identity`, which can be written.

    Raises:
        Unavailable: it cannot.
    """
    folder = cache_folder() / hashlib.sha256(identity.encode()).hexdigest()[:32]
    atomic.make_folder(folder)  # known now, not after the work
    return folder


def stored(folder: Path, wanted: set[str]) -> dict[str, Any]:
    """Return image hash -> answer, of the images `wanted`; a damaged shard is removed, with a warning."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        if len(found) == len(wanted):
            break
        try:
            shard = json.loads(path.read_bytes())
            answers = shard["answers"]
            if shard["sha256"] != _checksum(answers):
                raise ValueError("its checksum is wrong")
        except FileNotFoundError:  # another process found it damaged and removed it
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(
                f"verdicts are given again, the cache file {str(path)!r} is damaged: {error}",
                UnlearnWarning,
                stacklevel=4,
            )
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            continue
        found |= {digest: answers[digest] for digest in wanted & answers.keys()}
    return found


def store(folder: Path, answers: Mapping[str, Any]) -> None:
    """Keep image hash -> answer, a label or a confidence; None is left out."""
    kept = {digest: _plain(answer) for digest, answer in answers.items() if answer is not None}
    if kept:
        name = hashlib.sha256("".join(sorted(kept)).encode()).hexdigest()[:32]
        text = json.dumps({"answers": kept, "sha256": _checksum(kept)})
        atomic.write_text(folder / f"{name}.json", text)


def _plain(answer: Any) -> Any:
    return float(answer) if isinstance(answer, numbers.Real) else str(answer)


def _checksum(answers: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(answers).encode()).hexdigest()


_counting: ContextVar[Counts | None] = ContextVar("verdicts that are counted", default=None)
