"""Tables of `bench genmu` records: submissions of one strategy, of the same concepts, prompts, model and judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unlearn_bench.leaderboard.groups import Bounded, Group, labels, notes_of
from unlearn_bench.leaderboard.records import Run, finite
from unlearn_bench.leaderboard.section import Column, Section
from unlearn_core.errors import InvalidInput

KINDS = ("genmu", "genmu-evaluation")
AXES = {"fgt": "forgotten", "ret": "retained", "adj": "adjacent", "ind": "indirect", "adv": "adversarial"}
BASELINES = {"identity": "unmodified", "noise": "noise"}
ENDS = ("value", "low", "high")


@dataclass(frozen=True, kw_only=True)
class GenmuRun:
    """A submission, with what it must share with the others of its table."""

    run: Run

    @classmethod
    def of(cls, run: Run) -> "GenmuRun":
        """Return the run."""
        return cls(run=run)

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What was drawn and asked, and the strategy: one is easier than another."""
        keys = ("strategy", "model", "sampler", "judge", "dtype")
        return {
            **{key: self.run.stated(key) for key in keys},
            "concepts": sorted(targets(self.run)),
            "prompts": self.run.stated("prompts", "fingerprint"),
            "images": self.run.stated("prompts", "images"),
        }

    @property
    def anchor(self) -> Mapping[str, Bounded]:
        """The components of the unmodified model."""
        found = {axis: score(self.run, "identity", "components", axis) for axis in AXES}
        return {axis: Bounded(**one) for axis, one in found.items()}


def section(group: Group[GenmuRun]) -> Section:
    """Return the table of submissions that can be compared, the highest ERR first, below the trivial baselines."""
    runs = [entry.run for entry in group.entries]
    first, conditions = runs[0], group.entries[0].conditions
    rows = [_row(name, run, "submission") for name, run in zip(names(runs), runs, strict=True)]
    rows.sort(key=lambda row: (-row["err_pooled"]["value"], row["technique"]))
    beside = [{**_row(name, first, key), "baseline": True} for key, name in BASELINES.items()]
    concepts, count = targets(first), len(targets(first))
    what = ", ".join(concepts) if count <= 5 else f"{count} concepts"
    return Section(
        kind="genmu",
        title=f"Genμ, {conditions['strategy']}: {what} forgotten by {conditions['model']}, judged by "
        f"{judge(conditions['judge'])}; success rates, higher is better",
        columns=[
            Column(key="technique", heading="submission"),
            Column(key="err_pooled", heading="ERR pooled", better="up"),
            Column(key="err_macro", heading="ERR macro", better="up"),
            *(Column(key=axis, heading=axis, better="up") for axis in AXES),
            Column(key="change", heading="weight change"),
        ],
        hidden=[Column(key="weight_change", heading="weight change", better="down")],
        rows=[*beside, *rows],
        conditions=conditions,
        apart=group.apart,
        notes=[
            "sorted by ERR pooled, not ranked: bench genmu rank says which differences are more than chance",
            *group.notes,
            *notes_of(runs),
        ],
    )


def names(runs: Sequence[Run]) -> list[str]:
    """Return a name for each submission: technique, strategy, and whether an organiser scored it anew."""
    said = ("single", "multi", "continual")
    kinds = [
        (str(run.stated("strategy")), ", scored anew" if run.record.kind == KINDS[1] else "") for run in runs
    ]
    return [
        f"{label}, {strategy if strategy in said else '?'}{anew}"
        for label, (strategy, anew) in zip(labels(runs, "technique"), kinds, strict=True)
    ]


def targets(run: Run) -> list[str]:
    """Return what was to be forgotten."""
    return [str(concept["name"]) for concept in run.stated("concepts")]


def judge(found: Any) -> str:
    """Return the name of a judge in a spec."""
    return str(found.get("name", found)) if isinstance(found, Mapping) else str(found)


def score(run: Run, *keys: str) -> dict[str, float]:
    """Return value, low and high of a score of a record.

    Raises:
        InvalidInput: it holds none.
    """
    found: Any = run.record.scores
    for key in keys:
        if not isinstance(found, Mapping) or key not in found:
            raise InvalidInput(f"{str(run.path)!r}: the scores lack {'.'.join(keys)!r}; run it again")
        found = found[key]
    if not isinstance(found, Mapping):
        raise InvalidInput(f"{str(run.path)!r}: {'.'.join(keys)} is no value with an interval: {found!r}")
    return {end: finite(run, ".".join((*keys, end)), found.get(end)) for end in ENDS}


def weight_change(run: Run) -> float | None:
    """Return the tie-break of a submission, None of one that holds no weights.

    Raises:
        InvalidInput: it is no number.
    """
    found = run.record.scores.get("tie_break")
    return finite(run, "tie_break.value", found.get("value")) if isinstance(found, Mapping) else None


def _row(name: str, run: Run, whose: str) -> dict[str, Any]:
    change = weight_change(run) if whose == "submission" else None
    return {
        "technique": name,
        "baseline": False,
        "err_pooled": score(run, whose, "err_pooled"),
        "err_macro": score(run, whose, "err_macro"),
        **{axis: score(run, whose, "components", axis) for axis in AXES},
        "weight_change": change,
        "change": "" if change is None else f"{change:.3g}",
        "run_id": run.record.run_id,
        "record": str(run.path),
    }
