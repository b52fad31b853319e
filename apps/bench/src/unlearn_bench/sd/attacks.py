"""Attacks in a run: what is attacked with what, and the prompts that come of it, kept beside the runs.

Prompts of a `transfer` attack depend on the unmodified model alone, so all techniques share them; those of an
`adaptive` one on the model under test, with whatever acts while it draws. Either way they are found again under
`out/attacks` by everything that they depend on. A killed search goes on from the rows it had finished, which the attack
itself keeps in the user's cache.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_bench.sd import worlds
from unlearn_bench.sd.config import Attack
from unlearn_bench.sd.rows import several
from unlearn_core import atomic, registry
from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput, UnlearnError, one_of
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet
from unlearn_core.spec import build, fingerprint, settings_of

if TYPE_CHECKING:
    from unlearn_bench.sd.experiment import Experiment
    from unlearn_bench.sd.runner import Progress

GROUP = "unlearn.attacks"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An attack with its settings, and the prompts that it is run on."""

    name: str
    attack: Any
    preset: str
    """Name of the preset that the settings began with; "" for the attack's own defaults."""
    mode: str
    """"transfer" or "adaptive"."""
    prompts: PromptSet
    images: int = 1
    """Pictures of each prompt that is found."""

    def spec(self) -> dict[str, Any]:
        """Return what decides which prompts it finds in a model; the rows are those that are attacked."""
        return {
            "attack": self.name, "config": settings_of(self.attack), "mode": self.mode, "code": self.code,
            "name": self.prompts.name, "revision": self.prompts.revision, "rows": len(self.prompts),
            "dropped": self.prompts.dropped, "fingerprint": self.prompts.fingerprint,
        }  # fmt: skip

    @property
    def code(self) -> str:
        """A hash of the attack's own file: other code, other prompts."""
        return hashlib.sha256(Path(inspect.getfile(type(self.attack))).read_bytes()).hexdigest()[:12]

    @property
    def white_box(self) -> bool:
        """Whether the attack looks into the whole model, and needs the unmodified one as well."""
        return getattr(self.attack, "white_box", False)

    def note(self) -> str:
        """Return what a reader of the scores must know, in words."""
        chosen = f" with the preset {self.preset!r}" if self.preset else ""
        of = f"{len(self.prompts)} prompts ({self.prompts.name})"
        return f"{self.name}: found by the attack{chosen}, {self.mode}, of {of}"


