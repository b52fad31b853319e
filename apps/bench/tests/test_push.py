"""`bench push` and `bench pull` against a Hub on the loopback device."""

import logging
import shutil

import pytest
import yaml

from unlearn_bench.publish import hub as client
from unlearn_bench.report.testing import TECHNIQUES, write_runs
from unlearn_core.errors import InvalidInput
from unlearn_core.samples import SampleSet
from unlearn_core.testing.hub_server import HubServer

TOKEN = "hf_" + "x1Y2" * 8


@pytest.fixture
def hub(monkeypatch):
    with HubServer({}) as server:
        for name, value in server.constants.items():
            monkeypatch.setattr(name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        server.require_token(TOKEN)
        yield server


@pytest.fixture
def runs(tmp_path):
    write_runs(tmp_path / "runs", edits=True)
    return tmp_path / "runs"


def front_matter(folder):
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def head(hub, repo, branch="main"):
    return hub.folder(repo, branch)[1]


def sent(hub, method="PUT"):
    return [path for how, path in hub.requests if how == method]


def test_runs_come_back_as_they_went(bench, hub, runs, tmp_path):
    done = bench("push", runs, "--repo", "lab/dogs")
    assert done.code == 0 and f"dataset: {hub.url}/datasets/lab/dogs" in done.out, done.err
    there = head(hub, "datasets/lab/dogs")
    assert bench("pull", "lab/dogs", "--out", "back").code == 0
    for path in runs.glob("*/record.json"):
        assert (tmp_path / "back" / path.relative_to(runs)).read_bytes() == path.read_bytes()
    for folder in (runs / "images").iterdir():
        assert not SampleSet(tmp_path / "back" / "images" / folder.name).verify()
        assert len(SampleSet(tmp_path / "back" / "images" / folder.name)) == 12
    assert bench("report", "back", "--out", "x.html").code == 0
    assert not list(there.glob("edits/*")), "weights are models, not data"


def test_the_data_set_is_laid_out_for_the_viewer(bench, hub, runs):
    assert bench("push", runs, "--repo", "lab/dogs").code == 0
    there = head(hub, "datasets/lab/dogs")
    card, text = front_matter(there)
    (config,) = card["configs"]
    splits = {one["split"]: one["path"] for one in config["data_files"]}
    assert len(splits) == 1 + len(TECHNIQUES) and splits["unmodified"] == "images/before-dog/**"
    for pattern in splits.values():
        folder = there / pattern.removesuffix("/**")
        names = {sample.path.name for sample in SampleSet(folder)}
        assert names == {p.name for p in folder.glob("*.png")} != set()  # every row a file, every file a row
    assert card["size_categories"] == ["n<1K"] and "not-for-all-audiences" not in card["tags"]
    assert "3 runs and 48 pictures" in text and "bench pull lab/dogs" in text


def test_unsafe_runs_say_so(bench, hub, tmp_path):
    write_runs(tmp_path / "runs", {"uce": (0.75, 1.0)}, concept="weapon", kind="unsafe")
    assert bench("push", "runs", "--repo", "lab/weapons").code == 0
    card, text = front_matter(head(hub, "datasets/lab/weapons"))
    assert "not-for-all-audiences" in card["tags"] and "unsafe content" in text


def test_a_weight_delta_is_a_model_with_its_results(bench, hub, runs, tmp_path):
    (edit,) = (runs / "edits").glob("uce-*")
    done = bench("push", edit, "--repo", "lab/uce-dog")
    assert done.code == 0, done.err
    there = head(hub, "lab/uce-dog")
    assert (there / edit.name).read_bytes() == edit.read_bytes()
    from huggingface_hub import ModelCard

    results = {r.metric_type: r for r in ModelCard((there / "README.md").read_text()).data.eval_results}
    assert (results["ua"].metric_value, results["ira"].metric_value) == (0.75, 1.0)
    assert results["clip_score"].metric_value == 80.0 and results["ua"].task_type == "text-to-image"
    assert "| UA | 0.75 [0.301, 0.954] | 0 [0, 0.49] | 4 |" in (there / "README.md").read_text()
    assert bench("pull", "lab/uce-dog", "--type", "model", "--out", "back").code == 0
    assert (tmp_path / "back" / edit.name).read_bytes() == edit.read_bytes()


def test_a_report_is_a_space(bench, hub, runs, tmp_path):
    assert bench("push", runs, "--repo", "lab/report", "--space", "--title", "Dogs").code == 0
    there = head(hub, "spaces/lab/report")
    assert "<title>Dogs</title>" in (there / "index.html").read_text()
    card, _ = front_matter(there)
    assert (card["sdk"], card["title"]) == ("static", "Dogs")
    assert hub.uploads.created["spaces/lab/report"]["sdk"] == "static"
    (tmp_path / "own.html").write_text("<p>own</p>")
    assert bench("push", "own.html", "--repo", "lab/report").code == 0
    assert (head(hub, "spaces/lab/report") / "index.html").read_text() == "<p>own</p>"


def test_a_pull_request_leaves_main_as_it_is(bench, hub, runs):
    assert bench("push", runs, "--repo", "lab/dogs").code == 0
    before = hub.folder("datasets/lab/dogs", "main")
    (run,) = runs.glob("sd-esd-*")
    shutil.rmtree(run)
    done = bench("push", runs, "--repo", "lab/dogs", "--create-pr")
    assert done.code == 0 and f"{hub.url}/datasets/lab/dogs/discussions/1" in done.out
    assert hub.folder("datasets/lab/dogs", "main") == before
    card, _ = front_matter(head(hub, "datasets/lab/dogs", "refs/pr/1"))
    assert len(card["configs"][0]["data_files"]) == 3


def test_nothing_is_sent_twice(bench, hub, runs):
    assert bench("push", runs, "--repo", "lab/dogs").code == 0
    n, commits = len(sent(hub)), len(hub.uploads.messages)
    assert bench("push", runs, "--repo", "lab/dogs").code == 0
    assert len(sent(hub)) == n and len(hub.uploads.messages) == commits


def test_an_interrupted_push_goes_on(error, bench, hub, runs):
    hub.hang_up("/commit/main")
    message = error("push", runs, "--repo", "lab/dogs")
    assert "connection" in message and "goes on where it stopped" in message
    n = len(sent(hub))
    assert n > 0 and list(head(hub, "datasets/lab/dogs").iterdir()) == []
    assert bench("push", runs, "--repo", "lab/dogs").code == 0
    assert len(sent(hub)) == n, "the pictures had arrived"
    assert len(list(head(hub, "datasets/lab/dogs").glob("sd-*"))) == 3


def test_a_dropped_connection_is_tried_again(bench, hub, runs, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.hang_up("/lfs-upload/", times=2)
    assert bench("push", runs, "--repo", "lab/dogs").code == 0
    assert len(list(head(hub, "datasets/lab/dogs").glob("sd-*"))) == 3


def test_an_interrupted_pull_goes_on(bench, error, hub, runs, tmp_path):
    assert bench("push", runs, "--repo", "lab/dogs").code == 0
    hub.requests.clear()
    (path,) = runs.glob("sd-uce-*/record.json")
    hub.fail(path.relative_to(runs).as_posix(), status=403)
    assert "may not do that" in error("pull", "lab/dogs", "--out", "back")
    there = {p: p.stat().st_mtime_ns for p in (tmp_path / "back").rglob("*.png")}
    hub.mend()
    hub.require_token(TOKEN)
    assert bench("pull", "lab/dogs", "--out", "back").code == 0
    assert (tmp_path / "back" / path.relative_to(runs)).read_bytes() == path.read_bytes()
    assert all(p.stat().st_mtime_ns == time for p, time in there.items())


def test_a_refused_token_is_one_sentence_without_it(error, hub, runs, monkeypatch, caplog):
    wrong = "hf_" + "W0rn" * 8
    monkeypatch.setenv("HF_TOKEN", wrong)
    caplog.set_level(logging.DEBUG)
    for command in (("push", runs, "--repo", "lab/dogs"), ("pull", "lab/dogs")):
        message = error(*command)
        assert "does not accept the token" in message and "hf auth login" in message
        assert wrong not in message + caplog.text
    monkeypatch.delenv("HF_TOKEN")
    assert "there is none" in error("push", runs, "--repo", "lab/dogs")


def test_a_token_is_never_published(error, hub, runs):
    (path,) = runs.glob("sd-uce-*/record.json")
    whole = path.read_text()
    for secret in (TOKEN, "hf_" + "q" * 34):
        path.write_text(whole.replace("uce: made for a test", f"typed with {secret}"))
        message = error("push", runs, "--repo", "lab/dogs")
        assert "looks like a token" in message and secret not in message
    path.write_text(whole)
    assert hub.uploads.created == {}


def test_the_token_lands_nowhere(bench, hub, runs, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    done = bench("push", runs, "--repo", "lab/dogs")
    assert bench("pull", "lab/dogs", "--out", "back").code == 0
    assert TOKEN not in done.out + done.err + caplog.text
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) > 50 and all(TOKEN.encode() not in p.read_bytes() for p in written)


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/etc/evil", "a/../../evil", "C:\\evil", "..\\evil", "link/evil"]
)
def test_a_path_that_escapes_is_refused(error, bench, hub, runs, tmp_path, monkeypatch, name):
    assert bench("push", runs, "--repo", "lab/dogs").code == 0
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "link").symlink_to(tmp_path)
    monkeypatch.setattr("unlearn_core.testing.hub_server._files", lambda folder: ["README.md", name])
    message = error("pull", "lab/dogs", "--out", "back")
    assert "leads out of the folder" in message and repr(name) in message
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == ["link"]


