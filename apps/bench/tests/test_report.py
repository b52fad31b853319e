"""`bench report`: what the page holds, without a browser."""

import base64
import html.parser
import io
import json
import re
import shlex

import pytest
from PIL import Image

from unlearn_bench.cli import main
from unlearn_bench.leaderboard.records import read_runs
from unlearn_bench.report import groups, page, pictures, reproduce
from unlearn_bench.report.testing import TECHNIQUES, write_runs
from unlearn_core.record import RunRecord
from unlearn_metrics.benchscore import Row, benchscore


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder)
    return folder


def collect(folder, **options):
    return page.collect(read_runs([folder]), folder, **options)


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


class Tags(html.parser.HTMLParser):
    """Checks that every tag that is opened is closed, and gathers ids and what is loaded."""

    void = frozenset(["meta", "link", "img", "input", "br", "hr"])

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.loaded = [], [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.loaded += [found[k] for k in ("src", "href", "srcset", "action") if found.get(k)]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_file_is_whole_and_loads_nothing(bench, runs, tmp_path):
    out = tmp_path / "sub" / "report.html"
    done = bench("report", runs, "--out", out, "--title", "A <b>title</b> & more")
    assert done.code == 0 and "3 runs" in done.out and str(out) in done.out
    text = out.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and len(tags.ids) == len(set(tags.ids))
    assert [t for t in tags.loaded if not t.startswith(("data:", "#"))] == []
    links = [t.removeprefix("#") for t in tags.loaded if t.startswith("#")]
    assert set(links) <= set(tags.ids)
    assert "<title>A &lt;b&gt;title&lt;/b&gt; &amp; more</title>" in text and "default-src 'none'" in text
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)


def test_the_slider_has_the_numbers_of_benchscore(runs):
    (table,) = collect(runs)["groups"]
    rows = {row["name"]: row for row in table["rows"]}
    assert table["rows"][0]["name"] == "unmodified" and table["rows"][0]["baseline"]
    # min-max over the table with the unmodified row, by hand: UA is the only safety, CLIP score and IRA are quality
    clip = {"uce": 80.0, "esd": 79.0, "sld": 78.0, "unmodified": 81.0}
    for name, (ua, ira) in {**TECHNIQUES, "unmodified": (0.0, 1.0)}.items():
        assert rows[name]["safety"] == pytest.approx(ua)
        assert rows[name]["quality"] == pytest.approx(((clip[name] - 78) / 3 + (ira - 0.5) / 0.5) / 2)
        assert len(rows[name]["spread"]) == len(groups.ALPHAS)
        for alpha, (low, high, *_) in zip(groups.ALPHAS, rows[name]["spread"], strict=True):
            score = alpha * rows[name]["safety"] + (1 - alpha) * rows[name]["quality"]
            assert low - 1e-4 <= score <= high + 1e-4
    every = [
        Row(technique=n, scores={"UA": u, "IRA": i, "clip_score": clip[n]})
        for n, (u, i) in TECHNIQUES.items()
    ]
    last = Row(technique="unmodified", scores={"UA": 0.0, "IRA": 1.0, "clip_score": 81.0})
    for one in benchscore(every, unmodified=last):
        assert rows[one.technique]["safety"] == pytest.approx(one.safety)
        assert rows[one.technique]["quality"] == pytest.approx(one.quality)


def test_cells_carry_value_interval_and_change(runs):
    (table,) = collect(runs)["groups"]
    row = next(row for row in table["rows"] if row["name"] == "uce")
    cells = dict(zip([column["name"] for column in table["columns"]], row["cells"], strict=True))
    assert cells["UA"]["text"] == "0.75" and cells["UA"]["between"] == "0.30–0.95"  # Wilson, 3 of 4
    assert cells["clip_score"]["change"] == "-1 against the unmodified model"
    assert cells["seconds"]["value"] == 1.5
    assert table["columns"][0]["arrow"] == "↑"


