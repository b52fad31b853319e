"""`bench compare` on records written by hand: paired where pictures are shared, refused where nothing is."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from unlearn_core.record import RunRecord, run_id
from unlearn_core.score import Interval, Score

N = 40
PROMPTS = {
    group: {"name": group, "rows": N, "fingerprint": group * 8} for group in ("target", "retain", "quality")
}
METRICS = {
    "asr_i2p": {"threshold": 0.5},
    "clip_score": {"model": "ViT-L-14", "device": "cpu"},
    "fid": {},
    "ua_ira": {},
}
RNG = np.random.default_rng(0)


def score(metric, values, direction="up", value=None, parts=None, prefix="p"):
    values = {f"{prefix}{i}": None if v is None else float(v) for i, v in enumerate(values)}
    judged = [v for v in values.values() if v is not None]
    missing = len(values) - len(judged)
    return Score(
        metric=metric, value=float(np.mean(judged)) if value is None else value, direction=direction, parts=parts or {},
        n_scored=len(judged), n_unscored=missing, reasons={"black": missing} if missing else {}, per_sample=values,
    )  # fmt: skip


def fid(value, half):
    interval = Interval(low=value - half, high=value + half, how="delta")
    return Score(metric="fid", value=value, direction="down", n_scored=N, interval=interval)


def write(folder, scores, *, kind="sd", **changes):
    spec = {
        "technique": folder.name, "config": {}, "concept": {"name": "dog"}, "model": "pocket", "metrics": METRICS,
        "model_fingerprint": "ab", "prompts": PROMPTS, "sampler": {"steps": 25}, "dtype": "fp32", "seed": 0,
    } | changes  # fmt: skip
    found = {
        name: {**one.to_mapping(), "baseline": one.to_mapping()} if isinstance(one, Score) else one
        for name, one in scores.items()
    }
    record = RunRecord(
        run_id=run_id(spec), kind=kind, spec=spec, environment={}, created=datetime(2026, 1, 1, tzinfo=UTC),
        files={"images": f"../images/{folder.name}"},
        scores=found,
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(record.model_dump_json())
    return folder


def pictures(folder, rows):
    """Write the metadata of pictures: (text, seed, concept) of each."""
    folder.mkdir(parents=True)
    for i in range(len(rows)):
        (folder / f"p{i}.png").write_bytes(b"x")
    lines = [
        {
            "file_name": f"p{i}.png",
            "id": f"p{i}",
            "text": text,
            "seed": seed,
            "group": "target",
            "concept": concept,
        }
        for i, (text, seed, concept) in enumerate(rows)
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def rows_of(json_of):
    """Return a function that compares two runs and gives metric or part -> row."""

    def run(a, b):
        found = json_of("compare", a, b)
        return {row["part"] or row["metric"]: row for row in found["rows"]}, found

    return run


def test_paired_on_shared_pictures(rows_of, tmp_path):
    a, b = RNG.normal(25, 3, N), RNG.normal(26, 3, N)
    b = a + (b - a) / 4
    hits_a, hits_b = np.array([1.0] * 20 + [0.0] * 20), np.array([1.0] * 5 + [0.0] * 35)
    of_a = write(tmp_path / "a", {"clip_score": score("clip_score", a), "asr_i2p": score("asr_i2p", hits_a, "down"),
                                  "fid": fid(30.0, 3.0)})  # fmt: skip
    of_b = write(tmp_path / "b", {"clip_score": score("clip_score", b), "asr_i2p": score("asr_i2p", hits_b, "down"),
                                  "fid": fid(25.0, 4.0)})  # fmt: skip
    rows, found = rows_of(of_a, of_b)
    clip = rows["clip_score"]
    assert (clip["a"], clip["b"], clip["n"], clip["how"]) == (
        pytest.approx(a.mean()),
        pytest.approx(b.mean()),
        N,
        "paired",
    )
    half = 2.0227 * (b - a).std(ddof=1) / N**0.5  # Student's t with 39 degrees of freedom
    middle = (b - a).mean()
    assert (clip["low"], clip["high"]) == pytest.approx((middle - half, middle + half), abs=0.1)
    assert clip["high"] - clip["low"] < 1.2, "unpaired it would be 2.6"
    asr = rows["asr_i2p"]
    assert (asr["difference"], asr["direction"]) == (-0.375, "down")
    assert asr["p"] == 2 / 2**15, "McNemar's exact test: 15 of 15 the same way"
    assert rows["fid"] == {
        "metric": "fid", "part": "", "direction": "down", "a": 30.0, "b": 25.0, "difference": -5.0, "low": -10.0,
        "high": 0.0, "n": None, "p": None, "how": "independent",
    }  # fmt: skip
    assert found["differs"] == ["technique: a / b"] and found["left_out"] == {}
    assert any("not beside the records" in note for note in found["notes"])


def test_a_run_against_itself(rows_of, tmp_path):
    run = write(tmp_path / "a", {"clip_score": score("clip_score", RNG.normal(25, 3, N))})
    rows, found = rows_of(run, run / "record.json")
    assert (rows["clip_score"]["difference"], rows["clip_score"]["p"]) == (0, 1) and found["differs"] == []


def test_unscored_pictures_are_no_pairs(rows_of, tmp_path):
    a = write(tmp_path / "a", {"asr_i2p": score("asr_i2p", [None, 1, 1, 0], "down")})
    b = write(tmp_path / "b", {"asr_i2p": score("asr_i2p", [1, None, 0, 0], "down")})
    rows, _ = rows_of(a, b)
    assert (rows["asr_i2p"]["n"], rows["asr_i2p"]["a"], rows["asr_i2p"]["difference"]) == (2, 0.5, -0.5)


def test_only_rows_with_the_same_text_and_seed(rows_of, tmp_path):
    """Five rows of ten are the same; one has another seed, four another text."""
    rows = [(f"a dog {i}", i, "dog") for i in range(10)]
    other = [*rows[:5], ("a dog 5", 99, "dog"), *((f"a cat {i}", i, "dog") for i in range(6, 10))]
    fewer = {"prompts": {**PROMPTS, "target": {"rows": 10, "fingerprint": "f" * 64}}}
    a = write(tmp_path / "a", {"asr_i2p": score("asr_i2p", [1] * 10, "down"), "fid": fid(30.0, 3.0)})
    b = write(tmp_path / "b", {"asr_i2p": score("asr_i2p", [0] * 10, "down"), "fid": fid(30.0, 3.0)}, **fewer)
    pictures(tmp_path / "images" / "a", rows)
    pictures(tmp_path / "images" / "b", other)
    found_rows, found = rows_of(a, b)
    assert (found_rows["asr_i2p"]["n"], found_rows["asr_i2p"]["difference"]) == (5, -1)
    assert found["left_out"] == {"fid": "no prompt with the same text and seed (target differ)"}


def test_pictures_of_one_prompt_vary_together(rows_of, tmp_path):
    """Ten prompts of four seeds: the interval is twice as wide as that of 40 prompts."""
    a = np.zeros(N)
    b = np.repeat(np.random.default_rng(1).normal(0, 1, 10), 4) + 30
    scores = [{"clip_score": score("clip_score", values)} for values in (a, b)]
    runs = [write(tmp_path / name, one) for name, one in zip("ab", scores, strict=True)]
    alone = rows_of(*runs)[0]["clip_score"]
    for name in "ab":
        pictures(tmp_path / "images" / name, [(f"a dog {i // 4}", i, "dog") for i in range(N)])
    together = rows_of(*runs)[0]["clip_score"]
    ratio = (together["high"] - together["low"]) / (alone["high"] - alone["low"])
    assert 1.6 < ratio < 2.3 and together["difference"] == alone["difference"]


def test_means_over_concepts(rows_of, tmp_path):
    """IRA is a mean over labels: three pictures of cats weigh as much as one of a fox."""
    rows = [("a cat", 0, "cat"), ("a cat", 1, "cat"), ("a cat", 2, "cat"), ("a fox", 3, "fox")]

    def run(name, right):
        ira = score("IRA", right, value=(np.mean(right[:3]) + right[3]) / 2)
        return write(tmp_path / name, {"ua_ira": score("ua_ira", right, value=ira.value, parts={"IRA": ira})})

    a, b = run("a", [1, 1, 1, 0]), run("b", [1, 1, 0, 1])
    for name in "ab":
        pictures(tmp_path / "images" / name, rows)
    found, _ = rows_of(a, b)
    assert (found["IRA"]["a"], found["IRA"]["b"]) == pytest.approx((0.5, 5 / 6))
    assert found["IRA"]["difference"] == pytest.approx(1 / 3)
    assert (found["IRA"]["how"], found["IRA"]["n"]) == ("paired", 4)


def test_values_made_of_parts_are_paired(rows_of, tmp_path):
    """ERR of two arms: the same 20 prompts each, of which b withstands six more."""
    rows = [(f"a dog {i}", i, "dog") for i in range(40)]

    def run(name, good):
        arms = {
            arm: score(arm, right, prefix=prefix)
            for arm, right, prefix in (("forgetting", good, "p"), ("retention", [1] * 15 + [0] * 5, "q"))
        }
        mean = 2 / sum(1 / arm.value for arm in arms.values())
        pictures(tmp_path / "images" / name, rows)
        renamed = tmp_path / "images" / name / "metadata.jsonl"
        lines = [json.loads(line) for line in renamed.read_text().splitlines()]
        for i, line in enumerate(lines):
            line["id"] = f"p{i}" if i < 20 else f"q{i - 20}"
        renamed.write_text("".join(json.dumps(line) + "\n" for line in lines))
        whole = Score(metric="err", value=mean, direction="up", n_scored=40, parts=arms)
        return write(tmp_path / name, {"err": whole}, metrics={"err": {}})

    found, _ = rows_of(run("a", [1] * 8 + [0] * 12), run("b", [1] * 14 + [0] * 6))
    row = found["err"]
    assert row["how"] == "paired" and row["difference"] == pytest.approx(row["b"] - row["a"])
    assert 0 < row["low"] < row["difference"] < row["high"] and row["p"] < 0.05
    assert found["forgetting"]["p"] == pytest.approx(2 / 2**6)


def klom(folder, forget, **changes):
    def split(p95):
        return {"p95": p95, "low": p95 - 3, "high": p95 + 4, "mean": 1.0, "mean_low": None, "mean_high": None}

    spec = {
        "dataset": {"name": "digits"},
        "forget_set": 1,
        "n_models": 100,
        "variant": "easydub",
        "method": "scrub",
    }
    of = {s: split(forget if s == "forget" else 5.0) for s in ("forget", "retain", "val")}
    return write(folder, {"do_nothing": of, "scrub": of}, kind="klom", **{**spec, **changes})


def test_klom(rows_of, bench, error, tmp_path):
    a, b = klom(tmp_path / "a", 8.0), klom(tmp_path / "b", 6.0)
    rows, _ = rows_of(a, b)
    forget = rows["forget_p95"]
    assert (forget["difference"], forget["low"], forget["high"]) == (-2.0, -7.0, 3.0), (
        "MOVER: 3, 4 and 4, 3 give 5"
    )
    assert rows["val_mean"]["low"] is None
    assert "forget_p95" in bench("compare", a, b).out
    other = klom(tmp_path / "c", 8.0, forget_set=2)
    assert "here differ forget_set: 1 / 2" in error("compare", a, other)
    sd = write(tmp_path / "d", {"fid": fid(30.0, 3.0)})
    assert "kind 'klom' and one of kind 'sd'" in error("compare", a, sd, "--json")


def test_the_table(bench, tmp_path):
    a = write(tmp_path / "a", {"clip_score": score("clip_score", RNG.normal(25, 3, N)), "fid": fid(30.0, 3.0),
                               "kid": {"error": "it failed"}})  # fmt: skip
    b = write(
        tmp_path / "b",
        {"clip_score": score("clip_score", RNG.normal(25, 3, N)), "fid": fid(25.0, 4.0)},
        seed=1,
    )
    result = bench("compare", a, b)
    assert result.code == 0
    (line,) = (line.split() for line in result.out.splitlines() if line.startswith("fid"))
    assert line == ["fid", "↓", "30.0", "25.0", "-5.0", "[-10.0,", "+0.0]", "*"]
    assert "differ in technique: a / b" in result.out and "seed: 0 / 1" in result.out


# ---- refused --------------------------------------------------------------------------------------------------


def test_nothing_is_shared(error, tmp_path):
    a = write(tmp_path / "a", {"asr_i2p": score("asr_i2p", [1, 0], "down")})
    otherwise = {"metrics": {**METRICS, "asr_i2p": {"threshold": 0.7}}}
    b = write(tmp_path / "b", {"asr_i2p": score("asr_i2p", [1, 0], "down")}, **otherwise)
    assert "asr_i2p: measured differently: threshold: 0.5 / 0.7" in error("compare", a, b)
    c = write(tmp_path / "c", {"clip_score": score("clip_score", [25.0, 26.0])})
    assert "asr_i2p: only one of the runs has it; clip_score: only one" in error("compare", a, c)
    elsewhere = {"prompts": {**PROMPTS, "target": {"rows": 2, "fingerprint": "f" * 64}}}
    d = write(tmp_path / "d", {"asr_i2p": score("asr_i2p", [1, 0], "down")}, **elsewhere)
    assert "whose metadata says which of them are shared" in error("compare", a, d)
    pictures(tmp_path / "images" / "a", [("a dog", 0, "dog"), ("a dog", 1, "dog")])
    pictures(tmp_path / "images" / "d", [("a cat", 0, "dog"), ("a cat", 1, "dog")])
    assert "no prompt with the same text and seed (target differ)" in error("compare", a, d)
    failed = write(tmp_path / "e", {"asr_i2p": {"error": "it failed"}})
    assert "asr_i2p failed: it failed" in error("compare", a, failed)


def test_bad_records(error, tmp_path):
    a = write(tmp_path / "a", {"asr_i2p": score("asr_i2p", [1, 0], "down")})
    assert "holds no record.json" in error("compare", a, tmp_path)
    assert "cannot read" in error("compare", a, tmp_path / "nowhere")
    text = (a / "record.json").read_text()
    for old, new, hint in (
        ('"value":0.5', '"value":0.0', "it was edited after the run"),
        ('"steps":25', '"steps":26', "the spec hashes to"),
        ('"schema_number":1', '"schema_number":2', "schema 2"),
        ('"prompts":', '"prompt":', "the spec hashes to"),
    ):
        (tmp_path / "bad.json").write_text(text.replace(old, new, 1))
        assert hint in error("compare", a, tmp_path / "bad.json")
    odd = write(tmp_path / "odd", {"asr_i2p": score("asr_i2p", [1, 0], "down")}, prompts={})
    assert "whose metadata" in error("compare", a, odd)
    genmu = write(tmp_path / "genmu", {}, kind="genmu")
    assert "of sd and klom they can" in error("compare", genmu, genmu)
