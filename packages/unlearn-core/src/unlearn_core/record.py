"""The record of a run: what was asked, where it ran, what came out. Reports read nothing else."""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unlearn_core import atomic
from unlearn_core.environment import environment
from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.spec import canonical_json, explain, fingerprint

SCHEMA = 1


def run_id(spec: dict[str, Any]) -> str:
    """Return the name of the run that `spec` describes: equal specs, equal name, equal folder."""
    return fingerprint(spec)[:12]


class Stage(BaseModel):
    """Cost of one stage of a run: wall seconds, and the peak memory of the process during it in MiB.

    Outside Linux the peak on the host is that of the process up to the stage's end.
    """

    seconds: float = 0.0
    peak_memory: float = 0.0
    peak_device_memory: float | None = None


class _Schema(BaseModel):
    schema_number: int


class RunRecord(BaseModel):
    """One run as one JSON file.

    `spec` alone decides `run_id`; everything else is what was observed. A record whose spec was edited by
    hand no longer matches its id and is refused.
    """

    model_config = ConfigDict(extra="forbid")

    schema_number: int = SCHEMA
    run_id: str
    kind: str
    """What sort of run: "klom", "sd", "genmu"."""
    spec: dict[str, Any]
    environment: dict[str, Any]
    created: datetime
    stages: dict[str, Stage] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    """What a reader of the scores must know, in words."""
    files: dict[str, str] = Field(default_factory=dict)
    """Role -> path relative to the record."""

    @classmethod
    def of(cls, kind: str, spec: dict[str, Any]) -> Self:
        """Return an empty record of the run that `spec` describes, stamped with this environment."""
        return cls(
            run_id=run_id(spec), kind=kind, spec=spec, environment=environment(), created=datetime.now(UTC)
        )

    def write(self, path: Path) -> None:
        """Write the record to `path`, atomically.

        Raises:
            InvalidInput: a score is NaN or infinite, which would be written as null.
            Unavailable: the file cannot be written.
        """
        canonical_json([self.spec, self.scores])
        atomic.write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the record at `path`.

        Raises:
            Unavailable: there is no such file.
            InvalidInput: not a record, of another schema, or its spec was edited.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InvalidInput(f"{str(path)!r} is not a run record: it is not text") from None
        except OSError as error:
            raise Unavailable(f"cannot read {str(path)!r}: {error.strerror}") from error
        try:
            # The number first: another schema has other fields, and complaints about those help nobody.
            number = _Schema.model_validate_json(text).schema_number
            if number != SCHEMA:
                raise InvalidInput(
                    f"{str(path)!r} has schema {number}, this version reads schema {SCHEMA}: "
                    "install the version of unlearn-core that wrote it, or run again"
                )
            record = cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidInput(f"{str(path)!r} is not a run record: {explain(error)}") from None
        if record.run_id != (expected := run_id(record.spec)):
            raise InvalidInput(
                f"{str(path)!r}: the spec hashes to {expected}, but the record says {record.run_id}; "
                "one of them was edited after the run"
            )
        return record

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to stage `name`, and note the peak memory during it."""
        _forget_peak_memory()
        start = time.perf_counter()
        try:
            yield
        finally:
            stage = self.stages.setdefault(name, Stage())
            stage.seconds = round(stage.seconds + time.perf_counter() - start, 3)
            host, device = _peak_memory()
            stage.peak_memory = max(stage.peak_memory, host)
            stage.peak_device_memory = (
                None if device is None else max(stage.peak_device_memory or 0.0, device)
            )


def _forget_peak_memory() -> None:
    with contextlib.suppress(OSError):  # the file is Linux's; a sandbox may forbid it
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_memory() -> tuple[float, float | None]:
    """Return the peak memory of this process since it was forgotten, on the host and the CUDA device, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    host = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return host, None
    return host, round(torch.cuda.max_memory_allocated() / 2**20, 1)
