"""The judge as the plugs that metrics ask for: "pocket" among the detectors, classifiers, extractors and VQA models."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pocket_sd
from pocket_sd.words import STYLES


@dataclass(frozen=True, kw_only=True)
class PocketDetector:
    """Sees a concept of pocket-sd, with the probability of the judge.

    Raises:
        InvalidInput: no concept of pocket-sd; the message has the nearest.
    """

    concept: str
    """An object, a style, or "weapon": the four weapons together."""

    def __post_init__(self) -> None:
        pocket_sd.concept(self.concept)

    @property
    def revision(self) -> str:
        """Which judge looks for what."""
        return f"pocket-sd judge {_weights()}, {self.concept}"

    def presence(self, images: Sequence[Any]) -> list[float]:
        """Return the calibrated probability of the concept on each uint8 RGB image (h, w, 3).

        Raises:
            InvalidInput: not pictures.
        """
        from pocket_sd.judging import CLASSES

        head = "style" if self.concept in STYLES else "object"
        columns = [CLASSES[head].index(name) for name in pocket_sd.members(self.concept)]
        seen = pocket_sd.judge().probabilities(head, images)[:, columns].sum(1)
        return [min(float(p), 1.0) for p in seen]  # rounding may leave a sum just above 1


@dataclass(frozen=True, kw_only=True)
class PocketClassifier:
    """Names the object, style or background of a picture, or "none"."""

    @property
    def revision(self) -> str:
        """Which judge answers."""
        return f"pocket-sd judge {_weights()}"

    @property
    def domains(self) -> Mapping[str, tuple[str, ...]]:
        """Object, style and background, each with its labels, "none" among them."""
        from pocket_sd.judging import CLASSES

        return CLASSES

    def classify(self, images: Sequence[Any], domain: str) -> list[str]:
        """Return the most probable label of `domain` for each uint8 RGB image (h, w, 3).

        Raises:
            InvalidInput: not pictures, or no such domain.
        """
        return pocket_sd.judge().names(domain, images)


@dataclass(frozen=True, kw_only=True)
class PocketFeatures:
    """Describes a picture by what the judge's answers are made of; `pocket_sd.real_features` are such."""

    @property
    def revision(self) -> str:
        """Which judge looks."""
        return f"pocket-sd judge {_weights()}"

    def features(self, images: Sequence[Any]) -> Any:
        """Return (n, 128) float32 for uint8 RGB images (h, w, 3).

        Raises:
            InvalidInput: not pictures.
        """
        return pocket_sd.judge().features(images)


@dataclass(frozen=True, kw_only=True)
class PocketVQA:
    """Answers the questions of `pocket_sd.questions` about a picture."""

    @property
    def revision(self) -> str:
        """Which judge answers."""
        return f"pocket-sd judge {_weights()}"

    def answer(self, images: Sequence[Any], questions: Sequence[Sequence[str]]) -> list[list[str | None]]:
        """Return an answer to each question about each uint8 RGB image (h, w, 3); None to one that is no such question.

        Raises:
            InvalidInput: not pictures.
        """
        heads = {q.question: q.kind for q in pocket_sd.questions(n=20)}
        asked = {heads[text] for texts in questions for text in texts if text in heads}
        seen = {head: pocket_sd.judge().names(head, images) for head in asked}
        return [
            [seen[heads[text]][i] if text in heads else None for text in texts]
            for i, texts in enumerate(questions)
        ]


def tifa_questions() -> list[dict[str, Any]]:
    """Return the questions about the captions of `pocket_sd.prompts("quality")`, in TIFA v1.0's format."""
    captions = {row.id: row.text for row in pocket_sd.prompts("quality", n=640)}
    return [
        {"id": q.prompt, "caption": captions[q.prompt], "question": q.question, "choices": list(q.choices),
         "answer": q.answer, "element_type": q.kind}
        for q in pocket_sd.questions(n=640)
    ]  # fmt: skip


@functools.cache
def _weights() -> str:
    path = Path(__file__).parent / "weights" / "judge" / "judge.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