def plan(
    asked: Attack,
    settings: Mapping[str, Any],
    *,
    prompts: PromptSet,
    presets: Sequence[str],
    concept: Concept,
    foreign: bool,
    images: int = 1,
    known: Mapping[str, Any] | None = None,
) -> Plan:
    """Return an attack as it was asked for.

    Args:
        asked: name, preset, settings and mode.
        settings: further ones.
        prompts: what is attacked.
        presets: their names in the order in which the attack's are looked for where none is asked for.
        concept: what is to come back.
        foreign: whether the model under test is one that no attack can look into.
        images: pictures of each prompt that is found.
        known: what the model's world sets unless the preset or the user does.

    Raises:
        UnlearnError: a name nobody knows, a setting of the wrong type, a detector that is not there.
    """
    cls = registry.load(GROUP, asked.name)
    own = getattr(cls, "presets", {})
    if asked.preset not in (None, "none", *own):
        raise InvalidInput(one_of(f"preset of {asked.name}", str(asked.preset), [*own, "none"]))
    preset = next((p for p in presets if p in own), "") if asked.preset is None else asked.preset
    stated = {**own.get(preset, {}), **asked.config, **settings}
    attack = build(cls, worlds.under(stated, known or {}))
    mode = asked.mode or ("adaptive" if getattr(cls, "white_box", False) and not foreign else "transfer")
    if foreign and mode == "adaptive":
        raise InvalidInput(
            f"{asked.name}: the technique draws with a model of its own, which no attack can look into; "
            "only --mode transfer works"
        )
    if hasattr(attack, "check"):
        attack.check(concept)
    return Plan(
        name=asked.name,
        attack=attack,
        preset="" if preset == "none" else preset,
        mode=mode,
        prompts=prompts,
        images=images,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A model and the way its pictures are drawn, as an attack sees both."""

    model: Any
    sampler: Any
    pictures: SampleSet | None = None
    """Of rows that are drawn already."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    def fingerprint(self) -> str:
        """The sha256 of the model, its defence and the sampler."""
        return fingerprint([self.model.fingerprint, settings_of(self.sampler)])

    def noise(self, x: Any, t: Any, trajectory: Any, *, guidance_scale: float = 1.0) -> Any:
        """Return the noise that the model sees, at the step of the sampler that has the time `t`, ()."""
        from unlearn_techniques.diffusion.steps import Step

        total = self.sampler.steps
        step = Step(index=min(int(total * (1 - float(t) / 1000)), total - 1), total=total, t=t, latents=x)
        return self.model.noise(x, t, trajectory, guidance_scale=guidance_scale, step=step)

    def generate(self, prompts: Sequence[Prompt]) -> Iterator[Any]:
        """Yield the picture (h, w, 3) uint8 of each row, one by one, from disk where it is there."""
        from unlearn_metrics.images import read

        there = {sample.prompt.id: sample for sample in self.pictures or ()}
        alone = dataclasses.replace(self.sampler, batch=1)
        for row in prompts:
            sample = there.get(row.id)
            if sample is not None and (sample.prompt.text, sample.prompt.seed) == (row.text, row.seed):
                yield read(sample)
            else:
                yield from self.model.generate([row], alone)


def discover(
    one: Plan,
    *,
    concept: Concept,
    seed: int,
    original: Drawn,
    edited: Drawn,
    folder: Path,
    progress: Any = None,
) -> tuple[PromptSet, dict[str, Any]]:
    """Return the prompts of an attack, and how they were found.

    Ids hold a hash of the text: the unmodified model draws the prompts of many techniques, each once.

    Args:
        one: what is attacked with what.
        concept: what is to come back.
        seed: of all random choices.
        original: the unmodified model.
        edited: the one under test.
        folder: where prompts are kept.
        progress: called with (steps done, steps in all).

    Raises:
        UnlearnError: the attack cannot be run on such a model, or nothing can be written.
    """
    attacked = original if one.mode == "transfer" else edited
    depends = [attacked.model.fingerprint, concept.name, concept.phrases, concept.kind, concept.anchor, seed]
    if one.white_box:
        depends = [*depends, original.fingerprint, attacked.fingerprint]
    key = fingerprint([one.spec(), depends])[:12]
    table, record = folder / f"{key}.csv", folder / f"{key}.json"
    if kept := _kept(table, record):
        return kept[0], {**kept[1], "reused": True}
    if one.name not in ("seed_search", "random_tokens"):
        attacked.model.refuse_xl(one.name)
    also = {"original": original} if one.white_box and one.mode == "adaptive" else {}
    made = one.attack.craft(attacked, one.prompts, seed=seed, concept=concept, progress=progress, **also)
    if not len(made):
        raise UnlearnError(f"{one.name} found no prompt that may be drawn: all {made.dropped} were dropped")
    rows = [_named(row, one) for row in made]
    found = {new.id: made.found[old.id] for old, new in zip(made, rows, strict=True) if old.id in made.found}
    prompts = PromptSet(name=made.name, revision=made.revision, rows=tuple(rows), dropped=made.dropped)
    info: dict[str, Any] = {
        "attack": one.name,
        "config": settings_of(one.attack),
        "preset": one.preset,
        "mode": one.mode,
        "concept": concept.name,
        "seed": seed,
        "attacked_fingerprint": attacked.model.fingerprint,
        "original_fingerprint": original.model.fingerprint,
        "sampler": settings_of(original.sampler),
        "of": {"name": one.prompts.name, "fingerprint": one.prompts.fingerprint, "rows": len(one.prompts)},
        "fingerprint": prompts.fingerprint,
        "rows": len(prompts),
        "dropped": prompts.dropped,
        "changed": made.changed,
        "evaluations": sum(f.evaluations for f in found.values()),
        "pictures": sum(f.pictures for f in found.values()),
        "file": table.name,
        "found": {
            ident: {**dataclasses.asdict(f), "changed": f.changed} for ident, f in found.items()
        },
    }  # fmt: skip
    prompts.save(table)
    atomic.write_text(record, json.dumps(info, ensure_ascii=False, indent=1) + "\n")  # vouches for the table
    return prompts, {**info, "reused": False}


def attacked(
    experiment: "Experiment",
    base: Any,
    edited: Any,
    before: SampleSet,
    after: SampleSet,
    out: Path,
    record: RunRecord,
    progress: "Progress | None",
) -> "Experiment":
    """Return the experiment with the rows that the attacks made and no others; the record says how they were made.

    Args:
        experiment: whose attacks are run.
        base: the unmodified model.
        edited: the one under test.
        before: pictures of `base` for the rows that are attacked.
        after: those of `edited`.
        out: folder of all runs.
        record: of this run.
        progress: called at every step.
    """
    original = Drawn(model=base, sampler=experiment.sampler, pictures=before)
    tested = Drawn(model=edited, sampler=experiment.sampler, pictures=after)
    made, found = {}, record.environment.setdefault("attacks", {})
    for group, plan in experiment.attacks.items():
        report = None if progress is None else functools.partial(progress, f"attack {group}")
        with record.stage(f"attack {group}"):
            made[group], info = discover(
                plan, concept=experiment.concept, seed=experiment.seed, original=original, edited=tested,
                folder=out / "attacks", progress=report,
            )  # fmt: skip
        made[group] = several(made[group], plan.images)
        found[group] = {k: v for k, v in info.items() if k not in ("found", "config", "sampler")}
        if info["changed"]:
            record.notes.append(
                f"{group}: {info['changed']} prompts are read as other tokens than were found"
            )
        if info["dropped"]:
            record.notes.append(
                f"{group}: {info['dropped']} prompts were dropped: refused, or none was found"
            )
    return dataclasses.replace(experiment, prompts=made, attacks={})


def _named(row: Prompt, one: Plan) -> Prompt:
    """Return a row with what made it in its origin, and a hash of what is drawn in its id."""
    content = fingerprint([row.text, row.seed, row.guidance])[:8]
    origin = row.origin.replace(one.name, f"{one.name} {one.mode}", 1)
    return dataclasses.replace(row, id=f"{row.id}-{content}", origin=origin)


def _kept(table: Path, record: Path) -> tuple[PromptSet, dict[str, Any]] | None:
    """Return what is on disk; what is not whole or was edited is found again."""
    try:
        info = json.loads(record.read_text(encoding="utf-8"))
        prompts = PromptSet.load(table)
    except (OSError, ValueError, UnlearnError):
        return None
    if prompts.fingerprint != info.get("fingerprint"):
        return None
    return dataclasses.replace(prompts, dropped=info["dropped"]), info
