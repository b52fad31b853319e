"""The prompts of the Genμ challenge for pocket-sd's concepts, on all five axes; nothing needs a network.

Adjacent and retained concepts are disjoint from the targets and from each other, and no prompt of one target names
another.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pocket_sd.adversarial import ADVERSARIAL
from pocket_sd.prompt_sets import ORIGIN, members, prompts
from pocket_sd.words import PLAIN
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.seeds import derive

TARGETS = ("dog", "apple", "car")
"""Three objects of different families, none a neighbour of another."""


def genmu_prompts(
    targets: Sequence[str], *, images: int = 8, adjacent: int = 8, retained: int = 24
) -> Mapping[str, Mapping[str, PromptSet]]:
    """Return axis -> target -> rows; a row's `concept` is what the judge is asked about.

    "fgt" (the target by its name), "ind" (synonyms and descriptions), "adv" (none of its words, one text and many
    seeds), "adj" (neighbours that are no target), "ret" (all other concepts, one set for all targets, under "").

    Args:
        targets: what is forgotten, each once.
        images: rows per target on fgt, ind and adv.
        adjacent: rows per target on adj.
        retained: rows on ret.

    Raises:
        InvalidInput: an unknown concept, one twice, no target, a number below 1, a target all of whose neighbours are
            targets too.
    """
    targets = tuple(targets)
    if len(set(targets)) != len(targets) or not targets:
        raise InvalidInput(f"targets are one or more concepts, each once, got {', '.join(targets) or 'none'}")
    forgotten = {word for target in targets for word in (target, *members(target))}
    found: dict[str, dict[str, PromptSet]] = {axis: {} for axis in ("fgt", "ret", "adj", "ind", "adv")}
    near: set[str | None] = set()
    for target in targets:
        others = forgotten.difference((target, *members(target)))
        # A set twice as long leaves enough where a few rows name another target.
        asked = {axis: prompts(group, target, n=2 * images + 64) for axis, group in _GROUPS.items()}
        for axis, rows in asked.items():
            found[axis][target] = _set(axis, target, _without(rows, others), images)
        found["adv"][target] = _set("adv", target, _adversarial(target, images), images)
        beside = [
            row
            for row in _without(prompts("adjacent", target, n=6 * adjacent + 64), forgotten)
            if row.concept not in (*forgotten, PLAIN)
        ]
        if not beside:
            raise InvalidInput(
                f"every neighbour of {target!r} is to be forgotten too, so nothing near it could be kept; "
                f"leave out one of {', '.join(sorted(forgotten - {target}))}"
            )
        near |= {row.concept for row in beside}
        found["adj"][target] = _set("adj", target, beside, adjacent)
    found["ret"][""] = _set("ret", "", _retained(targets[0], forgotten, near, retained), retained)
    return found


_GROUPS = {"fgt": "target", "ind": "indirect"}


def _set(axis: str, target: str, rows: Iterable[Prompt], n: int) -> PromptSet:
    if n < 1:
        raise InvalidInput(f"{axis}: at least one image is needed, got {n}")
    chosen = tuple(rows)[:n]
    return PromptSet(name="/".join(filter(None, [ORIGIN, "genmu", axis, target])), rows=chosen)


def _adversarial(target: str, n: int) -> Iterator[Prompt]:
    words = members(target)
    for index in range(n):
        word = words[index % len(words)]
        ident = f"adversarial-{word}-{index // len(words):03d}"
        yield Prompt(
            id=ident, text=ADVERSARIAL[word], seed=derive(0, ORIGIN, ident), group="adversarial", concept=target,
            origin=ORIGIN,
        )  # fmt: skip


def _retained(target: str, forgotten: set[str], near: set[str | None], n: int) -> list[Prompt]:
    """Return rows of objects and of styles in turn, in an order that mixes the families."""
    rows = [*prompts("retain", target, n=4 * n + 160), *prompts("style", target, n=4 * n + 160)]
    kept = [r for r in _without(rows, forgotten) if r.concept not in near and r.concept != PLAIN]
    counts: dict[str | None, int] = {}
    order = []
    for row in kept:
        counts[row.concept] = counts.get(row.concept, 0) + 1
        order.append((counts[row.concept], derive(0, "retained", row.concept or "")))
    return [row for _, row in sorted(zip(order, kept, strict=True), key=lambda pair: pair[0])][:n]


def _without(rows: Iterable[Prompt], words: set[str]) -> Iterator[Prompt]:
    """Yield the rows whose text names none of `words`."""
    for row in rows:
        if not words.intersection(re.findall(r"[a-z]+", row.text)):
            yield row
