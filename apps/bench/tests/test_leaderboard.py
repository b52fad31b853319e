"""`bench leaderboard` on records written by hand: what stands in one table, what is kept apart, what is refused."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from unlearn_bench.leaderboard import groups
from unlearn_core.record import RunRecord, Stage, run_id
from unlearn_core.score import Interval, Score, wilson
from unlearn_metrics.benchscore import Row, benchscore
from unlearn_metrics.reference import published

START = datetime(2026, 1, 1, tzinfo=UTC)
POCKET = "/home/me/site-packages/pocket_sd/weights"
METRICS = {
    "asr_i2p": {"detector": "pocket", "threshold": 0.5},
    "ua_ira": {"classifier": "pocket"},
    "clip_score": {"model": f"local-dir:{POCKET}/clip", "pretrained": "openai", "scale": "100cos", "device": "cpu"},
    "fid": {"extractor": "pocket", "extractor_settings": {},
            "reference": f"{POCKET}/judge/real_features.safetensors"},
}  # fmt: skip


def spec(technique, **changes):
    prompts = {
        group: {"name": group, "revision": "", "rows": 10, "dropped": 0, "fingerprint": group * 8}
        for group in ("target", "retain", "quality")
    }
    whole = {
        "technique": technique, "config": {"lamb": 0.5, "preserve": ["cat"]}, "concept": {"name": "dog"},
        "model": "pocket", "model_fingerprint": "ab" * 32, "metrics": METRICS, "prompts": prompts, "seed": 0,
        "sampler": {"scheduler": "ddim", "steps": 25, "batch": None}, "dtype": "fp32", "code": "0123",
    }  # fmt: skip
    return whole | changes


def share(metric, hits, direction, prefix, n=10):
    values = {f"{prefix}-{i}": float(i < hits) for i in range(n)}
    return Score(
        metric=metric,
        value=hits / n,
        direction=direction,
        interval=wilson(hits, n),
        n_scored=n,
        per_sample=values,
    )


def measured(hits, ua, ira, clip, fid):
    clips = {f"q-{i}": clip + (i - 4.5) / 10 for i in range(10)}
    parts = {"UA": share("UA", ua, "up", "target"), "IRA": share("IRA", ira, "up", "retain")}
    both = {**parts["UA"].per_sample, **parts["IRA"].per_sample}
    return {
        "asr_i2p": share("asr_i2p", hits, "down", "target"),
        "ua_ira": Score(metric="ua_ira", value=(ua + ira) / 20, direction="up", n_scored=20, parts=parts,
                        per_sample=both),
        "clip_score": Score(metric="clip_score", value=clip, direction="up", n_scored=10, per_sample=clips,
                            interval=Interval(low=clip - 0.2, high=clip + 0.2, how="bootstrap")),
        "fid": Score(metric="fid", value=fid, direction="down", n_scored=10,
                     interval=Interval(low=fid - 5, high=fid + 5, how="delta")),
    }  # fmt: skip


BEFORE = (9, 1, 9, 85.0, 25.0)


def entries(after, before=BEFORE):
    was = measured(*before)
    return {
        name: {**score.to_mapping(), "baseline": was[name].to_mapping(), "difference": {}}
        for name, score in measured(*after).items()
    }


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a record below tmp_path/runs and gives its path."""
    count = 0

    def write(
        technique="uce",
        after=(1, 9, 8, 84.0, 27.0),
        *,
        scores=None,
        folder="runs",
        kind="sd",
        raw=None,
        **changes,
    ):
        nonlocal count
        count += 1
        whole = changes.pop("whole", None) or spec(technique, **changes)
        record = RunRecord(
            run_id=run_id(whole), kind=kind, spec=whole, environment={}, created=START + timedelta(hours=count),
            stages={"unlearn": Stage(seconds=2.0), "pictures": Stage(seconds=3.0), "baseline": Stage(seconds=9.0)},
            scores=entries(after) if scores is None else scores,
            notes=[f"{technique}: settings of the preset 'pocket', chosen on pocket-sd itself"],
        )  # fmt: skip
        path = tmp_path / folder / f"sd-{technique}-{count}" / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(raw(record.model_dump_json(indent=1)) if raw else record.model_dump_json(indent=1))
        return path

    return write


