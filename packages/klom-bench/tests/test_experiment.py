"""Whole experiments: what is reused, what a killed run leaves, what is refused before anything is computed."""

import dataclasses
import functools
import json
import sys
import types

import numpy as np
import pytest
import torch

from klom_bench import experiment as module
from klom_bench.ensemble import ensemble_margins
from klom_bench.experiment import Experiment, code_version, record_path, run, unlearned_margins
from klom_bench.klom import klom
from klom_bench.methods.descent import Descent
from klom_bench.methods.do_nothing import DoNothing
from klom_bench.methods.noisy_descent import NoisyDescent
from klom_bench.methods.scrub import Scrub
from klom_bench.training import last
from unlearn_core.errors import InvalidInput, MissingExtra, Unavailable
from unlearn_core.record import RunRecord

pytestmark = pytest.mark.filterwarnings("ignore::unlearn_core.errors.UnlearnWarning")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing and 200 bootstrap replicates take longer than all the rest; test_plot and test_scoring do them."""
    monkeypatch.setattr(module, "score", functools.partial(module.score, replicates=2))
    drawn = []

    def plot_run(path, *rest):
        drawn.append(path)
        path.write_bytes(b"png")

    monkeypatch.setattr("klom_bench.plot.plot_run", plot_run)
    return drawn


@pytest.fixture
def unlearned(monkeypatch):
    """Return the list of id ranges that Descent was asked to unlearn."""
    asked, steps = [], Descent.steps

    def counted(self, model, split, *, seed=0, ids=None):
        asked.append((ids.start, ids.stop))
        return steps(self, model, split, seed=seed, ids=ids)

    monkeypatch.setattr(Descent, "steps", counted)
    return asked


def descent(data, **options):
    method = Descent(epochs=1, lr=0.05)
    return Experiment(
        **{"dataset": data, "method": method, "method_name": "descent", "n_models": 30, **options}
    )


def test_a_run_holds_every_score(quick_digits, tmp_path, no_pictures):
    chosen = descent(quick_digits, forget_set=2)
    told = []
    record = run(chosen, out=tmp_path / "runs", progress=lambda *x: told.append(x))
    path = record_path(chosen, tmp_path / "runs")
    assert path.parent.name == f"klom-digits-descent-{record.run_id}" and RunRecord.read(path) == record
    assert no_pictures == [path.parent / record.files["plot"]] and no_pictures[0].exists()
    assert list(record.scores) == ["do_nothing", "descent", "oracle"]
    margins = {
        "do_nothing": quick_digits.margins("pretrain", 2, range(30)),
        "descent": unlearned_margins(chosen),
        "oracle": quick_digits.margins("oracle", 2, range(30, 60)),
    }
    oracle = quick_digits.margins("oracle", 2, range(30))
    for name, splits in record.scores.items():
        for split, score in splits.items():
            values = klom(oracle[split], margins[name][split])
            assert score["mean"] == pytest.approx(values.mean()), (name, split)
            assert score["p95"] == pytest.approx(np.percentile(values, 95))
            assert (score["n_models"], score["n_samples"]) == (30, values.size)
            floor = klom(oracle[split], margins["oracle"][split])
            if name != "oracle":  # its own floor would be itself
                assert score["floor"] == pytest.approx(np.percentile(floor, 95))
                assert score["floor_from"] == "held-out oracles"
            else:
                assert score["floor_from"] == "simulation"
    stages = ["pretrain models", "oracles", "held-out oracles", "descent", "score", "plot"]
    assert list(record.stages) == stages
    assert {name for name, _, _ in told} == {*stages} - {"plot"}
    assert any("with 30 models a perfect method scores" in note for note in record.notes)
    assert record.spec["config"] == {
        "epochs": 1, "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64, "batch_norm": "train"
    }  # fmt: skip


def test_unlearned_margins_are_those_of_the_method(quick_digits):
    chosen = descent(quick_digits, seed=4)
    split = quick_digits.split(1)
    model = last(
        chosen.method.steps(quick_digits.pretrained(range(25, 30)), split, seed=4, ids=range(25, 30))
    )
    got = unlearned_margins(chosen)
    assert {k: v.shape for k, v in got.items()} == {
        "retain": (30, 490),
        "forget": (30, 10),
        "val": (30, 1297),
    }
    for name, images, labels in (
        ("retain", split.images[split.retain], split.labels[split.retain]),
        ("forget", split.images[split.forget], split.labels[split.forget]),
        ("val", split.val_images, split.val_labels),
    ):
        np.testing.assert_allclose(got[name][25:], ensemble_margins(model, images, labels), atol=1e-4)


def test_the_second_run_reads_the_record(quick_digits, tmp_path, monkeypatch):
    first = run(descent(quick_digits), out=tmp_path)
    monkeypatch.setattr(module, "score", None)
    monkeypatch.setattr(type(quick_digits), "margins", None)
    assert run(descent(quick_digits), out=tmp_path) == first


def test_force_unlearns_and_scores_again_but_trains_nothing(quick_digits, tmp_path, unlearned, trained):
    first = run(descent(quick_digits), out=tmp_path)
    assert unlearned == [(0, 25), (25, 50)]
    trained.clear()
    second = run(descent(quick_digits), out=tmp_path, force=True)
    assert unlearned == [(0, 25), (25, 50)] * 2 and trained == []
    assert second.scores == first.scores and second.created > first.created


def test_another_variant_or_number_of_models_unlearns_only_what_is_new(quick_digits, tmp_path, unlearned):
    first = run(descent(quick_digits, n_models=20), out=tmp_path)
    assert unlearned == [(0, 25)]
    other = run(descent(quick_digits, n_models=20, variant="robust"), out=tmp_path)
    assert unlearned == [(0, 25)] and other.run_id != first.run_id
    assert other.scores["descent"]["val"]["p95"] != first.scores["descent"]["val"]["p95"]
    run(descent(quick_digits, n_models=30), out=tmp_path)
    assert unlearned == [(0, 25), (25, 50)]
    for change in ({"seed": 1}, {"forget_set": 2}, {"method": Descent(epochs=1, lr=0.06)}):
        run(descent(quick_digits, n_models=20, **change), out=tmp_path)
    assert len(unlearned) == 5


def test_every_part_of_the_question_names_the_run(quick_digits, tmp_path):
    changes = [
        {}, {"seed": 1}, {"forget_set": 2}, {"n_models": 20}, {"variant": "robust"}, {"method": Descent(epochs=2)},
        {"method": Scrub(), "method_name": "scrub"}, {"dataset": dataclasses.replace(quick_digits, ensemble_seed=1)},
    ]  # fmt: skip
    assert len({record_path(descent(quick_digits, **c), tmp_path) for c in changes}) == len(changes)
    json.dumps(descent(quick_digits).spec())


def test_a_killed_run_goes_on_from_its_last_block(quick_digits, tmp_path, unlearned, trained):
    def killed(stage, done, total):
        if stage == "descent" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(descent(quick_digits), out=tmp_path / "runs", progress=killed)
    assert unlearned == [(0, 25)]
    assert not record_path(descent(quick_digits), tmp_path / "runs").exists()
    assert not list(tmp_path.rglob("*.part"))
    trained.clear()
    record = run(descent(quick_digits), out=tmp_path / "runs")
    assert unlearned == [(0, 25), (25, 50)] and trained == []
    fresh = run(descent(quick_digits), out=tmp_path / "other", force=True)
    assert record.scores == fresh.scores


def test_a_run_killed_in_training_goes_on_too(quick_digits, tmp_path, trained):
    def killed(stage, done, total):
        if stage == "oracles" and done == 3:  # in the second block of two epochs
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(descent(quick_digits), out=tmp_path / "runs", progress=killed)
    assert trained == [(0, 25, "pretrain"), (25, 50, "pretrain"), (0, 25, "oracle"), (25, 50, "oracle")]
    trained.clear()
    run(descent(quick_digits), out=tmp_path / "runs")
    assert trained == [(25, 50, "oracle"), (50, 75, "oracle")]


def test_doing_nothing_is_unlearned_by_nobody(quick_digits, tmp_path):
    chosen = Experiment(dataset=quick_digits, method=DoNothing(), method_name="do_nothing", n_models=5)
    record = run(chosen, out=tmp_path)
    assert list(record.scores) == ["do_nothing", "oracle"] and "do_nothing" not in record.stages
    assert not (tmp_path / "cache" / "unlearned").exists()


def test_without_held_out_oracles_floors_are_simulated(quick_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(type(quick_digits), "n_oracles", 50)
    record = run(descent(quick_digits), out=tmp_path)
    assert list(record.scores) == ["do_nothing", "descent"]
    assert record.scores["descent"]["val"]["floor_from"] == "simulation"
    assert any("none are held out at 30 models" in note for note in record.notes)


def test_just_enough_oracles_are_held_out(quick_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(type(quick_digits), "n_oracles", 10)
    record = run(descent(quick_digits, n_models=5), out=tmp_path)
    assert record.scores["descent"]["val"]["floor_from"] == "held-out oracles"


def test_the_last_block_ends_where_the_models_end(quick_digits, unlearned, monkeypatch):
    monkeypatch.setattr(type(quick_digits), "n_models", 30)
    assert unlearned_margins(descent(quick_digits))["val"].shape[0] == 30
    assert unlearned == [(0, 25), (25, 30)]


# ---- what is refused, and when ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forget_set": 0}, "forget set 0 does not exist: digits has 1 to 10"),
        ({"forget_set": 11}, "forget set 11 does not exist"),
        ({"n_models": 101}, "101 models: digits has 100, and 2 are the least"),
        ({"n_models": 1}, "1 models: digits has 100"),
        ({"variant": "easydup"}, "did you mean 'easydub'"),
    ],
)
def test_impossible_experiments_are_refused_at_once(quick_digits, trained, options, message):
    with pytest.raises(InvalidInput, match=message):
        descent(quick_digits, **options)
    assert trained == []


def test_an_output_folder_that_cannot_be_written_is_known_before_training(quick_digits, trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot write"):
        run(descent(quick_digits), out=tmp_path / "file")
    assert trained == [] and not (tmp_path / "cache").exists()


def test_robust_refuses_models_that_diverged(quick_digits, tmp_path):
    diverging = descent(quick_digits, method=Descent(epochs=2, lr=1e30), variant="robust", n_models=3)
    with pytest.raises(InvalidInput, match="unlearned margin of model 0, sample 0 is nan"):
        run(diverging, out=tmp_path)
    record = run(dataclasses.replace(diverging, variant="easydub"), out=tmp_path)
    assert any("not finite" in note for note in record.notes)


def test_without_matplotlib_there_are_scores_and_a_note(quick_digits, tmp_path, monkeypatch):
    def missing(*_):
        raise MissingExtra("pictures need matplotlib")

    monkeypatch.setattr("klom_bench.plot.plot_run", missing)
    record = run(descent(quick_digits, n_models=5), out=tmp_path)
    assert record.files == {} and "no picture: pictures need matplotlib" in record.notes
    assert RunRecord.read(record_path(descent(quick_digits, n_models=5), tmp_path)).scores["descent"]


# ---- the code of a method -----------------------------------------------------------------------------------


def method_in(path, body):
    path.write_text(
        "import copy\nclass Method:\n    presets = {}\n    def steps(self, model, split, *, seed=0, ids=None):\n"
        f"        {body}\n        yield copy.deepcopy(model).eval()\n"
    )
    name = path.stem
    loaded = types.ModuleType(name)
    loaded.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec"), loaded.__dict__)
    sys.modules[name] = loaded
    return loaded.Method()


def test_editing_a_method_makes_another_run(tmp_path, monkeypatch):
    import linecache

    versions = []
    for body in ("seed = 1", "seed = 2", "seed = 1"):
        linecache.clearcache()
        method = method_in(tmp_path / "edited_method_of_a_test.py", body)
        versions.append(code_version(method))
    monkeypatch.delitem(sys.modules, "edited_method_of_a_test")
    assert versions[0] == versions[2] != versions[1]
    assert code_version(NoisyDescent()) == code_version(NoisyDescent(lr=1.0)) != code_version(Descent())
    assert "code" in descent_spec()


def descent_spec():
    from klom_bench.datasets.digits import Digits

    return descent(Digits()).spec()


def test_a_method_from_a_notebook_has_a_version_too(tmp_path, monkeypatch):
    """A cell has no file, but Python keeps its lines."""
    import linecache

    monkeypatch.setitem(sys.modules, "no_file", types.ModuleType("no_file"))
    versions = []
    for cell, value in (("<cell 1>", 1), ("<cell 2>", 2)):
        source = f"class Method:\n    def steps(self, model, split):\n        yield model * {value}\n"
        linecache.cache[cell] = (len(source), None, source.splitlines(keepends=True), cell)
        space = {"__name__": "no_file"}
        exec(compile(source, cell, "exec"), space)
        versions.append(code_version(space["Method"]()))
    assert versions[0] != versions[1]


def test_a_method_without_any_source_is_an_error_in_words():
    space = {"__name__": "nowhere"}
    exec("class Method:\n    def steps(self):\n        yield 1\n", space)
    with pytest.raises(InvalidInput, match="cannot read the source of Method"):
        code_version(space["Method"]())


def test_device_of_the_margins_is_the_cpu(quick_digits):
    assert (
        not torch.cuda.is_available() or unlearned_margins(descent(quick_digits))["val"].dtype == np.float32
    )
