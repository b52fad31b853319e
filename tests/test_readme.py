"""What README.md, docs/*.md and the pages of the packages tell people to type works.

* A `python` block runs as it stands; after ``<!-- continues -->`` it first runs the block before it.
* The lines of a `bash` block run one after another; blocks of one file share a folder and a cache. Lines that
  install or clone are not run but must name paths and packages that exist; nor is pytest, which runs this.
* ``<!-- slow -->`` before a block: only with ``-m slow``. ``<!-- not run: reason -->``: listed, not run.
* A `yaml` block is a configuration file of `bench run`.
* A block that begins with "Usage: bench" is the current help text.
* Relative links lead somewhere.
"""

import itertools
import os
import re
import shlex
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
    *sorted(ROOT.glob("packages/*/*.md")),
    *sorted(ROOT.glob("apps/*/*.md")),
]
MEMBERS = {
    tomllib.loads(p.read_text(encoding="utf-8"))["project"]["name"]: p.parent
    for p in [*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("apps/*/pyproject.toml")]
}
LIMIT = 1200  # seconds for one command: what `--metrics all` may take on two cores


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    remarks: tuple[str, ...]
    before: "Block | None"  # the block of the same language before it

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks_of(page, text):
    """Return the fenced blocks of a page, with the HTML comments that stand right above them."""
    found, last, lines = [], {}, text.splitlines()
    i = 0
    while i < len(lines):
        fence = re.match(r"^( *)(`{3,})(\S*)", lines[i])
        if not fence:
            i += 1
            continue
        indent, ticks, language = fence.groups()
        end = next(
            (j for j in range(i + 1, len(lines)) if re.fullmatch(rf" *{ticks}`* *", lines[j])), len(lines)
        )
        remarks, above = [], i - 1
        while above >= 0 and (not lines[above].strip() or lines[above].strip().startswith("<!--")):
            remarks += re.findall(r"<!-- *(.*?) *-->", lines[above])
            above -= 1
        content = "\n".join(line.removeprefix(indent) for line in lines[i + 1 : end])
        block = Block(page, i + 1, language, content, tuple(remarks), last.get(language))
        last[language] = block
        found.append(block)
        i = end + 1
    return found


BLOCKS = [b for p in PAGES for b in blocks_of(str(p.relative_to(ROOT)), p.read_text(encoding="utf-8"))]


def commands(text):
    """Return the command lines of a bash block, continued lines joined, prompts and comments left out."""
    joined = text.replace("\\\n", " ")
    lines = (re.sub(r"^\$ ", "", line.strip()) for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def all_parts(block):
    """Return the single commands of a bash block: `pip install uv && uv run pytest` is two."""
    return [part.strip() for command in commands(block.text) for part in command.split("&&")]


def problem_of_install(words):
    """Return what is wrong with a command that is only checked, None if nothing is."""
    for option, value in itertools.pairwise(words):
        if option in ("--package", "-p") and value not in MEMBERS:
            return f"there is no package {value}"
    for word in words:
        path = re.sub(r"\[.*\]$", "", word)
        if word.startswith("-") or not ("/" in path or path == "."):
            continue
        if "://" in path or path.startswith(("git@", "git+")):
            continue
        if not (ROOT / path).exists():
            return f"there is no {path}"
        if words[:2] == ["pip", "install"] and not (ROOT / path / "pyproject.toml").is_file():
            return f"{path} is no package"
    if words[:2] == ["pip", "install"]:
        known = {"uv", *MEMBERS}
        bare = [
            re.split(r"[\[<>=~]", w)[0]
            for w in words[2:]
            if not w.startswith("-") and "/" not in w and w != "."
        ]
        return next((f"{name} is none of ours" for name in bare if name not in known), None)
    return None


ONLY_CHECKED = ("pip install", "python -m pip install", "git clone", "uv sync", "uv add", "uv pip install")


def plan(part):
    """Return ("check" | "run" | "skip", words) for one command of a line."""
    words = shlex.split(part, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    text = " ".join(words)
    if text.startswith(ONLY_CHECKED) or (words[:2] == ["uv", "run"] and "pytest" in words):
        return "check", words
    if words[:2] == ["uv", "run"] or words[0] in (
        "bench",
        "bash",
        "python",
        "export",
        "ls",
        "cat",
        "head",
        "mkdir",
    ):
        return "run", words
    if words[0] == "cd":
        return "skip", words
    raise AssertionError(
        f"{part!r}: this test does not know what to do with it; mark the block <!-- not run: why -->"
    )


def runnable(part):
    """Return the command as it runs from any folder, without changing the environment of this checkout."""

    def absolute(match):
        word = match[0]
        here = (ROOT / word).exists() and re.match(r"(\./)?[A-Za-z.]+[/.]\w", word)
        return shlex.quote(str(ROOT / word)) if here else word

    run = f"uv run --no-sync --project {shlex.quote(str(ROOT))}"
    part = re.sub(r"[^\s'\"=]+", absolute, part)
    part = re.sub(r"\buv run\b", lambda _: run, part)
    return re.sub(r"^(bench|python)\b", rf"{run} \1", part)


def of(*languages):
    """Parametrise over the blocks in these languages, with the marks their remarks ask for."""
    chosen = []
    for block in BLOCKS:
        if block.language not in languages:
            continue
        idle = block.language not in ("python", "yaml") and all(
            plan(p)[0] == "check" for p in all_parts(block)
        )
        marks = [pytest.mark.slow] if "slow" in block.remarks and not idle else []
        marks += [pytest.mark.skip(reason=r) for r in block.remarks if r.startswith("not run")]
        chosen.append(pytest.param(block, id=str(block), marks=marks))
    return pytest.mark.parametrize("block", chosen)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """Return a function from a page to the folder in which its blocks run."""
    folders = {}
    return lambda page: folders.setdefault(page, tmp_path_factory.mktemp(page.replace("/", "_")))


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def surroundings(monkeypatch, shared_cache):
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(shared_cache))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)


