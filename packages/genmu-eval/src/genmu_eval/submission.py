"""Submissions: models, the concepts that each forgot, and a manifest that says so.

A submission is a folder with `submission.json` and the models it names: diffusers folders, safetensors files or weight
deltas. Without a manifest, one model is a multi submission and several named after concepts are a single submission.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from genmu_eval.change import Change, change, check_same_model
from genmu_eval.concepts import TARGETS, target
from genmu_eval.hostile import check_folder
from genmu_eval.questions import key
from genmu_eval.weights import Weights, open_weights
from unlearn_core import atomic
from unlearn_core.errors import InvalidInput, Unavailable, one_of

MANIFEST = "submission.json"
FORMAT = "genmu-submission-1"

_CHALLENGE = tuple(t.name for t in TARGETS)

Strategy = Literal["single", "multi", "continual"]


@dataclass(frozen=True, kw_only=True)
class SubmittedModel:
    """A model of a submission."""

    name: str
    concepts: tuple[str, ...]
    """What it forgot; for a continual step, all requests so far in their order."""
    path: Path


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Models that belong together.

    single: a model per concept. multi: one model for all. continual: one model after all requests, or one after each.

    Raises:
        InvalidInput: models and concepts that do not fit the strategy.
    """

    folder: Path
    strategy: Strategy
    models: tuple[SubmittedModel, ...]
    base: str = ""
    """What the models were made from, as the submission claims: a Hub id, a path, "pocket"."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What made it: technique, settings, seed. Claimed, not checked."""

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            raise InvalidInput(one_of("strategy", str(self.strategy), get_args(Strategy)))
        if not self.models:
            raise InvalidInput("a submission holds at least one model")
        for model in self.models:
            if not model.concepts or len(set(map(key, model.concepts))) != len(model.concepts):
                raise InvalidInput(
                    f"the model {model.name!r} names each concept it forgot once, and at least one"
                )
        counts = [len(model.concepts) for model in self.models]
        if self.strategy == "single":
            if max(counts) > 1 or len({key(m.concepts[0]) for m in self.models}) != len(counts):
                raise InvalidInput("a single submission has one model for each concept")
        elif self.strategy == "multi" and len(counts) > 1:
            raise InvalidInput(f"a multi submission has one model for all concepts, got {len(counts)}")
        elif self.strategy == "continual" and len(counts) > 1:
            order = self.models[-1].concepts
            if [m.concepts for m in self.models] != [order[: t + 1] for t in range(len(order))]:
                raise InvalidInput(
                    "a continual submission has one model, or one after each request: each names the concepts of the "
                    "one before and one more"
                )

    @property
    def concepts(self) -> tuple[str, ...]:
        """All concepts, in the order of the requests."""
        if self.strategy == "single":
            return tuple(model.concepts[0] for model in self.models)
        return self.models[-1].concepts

    @property
    def final(self) -> tuple[SubmittedModel, ...]:
        """The models that are ranked: all of a single submission, else the last."""
        return self.models if self.strategy == "single" else self.models[-1:]

    def save(self) -> None:
        """Write the manifest, atomically; `open_submission` of the folder returns the submission.

        Raises:
            InvalidInput: a model outside the folder.
            Unavailable: it cannot be written.
        """
        models = []
        for model in self.models:
            if not model.path.resolve().is_relative_to(self.folder.resolve()):
                raise InvalidInput(
                    f"the model {model.name!r} lies outside the submission: {str(model.path)!r}"
                )
            path = model.path.resolve().relative_to(self.folder.resolve()).as_posix()
            models.append({"name": model.name, "concepts": list(model.concepts), "path": path})
        manifest = {
            "format": FORMAT, "strategy": self.strategy, "base": self.base, "models": models,
            "record": dict(self.record),
        }  # fmt: skip
        atomic.write_text(self.folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def open_submission(folder: str | Path, *, concepts: Sequence[str] = ()) -> Submission:
    """Return the submission in `folder`, checked as what strangers send; no tensor is read.

    Args:
        folder: see `Submission`; an archive is unpacked first, by `hostile.unpack`.
        concepts: the concepts there are, to tell models without a manifest by their names; by default the
            challenge's. One model without a manifest forgot all of them.

    Raises:
        Unavailable: there is no such folder.
        InvalidInput: anything that `hostile.check_folder` refuses, a manifest that cannot be meant, a path that leads
            out of the folder, weights that are none.
    """
    folder = Path(folder)
    if folder.is_file():
        raise InvalidInput(
            f"{str(folder)!r} is a file; a submission is a folder (an archive is unpacked first)"
        )
    check_folder(folder)
    if (folder / MANIFEST).is_file():
        found = _of_manifest(folder)
    else:
        found = _guessed(folder, concepts)
    for model in found.models:
        _weights(model)
    return found


def check_base(submission: Submission, original: Weights) -> None:
    """Check that every model has the architecture of `original`; only headers are read.

    Raises:
        InvalidInput: another architecture, named.
    """
    for model in submission.models:
        check_same_model(original, _weights(model))


def changes(submission: Submission, original: Weights) -> dict[str, Change]:
    """Return how each ranked model differs from `original`; `Change.kind` tells copies of it and noise.

    Raises:
        InvalidInput: another architecture, numbers that are not finite.
    """
    return {model.name: change(original, _weights(model)) for model in submission.final}


def _of_manifest(folder: Path) -> Submission:
    place = str(folder / MANIFEST)
    manifest = json.loads((folder / MANIFEST).read_bytes())  # check_folder has read it as JSON
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InvalidInput(f"{place!r} is no manifest: its format is not {FORMAT!r}")
    models = []
    try:
        for entry in manifest["models"]:
            path = _inside(folder, entry["path"])
            concepts = tuple(entry["concepts"])
            if isinstance(entry["concepts"], str) or not all(
                isinstance(c, str) and c.strip() for c in concepts
            ):
                raise InvalidInput(f"{place!r}: concepts are a list of names, got {entry['concepts']!r}")
            models.append(
                SubmittedModel(name=str(entry.get("name") or path.stem), concepts=concepts, path=path)
            )
        strategy, base, record = manifest["strategy"], manifest.get("base", ""), manifest.get("record", {})
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{place!r} is no manifest: {error!r}") from None
    if len({m.name for m in models}) != len(models):
        raise InvalidInput(f"{place!r}: two models have the same name")
    return Submission(
        folder=folder, strategy=strategy, models=tuple(models), base=str(base),
        record=record if isinstance(record, dict) else {},
    )  # fmt: skip


def _inside(folder: Path, name: Any) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise InvalidInput(f"the path {name!r} leads out of the submission")
    found = folder / path
    if not found.exists():
        raise InvalidInput(f"the submission names {name!r}, which is not there")
    return found


def _guessed(folder: Path, concepts: Sequence[str]) -> Submission:
    """Return the submission of a folder without a manifest."""
    known = {key(name): name for name in concepts}
    try:
        return Submission(
            folder=folder, strategy="multi", models=(_one(folder, tuple(known.values()) or _CHALLENGE),)
        )
    except (InvalidInput, Unavailable):
        within = folder / "models" if (folder / "models").is_dir() else folder
    models = []
    for path in sorted(within.iterdir()):
        if path.suffix != ".safetensors" and not path.is_dir():
            continue
        name = path.stem.replace("-", " ").replace("_", " ")
        concept = known.get(key(name)) or (found.name if not known and (found := target(name)) else None)
        if concept is None:
            what = one_of("concept", name, known.values() or _CHALLENGE)
            raise InvalidInput(f"{path.name!r} is named after no concept, and there is no {MANIFEST}: {what}")
        models.append(SubmittedModel(name=path.stem, concepts=(concept,), path=path))
    if not models:
        raise InvalidInput(f"{str(folder)!r} holds neither {MANIFEST} nor a model")
    return Submission(folder=folder, strategy="single", models=tuple(models))


def _one(folder: Path, concepts: tuple[str, ...]) -> SubmittedModel:
    open_weights(folder)
    return SubmittedModel(name=folder.name, concepts=concepts, path=folder)


def _weights(model: SubmittedModel) -> Weights:
    try:
        return open_weights(model.path)
    except InvalidInput as error:
        raise InvalidInput(f"the model {model.name!r}: {error}") from None