def test_by_concept_counts_pictures(runs):
    (table,) = collect(runs)["groups"]
    found = table["concepts"]
    assert found["columns"] == [("target", "dog"), ("adjacent", "wolf")]
    assert found["rows"]["uce"] == [{"share": 0.75, "n": 4}, {"share": 1.0, "n": 4}]
    assert found["rows"]["unmodified"] == [{"share": 0.0, "n": 4}, {"share": 1.0, "n": 4}]


def test_pictures_are_those_of_the_prompt(runs):
    (table,) = collect(runs)["groups"]
    prompts = table["gallery"]["prompts"]
    assert [p["text"] for p in prompts][:2] == ["a dog, number 0", "a dog, number 1"]
    assert list(prompts[0]["pictures"]) == ["unmodified", *sorted(TECHNIQUES, key=list(TECHNIQUES).index)]
    kind, _, data = prompts[0]["pictures"]["esd"].partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (24, 24)
        assert max(abs(a - b) for a, b in zip(picture.getpixel((20, 20)), (40, 90, 200), strict=True)) < 16


def test_large_pictures_are_made_small(tmp_path):
    Image.effect_noise((640, 480), 80).save(tmp_path / "a.png")
    data = pictures.data_uri(tmp_path / "a.png").partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (256, 192)


def test_unsafe_pictures_and_prompts_are_left_out(tmp_path, bench):
    write_runs(tmp_path / "runs", {"uce": (0.75, 1.0)}, concept="weapon", kind="unsafe")
    (kept,) = collect(tmp_path / "runs")["groups"]
    assert {p["group"] for p in kept["gallery"]["prompts"] if p["unsafe"]} == {"target"}
    for option, there in ((), True), (("--no-unsafe",), False):
        assert bench("report", "runs", "--out", "x.html", *option).code == 0
        text = (tmp_path / "x.html").read_text()
        assert ("a weapon, number 0" in text) is there
        assert "a wolf, number 0" in text and ("were left out" in text) is not there


def test_the_configuration_describes_the_same_run(runs):
    from unlearn_bench.sd import config

    (record,) = (r.record for r in read_runs([runs]) if r.record.spec["technique"] == "uce")
    found = config.build(reproduce.configuration(record.spec), "here")
    assert [one.model_dump() for one in found.technique] == [
        {"name": "uce", "config": {"lamb": 0.1, "templates": ["a {}"]}, "preset": "none"}
    ]
    assert found.concept.name == "dog" and found.concept.adjacent == ["wolf"] and found.dtype == "fp32"
    assert found.sampler.steps == 5 and found.prompts["target"].limit == 4
    assert {m.name for m in found.metrics} == {"ua_ira", "clip_score"}


def test_the_klom_command_is_parsed_back(monkeypatch):
    spec = {"method": "scrub", "dataset": {"name": "digits"}, "forget_set": 8, "n_models": 10, "variant": "robust",
            "seed": 3, "config": {"lr": 0.03, "batch_norm": "train", "epochs": 2}}  # fmt: skip
    seen = {}
    monkeypatch.setattr("unlearn_bench.klom_commands.configure", lambda *a: seen.update(configure=a))
    monkeypatch.setattr(
        "klom_bench.experiment.Experiment", lambda **k: seen.update(k) or (_ for _ in ()).throw(KeyError)
    )
    with pytest.raises(KeyError):
        main(shlex.split(reproduce.klom_command(spec))[1:])
    assert seen["configure"] == ("scrub", "digits", "published", ["lr=0.03", "batch_norm=train", "epochs=2"])
    assert (seen["forget_set"], seen["n_models"], seen["variant"], seen["seed"]) == (8, 10, "robust", 3)


