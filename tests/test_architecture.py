"""The map of design.md, kept by reading the sources: what may import what, and what every package must have.

A check takes a folder and returns what is wrong with it, so that the tests below can also show each of them
failing on a bad package made for the purpose.
"""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Imports point from right to left. Packages of one layer do not know each other.
LAYERS = [
    {"unlearn-core"},
    {"klom-bench", "unlearn-techniques", "unlearn-metrics", "genmu-eval", "pocket-sd"},
    {"unlearn-bench"},
]
MAX_LINES = 330
BANNED_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers"}
HEAVY = {
    "torch",
    "numpy",
    "diffusers",
    "transformers",
    "matplotlib",
    "rich",
    "pydantic",
    "PIL",
    "huggingface_hub",
}
CARD = ["Paper", "Idea", "Changes", "Defaults", "Deviations", "Reference code", "Cost"]
MODULE_OF = {"scikit-learn": "sklearn", "pillow": "PIL"}  # where a distribution is declared but not installed


def read(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def workspace(root=ROOT):
    """Return the folders of the members that the workspace declares."""
    patterns = read(root)["tool"]["uv"]["workspace"]["members"]
    return sorted(f for pattern in patterns for f in root.glob(pattern) if (f / "pyproject.toml").is_file())


def module_name(distribution):
    return distribution.replace("-", "_")


def canonical(requirement):
    """Return the distribution of a requirement: "Typer[all]>=0.15" is typer."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()


def declared(project):
    """Return the distributions that a package or one of its extras requires."""
    extras = project.get("optional-dependencies", {}).values()
    return {canonical(r) for group in [project.get("dependencies", []), *extras] for r in group}


def sources(folder):
    return sorted((folder / "src").rglob("*.py"))


def imports(path):
    """Yield (line, top-level module) of every import, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module.partition(".")[0]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            first = node.args[0] if node.args else None
            if called in ("importlib.import_module", "import_module", "__import__") and isinstance(
                first, ast.Constant
            ):
                yield node.lineno, str(first.value).partition(".")[0]


# ---- the checks ----------------------------------------------------------------------------------------------


def undeclared_imports(folder):
    project = read(folder)["project"]
    allowed = declared(project)
    providers = {m: {canonical(d) for d in ds} for m, ds in packages_distributions().items()}
    by_name = {MODULE_OF.get(d, module_name(d)) for d in allowed}
    own = module_name(project["name"])
    return [
        f"{path.relative_to(folder)}:{line} imports {module}, which {project['name']} does not declare"
        for path in sources(folder)
        for line, module in imports(path)
        if module != own
        and module not in sys.stdlib_module_names
        and module not in by_name
        and not providers.get(module, set()) & allowed
    ]


def wrong_layers(folders):
    """Return what differs from the graph that LAYERS stands for, restricted to the members there are."""
    projects = {read(f)["project"]["name"]: f for f in folders}
    layer = {name: i for i, names in enumerate(LAYERS) for name in names}
    found = [f"{name} has no place in LAYERS" for name in projects if name not in layer]
    siblings = {module_name(name): name for name in projects}
    for name, folder in projects.items():
        if name not in layer:
            continue
        below = {other for other in projects if other in layer and layer[other] < layer[name]}
        depends = declared(read(folder)["project"]) & projects.keys() - {name}
        used = {siblings[m] for p in sources(folder) for _, m in imports(p) if m in siblings} - {name}
        if depends != below:
            found.append(f"{name} declares {sorted(depends)}, the layers say {sorted(below)}")
        found += [f"{name} imports {other}, which is not below it" for other in sorted(used - below)]
        found += [f"{name} never imports unlearn-core"] * ("unlearn-core" in below - used)
    return found


def wrong_layout(folder):
    project = read(folder)["project"]
    name, package = project["name"], folder / "src" / module_name(project["name"])
    expected = "bench" if name == "unlearn-bench" else name
    found = []
    if folder.name != expected:
        found.append(f"the folder of {name} is called {folder.name}")
    found += [f"{p} is missing" for p in ("__init__.py", "py.typed") if not (package / p).is_file()]
    found += [
        f"{p.name} lies beside the package" for p in (folder / "src").iterdir() if p.is_dir() and p != package
    ]
    for path in sources(folder):
        if (length := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES:
            found.append(f"{path.name} has {length} lines, more than {MAX_LINES}")
        found += [f"{p} is no name for a module" for p in {path.stem, path.parent.name} & BANNED_NAMES]
    return found


def entries(folder):
    groups = read(folder)["project"].get("entry-points", {})
    return [(group, name, value) for group, items in groups.items() for name, value in items.items()]


def untested_entries(folder):
    """Return the entry points that no test file of the package mentions, by name, module or class."""
    tests = [p.read_text(encoding="utf-8") for p in sorted((folder / "tests").glob("test_*.py"))]
    found = []
    for _, name, value in entries(folder):
        module, _, attribute = value.partition(":")
        words = {name, module.rpartition(".")[2], attribute}
        if not any(re.search(rf"\b({'|'.join(map(re.escape, words))})\b", text) for text in tests):
            found.append(f"no test of {folder.name} mentions {name} or {attribute}")
    return found


def broken_entries(folder):
    found = []
    for group, name, value in entries(folder):
        module, _, attribute = value.partition(":")
        try:
            getattr(importlib.import_module(module), attribute)
        except Exception as error:
            found.append(f"{group}: {name} = {value}: {type(error).__name__}: {error}")
    return found


def incomplete_cards(folder):
    """Return what a module behind an entry point of methods or techniques lacks of a method card."""
    found = []
    for group, name, value in entries(folder):
        if group not in ("unlearn.methods", "unlearn.techniques"):
            continue
        module, _, attribute = value.partition(":")
        tree = ast.parse(
            (folder / "src" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
        )
        card = re.findall(rf"^({'|'.join(CARD)}):(?= *\S|\n +\S)", ast.get_docstring(tree) or "", re.M)
        (cls,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == attribute]
        settings = [
            n
            for n in cls.body
            if isinstance(n, ast.AnnAssign) and "ClassVar" not in ast.unparse(n.annotation)
        ]
        needed = {"Paper", "Idea", "Deviations", "Cost"} | ({"Defaults"} if settings else set())
        found += [f"{name}: its card has no {heading}" for heading in sorted(needed - set(card))]
        if card != sorted(card, key=CARD.index) or len(card) != len(set(card)):
            found.append(f"{name}: its card has {', '.join(card)}; the order is {', '.join(CARD)}")
    return found


def different_versions(folders):
    versions = {read(f)["project"]["version"] for f in folders}
    return [] if len(versions) == 1 else [f"the members have the versions {sorted(versions)}"]


def addresses(path):
    """Return lines of a pyproject that say where packages come from: that is the user's business."""
    pattern = (
        r"index-url|index_url|find-links|\[\[tool\.uv\.index|\bindex *=|/simple\b|@ *(https?|git\+|file):"
    )
    return [
        f"{path.name}: {line}"
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(pattern, line)
    ]


# ---- on this repository --------------------------------------------------------------------------------------

MEMBERS = workspace()
member = pytest.mark.parametrize("folder", MEMBERS, ids=lambda f: f.name)


@member
@pytest.mark.parametrize(
    "check", [undeclared_imports, wrong_layout, untested_entries, incomplete_cards], ids=lambda f: f.__name__
)
def test_member(folder, check):
    assert check(folder) == []


@member
def test_entry_points_resolve(folder):
    assert broken_entries(folder) == []


def test_layers():
    assert wrong_layers(MEMBERS) == []
    assert {read(f)["project"]["name"] for f in MEMBERS} >= {"unlearn-core", "klom-bench", "unlearn-bench"}


def test_versions():
    assert different_versions([ROOT, *MEMBERS]) == []


@pytest.mark.parametrize("folder", [ROOT, *MEMBERS], ids=lambda f: f.name)
def test_no_package_index_is_named(folder):
    assert addresses(folder / "pyproject.toml") == []


def test_the_lock_names_the_public_index_only():
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert set(re.findall(r'registry = "([^"]*)"', text)) == {"https://pypi.org/simple"}


def test_help_imports_nothing_heavy():
    code = (
        "import contextlib, io, json, sys\n"
        "from unlearn_bench.cli import main\n"
        "loaded = []\n"
        "for arguments in [], ['klom'], ['klom', 'run']:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n"
        "        main([*arguments, '--help'])\n"
        "    assert 'Usage: ' in out.getvalue(), out.getvalue()\n"
        "    loaded.append(sorted(sys.modules))\n"
        "print(json.dumps(loaded))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *others = map(set, json.loads(done.stdout))
    assert first & HEAVY == set()
    for loaded in others:
        assert loaded & HEAVY <= {"pydantic"}, (
            "which typer 0.29 itself loads to read the options of a command"
        )


# ---- that each check can fail --------------------------------------------------------------------------------


@pytest.fixture
def make(tmp_path):
    """Return a function that writes a package: name, lines of its pyproject, files below src/<module>."""

    def write(name, pyproject="", *, version="1.0", dependencies=(), folder=None, **files):
        root = tmp_path / (folder or name)
        package = root / "src" / module_name(name)
        package.mkdir(parents=True)
        head = f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = {json.dumps(list(dependencies))}\n'
        (root / "pyproject.toml").write_text(head + pyproject)
        for path in ("__init__.py", "py.typed"):
            (package / path).touch()
        for module, source in files.items():
            (package / f"{module}.py").write_text(source)
        return root

    return write


@pytest.mark.parametrize(
    "source",
    [
        "import numpy",
        "import numpy.linalg as la",
        "from numpy import array",
        "def f():\n    import numpy",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from numpy import ndarray",
        "try:\n    import numpy\nexcept ImportError:\n    numpy = None",
        "import importlib\nnumpy = importlib.import_module('numpy')",
        "import a_module_nobody_has",
    ],
)
def test_an_undeclared_import_is_found(make, source):
    assert len(undeclared_imports(make("klom-bench", dependencies=["torch>=2"], bad=source))) == 1


def test_declared_imports_are_fine(make):
    extras = '[project.optional-dependencies]\nplot = ["numpy>=2", "PyYAML"]\n'
    good = "import os\nimport klom_bench.x\nfrom . import x\nfrom huggingface_hub import HfApi\nimport numpy"
    assert (
        undeclared_imports(
            make("klom-bench", extras, dependencies=["Hugging_Face.Hub", "huggingface-hub>=1"], x=good)
        )
        == []
    )


CORE = "import unlearn_core\n"


def test_a_wrong_graph_is_found(make):
    core = make("unlearn-core")
    klom = make("klom-bench", dependencies=["unlearn-core"], x=CORE)
    app = make("unlearn-bench", dependencies=["unlearn-core", "klom-bench"], folder="bench", x=CORE)
    assert wrong_layers([core, klom, app]) == []
    genmu = make("genmu-eval", dependencies=["unlearn-core", "klom-bench"], x=CORE + "import klom_bench\n")
    assert wrong_layers([core, klom, genmu]) == [
        "genmu-eval declares ['klom-bench', 'unlearn-core'], the layers say ['unlearn-core']",
        "genmu-eval imports klom-bench, which is not below it",
    ]
    upward = make("pocket-sd", dependencies=[], x="def f():\n    import unlearn_bench\n")
    assert len(wrong_layers([core, upward, app])) == 4
    assert wrong_layers([core, make("surprise", dependencies=["unlearn-core"], x=CORE)]) == [
        "surprise has no place in LAYERS"
    ]


def test_a_wrong_layout_is_found(make):
    assert wrong_layout(make("klom-bench", x="")) == []
    assert wrong_layout(make("klom-bench", folder="klom")) == ["the folder of klom-bench is called klom"]
    bad = make("genmu-eval", utils="", long="x = 1\n" * 331)
    (bad / "src/genmu_eval/py.typed").unlink()
    (bad / "src/other").mkdir()
    (bad / "src/genmu_eval/helpers").mkdir()
    (bad / "src/genmu_eval/helpers/x.py").touch()
    assert sorted(wrong_layout(bad)) == [
        "helpers is no name for a module",
        "long.py has 331 lines, more than 330",
        "other lies beside the package",
        "py.typed is missing",
        "utils is no name for a module",
    ]


METHODS = '[project.entry-points."unlearn.methods"]\nfoo = "klom_bench.foo:Foo"\n'
FOO = '''"""Foo.

Paper: Foo 2026.
Idea: forget.
Defaults: the paper's.
Deviations: none.
Cost: none.
"""

class Foo:
    """Forget."""

    lr: float = 0.1
'''


def test_an_entry_without_test_or_target_is_found(make, monkeypatch):
    folder = make("klom-bench", METHODS.replace("klom_bench", "made_for_this_test"), foo=FOO)
    assert untested_entries(folder) == ["no test of klom-bench mentions foo or Foo"]
    (folder / "tests").mkdir()
    (folder / "tests/test_x.py").write_text("food, Fool\n")
    assert untested_entries(folder) == ["no test of klom-bench mentions foo or Foo"]
    (folder / "tests/test_x.py").write_text("x = Foo()\n")
    assert untested_entries(folder) == []
    (problem,) = broken_entries(folder)
    assert "foo = made_for_this_test.foo:Foo: ModuleNotFoundError" in problem
    (folder / "src/made_for_this_test").mkdir()
    (folder / "src/made_for_this_test/foo.py").write_text("class Fo: ...\n")
    monkeypatch.syspath_prepend(str(folder / "src"))
    assert "AttributeError" in broken_entries(folder)[0]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Cost: none.\n", "", "foo: its card has no Cost"),
        ("Paper: Foo 2026.\n", "Paper:\n", "foo: its card has no Paper"),
        ("Defaults: the paper's.\n", "", "foo: its card has no Defaults"),
        (
            "Idea: forget.\nDefaults: the paper's.\n",
            "Defaults: the paper's.\nIdea: forget.\n",
            "the order is Paper",
        ),
    ],
)
def test_an_incomplete_card_is_found(make, old, new, problem):
    assert incomplete_cards(make("klom-bench", METHODS, foo=FOO)) == []
    (found,) = incomplete_cards(make("klom-bench", METHODS, folder="bad", foo=FOO.replace(old, new)))
    assert problem in found


def test_different_versions_are_found(make):
    assert different_versions([make("a"), make("b")]) == []
    assert different_versions([make("c"), make("d", version="1.1")]) == [
        "the members have the versions ['1.0', '1.1']"
    ]


@pytest.mark.parametrize(
    "line",
    [
        '[[tool.uv.index]]\nname = "x"',
        '[tool.uv]\nindex-url = "https://example.org/x"',
        '[tool.uv]\nfind-links = ["wheels"]',
        '[tool.uv.sources]\ntorch = { index = "pytorch" }',
        'x = ["torch @ https://example.org/torch.whl"]',
    ],
)
def test_an_index_is_found(make, line):
    assert len(addresses(make("klom-bench", line) / "pyproject.toml")) == 1
    assert (
        addresses(make("genmu-eval", '[project.urls]\nhome = "https://example.org"') / "pyproject.toml") == []
    )
