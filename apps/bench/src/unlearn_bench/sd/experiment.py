"""A run, described completely: every name looked up and every setting checked before anything heavy loads."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unlearn_bench.sd import worlds
from unlearn_bench.sd.attacks import Plan, plan
from unlearn_bench.sd.config import (
    ATTACKS,
    BASELINES,
    GROUPS,
    Attack,
    Config,
    Plug,
    Source,
    Technique,
    read_assignments,
)
from unlearn_bench.sd.rows import several
from unlearn_core import registry
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.prompts import PromptSet
from unlearn_core.spec import build, settings_of
from unlearn_metrics.errors import NotApplicable
from unlearn_techniques import eval_unlearn
from unlearn_techniques.eval_unlearn import EvalUnlearn


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A technique with its settings."""

    name: str
    technique: Any
    preset: str
    """Name of the preset that the settings began with; "" for the technique's own defaults."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One technique, or one on top of another, on one concept of one model, and what is measured."""

    chain: tuple[Chosen, ...]
    """In the order in which they are applied."""
    concept: Concept
    model: str
    why: str
    """Why this model was taken."""
    sampler: Any
    metrics: Mapping[str, Any]
    prompts: Mapping[str, PromptSet]
    """Group -> rows, for the groups that the metrics rate."""
    seed: int
    device: str
    dtype: str
    notes: tuple[str, ...] = field(default=())
    not_applicable: Mapping[str, str] = field(default_factory=dict)
    """Metric that was asked for and has no meaning for this concept -> why."""
    attacks: Mapping[str, Plan] = field(default_factory=dict)
    """Group -> what makes its rows once the models are there."""

    def spec(self, fingerprint: str) -> dict[str, Any]:
        """Return what decides the result, for a model with these weights; equal specs, equal run."""
        config = {chosen.name: settings_of(chosen.technique) for chosen in self.chain}
        return {
            "technique": self.name,
            "config": config if len(config) > 1 else config[self.name],
            "concept": dataclasses.asdict(self.concept),
            "model": self.model,
            "model_fingerprint": fingerprint,
            "sampler": settings_of(self.sampler),
            "metrics": {name: settings_of(metric) for name, metric in self.metrics.items()},
            "prompts": {
                group: {"name": rows.name, "revision": rows.revision, "rows": len(rows),
                        "dropped": rows.dropped, "fingerprint": rows.fingerprint}
                for group, rows in self.prompts.items()
            } | {group: {**one.spec(), "images": one.images} for group, one in self.attacks.items()},
            "seed": self.seed,
            "dtype": self.dtype,
        }  # fmt: skip

    @property
    def name(self) -> str:
        """The techniques by name, as in "uce+sld"."""
        return "+".join(chosen.name for chosen in self.chain)

    @property
    def rows(self) -> PromptSet:
        """All rows of all groups and those that are attacked, each once: what has to be drawn."""
        raw = [one.prompts for one in self.attacks.values()]
        return PromptSet.merge(*self.prompts.values(), *raw, name="all")


