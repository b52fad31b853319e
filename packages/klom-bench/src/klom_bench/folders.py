"""Where things are kept that can be computed or downloaded again."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_root() -> Path:
    """Return the folder of everything that can be computed or downloaded again.

    The environment variable ``UNLEARN_BENCH_CACHE`` names it; otherwise it is the user's cache folder.
    """
    named = os.environ.get("UNLEARN_BENCH_CACHE")
    return Path(named).expanduser() if named else user_cache_path("unlearn-bench")
