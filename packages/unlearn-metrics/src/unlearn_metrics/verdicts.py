"""One plug asked about many images: what it answers, and why it does not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Generic, NamedTuple, TypeVar

from unlearn_core import registry, spec
from unlearn_core.errors import InvalidInput, one_of
from unlearn_core.samples import Sample
from unlearn_metrics import verdict_cache
from unlearn_metrics.images import Array, batches

Answer = TypeVar("Answer")

BATCH = 64
"""Images in memory at a time; a plug may divide them further."""
BLOCKED = "the image is black, as a safety checker returns it"
UNREADABLE = "the image cannot be read"
UNDECIDED = "the judge could not tell"


class Verdicts(NamedTuple, Generic[Answer]):
    """What was found out about some samples."""

    answers: dict[str, Answer | None]
    """Prompt id -> answer, None where there is none."""
    why: dict[str, str]
    """Prompt id -> why there is none."""


def ask(
    samples: Sequence[Sample],
    judge: Callable[[list[Array]], Sequence[Answer | None]],
    *,
    skip_black: bool = False,
    by: str = "",
) -> Verdicts[Answer]:
    """Return what `judge` says of the images of `samples`.

    Args:
        samples: what to look at; ids are distinct.
        judge: takes uint8 RGB images (h, w, 3), answers each.
        skip_black: do not ask about images that are black all over; they count as blocked.
        by: who answers what, of `verdict_cache.identity`: its answers are kept and found again. "": they are not.

    Raises:
        InvalidInput: not as many answers as images.
        Unavailable: the cache cannot be written.
    """
    folder = verdict_cache.folder_of(f"{by} {skip_black}") if by else None
    kept = verdict_cache.stored(folder, {sample.sha256 for sample in samples}) if folder else {}
    answers: dict[str, Answer | None] = {sample.prompt.id: kept.get(sample.sha256) for sample in samples}
    left = [sample for sample in samples if sample.sha256 not in kept]
    verdict_cache.count(reused=len(samples) - len(left))
    unreadable: dict[str, str] = {}
    why: dict[str, str] = {}
    for part, images in batches(left, BATCH, unreadable):
        shown = [(s.prompt.id, i) for s, i in zip(part, images, strict=True) if not skip_black or i.any()]
        why |= dict.fromkeys({s.prompt.id for s in part} - {i for i, _ in shown}, BLOCKED)
        found = judge([image for _, image in shown]) if shown else ()
        if len(found) != len(shown):
            raise InvalidInput(f"{len(shown)} images need as many answers, the judge gave {len(found)}")
        for (prompt_id, _), answer in zip(shown, found, strict=True):
            answers[prompt_id] = answer
            if answer is None:
                why[prompt_id] = UNDECIDED
        verdict_cache.count(computed=len(shown))
        if folder:
            verdict_cache.store(folder, {sample.sha256: answers[sample.prompt.id] for sample in part})
    return Verdicts(answers, {**why, **dict.fromkeys(unreadable, UNREADABLE)})


def plug(group: str, name: str, settings: Mapping[str, Any], **known: Any) -> Any:
    """Return the plug `name` of `group` with its `settings`, and those of `known` that it has and nobody set.

    Raises:
        NotRegistered: no such plug.
        InvalidInput: settings that it does not take.
        MissingExtra: what it needs is not installed.
    """
    cls = registry.load(group, name)
    own = {f.name for f in fields(cls)}
    return spec.build(cls, {**{k: v for k, v in known.items() if k in own and v is not None}, **settings})


def check(group: str, name: str, settings: Mapping[str, Any], later: str) -> None:
    """Raise what `plug` would, as far as that can be told before the setting `later` is known."""
    cls = registry.load(group, name)
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    if later in settings or later not in needed:
        spec.build(cls, settings)
    for key in settings:
        if key not in (names := [f.name for f in fields(cls)]):
            raise InvalidInput(f"{cls.__name__}: " + one_of("setting", key, names))
    if missing := [key for key in needed if key not in settings and key != later]:
        raise InvalidInput(f"{cls.__name__} ({name}) needs the setting {missing[0]!r}, which has no default")
