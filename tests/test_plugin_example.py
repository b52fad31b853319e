"""docs/add-a-technique.md and its example: a package that is installed, listed, shown, run, tested and removed."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unlearn_bench.cli import main
from unlearn_core.errors import UnlearnWarning
from unlearn_core.registry import names

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "tests/plugin_example"
PAGE = (ROOT / "docs/add-a-technique.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def sandbox(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages beside those of this environment, which stay as they are."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for module in [m for m in sys.modules if m.partition(".")[0] == "negative_prompt"]:
        del sys.modules[module]


@pytest.fixture
def bench(capsys):
    """Return a function that runs `bench` and gives code, out and err."""

    def run(*arguments):
        capsys.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            warnings.simplefilter("default", UnlearnWarning)
            main([str(a) for a in arguments])
        return SimpleNamespace(code=end.value.code or 0, **capsys.readouterr()._asdict())

    return run


def uv(*arguments):
    # uv builds the example itself: no package index is asked.
    command = [os.environ.get("UV") or shutil.which("uv") or "uv", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def install(site):
    uv("install", "--no-deps", "--target", site, "--python", sys.executable, EXAMPLE)


def commands():
    """Return the commands of the section "Try it", in words."""
    block = re.search(r"^## Try it\n.*?^```bash\n(.*?)^```", PAGE, re.M | re.S)[1]
    return [shlex.split(line) for line in block.splitlines()]


def test_the_commands_of_the_page(site, bench):
    """In their order, with `--target` so that only a temporary folder changes."""
    printed = {}
    for words in commands():
        if words[:3] == ["uv", "pip", "install"]:
            (path,) = words[3:]
            assert (ROOT / path).resolve() == EXAMPLE
            install(site)
        elif words[:3] == ["uv", "pip", "uninstall"]:
            uv("uninstall", "--target", site, "--python", sys.executable, *words[3:])
        else:
            assert words[:3] == ["uv", "run", "bench"], words
            result = bench(*words[3:])
            assert (result.code, result.err) == (0, ""), words
            printed[words[3]] = result.out
    assert re.search(r"^ +negative_prompt +Negative prompt: every picture is", printed["list"], re.M)
    assert "the operator NOT" in printed["show"] and "strength: float = 1.0" in printed["show"]
    assert "'dog' taken out of pocket" in printed["sd"] and "ua_ira" in printed["sd"]
    assert "settings of the preset 'pocket'" in printed["sd"]
    assert "negative_prompt" not in names("unlearn.techniques")
    assert not (site / "negative_prompt").exists()


def test_its_own_tests_pass(site, monkeypatch):
    install(site)
    tests = runpy.run_path(str(EXAMPLE / "tests/test_negative_prompt.py"))
    found = [name for name in tests if name.startswith("test_")]
    assert found == ["test_rules", "test_formula", "test_bad_settings"]
    for name in found:
        tests[name]()


def test_it_goes_on_top_of_another_technique(site, bench):
    install(site)
    settings = ("--metrics", "asr_i2p", "--set", "negative_prompt.strength=0.5")
    result = bench("sd", "--technique", "uce+negative_prompt", "--limit", 1, "--steps", 1, *settings)
    assert result.code == 0 and "uce+negative_prompt: 'dog' taken out of pocket" in result.out


def test_a_plugin_that_is_broken_is_one_warning(site, bench):
    install(site)
    (site / "negative_prompt/technique.py").write_text("import a_module_nobody_has\nclass (\n")
    listed = bench("list", "techniques")
    (line,) = listed.err.splitlines()
    assert line.startswith("warning: plugin 'negative_prompt' of negative-prompt") and "SyntaxError" in line
    assert listed.code == 0 and all(f"  {name} " in listed.out for name in names("unlearn.techniques"))
    other = bench("sd", "--technique", "none", "--limit", 1, "--steps", 1, "--metrics", "asr_i2p")
    assert (other.code, other.err) == (0, "")
    asked = bench("sd", "--technique", "negative_prompt")
    assert asked.code == 2 and len(asked.err.splitlines()) == 1 and "cannot be loaded" in asked.err


def test_a_misspelt_setting_is_answered(site, bench):
    install(site)
    result = bench("sd", "--technique", "negative_prompt", "--set", "strenght=1")
    assert result.code == 2 and "did you mean 'strength'" in result.err


@pytest.mark.parametrize(
    "path", ["src/negative_prompt/technique.py", "tests/test_negative_prompt.py", "pyproject.toml"]
)
def test_the_page_shows_the_files(path):
    assert f"\n{(EXAMPLE / path).read_text(encoding='utf-8').rstrip()}\n```\n" in PAGE
