"""The documentation site builds without a warning, holds every page, and asks no other server for anything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_there(site):
    for page in (ROOT / "docs").glob("*.md"):
        name = "index.html" if page.stem == "index" else f"{page.stem}/index.html"
        assert "<article" in (site / name).read_text(encoding="utf-8"), page.name


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\"\s>]+)", text)
        loaded += re.findall(
            r"<link\b[^>]*rel=\"?(?:stylesheet|preload|preconnect)\"?[^>]*href=\"?([^\"\s>]+)", text
        )
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], page


def test_links_out_of_the_pages_become_names(site):
    text = (site / "add-a-technique" / "index.html").read_text(encoding="utf-8")
    assert "tests/plugin_example" in text and 'href="../tests' not in text and 'href="../../tests' not in text
