"""A run, described completely: targets, how each is forgotten, in which order, and what is asked afterwards."""

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import factorial
from typing import Any, Literal, get_args

from genmu_eval.judges import Calibration
from unlearn_bench.genmu.protocol import Protocol
from unlearn_bench.genmu.worlds import World
from unlearn_bench.sd.config import Config, Source
from unlearn_bench.sd.experiment import Experiment
from unlearn_bench.sd.experiment import prepare as prepare_one
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.seeds import derive
from unlearn_core.spec import settings_of
from unlearn_techniques.eval_unlearn import EvalUnlearn

Strategy = Literal["single", "multi", "continual"]
ORDERS = 3
"""Orders of a continual run, as far as there are so many."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does."""

    strategy: Strategy
    asked: Protocol
    experiments: Mapping[str, Experiment]
    """Target -> how it is forgotten; the settings of a preset depend on the kind of the concept."""
    world: World
    orders: tuple[tuple[str, ...], ...]
    """Of a continual run; the first is the one that is submitted. Else the targets once."""
    asked_with: Mapping[str, Any] = field(default_factory=dict)
    """What the user said of the pictures, so that an evaluation can ask for the same: "images", "limit"."""
    notes: tuple[str, ...] = ()
    calibration: Calibration | None = None
    """How often the judge errs, where that is known: components are then corrected for it."""

    @property
    def first(self) -> Experiment:
        """What holds for all targets: model, sampler, device, seed; and the settings of a model that forgets all."""
        return self.experiments[self.asked.targets[0]]

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The targets as techniques are told them."""
        return tuple(self.experiments[target].concept for target in self.asked.targets)

    def spec(self, fingerprint: str) -> dict[str, Any]:
        """Return what decides the result, for a model with these weights; equal specs, equal run."""
        one = self.first
        config = {
            target: {chosen.name: settings_of(chosen.technique) for chosen in experiment.chain}
            for target, experiment in self.experiments.items()
        }
        same = all(settings == config[self.asked.targets[0]] for settings in config.values())
        return {
            "strategy": self.strategy,
            "technique": one.name,
            "config": config[self.asked.targets[0]] if same or self.strategy == "multi" else config,
            "concepts": [dataclasses.asdict(concept) for concept in self.concepts],
            "orders": [list(order) for order in self.orders],
            "model": one.model,
            "model_fingerprint": fingerprint,
            "sampler": settings_of(one.sampler),
            "prompts": {
                "name": self.asked.name,
                "fingerprint": self.asked.prompts.fingerprint,
                "images": self.asked.counts,
            },
            "judge": self.world.judged_by,
            "seed": one.seed,
            "dtype": one.dtype,
            **({"calibration": settings_of(self.calibration)} if self.calibration else {}),
        }


def prepare(
    config: Config,
    strategy: str,
    world: World,
    asked: Protocol,
    *,
    orders: Sequence[Sequence[str]] | int = ORDERS,
    assignments: list[str] | None = None,
    asked_with: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
) -> Plan:
    """Return the plan of a run.

    Args:
        config: technique, model, sampler, seed, device; its concept is none of our business.
        strategy: one of `Strategy`.
        world: of the model.
        asked: what is drawn.
        orders: of a continual run: these, or that many, the targets' own and shuffled ones.
        assignments: "NAME=VALUE", settings of the technique.
        asked_with: see `Plan`.
        calibration: see `Plan`.

    Raises:
        UnlearnError: a name nobody knows, a setting of the wrong type, an order of other concepts, a technique that is
            told one concept only.
    """
    if strategy not in get_args(Strategy):
        raise InvalidInput(one_of("strategy", strategy, get_args(Strategy)))
    experiments = {}
    for target in asked.targets:
        one = {"concept": world.concept(target, asked), "metrics": [], "prompts": {"target": Source(limit=1)}}
        experiments[target] = prepare_one(
            config.model_copy(update=one), list(assignments or []), together=strategy == "multi"
        )
    first = experiments[asked.targets[0]]
    if any(isinstance(chosen.technique, EvalUnlearn) for chosen in first.chain) and strategy != "single":
        raise InvalidInput(
            f"{first.name} is told one concept and draws with a model of its own: --strategy single is all it can do"
        )
    notes = list(first.notes)
    if strategy == "multi":
        for chosen in first.chain:
            if hasattr(chosen.technique, "check"):
                chosen.technique.check([e.concept for e in experiments.values()])
        if len({settings_key(e) for e in experiments.values()}) > 1:
            notes.append(
                f"the concepts are of several kinds; one model for all takes the settings for {asked.targets[0]!r}"
            )
    return Plan(
        strategy=strategy,  # type: ignore[arg-type]
        asked=asked,
        experiments=experiments,
        world=world,
        orders=_orders(asked.targets, orders, first.seed) if strategy == "continual" else (asked.targets,),
        asked_with=dict(asked_with or {}),
        notes=tuple(notes),
        calibration=calibration,
    )


def settings_key(experiment: Experiment) -> str:
    """Return the settings of the techniques of an experiment as one text."""
    return repr([(chosen.name, settings_of(chosen.technique)) for chosen in experiment.chain])


def _orders(
    targets: tuple[str, ...], asked: Sequence[Sequence[str]] | int, seed: int
) -> tuple[tuple[str, ...], ...]:
    if not isinstance(asked, int):
        found = [tuple(order) for order in asked]
        for order in found:
            if sorted(order) != sorted(targets):
                raise InvalidInput(
                    f"--order {','.join(order)}: an order names each of {', '.join(targets)} once"
                )
        return tuple(dict.fromkeys(found))
    orders = {targets: None}
    for i in itertools.count():
        if len(orders) >= min(asked, factorial(len(targets))):
            return tuple(orders)
        shuffled = list(targets)
        random.Random(derive(seed, "order", i)).shuffle(shuffled)
        orders.setdefault(tuple(shuffled))
    raise AssertionError
