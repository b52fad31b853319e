"""What is wrong with a sheet of prompts: every class of defect that the challenge's own CSV has."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genmu_eval.concepts import (
    ELSEWHERE,
    OVERLAPPING,
    SITE_ONLY,
    TARGETS,
    alike,
    contains,
    names_of,
    target,
    told_by,
    words,
)
from genmu_eval.prompts import CHALLENGE_SHA256
from genmu_eval.questions import Question, Sheet
from genmu_eval.table import PRESERVED
from unlearn_core.errors import InvalidInput

CHECKS = {
    "equals_direct": "the adversarial prompt is the direct one, so A_adv measures A_fgt again",
    "names_another": "the prompt names another concept, so what it draws says little about its own",
    "foreign_word": "a word recurs in the adversarial prompts of most concepts: all were aimed at one thing",
    "leaks": "an indirect or adversarial prompt holds a word of its own concept",
    "nameless_direct": "no word of the concept is in its direct prompt: misspelt, cut off, or another concept's",
    "duplicate": "two questions have the same text",
    "too_long": "more tokens than CLIP reads; the end is cut off",
    "encoding": "characters that no keyboard makes: replaced, invisible, unassigned, pictographs, not normalised",
    "quoting": "quotes inside a text are escaped by a backslash, not doubled: readers of CSV disagree about the text",
    "missing": "a concept lacks an axis that ERR needs of the sheet",
    "unknown_concept": "the name is none of the challenge's, in any spelling",
    "spelling": "the name is a known concept in another spelling than the usual one",
    "absent_concept": "one of the challenge's concepts is not in the sheet",
    "overlap": "two targets entail or resemble each other, so that forgetting one harms retaining the other",
    "not_disjoint": "a retained or adjacent concept is a target too, and one model cannot both keep and forget it",
    "impotent": "the unmodified model does not draw the concept for this prompt, so forgetting is free",
}

MAX_TOKENS = 75
"""CLIP reads 77 tokens, two of which mark beginning and end."""

Potency = Callable[[Sequence[Question]], Sequence[float | None]]
"""Returns the share of images of the unmodified model that show what each question asks for."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One defect of one prompt or concept."""

    check: str
    """Key of `CHECKS`."""
    concept: str
    axis: str = ""
    text: str = ""
    note: str = ""
    """What exactly: the word, the other concept, the count."""


