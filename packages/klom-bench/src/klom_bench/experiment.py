"""A whole KLoM experiment: data set, method, ensembles, margins, scores, record.

    record = run(Experiment(dataset=Digits(), method=NoisyDescent(), method_name="noisy_descent"))

What has been computed is found again: ensembles and unlearned margins in blocks in the cache, the scores in
the record. So a second run is free, a killed one goes on, and another variant or a larger number of models
pays only for what is new.
"""

import contextlib
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from klom_bench import ensemble, layers, training
from klom_bench.cache import block_tensors, blocks, rows
from klom_bench.ensemble import ensemble_margins
from klom_bench.folders import cache_root
from klom_bench.klom import check_variant
from klom_bench.scoring import score, too_few_models, warnings_of
from klom_bench.split import Split
from klom_bench.training import last
from unlearn_core.atomic import make_folder
from unlearn_core.errors import InvalidInput, MissingExtra
from unlearn_core.record import RunRecord, run_id
from unlearn_core.spec import fingerprint, settings_of

SPLITS = ("retain", "forget", "val")

Progress = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""

Margins = dict[str, NDArray[np.float32]]
"""{"retain" | "forget" | "val": (n_models, n_samples)}."""


class Dataset(Protocol):
    """What a data set offers; see `klom_bench.datasets.digits.Digits` for the shapes."""

    name: ClassVar[str]
    n_models: ClassVar[int]
    n_oracles: ClassVar[int]
    n_forget_sets: ClassVar[int]
    block: ClassVar[int]

    def recipe(self) -> dict[str, Any]: ...  # noqa: D102
    def missing(self) -> str | None: ...  # noqa: D102
    def forget_indices(self, forget_set: int) -> NDArray[np.int64]: ...  # noqa: D102
    def split(self, forget_set: int) -> Split: ...  # noqa: D102
    def pretrained(self, models: range, *, progress: Any = None) -> nn.Module: ...  # noqa: D102
    def margins(  # noqa: D102
        self, kind: Literal["pretrain", "oracle"], forget_set: int, models: range, *, progress: Any = None
    ) -> Margins: ...


class Method(Protocol):
    """What a method offers: a frozen dataclass of settings and one generator of models, one per epoch."""

    presets: ClassVar[dict[str, dict[str, Any]]]

    def steps(  # noqa: D102
        self, model: nn.Module, split: Split, *, seed: int = 0, ids: Sequence[int] | None = None
    ) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One method on one forget set of one data set, scored in one variant.

    Attributes:
        dataset: where ensembles come from.
        method: the method with its settings.
        method_name: its registered name.
        forget_set: 1 to `dataset.n_forget_sets`.
        n_models: unlearned models, and oracles to compare them with.
        variant: of KLoM, see `klom_bench.klom.VARIANTS`.
        seed: root of the method's randomness; the ensembles have their own.

    Raises:
        InvalidInput: anything out of range, before anything is loaded.
    """

    dataset: Dataset
    method: Method
    method_name: str
    forget_set: int = 1
    n_models: int = 100
    variant: str = "easydub"
    seed: int = 0

    def __post_init__(self) -> None:
        data = self.dataset
        check_variant(self.variant)
        if not 1 <= self.forget_set <= data.n_forget_sets:
            raise InvalidInput(
                f"forget set {self.forget_set} does not exist: {data.name} has 1 to {data.n_forget_sets}"
            )
        if not 2 <= self.n_models <= data.n_models:
            raise InvalidInput(
                f"{self.n_models} models: {data.name} has {data.n_models}, and 2 are the least"
            )

    def spec(self) -> dict[str, Any]:
        """Return the complete description of the experiment as JSON values; its hash is the run's id."""
        return {**self._unlearning(), "n_models": self.n_models, "variant": self.variant}

    def _unlearning(self) -> dict[str, Any]:
        """Return what decides the margins of one unlearned model; not how many there are or how they are scored."""
        return {
            "dataset": self.dataset.recipe(),
            "forget_set": self.forget_set,
            "method": self.method_name,
            "config": settings_of(self.method),
            "code": code_version(self.method),
            "seed": self.seed,
        }


def code_version(method: Method) -> str:
    """Return what tells one state of the method's code from another: whoever edits a method gets new results."""
    cls = type(method)
    for code in (sys.modules.get(cls.__module__), cls.steps):  # a notebook has cells instead of a file
        with contextlib.suppress(OSError, TypeError):
            source = inspect.getsource(code)  # type: ignore[arg-type]
            break
    else:
        raise InvalidInput(
            f"cannot read the source of {cls.__name__}, which names its results: put it in a file"
        )
    shared = "".join(inspect.getsource(module) for module in (training, ensemble, layers))
    return f"{version('klom-bench')}+{hashlib.sha256((source + shared).encode()).hexdigest()[:8]}"