def prepare(
    config: Config, assignments: list[str] | None = None, *, measured: bool = True, together: bool = False
) -> Experiment:
    """Return the experiment that a configuration describes.

    Args:
        config: what the user wrote.
        assignments: "NAME=VALUE" for a single technique; "TECHNIQUE.NAME=VALUE", "METRIC.NAME=VALUE" and
            "ATTACK.NAME=VALUE" for all.
        measured: whether there are metrics; without them only the groups that the configuration names are there.
        together: whether the concept is one of several that are forgotten at once.

    Raises:
        UnlearnError: a name nobody knows, a setting of the wrong type, prompts that cannot be read.
    """
    names = [one.name for one in config.technique]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidInput(f"technique: {twice!r} stands there twice")
    classes = [_class(name) for name in names]
    if len(names) > 1 and EvalUnlearn in classes:
        alone = names[classes.index(EvalUnlearn)]
        raise InvalidInput(
            f"technique: {alone!r} draws with a model of its own and cannot be combined with others"
        )
    own, of_plugs = read_assignments(assignments or [])
    if own and len(names) > 1:
        raise InvalidInput(
            f"--set {next(iter(own))}=…: say of which technique: {names[0]}.{next(iter(own))}=…"
        )
    of_plugs.setdefault(names[0], {}).update(own)
    device, dtype = worlds.check_device(config.device, config.dtype)
    model, why = worlds.choose_model(config.model, device)
    world = worlds.world_of(model)
    concept = world.concept(config.concept)
    chain = tuple(
        _choose(one, cls, of_plugs.pop(one.name, {}), world, concept, world.presets(concept, together))
        for one, cls in zip(config.technique, classes, strict=True)
    )
    of_attacks = {name: of_plugs.pop(name) for name in (*ATTACKS, *BASELINES) if name in of_plugs}
    asked = config.metrics if measured else []
    missing: dict[str, str] = {}
    metrics = _metrics(asked, world.metrics(concept), world.settings(concept), of_plugs, missing)
    prompts, wanted = _prompts(config, world, concept, metrics, missing)
    plans = _plans(config, wanted, of_attacks, prompts, world, concept, foreign=EvalUnlearn in classes)
    prompts = {g: several(rows, config.prompts.get(g, Source()).images) for g, rows in prompts.items()}
    for metric in metrics.values():
        if hasattr(metric, "check_rows"):
            metric.check_rows([row for group in metric.prompts for row in prompts.get(group, ())])
    notes = (*config.notes, *(one.note() for one in plans.values()))
    from unlearn_techniques.diffusion.sampling import Sampler

    chosen = {k: v for k, v in config.sampler.model_dump().items() if v is not None}
    sampler = build(Sampler, {"steps": world.steps, "guidance_scale": world.guidance_scale, **chosen})
    return Experiment(
        chain=chain, concept=concept, model=model, why=why, sampler=sampler, metrics=metrics, prompts=prompts,
        seed=config.seed, device=device, dtype=dtype, notes=notes, not_applicable=missing, attacks=plans,
    )  # fmt: skip


def _class(name: str) -> Any:
    """Return the class of a technique, or of what adapts eval-unlearn's where no other has the name."""
    if name not in registry.names("unlearn.techniques") and eval_unlearn.find(name):
        return EvalUnlearn
    return registry.load("unlearn.techniques", name)


def _choose(
    asked: Technique, cls: Any, settings: Mapping[str, Any], world: worlds.World, concept: Concept,
    presets: tuple[str, ...],
) -> Chosen:  # fmt: skip
    if cls is EvalUnlearn:  # only its own constructor knows its settings
        found = EvalUnlearn.of(asked.name, {**asked.config, **settings})
        return Chosen(name=asked.name, technique=found, preset="")
    preset, begin = _preset(cls, asked.preset, presets, asked.name)
    if "preserve" in getattr(cls, "__dataclass_fields__", {}):
        begin = {"preserve": world.preserved(concept), **begin}
    technique = build(cls, {**begin, **asked.config, **settings})
    if hasattr(technique, "check"):  # what it needs of a concept can be missing before a model is there
        technique.check([concept])
    return Chosen(name=asked.name, technique=technique, preset=preset)


def build_metrics(
    asked: list[Plug], known: Mapping[str, Mapping[str, Any]], assignments: list[str]
) -> dict[str, Any]:
    """Return the metrics that are asked for, with the settings of a world and those of the command line.

    Raises:
        UnlearnError: a name nobody knows, a setting of the wrong type.
    """
    settings, of_metrics = read_assignments(assignments)
    if settings:
        raise InvalidInput(
            f"--set {next(iter(settings))}=…: write METRIC.NAME=VALUE, such as clip_score.scale=cos"
        )
    return _metrics(asked, (), known, of_metrics)


def _preset(cls: Any, asked: str | None, preferred: tuple[str, ...], name: str) -> tuple[str, dict[str, Any]]:
    presets = getattr(cls, "presets", {})
    if asked == "none":
        return "", {}
    if asked is not None:
        if asked not in presets:
            raise InvalidInput(one_of(f"preset of {name}", asked, [*presets, "none"]))
        return asked, presets[asked]
    found = next((p for p in preferred if p in presets), "")
    return found, presets.get(found, {})