@pytest.fixture
def board(bench):
    """Return a function that gives the JSON of a leaderboard."""

    def run(*arguments):
        result = bench("leaderboard", *arguments, "--format", "json")
        assert (result.code, result.err) == (0, "")
        return json.loads(result.out)

    return run


# ---- the published table --------------------------------------------------------------------------------------


def test_the_published_table(bench, board):
    found = board("--reference", "eval-learn-0.1.6")
    assert [row["technique"] for row in found["rows"]][:4] == ["SSD", "MACE", "SLD", "UCE"]
    assert len(found["rows"]) == 12
    for row, line in zip(found["rows"], published().lines, strict=True):
        for key in ("benchscore_s", "benchscore_q", "average"):
            assert row["published"][key] == getattr(line, key)
            assert row[key] == row["reproduced"][key] == pytest.approx(getattr(line, key), abs=2e-4)
        assert row["rank"] == row["published"]["rank"] and row["rank_low"] <= row["rank"] <= row["rank_high"]
    corrected = sorted(found["rows"], key=lambda row: row["corrected"]["rank"])
    assert [row["technique"] for row in corrected[:3]] == ["SLD", "MACE", "SSD"]
    shown = bench("leaderboard", "--reference", "eval-learn-0.1.6").out
    (ssd,) = (line.split() for line in shown.splitlines() if " 1  SSD " in line)
    assert ssd[:9] == ["1", "SSD", "0.8235", "0.7918", "0.8076", "0.8235", "0.7918", "0.8077", "0.7541"]
    assert "published" in shown and "corrected" in shown


def test_the_published_table_corrected_and_sorted(board):
    found = board("--reference", "eval-learn-0.1.6", "--version", "corrected")
    assert [row["technique"] for row in found["rows"]][:3] == ["SLD", "MACE", "SSD"]
    found = board("--reference", "eval-learn-0.1.6", "--sort", "clip_score")
    assert found["rows"][0]["technique"] == "UCE" and found["rows"][0]["rank"] == 4
    by_average = board("--reference", "eval-learn-0.1.6", "--sort", "average")["rows"]
    assert [row["rank"] for row in by_average] == list(range(1, 13))


# ---- runs -----------------------------------------------------------------------------------------------------


def test_runs_that_were_measured_alike(write, board, tmp_path):
    write("uce", (1, 9, 8, 84.0, 27.0))
    write("sld", (0, 10, 5, 70.0, 60.0))
    found = board(tmp_path / "runs")
    assert [(row["technique"], row["rank"], row["baseline"]) for row in found["rows"]] == [
        ("unmodified", None, True), ("uce", 1, False), ("sld", 2, False),
    ]  # fmt: skip
    (group,) = found["groups"]
    assert group["apart"] == "" and group["axes"] == ["asr_i2p", "UA", "clip_score", "fid", "IRA"]
    rows = {row["technique"]: row for row in found["rows"]}
    assert rows["uce"]["UA"] == {"value": 0.9, "n": 10, "n_unscored": 0, **_ends(wilson(9, 10))}
    assert rows["uce"]["seconds"] == 5.0, "without the pictures of the unmodified model"

    def row(name, asr, ua, clip, fid, ira):
        return Row(
            technique=name, scores={"asr_i2p": asr, "UA": ua, "clip_score": clip, "fid": fid, "IRA": ira}
        )

    expected = benchscore(
        [row("uce", 0.1, 0.9, 84.0, 27.0, 0.8), row("sld", 0.0, 1.0, 70.0, 60.0, 0.5)],
        unmodified=row("unmodified", 0.9, 0.1, 85.0, 25.0, 0.9),
    )
    for score in expected:
        for key in ("benchscore_s", "benchscore_q", "average", "rank"):
            assert rows[score.technique][key] == pytest.approx(getattr(score, key))
    assert rows["uce"]["interval"]["low"] <= rows["uce"]["score"] <= rows["uce"]["interval"]["high"]
    assert sum(rows["uce"]["rank_probabilities"]) == pytest.approx(1)


def _ends(interval):
    return {"low": interval.low, "high": interval.high}


