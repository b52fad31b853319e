"""`bench list` and `bench klom methods`: everything that is there, whatever else is broken."""

import subprocess
import sys

import pytest

from unlearn_core.registry import load, names


def test_list(bench):
    result = bench("list")
    assert (result.code, result.err) == (0, "")
    for kind in ("methods", "datasets"):
        for name in names(f"unlearn.{kind}"):
            assert f"  {name} " in result.out
    assert "eval_unlearn" not in result.out, "kinds of which there is none are left out"


def test_list_one_kind(bench):
    shown = bench("list", "datasets").out
    assert "cifar10" in shown and "UCI optical digits" in shown and "scrub" not in shown
    assert bench("list", "attacks").code == 0


def test_methods_with_settings_and_presets(bench):
    shown = bench("klom", "methods").out
    for name in names("unlearn.methods"):
        assert f"\n{name}: " in f"\n{shown}"
        assert all(f"    {preset}: " in shown for preset in load("unlearn.methods", name).presets)
    assert "published: epochs=5, lr=0.0001, noise=0.01, max_norm=1.0, batch_size=256" in shown


@pytest.fixture
def broken_plugin(tmp_path, monkeypatch):
    info = tmp_path / "site/torn_pack-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torn-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unlearn.methods]\ntorn = torn_pack:Torn\n")
    (tmp_path / "site/torn_pack.py").write_text("class Torn(:\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_a_broken_plugin_is_one_warning_and_the_rest_is_listed(broken_plugin, bench):
    for arguments in (["list"], ["list", "methods"], ["klom", "methods"]):
        result = bench(*arguments)
        assert result.code == 0
        (line,) = result.err.splitlines()
        assert line.startswith(
            "warning: plugin 'torn' of torn-pack (torn_pack:Torn) cannot be loaded: SyntaxError"
        )
        assert all(name in result.out for name in names("unlearn.methods") if name != "torn")


def test_a_broken_plugin_is_an_error_only_for_who_asks_for_it(broken_plugin, error):
    assert "plugin 'torn' of torn-pack" in error("klom", "run", "--method", "torn", "--dataset", "digits")


def test_a_closed_pipe_is_no_traceback():
    shell = f"'{sys.executable}' -c 'from unlearn_bench.cli import main; main([\"list\"])' | head -0"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