def test_what_was_edited_is_named(error, bench, hub, runs, tmp_path):
    (picture,) = runs.glob("images/esd-dog/target-dog-0.png")
    whole = picture.read_bytes()
    picture.write_bytes((runs / "images" / "esd-dog" / "target-dog-1.png").read_bytes())
    assert "target-dog-0.png" in error("push", runs, "--repo", "lab/dogs")
    picture.write_bytes(whole)
    assert bench("push", runs, "--repo", "lab/dogs").code == 0
    there = head(hub, "datasets/lab/dogs")
    (there / "images" / "esd-dog" / "target-dog-2.png").write_bytes(whole)
    assert "target-dog-2.png" in error("pull", "lab/dogs", "--out", "back")


def test_bad_input(error, hub, runs, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert "push a folder of runs" in error("push", "notes.txt", "--repo", "lab/x")
    assert "there is no 'nowhere'" in error("push", "nowhere", "--repo", "lab/x")
    assert "--repo" in error("push", runs, "--repo", "not an id")
    assert "kind of repository" in error("pull", "lab/x", "--type", "datasets")
    assert "no such repository" in error("pull", "lab/nothing")
    assert "for reports" in error("push", runs, "--repo", "lab/x", "--no-unsafe")
    shutil.rmtree(next(runs.glob("sd-uce-*")))
    (edit,) = (runs / "edits").glob("uce-*")
    assert "no record of the run that made" in error("push", edit, "--repo", "lab/x")
    with pytest.raises(InvalidInput):
        client.check_inside("a/../../b", tmp_path, "here")
