"""The commands in this process: importing torch anew for every test would take minutes."""

import dataclasses
import functools
import json
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from unlearn_bench.cli import main
from unlearn_core.errors import UnlearnWarning

EPOCHS = 2


@pytest.fixture(autouse=True)
def sandbox(tmp_path, monkeypatch):
    """Keep every cache and every default output folder inside `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny matrices on a busy machine: a second thread only gets in the way."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def bench(capsys):
    """Return a function that runs `bench` with its arguments and gives code, out and err."""

    def run(*arguments):
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("default", UnlearnWarning)  # the suite makes them errors, users see them
            with pytest.raises(SystemExit) as end:
                main([str(a) for a in arguments])
        return SimpleNamespace(code=end.value.code or 0, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def json_of(bench):
    """Return a function that runs `bench ... --json` and gives the one document it prints."""

    def run(*arguments):
        result = bench(*arguments, "--json")
        assert (result.code, result.err) == (0, "")
        return json.loads(result.out)

    return run


@pytest.fixture
def digits(monkeypatch):
    """Give the module of digits, trained for 2 epochs instead of 120; no GPU, 20 bootstrap replicates."""
    from klom_bench import experiment
    from klom_bench.datasets import digits

    monkeypatch.setattr(digits, "TRAINING", dataclasses.replace(digits.TRAINING, epochs=EPOCHS))
    monkeypatch.setattr(experiment, "score", functools.partial(experiment.score, replicates=20))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return digits


@pytest.fixture
def no_picture(monkeypatch):
    """Save the second or two that a picture takes."""

    def draw(path, *_):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")

    monkeypatch.setattr("klom_bench.plot.plot_run", draw)


@pytest.fixture
def error(bench):
    """Return a function that runs `bench`, expects a user's mistake, and gives the one line about it."""

    def run(*arguments):
        result = bench(*arguments)
        assert result.code == 2, result
        (line,) = result.err.splitlines()
        assert line.startswith("error: ") and "Traceback" not in result.out
        if "--json" in arguments:
            assert result.out == ""
        return line

    return run


@pytest.fixture
def closed_port():
    """Return the URL of a loopback port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def process(tmp_path):
    """Return a function that starts `bench` in a process of its own, digits trained for `epochs` epochs."""
    started = []
    source = (
        "import dataclasses, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a suite in the background ignores it
        "if epochs := int(sys.argv[1]):\n"
        "    import torch\n"
        "    torch.set_num_threads(1)\n"
        "    from klom_bench.datasets import digits\n"
        "    digits.TRAINING = dataclasses.replace(digits.TRAINING, epochs=epochs)\n"
        "from unlearn_bench.cli import main\n"
        "main(sys.argv[2:])\n"
    )

    def start(*arguments, epochs=0):
        command = [sys.executable, "-c", source, str(epochs), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=tmp_path, text=True, **pipes))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.communicate()


def files_below(folder: Path) -> list[str]:
    """Return every file below `folder`, hidden ones too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