@of("python")
def test_python(block, folder_of, surroundings, monkeypatch):
    chain = [block]
    while "continues" in chain[0].remarks:
        assert chain[0].before, f"{chain[0]} continues nothing"
        chain.insert(0, chain[0].before)
    monkeypatch.chdir(folder_of(block.page))
    namespace = {"__name__": "__main__"}
    for each in chain:
        source = "\n" * each.line + each.text  # line numbers of a traceback are those of the page
        exec(compile(source, str(ROOT / each.page), "exec"), namespace)


@of("bash", "sh", "shell", "console")
def test_bash(block, folder_of, surroundings):
    for part in all_parts(block):
        what, words = plan(part)
        if what == "check":
            assert problem_of_install(words) is None, f"{block}: {part}"
        elif what == "run":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", runnable(part)],
                cwd=folder_of(block.page), capture_output=True, text=True, timeout=LIMIT, env=os.environ,
            )  # fmt: skip
            assert done.returncode == 0, f"{block}: {part}\n{done.stdout}\n{done.stderr}"


@of("yaml")
def test_yaml(block):
    from unlearn_bench.sd import config, eval_learn

    mapping = config.parse(block.text, Path(block.page))
    config.build(eval_learn.translate(mapping, "") if eval_learn.recognises(mapping) else mapping, str(block))


HELP = [b for b in BLOCKS if re.match(r"(\$ .*--help\n)?\s*Usage: bench", b.text)]


@pytest.mark.parametrize("block", HELP, ids=str)
def test_quoted_help_is_current(block, capsys, monkeypatch):
    from unlearn_bench.cli import main

    quoted = re.sub(r"^\$ .*\n", "", block.text).strip("\n")
    words = re.match(r"\s*Usage: bench((?: [a-z-]+)*)", quoted)[1].split()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["bench"])
    with pytest.raises(SystemExit):
        main([*words, "--help"])

    def lines(text):
        return [line.rstrip() for line in text.strip("\n").splitlines()]

    assert lines(quoted) == lines(capsys.readouterr().out)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", text)
    relative = [t.partition("#")[0] for pair in targets for t in pair if t and not re.match(r"[a-z]+:|#", t)]
    assert [t for t in relative if t and not (page.parent / t).exists()] == []


def test_the_two_commands_of_the_readme():
    lines = [c for b in BLOCKS if b.page == "README.md" for c in commands(b.text)]
    for wanted in ("uv run demo.py --method noisy_descent", "uv run pytest"):
        assert any(line.startswith(f"pip install uv && {wanted}") for line in lines), wanted


# ---- that the checks can fail --------------------------------------------------------------------------------

PAGE = """
<!-- slow -->

```python
x = 1
```

<!-- continues -->
```python
x += 1
```

- item
  ```bash
  # a comment
  $ uv run bench klom run \\
      --n-models 10
  pip install uv && uv run pytest
  ```

<!-- not run: needs a GPU -->
````text
```
````
"""


def test_blocks_are_found():
    slow, continued, bash, text = blocks_of("page.md", PAGE)
    assert (slow.text, slow.remarks, slow.before) == ("x = 1", ("slow",), None)
    assert (continued.text, continued.remarks, continued.before) == ("x += 1", ("continues",), slow)
    assert commands(bash.text)[0].split() == ["uv", "run", "bench", "klom", "run", "--n-models", "10"]
    assert commands(bash.text)[1:] == ["pip install uv && uv run pytest"] and bash.remarks == ()
    assert (text.text, text.remarks, text.language) == ("```", ("not run: needs a GPU",), "text")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("pip install uv", None),
        ("pip install ./packages/klom-bench", None),
        ('pip install "./packages/klom-bench[plot]"', None),
        ("pip install ./packages/klom-bnch", "there is no ./packages/klom-bnch"),
        ("pip install ./packages", "./packages is no package"),
        ("pip install klom-bnch", "klom-bnch is none of ours"),
        ("uv sync --package klom-bench", None),
        ("uv sync --package klom-bnch", "there is no package klom-bnch"),
        ("git clone https://example.org/x/unlearn-bench", None),
        ("uv run --isolated --package klom-bench pytest packages/klom-bench", None),
        ("uv run pytest packages/klom-bnch", "there is no packages/klom-bnch"),
    ],
)
def test_commands_that_are_only_checked(command, problem):
    what, words = plan(command)
    assert what == "check" and problem_of_install(words) == problem


def test_commands_that_run():
    project = f"uv run --no-sync --project {ROOT}"
    assert runnable("uv run demo.py --n-models 10") == f"{project} {ROOT}/demo.py --n-models 10"
    assert runnable("bench klom score a.npy b.npy") == f"{project} bench klom score a.npy b.npy"
    assert plan("A=1 uv run bench list") == ("run", ["uv", "run", "bench", "list"])
    with pytest.raises(AssertionError, match="does not know what to do"):
        plan("frobnicate x")