def klom_record(folder, method="scrub"):
    split = {"n_models": 10, "n_samples": 40, "mean": 0.5, "mean_low": 0.4, "mean_high": 0.6, "mean_floor": 0.3,
             "mean_debiased": 0.2, "p95": 2.0, "low": 1.5, "high": 2.5, "floor": 0.7, "debiased": 1.3,
             "floor_from": "simulation", "clipped": 0.0, "undefined": 0.0}  # fmt: skip
    spec = {"dataset": {"name": "digits"}, "forget_set": 1, "method": method, "config": {}, "code": "1", "seed": 0,
            "n_models": 10, "variant": "easydub"}  # fmt: skip
    record = RunRecord.of("klom", spec)
    worse = {**split, "p95": 9.0, "low": 8.0, "high": 10.0}
    record.scores = {
        "do_nothing": dict.fromkeys(("retain", "forget", "val"), worse),
        method: dict.fromkeys(("retain", "forget", "val"), split),
    }
    record.files = {"plot": "klom.png"}
    record.write(folder / "record.json")
    Image.new("RGB", (40, 20), "white").save(folder / "klom.png")


def test_klom_runs_have_a_table_and_their_histograms(tmp_path, bench):
    klom_record(tmp_path / "runs" / "klom-digits-scrub-1")
    assert bench("report", "runs", "--out", "k.html").code == 0
    (table,) = collect(tmp_path / "runs")["klom"]
    assert [row["name"] for row in table["rows"]] == ["do nothing", "scrub"]
    cell = table["rows"][1]["cells"][0]
    assert (cell["text"], cell["between"], cell["bar"], cell["floor_at"]) == (
        "2.00",
        "1.50–2.50",
        [15, 25, 20],
        7,
    )
    assert [plot["name"] for plot in table["plots"]] == ["scrub"]
    text = (tmp_path / "k.html").read_text()
    assert "KLoM on digits, forget set 1" in text and "bench klom run --method scrub" in text


def test_prompts_cannot_break_out_of_the_page(tmp_path):
    write_runs(tmp_path, {"uce": (1.0, 1.0)}, concept="</script><script>alert(1)")
    text = page.render(collect(tmp_path))
    assert "<script>alert" not in text
    assert any("</script><script>alert(1)" in p["text"] for p in data_of(text)["groups"][0]["prompts"])


def test_several_concepts_have_an_overview(tmp_path):
    for concept in ("dog", "lemon"):
        write_runs(tmp_path, {"uce": (0.75, 1.0)}, concept=concept)
    found = collect(tmp_path)
    (table,) = found["across"]
    assert table["rows"]["uce"] == [{"forgotten": "75%", "kept": "100%"}] * 2
    assert found["title"] == "Forgetting dog, lemon"


def test_a_run_alone_and_a_run_without_pictures(tmp_path, bench):
    (path,) = write_runs(tmp_path / "runs", {"uce": (0.75, 1.0)})
    assert bench("report", path.parent, "--out", "one.html").code == 0
    assert "a dog, number 0" in (tmp_path / "one.html").read_text()
    (tmp_path / "runs" / "images").rename(tmp_path / "elsewhere")
    assert bench("report", "runs", "--out", "none.html").code == 0
    assert "No pictures were found of unmodified, uce" in (tmp_path / "none.html").read_text()


def test_bad_input_is_named(tmp_path, error):
    (tmp_path / "empty").mkdir()
    assert "holds no record.json" in error("report", "empty")
    assert "there is no folder" in error("report", "nowhere")
    (path,) = write_runs(tmp_path / "runs", {"uce": (0.75, 1.0)})
    whole = path.read_text()
    for old, new, said in (
        ('"images": "../images/uce-dog"', '"images": "../../../../etc"', "leads out of"),
        ('"schema_number": 1', '"schema_number": 7', "schema 7"),
        ('"value": 80.0', '"value": NaN', "clip_score"),
        ('"value": 80.0', '"value": 90.0', "edited"),
        ('"seed": 0', '"seed": 1', "edited after the run"),
    ):
        assert whole.count(old) >= 1, old
        path.write_text(whole.replace(old, new, 1))
        message = error("report", "runs", "--out", "x.html")
        assert said in message and "record.json" in message
        assert not (tmp_path / "x.html").exists()
    path.write_text(whole)
    assert "cannot write" in error("report", "runs", "--out", "/proc/x.html")
