"""The models of each strategy, unlearned one at a time; edits that were made before are read again."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_bench.genmu.plan import Plan
from unlearn_bench.sd import runner
from unlearn_bench.sd.experiment import Experiment
from unlearn_core.concept import Concept
from unlearn_core.samples import SampleSet
from unlearn_core.spec import fingerprint, settings_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Forgot:
    """A model, and what it was made to forget."""

    model: Any
    targets: tuple[str, ...]
    """In the order of the requests."""
    later: tuple[str, ...] = ()
    """What will be requested of it afterwards."""
    order: int = 0
    """Which order of a continual run this is."""
    drift: float = 0.0
    """L2 norm of the change of the weights since the original."""
    moved: float = 0.0
    """The same since the request before."""
    pictures: SampleSet | None = None
    """Those that a submission brings, to be judged in place of its model's."""

    @property
    def label(self) -> str:
        """A name for its files."""
        return self.targets[0] if len(self.targets) == 1 else "model"


def unlearned(
    plan: Plan, base: Any, edits: Path, progress: runner.Progress | None = None
) -> Iterator[Forgot]:
    """Yield the models of the strategy: one per target, one for all, or one after each request of each order.

    Args:
        plan: the run.
        base: the unmodified model.
        edits: folder of the weights that were trained before.
        progress: called at every step of training.
    """
    targets = plan.asked.targets
    if plan.strategy == "single":
        for target in targets:
            experiment = plan.experiments[target]
            model = edited(experiment, [experiment.concept], base, edits, progress)
            yield Forgot(model=model, targets=(target,), drift=distance(base, model))
    elif plan.strategy == "multi":
        model = edited(plan.first, plan.concepts, base, edits, progress)
        yield Forgot(model=model, targets=targets, drift=distance(base, model))
    else:
        for number, order in enumerate(plan.orders):
            model = base
            for t, target in enumerate(order, 1):
                before, experiment = model, plan.experiments[target]
                model = edited(experiment, [experiment.concept], before, edits, progress)
                yield Forgot(
                    model=model, targets=order[:t], later=order[t:], order=number,
                    drift=distance(base, model), moved=distance(before, model),
                )  # fmt: skip


def edited(
    experiment: Experiment,
    concepts: Sequence[Concept],
    model: Any,
    folder: Path,
    progress: runner.Progress | None = None,
) -> Any:
    """Return `model` after every technique of the experiment was told `concepts`; `folder` keeps trained weights."""
    from unlearn_techniques.diffusion.delta import Delta

    if len(concepts) == 1:
        alone = dataclasses.replace(experiment, concept=concepts[0])
        return runner.unlearn(alone, model, folder, progress)
    for chosen in experiment.chain:
        made_by = {
            "technique": chosen.name,
            "config": settings_of(chosen.technique),
            "concepts": [dataclasses.asdict(concept) for concept in concepts],
            "seed": experiment.seed,
        }
        key = fingerprint([made_by, model.fingerprint, runner.code_version(experiment)])[:12]
        path = folder / f"{chosen.name}-{len(concepts)}-concepts-{key}.safetensors"
        if path.is_file():
            model = Delta.load(path).apply(model)
            continue
        report = None if progress is None else functools.partial(progress, f"unlearning {chosen.name}")
        before = model
        model = chosen.technique.apply(before, concepts, seed=experiment.seed, progress=report)
        if model is not before and model.hooks == before.hooks:
            Delta.between(before, model, record=made_by).save(path)
    return model


def distance(old: Any, new: Any) -> float:
    """Return the L2 norm of the difference of all weights of two models; 0 for one that shows none."""
    squares = [0.0]
    for part in getattr(new, "parts", ()):
        before = dict(getattr(old, part).named_parameters())
        for name, weight in getattr(new, part).named_parameters():
            if weight.data_ptr() != before[name].data_ptr():
                squares.append(
                    float((weight.detach().double() - before[name].detach().double()).square().sum())
                )
    return math.sqrt(math.fsum(squares))
