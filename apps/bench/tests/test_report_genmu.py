"""`bench report` of Genμ submissions, from records written by hand."""

import json
import re

import pytest
from PIL import Image

from unlearn_bench.leaderboard.records import read_runs
from unlearn_bench.report import genmu, page
from unlearn_core.record import RunRecord

RATES = {"fgt": 0.75, "ret": 0.5, "adj": 1.0, "ind": 0.25, "adv": 1.0}


def score(value):
    return {"value": value, "low": max(0.0, value - 0.25), "high": min(1.0, value + 0.25)}


def err(value, rates=RATES):
    row = {"err": value, **{axis: {**score(rate), "n": 4} for axis, rate in rates.items()}}
    return {
        "err_pooled": score(value),
        "err_macro": score(value / 2),
        "components": {axis: score(rate) for axis, rate in rates.items()},
        "concepts": {"dog": row, "<b>car</b>": row},
        "n": 20,
    }


def write(
    folder,
    technique="uce",
    *,
    kind="genmu",
    of="object",
    strategy="continual",
    tie=2e-6,
    judge="pocket",
    value=0.5,
):
    targets = ["dog", "<b>car</b>"]
    spec = {
        "strategy": strategy, "technique": technique, "config": {technique: {"lamb": 0.1, "preserve": []}},
        "concepts": [{"name": name, "kind": of} for name in targets], "orders": [targets, targets[::-1]],
        "model": "pocket", "model_fingerprint": "f" * 64, "sampler": {"scheduler": "ddim", "steps": 5},
        "prompts": {"name": "pocket-sd", "fingerprint": "1" * 64, "images": dict.fromkeys(RATES, 4)},
        "judge": {"name": judge}, "seed": 0, "dtype": "fp32",
    }  # fmt: skip
    record = RunRecord.of(kind, spec)
    record.scores = {
        "submission": err(value), "identity": err(0.1), "noise": err(0.0), "gain": score(0.4),
        "tie_break": None if tie is None else {"value": tie},
    }  # fmt: skip
    final = {"mean": 0.5, "low": 0.4, "high": 0.6, "sd": 0.1}
    if strategy == "continual":
        record.scores["continual"] = {"spread": {"orders": spec["orders"], "final": final}}
    record.files = {"table": "judged.csv", "identity": "identity.csv", "components": "components.png",
                    "sheet": "sheet.png", "heat_map": "heatmap.png"}  # fmt: skip
    place = folder / f"{kind}-{technique}-{record.run_id}"
    place.mkdir(parents=True)
    for name in ("components", "sheet", "heatmap"):
        Image.new("RGB", (60, 40), "white").save(place / f"{name}.png")
    record.write(place / "record.json")
    return place


def tables(folder, **options):
    return page.collect(read_runs([folder]), folder, **options)["genmu"]


def test_a_submission_stands_beside_the_trivial_baselines(tmp_path, bench):
    place = write(tmp_path / "runs")
    (table,) = tables(tmp_path / "runs")
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == ["unmodified", "noise", "uce, continual"]
    assert [row["baseline"] for row in table["rows"]] == [True, True, False]
    cells = rows["uce, continual"]["cells"]
    assert [cell["value"] for cell in cells] == [0.5, 0.25, *RATES.values(), 2e-6]
    assert (cells[0]["text"], cells[0]["between"], cells[0]["bar"]) == ("0.50", "0.25–0.75", [25, 75, 50])
    assert cells[0]["change"].startswith("+0.400 against doing nothing")
    assert rows["noise"]["cells"][0]["value"] == 0 and "failed" in rows["noise"]["cells"][-1]
    assert [row["concept"] for row in table["by_concept"]] == ["dog", "<b>car</b>"]
    assert [cell["share"] for cell in table["by_concept"][0]["cells"]] == [0.5, *RATES.values()]
    assert {figure["role"] for figure in table["figures"]} == {"heat map", "components", "sheet"}
    assert table["notes"] == [
        "uce, continual: 2 orders of the requests end at ERR 0.500 on average, from 0.400 to 0.600"
    ] or table["notes"] == ["2 orders of the requests end at ERR 0.500 on average, from 0.400 to 0.600"]

    done = bench("report", "runs", "--out", "g.html")
    assert done.code == 0 and "1 run" in done.out
    text = (tmp_path / "g.html").read_text()
    assert text.count('<img src="data:image/webp;base64,') == 3 and "<b>car</b>" not in text
    assert (
        "&lt;b&gt;car&lt;/b&gt;" in text
        and "judged by pocket" in text
        and "<span>one after another</span>" in text
        and "0.25–0.75" in text
    )
    assert "bench genmu run --model pocket" in text and "--order" in text and "left out" not in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert bench("report", place, "--out", "alone.html").code == 0


