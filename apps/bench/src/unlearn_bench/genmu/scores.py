"""What a run is worth: ERR beside the trivial baselines, the weight change, and what each request did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genmu_eval.continual import Continual, continual, spread
from genmu_eval.err import err
from genmu_eval.rank import IDENTITY, NOISE, Entry, difference, noise_of
from genmu_eval.table import Judgement
from genmu_eval.tie_break import tie_break
from unlearn_core import hub, registry
from unlearn_core.errors import InvalidInput, Unavailable, one_of
from unlearn_core.samples import SampleSet

Rows = Sequence[Judgement]


@dataclass(kw_only=True)
class Taken:
    """What was seen in the pictures of all models of a run, as it comes in."""

    before: SampleSet
    """Pictures of the unmodified model."""
    base: list[Judgement]
    """The unmodified model on all that is asked."""
    rows: list[Judgement] = field(default_factory=list)
    """The submission."""
    identity: list[Judgement] = field(default_factory=list)
    """The unmodified model on the images of `rows`."""
    after: dict[str, SampleSet] = field(default_factory=dict)
    """Target -> pictures of the model that forgot it."""
    steps: dict[tuple[str, ...], list[list[Judgement]]] = field(default_factory=dict)
    """Order -> the judged images after each request."""
    motions: dict[tuple[str, ...], list[dict[str, float]]] = field(default_factory=dict)
    """Order -> what each request did to the weights."""
    votes: dict[str, list[bool | None]] = field(default_factory=dict)
    """Judge -> its answers about all pictures of the run."""
    hooks: list[str] = field(default_factory=list)
    """What acts while the submitted models draw."""


def scores(rows: Rows, identity: Rows) -> dict[str, Any]:
    """Return ERR of a submission and of the trivial baselines on the same images, and the gain over doing nothing."""
    tables = {"submission": rows, IDENTITY: identity, NOISE: noise_of(identity).rows}
    found: dict[str, Any] = {name: err(table).document() for name, table in tables.items()}
    pair = (Entry(name="submission", rows=tuple(rows)), Entry(name=IDENTITY, rows=tuple(identity)))
    found["gain"] = difference(*pair).document()
    return found


def sequences(
    steps: Mapping[tuple[str, ...], Sequence[Sequence[Judgement]]],
    base: Rows,
    motions: Mapping[tuple[str, ...], Sequence[Mapping[str, float]]],
) -> dict[str, Any]:
    """Return what each order of requests did, and how much the order matters.

    Args:
        steps: order -> the judged images after each request.
        base: the judged images of the unmodified model.
        motions: order -> what each request did to the weights.
    """
    runs: list[Continual] = [continual(tables, order, base=base) for order, tables in steps.items()]
    found: dict[str, Any] = {"orders": []}
    for run in runs:
        moved = list(motions[run.order])
        path = sum(step["moved"] for step in moved)
        found["orders"].append({**run.document(), "weights": moved, "path": path})
    if len(runs) > 1:
        found["spread"] = spread(runs)
    return found


def weight_change(
    original: str | Path, models: Mapping[str, Path], *, n_concepts: int | None
) -> dict[str, Any]:
    """Return the tie-break of deltas or whole models, as JSON values.

    Args:
        original: Hub id or folder of the unmodified model.
        models: name -> folder, file or delta.
        n_concepts: how many concepts a single model forgot.
    """
    return tie_break(
        local_folder(str(original)), dict(models), n_concepts=n_concepts, any_base=True
    ).document()


def local_folder(model: str) -> Path:
    """Return the folder of a model on this machine; one of the Hub must have been downloaded.

    Raises:
        InvalidInput: there is no such model.
        Unavailable: it is not downloaded.
    """
    if Path(model).exists():
        return Path(model)
    if model in (known := registry.names("unlearn.models")):
        return Path(registry.load("unlearn.models", model)())
    if not hub.is_hub_id(model):
        raise InvalidInput(
            one_of("model", model, known) + "; or give a folder, a file, or a Hub id (owner/name)"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except Exception as error:  # the Hub's client has many kinds of its own
        raise Unavailable(
            f"the weights of {model!r} are not on this machine; download them once, or give a local folder"
        ) from error