def _metrics(
    asked: list[Plug] | None,
    default: tuple[str, ...],
    known: Mapping[str, Mapping[str, Any]],
    assigned: Mapping[str, Mapping[str, Any]],
    missing: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return the metrics; one that has no meaning with its settings goes into `missing` with the reason, if given."""
    plugs = asked if asked is not None else [Plug(name=name) for name in default]
    if unused := sorted(set(assigned) - {plug.name for plug in plugs}):
        raise InvalidInput(
            f"--set {unused[0]}.…: {unused[0]!r} is no technique of this run and no metric of it: "
            + ", ".join(plug.name for plug in plugs)
        )
    found = {}
    for plug in plugs:
        cls = registry.load("unlearn.metrics", plug.name)
        stated = {**plug.config, **assigned.get(plug.name, {})}
        try:
            found[plug.name] = build(cls, worlds.under(stated, known.get(plug.name, {})))
        except NotApplicable as error:
            if missing is None:
                raise
            missing[plug.name] = str(error).removeprefix("not applicable: ")
    return found


def _prompts(
    config: Config, world: worlds.World, concept: Concept, metrics: dict[str, Any], missing: dict[str, str]
) -> tuple[dict[str, PromptSet], list[Attack]]:
    """Return the rows that metrics rate or a file was given for, and the attacks that make others.

    Metrics that have no meaning for the concept are moved from `metrics` to `missing`, with the reason.
    """
    wanted = {group for metric in metrics.values() for group in metric.prompts} | set(config.prompts)
    found, why, made = {}, {}, {}
    for group in (g for g in GROUPS if g in wanted):
        source = config.prompts.get(group) or Source()
        searched = group in BASELINES or (group in ATTACKS and world.attacked is not None)
        if source.attack or (searched and not source.source):
            made[group] = source.attack or Attack(name=group)
            continue
        try:
            rows = world.prompts(group, concept, _limited(source, config))
        except NotApplicable as error:
            why[group] = str(error).removeprefix("not applicable: ")
            continue
        if rows is not None and len(rows):
            found[group] = rows
    for name, metric in list(metrics.items()):
        if set(metric.prompts) & {*found, *made}:
            continue
        if reasons := [why[group] for group in metric.prompts if group in why]:
            missing[name] = reasons[0]
            del metrics[name]
            continue
        raise InvalidInput(
            f"{name} rates pictures of {' or '.join(metric.prompts)}, and there are no such prompts for "
            f"{concept.name!r}; give some in a file: prompts: {{{metric.prompts[0]}: rows.csv}}"
        )
    if not metrics and missing:
        raise InvalidInput("nothing can be measured: " + "; ".join(f"{n}: {w}" for n, w in missing.items()))
    if not found and not made:
        raise InvalidInput("there is nothing to draw: no metric and no prompts")
    return found, list(made.values())


def _limited(source: Source, config: Config, most: int | None = None) -> Source:
    """Return where rows come from, with the smallest of all limits."""
    limits = [n for n in (source.limit, config.limit) if n is not None]
    return source.model_copy(update={"limit": min(limits, default=most)})


def _plans(
    config: Config,
    asked: list[Attack],
    settings: dict[str, dict[str, Any]],
    prompts: Mapping[str, PromptSet],
    world: worlds.World,
    concept: Concept,
    *,
    foreign: bool,
) -> dict[str, Plan]:
    """Return group -> the attack that makes its rows, of the target rows, or of I2P's where there are none."""
    plans = {}
    for attack in asked:
        made = config.prompts.get(attack.name) or Source()
        limit = _limited(made, config, world.attacked).limit
        for group in ("target", "i2p"):
            source = config.prompts.get(group) or Source()
            with contextlib.suppress(NotApplicable):
                if raw := prompts.get(group) or world.prompts(
                    group, concept, _limited(source, config, limit)
                ):
                    break
        else:
            raise InvalidInput(
                f"{attack.name} has nothing to attack: there are no target prompts for {concept.name!r}; give some: "
                "prompts: {target: rows.csv}"
            )
        raw = dataclasses.replace(raw, rows=raw.rows[:limit])
        plans[attack.name] = plan(
            attack, settings.pop(attack.name, {}), prompts=raw, presets=world.presets(concept), concept=concept,
            foreign=foreign, images=made.images, known=world.settings(concept).get(attack.name, {}),
        )  # fmt: skip
    if settings:
        raise InvalidInput(f"--set {next(iter(settings))}.…: no prompts of this run are made by that attack")
    return plans