def test_what_was_judged_alike_shares_a_table(tmp_path):
    write(tmp_path, "uce")
    write(tmp_path, "esd", kind="genmu-evaluation", tie=None)
    write(tmp_path, "uce", judge="clip")
    write(tmp_path, "sld", strategy="single")
    found = tables(tmp_path)
    assert [[row["name"] for row in table["rows"][2:]] for table in found] == [
        ["uce, continual", "esd, continual, scored anew"], ["uce, continual"], ["sld, single"],
    ]  # fmt: skip
    assert found[0]["rows"][3]["cells"][-1] == {"failed": "the submission holds no weights"}
    assert found[1]["apart"] == "judge.name: pocket / clip"
    assert found[2]["apart"] == "strategy: continual / single"


def test_leaderboard(tmp_path, bench, error):
    """A table for each strategy, the trivial baselines above, nothing ranked by a difference that may be chance."""
    write(tmp_path / "runs", "uce")
    write(tmp_path / "runs", "esd", tie=None, value=0.6)
    write(tmp_path / "runs", "sld", strategy="multi", tie=5e-7)
    found = json.loads(bench("leaderboard", "runs", "--format", "json").out)
    assert [(row["group"], row["technique"]) for row in found["rows"]] == [
        (1, "unmodified"), (1, "noise"), (1, "esd, continual"), (1, "uce, continual"),
        (2, "unmodified"), (2, "noise"), (2, "sld, multi"),
    ]  # fmt: skip
    esd, uce = found["rows"][2:4]
    assert esd["err_pooled"] == score(0.6) and (esd["weight_change"], uce["weight_change"]) == (None, 2e-6)
    assert {axis: uce[axis]["value"] for axis in RATES} == RATES and "rank" not in uce
    assert found["groups"][1]["apart"] == "strategy: continual / multi" and found["left_out"] == []
    text = bench("leaderboard", "runs").out
    assert "Genμ, multi: dog, <b>car</b> forgotten by pocket, judged by pocket" in text and "2e-06" in text
    lighter = bench("leaderboard", "runs", "--sort", "weight_change", "--format", "json")
    assert [row["technique"] for row in json.loads(lighter.out)["rows"][2:4]] == [
        "uce, continual",
        "esd, continual",
    ]
    path = next((tmp_path / "runs").glob("*sld*")) / "record.json"
    path.write_text(path.read_text().replace('"err_macro"', '"err_mac"'))
    assert "lack 'submission.err_macro'" in error("leaderboard", "runs")


def test_doubts_are_noted(tmp_path):
    path = write(tmp_path, strategy="multi") / "record.json"
    record = RunRecord.read(path)
    record.scores |= {
        "panel": {"judges": ["pocket", "clip"], "fleiss_kappa": 0.25, "n": 40, "draws": 3},
        "corrected": {"sensitivity": 0.9, "specificity": 0.8, **err(0.4)},
    }
    record.write(path)
    first, second = tables(tmp_path)[0]["notes"]
    assert "pocket, clip decided by majority" in first and "is 0.25 on 40 answers, and 3 draws" in first
    assert "ERR pooled is 0.40 (0.15–0.65): forgotten 0.75, retained 0.50" in second


def test_figures_have_limits(tmp_path, monkeypatch):
    place = write(tmp_path)
    (place / "heatmap.png").unlink()
    monkeypatch.setattr(genmu, "MOST_PIXELS", 60 * 40 - 1)
    (table,) = tables(tmp_path)
    assert {figure["why"] for figure in table["figures"]} == {"left out: 60 x 40 pixels"}
    assert len(table["figures"]) == 2
    monkeypatch.setattr(genmu, "MOST_BYTES", 10)
    assert {figure["why"] for figure in tables(tmp_path)[0]["figures"]} == {"left out: 0 MiB"}
    assert "left out: 0 MiB" in page.render(page.collect(read_runs([tmp_path]), tmp_path))


def test_unsafe_sheets_are_folded_or_left_out(tmp_path, bench):
    write(tmp_path / "runs", of="unsafe")
    for option, count in ((), 3), (("--no-unsafe",), 2):
        assert bench("report", "runs", "--out", "x.html", *option).code == 0
        text = (tmp_path / "x.html").read_text()
        assert text.count("data:image/webp") == count
        assert ("may hold unsafe pictures" in text) is (count == 3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"sheet": "sheet.png"', '"sheet": "../../../../etc/passwd"', "leads out of"),
        ('"sheet": "sheet.png"', '"sheet": "record.json"', "is no picture"),
        ('"err_macro"', '"err_mac"', "the scores lack 'identity.err_macro'"),
        ('"value": 0.5', '"value": NaN', "no finite number"),
        ('"value": 0.5', '"value": "0.5"', "no finite number"),
    ],
)  # fmt: skip
def test_bad_records_are_named(tmp_path, error, old, new, said):
    path = write(tmp_path / "runs") / "record.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert said in error("report", "runs", "--out", "x.html")
    assert not (tmp_path / "x.html").exists()