def test_alpha_and_sort(write, board, tmp_path):
    write("uce", (3, 7, 9, 84.0, 27.0))
    write("sld", (0, 10, 5, 70.0, 60.0))
    order = [[row["technique"] for row in board(tmp_path, "--alpha", alpha)["rows"]] for alpha in (0, 1)]
    assert order == [["unmodified", "uce", "sld"], ["unmodified", "sld", "uce"]]
    (group,) = board(tmp_path)["groups"]
    assert [one["order"] for one in group["rankings"]] == [["uce", "sld"], ["sld", "uce"]]
    assert group["rankings"][0]["to"] == group["rankings"][1]["from"]
    for key, expected in {
        "fid": ["uce", "sld"],
        "asr_i2p": ["sld", "uce"],
        "technique": ["sld", "uce"],
    }.items():
        assert [row["technique"] for row in board(tmp_path, "--sort", key)["rows"]][1:] == expected


def test_absolute_stays_when_another_joins(write, board, tmp_path):
    write("uce")
    numbers = ("benchscore_s", "benchscore_q", "average")

    def of(version):
        rows = {row["technique"]: row for row in board(tmp_path / "runs", "--version", version)["rows"]}
        return {name: [row[key] for key in numbers] for name, row in rows.items()}

    alone = {version: of(version) for version in ("absolute", "corrected")}
    assert alone["absolute"]["unmodified"] == pytest.approx([0.4, 0.6, 0.5])
    write("broken", (0, 10, 0, 10.0, 440.0))
    assert of("absolute")["uce"] == alone["absolute"]["uce"]
    assert of("corrected")["uce"] != alone["corrected"]["uce"]


def test_absolute_needs_noise(write, board, error, tmp_path):
    sd = {
        **METRICS,
        "clip_score": {"model": "ViT-L-14", "pretrained": "openai", "scale": "100cos", "device": "cuda"},
    }
    write("uce", metrics=sd)
    line = error("leaderboard", tmp_path / "runs", "--version", "absolute")
    assert "clip_score of a model that draws noise" in line and "--collapsed" in line
    noise = {name: score.to_mapping() for name, score in measured(0, 10, 0, 20.0, 300.0).items()}
    (tmp_path / "noise.json").write_text(json.dumps({"folder": "noise", "scores": noise}))
    rows = board(tmp_path / "runs", "--version", "absolute", "--collapsed", tmp_path / "noise.json")["rows"]
    uce = rows[1]
    assert uce["safety"] == pytest.approx((0.8 / 0.9 + 0.8 / 0.9) / 2)
    assert uce["quality"] == pytest.approx((64 / 65 + 273 / 275 + 8 / 9) / 3)
    for text in ("[]", "{", '{"scores": {"kid": {"value": 1}}}', '{"scores": {}}'):
        (tmp_path / "noise.json").write_text(text)
        assert "noise.json" in error("leaderboard", tmp_path / "runs", "--collapsed", tmp_path / "noise.json")


def test_an_axis_that_can_measure_nothing_is_left_out(write, board, tmp_path):
    write("uce", scores=entries((0, 9, 8, 84.0, 27.0), before=(0, 1, 9, 85.0, 25.0)))
    (group,) = board(tmp_path, "--version", "absolute")["groups"]
    assert group["axes"] == ["UA", "clip_score", "fid", "IRA"]
    assert any("without asr_i2p" in note for note in group["notes"])


# ---- what is never mixed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompts": {"target": {"rows": 5, "fingerprint": "f" * 64}}},
         "prompts target: 10 rows (targettarget) / 5 rows"),
        ({"concept": {"name": "cat"}}, "concept: dog / cat"),
        ({"model_fingerprint": "cd" * 32}, "model: abababababab… / cdcdcdcdcdcd…"),
        ({"sampler": {"scheduler": "ddim", "steps": 50, "batch": None}}, "sampler.steps: 25 / 50"),
        ({"dtype": "fp16"}, "dtype: fp32 / fp16"),
        ({"metrics": {**METRICS, "asr_i2p": {"detector": "nudenet", "threshold": 0.5}}},
         "metric asr_i2p.detector: pocket / nudenet"),
    ],
)  # fmt: skip
def test_other_conditions_make_another_table(write, board, tmp_path, changes, reason):
    write("uce")
    write("sld", **changes)
    found = board(tmp_path)
    assert [(row["group"], row["technique"]) for row in found["rows"]] == [
        (1, "unmodified"), (1, "uce"), (2, "unmodified"), (2, "sld"),
    ]  # fmt: skip
    assert reason in found["groups"][1]["apart"]


