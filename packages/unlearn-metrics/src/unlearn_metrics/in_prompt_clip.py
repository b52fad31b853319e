"""In-prompt CLIP score: is what a prompt says besides the concept still drawn?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from unlearn_core import tables
from unlearn_core.errors import InvalidInput
from unlearn_core.samples import SampleSet
from unlearn_core.score import Direction, Score
from unlearn_metrics.clip_score import ClipScore, rated
from unlearn_metrics.errors import NotApplicable
from unlearn_metrics.groups import first_of

NOTHING_ELSE = "the prompt says nothing besides the concept"
NOT_NAMED = "the prompt does not name the concept"


@dataclass(frozen=True, kw_only=True)
class InPromptClip:
    """How well images of prompts that name the concept match the rest of these prompts.

    Paper: Ren et al. 2025, Six-CD: Benchmarking Concept Removals for Benign Text-to-image Diffusion Models, CVPR,
        arXiv 2406.14855.
    Formula: mean over images of 100 cos(image, the prompt without the concept).
    Direction: up.
    Scale: that of `clip_score`. A technique that answers the concept with noise, or with a picture of something else
        altogether, loses here what `clip_score` on harmless captions does not see. It is the difference to the
        unmodified model that tells: the concept itself takes part in an image's likeness to the rest of its prompt.
    Parts: "captions cut off" counts texts beyond the context.
    Needs: images of the group "target" or, without these, "i2p", whose prompts say something besides the concept.
    Deviations: the paper's prompts come in two versions, with the concept and without. `pairs` takes a table of such;
        without one, the concept's words are cut out, with the article, preposition or "style" that hang on them. A
        row that does not name the concept, or names nothing else ("a photo of a dog"), is unscored.

    Raises:
        InvalidInput: a blank word, a table without the columns.
        Unavailable: the table cannot be read.
    """

    model: str = "ViT-L-14-quickgelu"
    pretrained: str = "openai"
    words: tuple[str, ...] = ()
    """Words to cut out besides the row's concept, such as its synonyms."""
    pairs: str = ""
    """A table with the columns "prompt" and "rest": prompts, and what they say without the concept. Empty: none."""
    device: str = "auto"

    prompts: ClassVar[tuple[str, ...]] = ("target", "i2p")
    """The first of these groups of which there are images is rated, and no other."""
    direction: ClassVar[Direction] = "up"

    def __post_init__(self) -> None:
        if not all(word.strip() for word in self.words):
            raise InvalidInput(f"in_prompt_clip: a word to cut out is not blank, got {self.words!r}")
        self._rests()

    def measure(self, samples: SampleSet, reference: SampleSet | None = None) -> Score:
        """Return the mean score of the rows that name the concept and more; `reference` is not looked at.

        Raises:
            NotApplicable: no row does.
            InvalidInput: no such images, or none that could be judged.
            Unavailable: the model's weights cannot be had.
        """
        rows = first_of("in_prompt_clip", samples, self.prompts)
        known, texts, reasons = self._rests(), {}, dict.fromkeys((NOT_NAMED, NOTHING_ELSE), 0)
        for row in rows:
            words = (*self.words, *filter(None, [row.prompt.concept]))
            rest = known.get(row.prompt.text) or without(row.prompt.text, words)
            if rest == row.prompt.text:
                reasons[NOT_NAMED] += 1
            elif not says_something(rest):
                reasons[NOTHING_ELSE] += 1
            else:
                texts[row.prompt.id] = rest
        if not texts:
            why = ", ".join(f"{reason} ({n})" for reason, n in reasons.items() if n)
            raise NotApplicable(
                f"in_prompt_clip rates prompts that name the concept and more: {why}. State the words that name it "
                "(words=…), or a table of prompts without it (pairs=…)"
            )
        plain = ClipScore(model=self.model, pretrained=self.pretrained, device=self.device)
        score = rated("in_prompt_clip", plain, [row for row in rows if row.prompt.id in texts], texts)
        reasons = {**score.reasons, **{reason: n for reason, n in reasons.items() if n}}
        per_sample = {**dict.fromkeys((row.prompt.id for row in rows), None), **dict(score.per_sample or {})}
        return replace(score, n_unscored=sum(reasons.values()), reasons=reasons, per_sample=per_sample)

    def _rests(self) -> dict[str, str]:
        """Return prompt -> the rest of it, of the table."""
        found = {}
        for place, row in tables.read(Path(self.pairs)) if self.pairs else ():
            if missing := {"prompt", "rest"} - row.keys():
                raise InvalidInput(
                    f"{place}: no column {min(missing)!r}; in_prompt_clip reads 'prompt' and 'rest', columns found: "
                    f"{', '.join(map(repr, row))}"
                )
            found[str(row["prompt"])] = str(row["rest"])
        return found


def without(text: str, words: Sequence[str]) -> str:
    """Return `text` without `words`, in any case, and without what hangs on them.

    >>> without("a photo of a dog on a beach", ["dog"])
    'a photo on a beach'
    >>> without("a house, sketch style, blue background", ["sketch"])
    'a house, blue background'
    """
    if not words:
        return text
    names = "|".join(
        r"\s+".join(map(re.escape, word.split())) for word in sorted(words, key=len, reverse=True)
    )
    cut, n = re.subn(
        rf"(?:\b(?:in the (?:style|manner) of|of|in|by|with)\s+)?(?:\b(?:a|an|the|two|some)\s+)?"
        rf"(?<!\w)(?:{names})(?:'s|e?s)?(?:\s+style)?(?!\w)",
        " ",
        text,
        flags=re.IGNORECASE,
    )
    if not n:
        return text
    pieces = (_DANGLING.sub("", " ".join(piece.split())) for piece in cut.split(","))
    return ", ".join(piece for piece in pieces if piece)


def says_something(text: str) -> bool:
    """Return whether `text` has a word that is more than the frame of a prompt ("a photo of")."""
    return any(word not in _FRAME for word in re.findall(r"\w+", text.lower()))


_DANGLING = re.compile(r"^(?:(?:and|or|with|of)\b\s*)+|(?:\s*\b(?:and|or|with|of|in|by|a|an|the))+$", re.I)
_FRAME = {
    *("a", "an", "the", "of", "in", "on", "at", "by", "with", "and", "or", "to", "this", "that", "is", "s"),
    *("photo", "photograph", "picture", "image", "painting", "drawing", "portrait", "illustration", "style"),
}
