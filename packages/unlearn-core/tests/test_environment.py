import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version

import unlearn_core.environment as module
from unlearn_core.environment import environment


def test_it_says_what_is_installed_and_where():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["unlearn-core"] == version("unlearn-core")
    assert list(found["packages"]) == sorted(found["packages"])
    assert "pytest" not in found["packages"]
    assert found["cpus"] == os.cpu_count()
    assert found["platform"] == platform.platform()


def test_the_command_can_be_typed_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/bench", "sd", "--concept", "van gogh"])
    assert environment()["command"] == "bench sd --concept 'van gogh'"


def test_the_first_copy_on_the_path_is_the_one_named(tmp_path, monkeypatch):
    for folder, number in (("first", "9.1"), ("second", "9.2")):
        info = tmp_path / folder / f"unlearn_core-{number}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: unlearn-core\nVersion: {number}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), *sys.path])
    assert environment()["packages"]["unlearn-core"] == "9.1"


class _Cuda:
    def __init__(self, available):
        self.is_available = lambda: available
        self.get_device_name = lambda: "Card 9"


def test_the_device_is_that_of_a_torch_already_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert environment()["device"] == "cpu"
    for available, name in ((False, "cpu"), (True, "Card 9")):
        torch = type(sys)("torch")
        torch.cuda = _Cuda(available)
        monkeypatch.setitem(sys.modules, "torch", torch)
        assert environment()["device"] == name


def _git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_a_checkout_that_tracks_this_code(tmp_path, monkeypatch):
    code = tmp_path / "environment.py"
    code.write_text("x = 1\n")
    monkeypatch.setattr(module, "__file__", str(code))
    assert environment()["git"] is None  # no repository at all
    _git(tmp_path, "init", "-q")
    (tmp_path / "other").write_text("")
    _git(tmp_path, "add", "other")
    _git(tmp_path, "commit", "-q", "-m", "other")
    assert environment()["git"] is None  # installed inside somebody else's repository
    _git(tmp_path, "add", "environment.py")
    _git(tmp_path, "commit", "-q", "-m", "code")
    assert environment()["git"] == {"commit": _git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    code.write_text("x = 2\n")
    assert environment()["git"]["dirty"] is True


def test_no_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["git"] is None