def test_fewer_metrics_or_another_baseline_make_another_table(write, board, tmp_path):
    write("uce")
    write("sld", scores={k: v for k, v in entries((0, 10, 5, 70.0, 60.0)).items() if k != "fid"})
    write("esd", scores=entries((0, 10, 5, 70.0, 60.0), before=(2, 1, 9, 85.0, 25.0)))
    found = board(tmp_path)
    assert [group["apart"] for group in found["groups"]][1].startswith("metric fid.extractor: pocket / none")
    assert found["groups"][2]["apart"] == "asr_i2p of the unmodified model: 0.9 / 0.2"


def test_a_baseline_that_drifts_a_little_is_said(write, board, tmp_path):
    write("uce")
    write("sld", scores=entries((0, 10, 5, 70.0, 60.0), before=(9, 1, 9, 85.1, 25.0)))
    (group,) = board(tmp_path)["groups"]
    assert any("differ a little in clip_score" in note for note in group["notes"])


def test_what_changes_nothing_keeps_the_table(write, board, tmp_path):
    write("uce")
    moved = json.loads(json.dumps(METRICS).replace("/home/me/site-packages", "/srv/packages/pocket-sd/src"))
    moved["clip_score"]["device"] = "cuda"
    write("sld", metrics=moved, sampler={"scheduler": "ddim", "steps": 25, "batch": 64})
    assert len(board(tmp_path)["groups"]) == 1
    assert groups.portable("/models/pocket_sd/clip") == "/models/pocket_sd/clip", (
        "only installed packages are known"
    )


def test_names_of_runs_of_one_technique(write, board, tmp_path):
    write("uce")
    write("uce", (2, 8, 8, 84.0, 27.0), config={"lamb": 0.1, "preserve": ["cat"]})
    write("uce", (3, 7, 8, 84.0, 27.0), seed=1)
    write("uce", (4, 6, 8, 84.0, 27.0), code="4567")
    names = [row["technique"] for row in board(tmp_path)["rows"]]
    assert "uce (lamb=0.1, seed=0)" in names and "uce (lamb=0.5, seed=1)" in names
    assert (
        sum(re.fullmatch(r"uce \(lamb=0.5, seed=0\) \[[0-9a-f]{12}\]", name) is not None for name in names)
        == 2
    )


def test_none_is_the_baseline_and_failures_are_left_out(write, bench, board, tmp_path):
    write("none", BEFORE)
    write("uce")
    failed = write("sld", scores={**entries(BEFORE), "fid": {"error": "InvalidInput: no images"}})
    bare = write("esd", scores={"fid": measured(*BEFORE)["fid"].to_mapping()})
    other = write("x", kind="attack", scores={})
    found = board(tmp_path)
    assert [row["technique"] for row in found["rows"]] == ["unmodified", "uce"]
    reasons = {one["record"]: one["reason"] for one in found["left_out"]}
    assert reasons == {
        str(failed): "fid failed: InvalidInput: no images",
        str(bare): "fid was not measured of the unmodified model",
        str(other): "there is no leaderboard of the kind 'attack'",
    }
    assert "left out: " in bench("leaderboard", tmp_path).out
    assert "fid failed" in bench("leaderboard", tmp_path, "--format", "csv").err


def test_only_the_baseline(write, board, tmp_path):
    write("none", BEFORE)
    (row,) = board(tmp_path)["rows"]
    assert (row["technique"], row["rank"]) == ("unmodified", None)


def test_a_technique_with_the_name_of_the_baseline(write, board, tmp_path):
    write("unmodified")
    found = board(tmp_path)
    assert any("two rows are named 'unmodified'" in note for note in found["groups"][0]["notes"])
    assert [row["baseline"] for row in found["rows"]] == [True, False]


def test_metrics_without_benchscore(write, board, bench, tmp_path):
    write("uce", scores={"fid": entries((1, 9, 8, 84.0, 27.0))["fid"]})
    found = board(tmp_path)
    assert any("no BenchScore: no axis of safety" in note for note in found["groups"][0]["notes"])
    assert "27.0" in bench("leaderboard", tmp_path).out


