"""The cards of repositories: what is in them, how it was measured, and the metadata that the Hub reads."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from unlearn_bench.leaderboard.concepts import ConceptRun
from unlearn_bench.leaderboard.records import Run
from unlearn_bench.report.reproduce import configuration
from unlearn_core.score import Score
from unlearn_core.spec import canonical_json

TAGS = ["machine-unlearning", "concept-erasure", "unlearn-bench"]
SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The Hub's classes of the number of rows, each with what it stays below."""


def dataset(repo: str, runs: Sequence[Run], splits: Mapping[str, str], *, n_pictures: int) -> str:
    """Return the card of a data set of runs.

    Args:
        repo: id of the repository.
        runs: whose records are in it.
        splits: folder of pictures -> what drew them; each is a split of the viewer.
        n_pictures: in all.
    """
    from huggingface_hub import DatasetCardData

    specs = [run.record.spec for run in runs if run.record.kind == "sd"]
    concepts = sorted({spec["concept"]["name"] for spec in specs})
    unsafe = any(spec["concept"].get("kind") == "unsafe" for spec in specs)
    shown = [(re.sub(r"\W+", "_", label), label, place) for place, label in splits.items()]
    more: dict[str, Any] = {}
    if shown:
        data_files = [{"split": split, "path": f"{place}/**"} for split, _, place in shown]
        more["configs"] = [{"config_name": "pictures", "data_files": data_files}]
        more["task_categories"] = ["text-to-image"]
    data = DatasetCardData(
        pretty_name=f"Runs of Unlearn Bench: {', '.join(concepts) or 'data unlearning'}",
        tags=TAGS + (["not-for-all-audiences"] if unsafe else []),
        size_categories=[next((name for top, name in SIZES if n_pictures < top), "n>1M")],
        **more,
    )
    return _render(
        "dataset.md.jinja",
        metadata=data.to_yaml(),
        name=data.pretty_name,
        repo=repo,
        unsafe=unsafe,
        runs=[(run.path.parent.name, _about(run)) for run in runs],
        splits=shown,
        n_pictures=n_pictures,
    )


def model(repo: str, entry: ConceptRun, file: str, *, tensors: int) -> str:
    """Return the card of a weight delta, with the scores of its run as `model-index`."""
    from huggingface_hub import ModelCardData

    spec = entry.run.record.spec
    name = repo.rpartition("/")[2]
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", spec["model"]) is not None
    data = ModelCardData(
        model_name=name,
        tags=TAGS,
        pipeline_tag="text-to-image",
        eval_results=_results(entry),
        **({"base_model": spec["model"], "base_model_relation": "adapter"} if on_hub else {}),
    )
    return _render(
        "model.md.jinja",
        metadata=data.to_yaml(),
        name=name,
        spec=spec,
        file=file,
        tensors=tensors,
        results=[
            (column, _value(score), _value(entry.before[column]), score.n_scored)
            for column, score in entry.scores.items()
        ],
        run_id=entry.run.record.run_id,
        settings=canonical_json(configuration(spec)["technique"]),
    )


def space(title: str) -> str:
    """Return the card of a static Space, whose page is index.html."""
    from huggingface_hub import SpaceCardData

    data = SpaceCardData(title=title, sdk="static", app_file="index.html", pinned=False, tags=TAGS)
    return f"---\n{data.to_yaml()}\n---\n\nMade by `bench push` of Unlearn Bench.\n"


def _render(template: str, **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    text = (files(__package__) / template).read_text(encoding="utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(text).render(**values)


def _results(entry: ConceptRun) -> list[Any]:
    from huggingface_hub import EvalResult

    spec = entry.run.record.spec
    groups = ", ".join(f"{rows['rows']} {group}" for group, rows in spec["prompts"].items())
    fingerprints = {group: rows["fingerprint"] for group, rows in spec["prompts"].items()}
    return [
        EvalResult(
            task_type="text-to-image",
            dataset_type="unlearn-bench",
            dataset_name=f"{spec['concept']['name']} ({groups})",
            dataset_config=canonical_json(fingerprints),
            metric_type=column.lower(),
            metric_name=f"{column} ({'more' if score.direction == 'up' else 'less'} is better)",
            metric_value=round(score.value, 6),
        )
        for column, score in entry.scores.items()
    ]


def _about(run: Run) -> str:
    spec = run.record.spec
    if run.record.kind == "sd":
        return f"`{spec['technique']}` on *{spec['concept']['name']}* of {spec['model']}"
    return f"`{spec.get('method', run.record.kind)}`, forget set {spec.get('forget_set')}"


def _value(score: Score) -> str:
    text = f"{score.value:.3g}"
    return f"{text} [{score.interval.low:.3g}, {score.interval.high:.3g}]" if score.interval else text
