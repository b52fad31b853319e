"""Links of the pages that lead to files of the repository: the site has no such pages, so they become their names.

Where `repo_url` is set in mkdocs.yml they lead there instead. `tests/test_readme.py` checks that the files exist.
"""

import re
from posixpath import normpath
from typing import Any

OUT = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return a page without links that leave docs/."""

    def elsewhere(match: re.Match[str]) -> str:
        text, target = match[1], normpath(match[2]).lstrip("./")
        return (
            f"[{text}]({config.repo_url.rstrip('/')}/tree/main/{target})"
            if config.repo_url
            else f"{text} (`{target}`)"
        )

    return OUT.sub(elsewhere, markdown)