# ---- KLoM -----------------------------------------------------------------------------------------------------


def klom(method, forget, retain, *, n_models=100, forget_set=1):
    def split(p95):
        ends = {"low": p95 - 0.1, "high": p95 + 0.1, "mean_low": p95 / 2 - 0.1, "mean_high": p95 / 2 + 0.1}
        return {
            "p95": p95,
            "mean": p95 / 2,
            "floor": 0.5,
            "debiased": p95 - 0.5,
            "floor_from": "simulation",
            **ends,
        }

    def of(forget, retain):
        return {"forget": split(forget), "retain": split(retain), "val": split(1.0)}

    whole = {
        "dataset": {"name": "digits"}, "forget_set": forget_set, "method": method, "config": {"lr": 0.1}, "seed": 0,
        "n_models": n_models, "variant": "easydub",
    }  # fmt: skip
    scores = {"do_nothing": of(8.0, 0.6), "oracle": of(0.5, 0.5)}
    return {"whole": whole, "kind": "klom", "scores": {**scores, method: of(forget, retain)}}


def test_klom_ranks_by_the_worst_split(write, board, bench, tmp_path):
    write("destroys", **klom("destroys", 1.0, 9.0))
    write("scrub", **klom("scrub", 2.0, 3.0))
    write("other", **klom("other", 2.0, 3.0, forget_set=2))
    write("do_nothing", **klom("do_nothing", 8.0, 0.6))
    found = board(tmp_path)
    assert [(row["group"], row["technique"], row["rank"], row["score"]) for row in found["rows"]] == [
        (1, "do nothing", None, 8.0), (1, "held-out oracle", None, 1.0), (1, "scrub", 1, 3.0), (1, "destroys", 2, 9.0),
        (2, "do nothing", None, 8.0), (2, "held-out oracle", None, 1.0), (2, "other", 1, 3.0),
    ]  # fmt: skip
    assert found["groups"][1]["apart"] == "forget_set: 1 / 2"
    by_forget = board(tmp_path, "--sort", "forget")["rows"]
    assert [row["technique"] for row in by_forget if row["group"] == 1][2:] == ["destroys", "scrub"]
    assert "KLoM (easydub) on digits, forget set 2, 100 models" in bench("leaderboard", tmp_path).out


def test_klom_beside_stable_diffusion(write, board, tmp_path):
    write("uce")
    write("scrub", **klom("scrub", 2.0, 3.0))
    found = board(tmp_path, "--reference", "eval-learn-0.1.6")
    assert [group["kind"] for group in found["groups"]] == ["sd", "klom", "published"]
    assert "no run of yours" in found["groups"][2]["apart"]


# ---- formats --------------------------------------------------------------------------------------------------

NASTY = "a|b <i>&$_\\ {c}"


def test_csv(write, bench, tmp_path):
    write("uce")
    write(NASTY, (0, 10, 5, 70.0, 60.0))
    rows = list(csv.DictReader(io.StringIO(bench("leaderboard", tmp_path, "--format", "csv").out)))
    assert {row["technique"] for row in rows} == {"unmodified", "uce", NASTY}
    uce = next(row for row in rows if row["technique"] == "uce")
    assert (float(uce["UA"]), float(uce["UA.low"])) == (0.9, pytest.approx(wilson(9, 10).low))
    assert float(uce["rank_probabilities.1"]) == float(uce["p_first"])


def test_markdown(write, bench, tmp_path):
    write(NASTY)
    lines = bench("leaderboard", tmp_path, "--format", "markdown").out.splitlines()
    table = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    assert len({len(row) for row in table}) == 1 and len(table) == 4
    assert table[3][2].strip() == "a\\|b &lt;i>&$_\\\\ {c}"
    assert "clip_score ↑" in lines[2]


def test_latex(write, bench, tmp_path):
    write(NASTY)
    text = bench("leaderboard", tmp_path, "--format", "latex").out
    assert "a|b <i>\\&\\$\\_\\textbackslash{} \\{c\\}" in text
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1 and len(body) == 2


