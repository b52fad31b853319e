"""Which row an adversarial row was made of, as its `origin` tells: "p4d adaptive of i2p-0042"."""

from collections.abc import Iterable, Mapping

from unlearn_core.prompts import Prompt

_OF = " of "


def origin_of(attack: str, row: Prompt) -> str:
    """Return the origin of a row that `attack` made of `row`.

    Args:
        attack: its name, and how it was run: "p4d adaptive", "ring_a_bell transfer".
        row: what was attacked.
    """
    return f"{attack}{_OF}{row.id}"


def raw_ids(rows: Iterable[Prompt]) -> Mapping[str, str]:
    """Return the id of each of `rows` that was made of another -> the id of that row."""
    return {row.id: row.origin.rpartition(_OF)[2] for row in rows if _OF in row.origin}
