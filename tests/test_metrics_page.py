"""docs/metrics.md: a card for everything that is registered, and no card that has drifted from the code."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest

from unlearn_core import registry

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ("unlearn.metrics", "unlearn.attacks", "unlearn.detectors")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("metrics_page", ROOT / "benchmarks" / "metrics_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cards():
    """Return section -> name -> card of the page as it stands in the repository."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        title, *pieces = re.split(r"^### ", section, flags=re.M)
        found[title.splitlines()[0]] = {piece.split("`")[1]: piece for piece in pieces}
    return found


@pytest.mark.parametrize(
    ("section", "group"), list(zip(("Metrics", "Attacks", "Detectors"), GROUPS, strict=True))
)
def test_everything_registered_has_a_card(cards, section, group):
    assert sorted(cards[section]) == registry.names(group), "run: uv run benchmarks/metrics_page.py"


@pytest.mark.parametrize("section", ["Metrics", "Attacks"])
def test_a_card_says_what_others_get_wrong(cards, section):
    own = importlib.metadata.distribution("unlearn-metrics").entry_points
    for name in own.select(group=f"unlearn.{section.lower()}").names:
        card = cards[section][name]
        missing = [
            heading
            for heading in ("Definition", "Protocol", "Known traps", "eval-learn")
            if f"**{heading}.** " not in card
        ]
        assert not missing, f"the card of {name} has no {missing}: see NOTES in benchmarks/metrics_page.py"
        assert "**Deviations.** " in card or name == "asr_worst", name


def test_no_note_is_about_nothing(script):
    assert set(script.NOTES) <= {name for group in GROUPS for name in registry.names(group)}


def test_the_page_is_what_the_docstrings_say(script):
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), "run: uv run benchmarks/metrics_page.py"


def test_the_sections_of_a_docstring(script):
    doc = "Does it.\n\nMore text\nover lines.\n\nPaper: X 2020,\n    arXiv 1.\nIdea:\n    a: b\n\nRaises:\n    E: no."
    first, sections = script.parsed(doc)
    assert first == "Does it."
    assert sections == {"": "More text over lines.", "Paper": "X 2020, arXiv 1.", "Idea": "a: b"}