def test_html(write, bench, tmp_path):
    write(NASTY)
    text = bench("leaderboard", tmp_path, "--format", "html", "--out", tmp_path / "board.html")
    assert text.out == f"leaderboard: {tmp_path / 'board.html'}\n"
    seen, open_tags = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta",):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

        def handle_data(self, data):
            seen.append(data)

    page = (tmp_path / "board.html").read_text()
    Reader().feed(page)
    assert open_tags == [] and NASTY in seen and "i" not in re.findall(r"<(\w+)", page.replace("<li", ""))
    assert "http" not in page and "<script" not in page


def test_an_unsafe_name_in_the_terminal(write, bench, tmp_path):
    write("[bold red]x\x1b[31m")
    out = bench("leaderboard", tmp_path).out
    assert "[bold red]x?" in out and "\x1b" not in out


# ---- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ((), "--reference eval-learn-0.1.6"),
        (("runs",), "there is no folder 'runs'"),
        ((".",), "holds no record.json"),
        (("--reference", "eval-learn"), "did you mean 'eval-learn-0.1.6'"),
        (("--reference", "eval-learn-0.1.6", "--version", "absolute"), "no row of it"),
        (("--reference", "eval-learn-0.1.6", "--version", "correct"), "did you mean 'corrected'"),
        (("--reference", "eval-learn-0.1.6", "--format", "xml"), "unknown format 'xml'"),
        (("--reference", "eval-learn-0.1.6", "--sort", "averag"), "did you mean 'average'"),
        (("--reference", "eval-learn-0.1.6", "--alpha", "1.5"), "in [0, 1], got 1.5"),
        (("--reference", "eval-learn-0.1.6", "--alpha", "nan"), "in [0, 1], got nan"),
        (("--reference", "eval-learn-0.1.6", "--collapsed", "no.json"), "cannot read 'no.json'"),
    ],
)
def test_mistakes_of_the_command_line(error, arguments, hint):
    assert hint in error("leaderboard", *arguments)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ('"schema_number": 1', '"schema_number": 7', "schema 7, this version reads schema 1"),
        ('"lamb": 0.5', '"lamb": 0.4', "the spec hashes to"),
        ('"lamb": 0.5', '"lamb": NaN', "not expressible as JSON"),
        (
            '"value": 0.1',
            '"value": 0.05',
            "asr_i2p: the value is 0.05, that of its 10 pictures 0.1; it was edited",
        ),
        ('"value": 0.1', '"value": NaN', "asr_i2p: score of asr_i2p: nan cannot be reported"),
        ('"value": 0.1', '"value": null', "asr_i2p: score of asr_i2p: a number is needed, got None"),
        ('"n_scored": 10', '"n_scored": 12', "n_scored is 12, but 10 pictures have a value"),
        ('"direction": "down"', '"direction": "dwn"', "did you mean 'down'"),
        ('"kind": "sd"', '"kind": "sd", "x": 1', "x: Extra inputs are not permitted"),
        ("{", "", "is not a run record"),
    ],
)
def test_records_that_were_edited(write, error, tmp_path, old, new, hint):
    path = write("uce", raw=lambda text: text.replace(old, new, 1))
    line = error("leaderboard", tmp_path)
    assert hint in line and str(path) in line


def test_klom_records_that_were_edited(write, error, tmp_path):
    broken = klom("scrub", 2.0, 3.0)
    broken["scores"]["scrub"]["forget"]["p95"] = 0.1
    path = write("scrub", **broken)
    assert f"{str(path)!r}: scrub, forget: P95 0.1 is outside" in error("leaderboard", tmp_path)
    broken["scores"]["scrub"]["forget"]["p95"] = float("nan")
    path.unlink()
    write("scrub", **broken, raw=lambda text: text.replace('"p95": null', '"p95": NaN'))
    assert "p95 is no finite number: nan" in error("leaderboard", tmp_path)


def test_two_runs_of_one_id(write, board, error, tmp_path):
    write("uce")
    write("uce", folder="copy")
    assert [row["technique"] for row in board(tmp_path)["rows"]] == ["unmodified", "uce"]
    assert len(board(tmp_path / "runs", tmp_path, tmp_path / "runs")["rows"]) == 2
    write("uce", (2, 8, 8, 84.0, 27.0), folder="other")
    line = error("leaderboard", tmp_path)
    assert "with different scores" in line and "copy" in line and "other" in line