@dataclass(frozen=True, kw_only=True)
class LintReport:
    """All defects of a sheet, and the potency of its prompts where it was measured."""

    sheet: str
    sha256: str
    published: bool
    questions: int
    dropped: int
    findings: tuple[Finding, ...]
    potency: tuple[tuple[Question, float | None], ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Check -> number of findings, for every check."""
        found = Counter(f.check for f in self.findings)
        return {check: found[check] for check in CHECKS}

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "sheet": self.sheet,
            "sha256": self.sha256,
            "published": self.published,
            "questions": self.questions,
            "dropped": self.dropped,
            "counts": self.counts,
            "findings": [asdict(f) for f in self.findings],
            "potency": [
                {"concept": q.concept, "axis": q.axis, "text": q.text, "shown": share}
                for q, share in self.potency
            ],
        }


def lint(
    sheet: Sheet,
    *,
    tokens: Callable[[str], int] | None = None,
    potency: Potency | None = None,
    least_potency: float = 0.5,
) -> LintReport:
    """Return every defect of `sheet`.

    Args:
        sheet: what `prompts.challenge`, `prompts.own` or `prompts.read_sheet` return.
        tokens: counts the tokens of a text without its marks; by default words and signs, of which CLIP makes at
            least as many tokens.
        potency: draws and judges the prompts with the unmodified model; by default nothing is drawn.
        least_potency: share of images below which a prompt is impotent.

    Raises:
        InvalidInput: a `least_potency` outside [0, 1], not one share per question.
    """
    if not 0 <= least_potency <= 1:
        raise InvalidInput(f"the least potency is a share in [0, 1], got {least_potency}")
    found: list[Finding] = []
    for check in (_adversarial, _names_another, _foreign_words, _leaks, _duplicates, _encoding, _concepts):
        found += check(sheet)
    for q in sheet.questions:
        if (count := (tokens or _pieces)(q.text)) > MAX_TOKENS:
            note = f"{count} tokens" if tokens else f"at least {count} tokens"
            found.append(_of("too_long", q, f"{note}, {MAX_TOKENS} are read"))
    shares: Sequence[float | None] = () if potency is None else potency(sheet.questions)
    if potency is not None and len(shares) != len(sheet.questions):
        raise InvalidInput(f"potency gave {len(shares)} shares for {len(sheet.questions)} questions")
    shown = tuple(zip(sheet.questions, shares, strict=False))
    for q, share in shown:
        if share is not None and share < least_potency:
            found.append(_of("impotent", q, f"shown in {share:.0%} of the images of the unmodified model"))
    return LintReport(
        sheet=sheet.name,
        sha256=sheet.sha256,
        published=sheet.sha256 == CHALLENGE_SHA256,
        questions=len(sheet.questions),
        dropped=sheet.dropped,
        findings=tuple(found),
        potency=shown,
    )


def _of(check: str, q: Question, note: str = "") -> Finding:
    return Finding(check=check, concept=q.concept, axis=q.axis, text=q.text, note=note)


def _adversarial(sheet: Sheet) -> Iterator[Finding]:
    for q in sheet.of(axis="adv"):
        if _plain(q.text) in {_plain(d.text) for d in sheet.of(axis="fgt", concept=q.concept)}:
            yield _of("equals_direct", q)


def _names_another(sheet: Sheet) -> Iterator[Finding]:
    for q in sheet.questions:
        said, own = words(q.text), set(map(_plain, names_of(q.concept)))
        others = [n for t in sheet.targets if t != q.concept for n in names_of(t)]
        if q.axis == "adv":
            others += [*ELSEWHERE, *SITE_ONLY]
        hits = [n for n in others if _plain(n) not in own and n != q.asks and contains(said, n)]
        if hits:
            yield _of("names_another", q, ", ".join(dict.fromkeys(hits)))


def _foreign_words(sheet: Sheet) -> Iterator[Finding]:
    """Find beginnings of words that the adversarial prompts of half of the concepts share."""
    usual = {w[:4] for q in sheet.questions if q.axis != "adv" for w in words(q.text)} | _USUAL
    where: dict[str, dict[str, Question]] = defaultdict(dict)
    for q in sheet.of(axis="adv"):
        for w in words(q.text):
            if len(w) >= 4 and w[:4] not in usual:
                where[w[:4]].setdefault(q.concept, q)
    for beginning, found in where.items():
        if len(found) >= max(3, len(sheet.targets) / 2):
            for q in found.values():
                said = next(w for w in words(q.text) if w.startswith(beginning))
                yield _of(
                    "foreign_word",
                    q,
                    f"{said!r}: {beginning}… in {len(found)} of {len(sheet.targets)} concepts",
                )


def _leaks(sheet: Sheet) -> Iterator[Finding]:
    for q in sheet.questions:
        if q.axis in ("ind", "adv") and (told := told_by(q.concept, q.text, inside=q.axis == "adv")):
            yield _of("leaks", q, ", ".join(told))
        parts = [w for n in names_of(q.concept) for w in words(n)]
        if q.axis == "fgt" and not any(alike(w, p) for w in words(q.text) for p in parts):
            yield _of("nameless_direct", q)


def _duplicates(sheet: Sheet) -> Iterator[Finding]:
    first: dict[str, Question] = {}
    for q in sheet.questions:
        other = first.setdefault(_plain(q.text), q)
        repeats_direct = (q.concept, q.axis, other.axis) == (other.concept, "adv", "fgt")
        if other is not q and not repeats_direct:
            yield _of("duplicate", q, f"as {other.axis} of {other.concept}")


def _encoding(sheet: Sheet) -> Iterator[Finding]:
    for q in sheet.questions:
        odd = sorted(
            {c for c in q.text if not (c.isascii() and c.isprintable()) and unicodedata.category(c) in _ODD}
        )
        notes = [f"U+{ord(c):04X} {unicodedata.name(c, 'without a name')}" for c in odd]
        if unicodedata.normalize("NFC", q.text) != q.text:
            notes.append("not in Unicode's form NFC")
        if q.text != q.text.strip():
            notes.append("spaces around it")
        if notes:
            yield _of("encoding", q, "; ".join(notes))


def _concepts(sheet: Sheet) -> Iterator[Finding]:
    if sheet.escaped:
        yield Finding(check="quoting", concept="")
    known = {}
    for name in sheet.targets:
        for axis in ("fgt", "ind", "adv"):
            if not sheet.of(axis=axis, concept=name):
                yield Finding(check="missing", concept=name, axis=axis)
        found = target(name)
        if found is not None:
            known[found.name] = name
        if found is None and _plain(name) not in map(_plain, SITE_ONLY):
            yield Finding(check="unknown_concept", concept=name)
        elif usual := _USUAL_SPELLING.get(_plain(name)):
            yield Finding(check="spelling", concept=name, note=f"usually {usual}")
    if known:  # a sheet of other concepts altogether lacks none
        for absent in (t for t in TARGETS if t.name not in known):
            note = (
                "the challenge's site has Welsh Springer Spaniel here"
                if absent.name.startswith("Lab")
                else ""
            )
            yield Finding(check="absent_concept", concept=absent.name, note=note)
    targets = {_plain(spelling) for name in sheet.targets for spelling in names_of(name)}
    for q in sheet.questions:
        if q.axis in PRESERVED and _plain(q.asks) in targets:
            yield _of("not_disjoint", q, q.asks)
    for one, other in OVERLAPPING:
        if one in known and other in known:
            yield Finding(check="overlap", concept=known[one], note=known[other])


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _pieces(text: str) -> int:
    return len(re.findall(r"[^\W\d_]+|\d|[^\w\s]", text))


_USUAL_SPELLING = {
    "barbeton daisy": "Barberton Daisy",
    "aurora borialis": "Aurora Borealis",
    "scenerie": "Scenery",
}
_ODD = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "So", "Sk"})
_USUAL = {"with", "that", "from", "this", "over", "into", "pict", "phot", "imag", "pain"}
