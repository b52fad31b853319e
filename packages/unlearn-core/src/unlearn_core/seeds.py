"""Seeds: one root, and an independent stream for every named use.

A seed depends on names, never on a counter or on the position in a batch, so a result is the same however
the work is split.
"""

import hashlib
import operator


def derive(root: int, *labels: str | int) -> int:
    """Return the seed in [0, 2**63) of the stream `labels` under `root`.

    >>> derive(0, "pretrain", 7) == derive(0, "pretrain", 7)
    True
    >>> derive(0, "pretrain", 7) == derive(0, "pretrain", "7")
    False
    """
    # Plain types first: the repr of a NumPy integer or an enum member differs between versions.
    plain = [str.__str__(label) if isinstance(label, str) else operator.index(label) for label in labels]
    # ascii keeps 7 apart from "7" and ("a", "b") apart from ("ab",); unlike repr it does not ask the Unicode
    # tables of this Python which letters can be printed.
    digest = hashlib.sha256(ascii((operator.index(root), *plain)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
