"""Two runs beside each other: how much more the second gets, on the prompts and seeds that both drew."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from unlearn_bench.leaderboard.concepts import ConceptRun
from unlearn_bench.leaderboard.groups import differences, portable
from unlearn_bench.leaderboard.klom import SPLITS, KlomRun
from unlearn_bench.leaderboard.records import Run, scores_of
from unlearn_core.errors import InvalidInput, UnlearnError
from unlearn_core.prompts import Prompt
from unlearn_core.samples import SampleSet
from unlearn_core.score import Interval, Score
from unlearn_metrics.composites import paired_composite
from unlearn_metrics.statistics import paired_difference

PAIRED, INDEPENDENT = "paired", "independent"


def compare(a: Run, b: Run) -> dict[str, Any]:
    """Return {"a", "b", "differs", "rows", "left_out", "notes"}; a row's difference is b minus a.

    Where a value is a mean over pictures, or made of such means as ERR is, the difference is that of the pictures with
    the same prompt and seed, with an interval and a p-value (`unlearn_metrics.statistics.paired_difference`,
    `unlearn_metrics.composites.paired_composite`); FID has it in its part "by image". Elsewhere (KLoM) it is that of
    the two values, its interval made of theirs as if they were independent (MOVER, Zou and Donner 2008), which is too
    wide for runs that share prompts.

    Raises:
        InvalidInput: runs of different kinds or that share nothing; a record that was edited.
    """
    if a.record.kind != b.record.kind:
        raise InvalidInput(
            f"a run of kind {a.record.kind!r} and one of kind {b.record.kind!r} have nothing in common"
        )
    left_out: dict[str, str] = {}
    notes: list[str] = []
    if a.record.kind == "klom":
        rows = list(_klom(a, b))
    elif a.record.kind == "sd":
        rows, notes = _concepts(a, b, left_out)
    else:
        raise InvalidInput(f"runs of the kind {a.record.kind!r} cannot be compared; of sd and klom they can")
    if not rows:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InvalidInput(f"the two runs share nothing that could be compared: {why or 'no metric'}")
    return {
        "a": _about(a), "b": _about(b), "differs": _differs(a.record.spec, b.record.spec), "rows": rows,
        "left_out": left_out, "notes": notes,
    }  # fmt: skip


def _concepts(a: Run, b: Run, left_out: dict[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    for run in (a, b):
        if isinstance(why := ConceptRun.of(run), str) and not _scored(run):
            raise InvalidInput(f"{str(run.path)!r}: {why}")
    before, after = _scored(a), _scored(b)
    pairs = _Pairs(a, b)
    rows: list[dict[str, Any]] = []
    for metric in dict.fromkeys([*before, *after]):
        if metric not in before or metric not in after:
            left_out[metric] = "only one of the runs has it"
        elif other := differences(*(portable(run.stated("metrics").get(metric, {})) for run in (a, b))):
            left_out[metric] = "measured differently: " + "; ".join(other)
        elif found := list(pairs.rows(metric, before[metric], after[metric])):
            rows += found
        else:
            left_out[metric] = pairs.why
    return rows, pairs.notes


class _Pairs:
    """The pictures that two runs share, and the differences on them."""

    def __init__(self, a: Run, b: Run) -> None:
        prompts = [
            {name: about["fingerprint"] for name, about in run.stated("prompts").items()} for run in (a, b)
        ]
        self.identical = prompts[0] == prompts[1]
        self.shown: dict[str, Prompt] | None = None
        """Id -> prompt of what both drew; None where the pictures do not lie beside the records."""
        self.notes: list[str] = []
        of_a, of_b = _prompts(a), _prompts(b)
        if self.identical:
            self.shown = of_a or of_b
            if self.shown is None:
                self.notes.append(
                    "the pictures are not beside the records: those of one prompt are counted as if independent"
                )
        elif of_a is not None and of_b is not None:
            self.shown = {i: p for i, p in of_a.items() if i in of_b and _drawn(p) == _drawn(of_b[i])}
        changed = [name for name in prompts[0] if prompts[1].get(name, prompts[0][name]) != prompts[0][name]]
        self.why = "no prompt with the same text and seed" + (
            f" ({', '.join(changed)} differ)" if changed else ""
        )
        if self.shown is None and not self.identical:
            self.why = (
                "the prompts are not the same, and the pictures, whose metadata says which of them are shared, are not "
                "beside the records"
            )

    def rows(self, metric: str, a: Score, b: Score) -> Iterator[dict[str, Any]]:
        """Yield the row of a metric, and of each of its parts that is a score of its own."""
        for name, one, other in _with_parts(metric, a, b):
            found = self._made_of_parts(one, other) or self._paired(one, other, leaf=name != metric)
            if found is None and self.identical:
                found = _independent(one.value, one.interval, other.value, other.interval)
            if found is not None:
                part = "" if name == metric else name
                yield {"metric": metric, "part": part, "direction": one.direction, **found}

    def _made_of_parts(self, a: Score, b: Score) -> dict[str, Any] | None:
        """Return the row of a value such as ERR; None for other metrics, and where not all pictures have a partner."""
        shown = self.shown or {}
        texts = {i: prompt.text for i, prompt in shown.items()}
        found = paired_composite(b, a, texts, {i: prompt.concept for i, prompt in shown.items()})
        if found is None or not math.isclose(found.value, b.value - a.value, rel_tol=1e-6, abs_tol=1e-9):
            return None
        return {
            "a": a.value, "b": b.value, "difference": found.value, "low": found.low, "high": found.high, "n": found.n,
            "p": found.p, "how": PAIRED,
        }  # fmt: skip

    def _paired(self, a: Score, b: Score, *, leaf: bool) -> dict[str, Any] | None:
        x, y = a.per_sample, b.per_sample
        if not isinstance(x, Mapping) or not isinstance(y, Mapping) or not (self.shown or self.identical):
            return None
        ids = [i for i, v in x.items() if v is not None and y.get(i) is not None]
        if self.shown is not None and not self.identical:
            ids = [i for i in ids if i in self.shown]
        if not ids:
            return None
        weights = self._weights(ids, (a, b))
        if weights is None:
            if not leaf:
                return None
            weights = dict.fromkeys(ids, 1.0)
        of_a, of_b = ({i: weights[i] * float(v[i] or 0) for i in ids} for v in (x, y))
        known = self.shown or {}
        texts = {i: known[i].text for i in ids} if known.keys() >= set(ids) else None
        found = paired_difference(of_b, of_a, clusters=texts)
        return {
            "a": math.fsum(of_a.values()) / len(ids), "b": math.fsum(of_b.values()) / len(ids),
            "difference": found.value, "low": found.low, "high": found.high, "n": found.n, "p": found.p,
            "how": PAIRED,
        }  # fmt: skip

    def _weights(self, ids: list[str], scores: tuple[Score, Score]) -> dict[str, float] | None:
        """Return the weight of each picture in the mean that both values are: plain, or over concepts; else None."""
        if all(_is_mean(score, lambda _: "") for score in scores):
            return dict.fromkeys(ids, 1.0)
        shown = self.shown
        if shown is None or any(i not in shown for score in scores for i in score.per_sample or ()):
            return None
        if not all(_is_mean(score, lambda i: shown[i].concept) for score in scores):
            return None
        counts = Counter(shown[i].concept for i in ids)
        return {i: len(ids) / (len(counts) * counts[shown[i].concept]) for i in ids}


def _klom(a: Run, b: Run) -> Iterator[dict[str, Any]]:
    runs = []
    for run in (a, b):
        if isinstance(one_run := KlomRun.of(run), str):
            raise InvalidInput(f"{str(run.path)!r}: {one_run}")
        runs.append(one_run)
    if other := differences(runs[0].conditions, runs[1].conditions):
        raise InvalidInput(f"KLoM compares on the same oracles only; here differ {'; '.join(other)}")
    one, two = (found.scores[found.run.stated("method")] for found in runs)
    for split in SPLITS:
        for name, ends in (("p95", ("low", "high")), ("mean", ("mean_low", "mean_high"))):
            bounds = [
                Interval(low=min(s[ends[0]], s[name]), high=max(s[ends[1]], s[name]), how="bootstrap")
                if s.get(ends[0]) is not None
                else None
                for s in (one[split], two[split])
            ]
            found = _independent(one[split][name], bounds[0], two[split][name], bounds[1])
            yield {"metric": f"{split}_{name}", "part": "", "direction": "down", **found}


def _independent(a: float, of_a: Interval | None, b: float, of_b: Interval | None) -> dict[str, Any]:
    difference, low, high = b - a, None, None
    if of_a is not None and of_b is not None:
        low = difference - math.hypot(b - of_b.low, of_a.high - a)
        high = difference + math.hypot(of_b.high - b, a - of_a.low)
    return {"a": a, "b": b, "difference": difference, "low": low, "high": high, "n": None, "p": None,
            "how": INDEPENDENT}  # fmt: skip


def _with_parts(metric: str, a: Score, b: Score) -> Iterator[tuple[str, Score, Score]]:
    yield metric, a, b
    for name, part in a.parts.items():
        # The rate of the unmodified model is the same in both.
        if isinstance(part, Score) and isinstance(other := b.parts.get(name), Score) and name != "original":
            yield name, part, other


def _is_mean(score: Score, label: Any) -> bool:
    assert isinstance(score.per_sample, Mapping)
    by_label: dict[Any, list[float]] = {}
    for i, value in score.per_sample.items():
        if value is not None:
            by_label.setdefault(label(i), []).append(value)
    means = [math.fsum(values) / len(values) for values in by_label.values()]
    return math.isclose(math.fsum(means) / len(means), score.value, rel_tol=1e-6, abs_tol=1e-9)


def _scored(run: Run) -> dict[str, Score]:
    return {
        metric: scores_of(run, entry, metric)
        for metric, entry in run.record.scores.items()
        if not (isinstance(entry, Mapping) and ("error" in entry or "not_applicable" in entry))
    }


def _prompts(run: Run) -> dict[str, Prompt] | None:
    """Return id -> prompt of the pictures beside a record; None where there are none."""
    folder = run.path.parent / run.record.files.get("images", "images")
    if not (folder / "metadata.jsonl").is_file():
        return None
    try:
        return {sample.prompt.id: sample.prompt for sample in SampleSet(folder)} or None
    except UnlearnError:
        return None


def _drawn(prompt: Prompt) -> tuple[Any, ...]:
    return prompt.text, prompt.seed, prompt.guidance


def _about(run: Run) -> dict[str, Any]:
    spec = run.record.spec
    name = spec.get("technique", spec.get("method"))
    return {"name": name, "run_id": run.record.run_id, "record": str(run.path)}


def _differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    same_kind = a.get("technique", a.get("method")) == b.get("technique", b.get("method"))
    keys = ["technique", "method", *(["config", "code"] if same_kind else []), "concept", "model", "model_fingerprint",
            "sampler", "dtype", "seed"]  # fmt: skip
    return differences(*({key: spec[key] for key in keys if key in spec} for spec in (a, b)))