def record_path(experiment: Experiment, out: Path) -> Path:
    """Return where the record of `experiment` lies under `out`."""
    spec = experiment.spec()
    folder = f"klom-{experiment.dataset.name}-{experiment.method_name}-{run_id(spec)}"
    return out / folder / "record.json"


def run(
    experiment: Experiment,
    *,
    out: Path = Path("runs"),
    force: bool = False,
    circumstances: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> RunRecord:
    """Return the record of `experiment`, computing what is not there yet, and write it with its picture.

    Args:
        experiment: what to run.
        out: folder that gets a folder per run.
        force: unlearn and score again even if this was done before.
        circumstances: what the record should say of its environment besides versions and machine.
        progress: told of every step.

    Raises:
        UnlearnError: what the user can put right, before anything long begins wherever that is possible.
    """
    path = record_path(experiment, out)
    if path.exists() and not force:
        return RunRecord.read(path)
    make_folder(path.parent)  # an output folder that cannot be written is known now, not in an hour
    record = RunRecord.of("klom", experiment.spec())
    record.environment |= circumstances or {}
    data, n, ids = experiment.dataset, experiment.n_models, range(experiment.n_models)

    def margins_of(stage: str, kind: Literal["pretrain", "oracle"], models: range) -> Margins:
        with record.stage(stage):
            report = (lambda done, total: progress(stage, done, total)) if progress else None
            return data.margins(kind, experiment.forget_set, models, progress=report)

    pretrain = margins_of("pretrain models", "pretrain", ids)
    oracle = margins_of("oracles", "oracle", ids)
    held_out = None
    if 2 * n <= data.n_oracles:
        held_out = margins_of("held-out oracles", "oracle", range(n, 2 * n))
    candidates = {"do_nothing": pretrain}
    if experiment.method_name != "do_nothing":
        with record.stage(experiment.method_name):
            candidates[experiment.method_name] = unlearned_margins(experiment, force=force, progress=progress)
    if held_out is not None:
        candidates["oracle"] = held_out
    else:
        record.notes.append(
            f"{data.name} has {data.n_oracles} oracles: none are held out at {n} models, floors are simulated"
        )

    with record.stage("score"):
        for i, (name, margins) in enumerate(candidates.items()):
            record.scores[name] = {}
            for j, split in enumerate(SPLITS):
                reference = held_out[split] if held_out and name != "oracle" else None
                result = score(oracle[split], margins[split], experiment.variant, held_out=reference)
                record.scores[name][split] = result.to_mapping()
                if (name, split) == ("do_nothing", "forget"):
                    record.notes += too_few_models(result)
                record.notes += warnings_of(
                    f"{name}, {split}", oracle[split], margins[split], result, experiment.variant
                )
                if progress:
                    progress("score", i * len(SPLITS) + j + 1, len(candidates) * len(SPLITS))
    with record.stage("plot"):
        from klom_bench.plot import plot_run  # late: needs matplotlib, an extra

        try:
            plot_run(path.parent / "klom.png", experiment, oracle, candidates)
            record.files["plot"] = "klom.png"
        except MissingExtra as error:  # the numbers are what was asked for
            record.notes.append(f"no picture: {error}")
    record.write(path)
    return record


def unlearned_margins(
    experiment: Experiment, *, force: bool = False, progress: Progress | None = None
) -> Margins:
    """Return the margins of the unlearned models, block by block from the cache or by unlearning."""
    data, name, ids = experiment.dataset, experiment.method_name, range(experiment.n_models)
    folder = cache_root() / "unlearned" / fingerprint(experiment._unlearning())[:12]
    covered = [range(b.start, min(b.stop, data.n_models)) for b in blocks(ids, data.block)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    split: Split | None = None
    parts = []
    for i, block in enumerate(covered):

        def unlearn(block: range = block) -> dict[str, torch.Tensor]:
            nonlocal split
            if split is None:
                split = data.split(experiment.forget_set).to(device)
            model = data.pretrained(block).to(device)
            model = last(experiment.method.steps(model, split, seed=experiment.seed, ids=block))
            train = ensemble_margins(model, split.images, split.labels, device=device)
            return {
                "retain": train[:, split.retain.cpu()],
                "forget": train[:, split.forget.cpu()],
                "val": ensemble_margins(model, split.val_images, split.val_labels, device=device),
            }

        if progress:
            progress(name, i, len(covered))
        parts.append(block_tensors(folder, block, unlearn, force=force))
    if progress:
        progress(name, len(covered), len(covered))
    return {s: rows([p[s] for p in parts], covered, ids).numpy() for s in SPLITS}
