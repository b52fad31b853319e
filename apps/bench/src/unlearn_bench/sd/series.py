"""Several techniques one after another on one concept: one model, one set of baseline pictures, one table."""

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.sd import runner
from unlearn_bench.sd.experiment import Experiment
from unlearn_core.errors import InvalidInput, UnlearnError
from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet
from unlearn_core.spec import fingerprint


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one technique: a record, or what stood in its way."""

    name: str
    record: RunRecord | None = None
    path: Path | None = None
    reused: bool = False
    error: str = ""
    seconds: float = 0.0
    """Wall time of this command, which is little where the record was there."""

    @property
    def shared_seconds(self) -> float:
        """Those of `seconds` in which pictures of the unmodified model were drawn, which all techniques use."""
        return self.record.stages["baseline"].seconds if self.record and not self.reused else 0.0

    @property
    def failed(self) -> bool:
        """Whether it or one of its metrics failed."""
        return self.record is None or any("error" in score for score in self.record.scores.values())


def run_series(
    experiments: Mapping[str, Experiment | str],
    out: Path,
    *,
    force: bool = False,
    progress: runner.Progress | None = None,
) -> Iterator[Outcome]:
    """Yield the outcome of each technique as soon as it is there; one that fails does not stop the others.

    Args:
        experiments: name -> experiment, all of one model; or what was wrong with it.
        out: folder of all runs; what is on record there is not done again.
        force: whether to measure again what is on record.
        progress: called with the stage, named with its technique.
    """
    base = None
    for name, experiment in experiments.items():
        if isinstance(experiment, str):
            yield Outcome(name=name, error=experiment)
            continue
        start = time.perf_counter()
        base = base or runner.load(experiment)
        report = None if progress is None else _named(progress, name)
        try:
            record, path, reused = runner.run(experiment, out, base=base, force=force, progress=report)
        except Exception as error:
            # Foreign techniques may raise anything; the others' results must not be lost with it.
            what = str(error) if isinstance(error, UnlearnError) else f"{type(error).__name__}: {error}"
            yield Outcome(name=name, error=what, seconds=time.perf_counter() - start)
        else:
            seconds = time.perf_counter() - start
            yield Outcome(name=name, record=record, path=path, reused=reused, seconds=seconds)


def draw_sheet(outcomes: list[Outcome], out: Path) -> Path | None:
    """Write one picture of the same prompts under every technique that has a record, and return its path."""
    done = [(o.record, o.path) for o in outcomes if o.record and o.path]
    if not done:
        return None
    from unlearn_bench.sd.sheet import draw_series

    record, path = done[0]
    models = {"unmodified": SampleSet(path.parent / record.files["baseline_images"])}
    models |= {
        record.spec["technique"]: SampleSet(path.parent / record.files["images"]) for record, path in done
    }
    title = f"{record.spec['concept']['name']} taken out of {record.spec['model']}"
    name = fingerprint([record.run_id for record, _ in done])[:12]
    sheet = out / f"series-{name}.png"
    runner.save_picture(draw_series(models, title), sheet)
    return sheet


def document(outcomes: list[Outcome], sheet: Path | None) -> dict[str, Any]:
    """Return what `--json` prints of a series, with the paired differences of every two techniques."""
    from unlearn_bench.leaderboard.compare import compare
    from unlearn_bench.leaderboard.records import Run

    done = [o for o in outcomes if o.record is not None and o.path is not None]
    pairs = []
    for both in itertools.combinations(done, 2):
        with contextlib.suppress(InvalidInput):  # no metric worked for both
            pairs.append(compare(*(Run(path=o.path, record=o.record) for o in both)))  # type: ignore[arg-type]
    return {
        "pairs": pairs,
        "runs": [runner.document(o.record, o.path, reused=o.reused) for o in done],  # type: ignore[arg-type]
        "failed": {o.name: o.error for o in outcomes if o.record is None},
        "seconds": {o.name: round(o.seconds, 1) for o in outcomes},
        "sheet": str(sheet) if sheet else None,
    }


def _named(progress: runner.Progress, name: str) -> runner.Progress:
    def report(stage: str, done: int, total: int) -> None:
        progress(stage if name in stage else f"{name}: {stage}", done, total)

    return report
