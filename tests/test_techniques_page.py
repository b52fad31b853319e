"""docs/techniques.md is what its records say, and has every technique."""

import importlib.util
import json
from pathlib import Path

import pytest

from unlearn_core import registry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "benchmarks" / "techniques_pocket.py"
    spec = importlib.util.spec_from_file_location("techniques_pocket", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_of_the_records(script):
    assert script.PAGE.read_text(encoding="utf-8") == script.render()


def test_every_technique_is_on_record_for_every_concept(script):
    names = set(registry.names("unlearn.techniques"))
    concepts = json.loads(script.RECORD.read_text(encoding="utf-8"))["concepts"]
    assert set(concepts) == set(script.CONCEPTS)
    for found in concepts.values():
        assert set(found["runs"]) | set(found["failed"]) == names
    assert set(json.loads(script.FULL_SIZE.read_text(encoding="utf-8"))["techniques"]) == names


def test_the_page_shows_a_technique_s_row(script):
    """A page made by hand of one run: the numbers stand where the columns say."""
    cell = {"value": 0.25, "low": 0.1, "high": 0.5, "n": 20}
    run = {"scores": dict.fromkeys(script.COLUMNS, cell), "baseline": dict.fromkeys(script.COLUMNS, cell),
           "changes": {"unet": {"tensors": 3, "weights": 5, "of": 50}, "hooks": []},
           "seconds": {"unlearn": 12.4, "draw": 10.0}, "pictures": 20, "peak_memory_mb": 812.3}  # fmt: skip
    record = {"concepts": {"dog": {"runs": {"uce": run}, "failed": {"esd": "why"}}},
              "environment": {"platform": "here"}, "created": "2026-01-01T00"}  # fmt: skip
    step = {"seconds": 1.0, "GiB_beyond_the_model": 0.5}
    full = {"pixels": 256, "device": "cpu", "threads": 2, "techniques": {"uce": {**step, "changes": run["changes"],
            "guided_step": step}}}  # fmt: skip
    text = script.page(record, full)
    row = next(line for line in text.splitlines() if line.startswith("| uce | 0.25"))
    assert row.count("0.25 <small>[0.10, 0.50]</small>") == len(script.COLUMNS)
    assert "3 tensors of the unet (10.0%) | 12 + 0.50 a picture | 812 |" in row
    assert "`esd` failed: why" in text and "| uce | 3 tensors of the unet (10.0%) | 1.0 | 0.5 | 1.0 |" in text
