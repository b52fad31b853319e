import sys
import warnings

import pytest

from unlearn_core.errors import MissingExtra, NotRegistered, UnlearnError, UnlearnWarning
from unlearn_core.registry import describe, load, names

GROUP = "unlearn.tests"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution: real metadata, real modules, on the real path."""

    def make(name, entries, **modules):
        folder = tmp_path / name
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))

    yield make
    for module in [m for m in sys.modules if m.startswith("plugin_")]:
        del sys.modules[module]


GOOD = """
'The module.'

class Good:
    '''Does good.

    At length.
    '''

def bare():
    pass
"""


def test_names_are_sorted_and_import_nothing(install):
    install("pack-b", {"zeta": "plugin_b:Good", "alpha": "plugin_b:bare"}, plugin_b="raise SystemExit")
    install("pack-a", {"mid": "plugin_a:Good"}, plugin_a=GOOD)
    assert names(GROUP) == ["alpha", "mid", "zeta"]
    assert names("unlearn.nothing") == []
    assert not {"plugin_a", "plugin_b"} & set(sys.modules)


def test_load_returns_the_object(install):
    install("pack", {"good": "plugin_ok:Good"}, plugin_ok=GOOD)
    assert load(GROUP, "good").__name__ == "Good"


def test_a_wrong_name_gets_the_nearest_right_one(install):
    install("pack", {"scrub": "plugin_ok:Good", "ascent": "plugin_ok:Good"}, plugin_ok=GOOD)
    with pytest.raises(NotRegistered) as caught:
        load(GROUP, "scrubb")
    assert str(caught.value) == "unknown test 'scrubb'; did you mean 'scrub'? Known: ascent, scrub"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_nobody_has", "ModuleNotFoundError: No module named 'a_module_nobody_has'"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("x = (", "SyntaxError: "),
        ("x = 1", "AttributeError: "),
    ],
)
def test_a_broken_plugin_costs_its_user_one_message_and_nobody_else(install, source, reason):
    install("good-pack", {"good": "plugin_ok:Good"}, plugin_ok=GOOD)
    install("bad-pack", {"bad": "plugin_bad:Bad"}, plugin_bad=source)
    assert names(GROUP) == ["bad", "good"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(GROUP, "good").__name__ == "Good"
    with pytest.raises(UnlearnError) as caught:
        load(GROUP, "bad")
    assert str(caught.value).startswith(
        f"plugin 'bad' of bad-pack (plugin_bad:Bad) cannot be loaded: {reason}"
    )


def test_a_plugin_that_says_what_it_needs_is_let_speak(install):
    source = "from unlearn_core.errors import MissingExtra\nraise MissingExtra('pip install more')\n"
    install("pack", {"more": "plugin_more:More"}, plugin_more=source)
    with pytest.raises(MissingExtra, match=r"^pip install more$"):
        load(GROUP, "more")


def test_describe_reads_the_first_lines_and_imports_nothing(install):
    install(
        "pack", {"good": "plugin_ok:Good", "bare": "plugin_ok:bare"}, plugin_ok=GOOD + "\nraise SystemExit\n"
    )
    assert describe(GROUP) == {"bare": "The module", "good": "Does good"}
    assert "plugin_ok" not in sys.modules


def test_describe_knows_what_a_module_passes_on(install):
    source = "'The package.'\nfrom plugin_ok import Good as Better\n"
    install("pack", {"better": "plugin_front:Better"}, plugin_front=source, plugin_ok=GOOD)
    assert describe(GROUP) == {"better": "The package"}


def test_describe_warns_once_for_each_plugin_it_cannot_read(install):
    install("good-pack", {"good": "plugin_ok:Good"}, plugin_ok=GOOD)
    install("bad-pack", {"gone": "plugin_gone:X", "torn": "plugin_torn:X"}, plugin_torn="x = (")
    with pytest.warns(UnlearnWarning) as caught:
        assert describe(GROUP) == {"gone": "", "good": "Does good", "torn": ""}
    assert [str(w.message).split(" cannot")[0] for w in caught] == [
        "plugin 'gone' of bad-pack (plugin_gone:X)",
        "plugin 'torn' of bad-pack (plugin_torn:X)",
    ]


def test_two_plugins_of_one_name_are_a_warning(install):
    install("pack-a", {"same": "plugin_ok:Good"}, plugin_ok=GOOD)
    install("pack-b", {"same": "plugin_other:Good"}, plugin_other=GOOD)
    with pytest.warns(UnlearnWarning, match="registered twice, as plugin_other:Good and plugin_ok:Good"):
        assert load(GROUP, "same").__module__ == "plugin_other"  # the first on the path


def test_one_plugin_seen_twice_is_no_warning(install, tmp_path, monkeypatch):
    install("pack", {"good": "plugin_ok:Good"}, plugin_ok=GOOD)
    install("pack-again", {"good": "plugin_ok:Good"})
    assert names(GROUP) == ["good"]
