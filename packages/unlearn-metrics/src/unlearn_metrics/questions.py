"""Questions about images in TIFA v1.0's format, and what answers them.

A file is a JSON list (or JSONL) of {"id", "caption", "question", "choices", "answer", "element_type"}, as
`tifa_v1.0/tifa_v1.0_question_answers.json` of github.com/Yushi-Hu/tifa (Apache-2.0); other keys are ignored. A plugin
of the group `unlearn.questions` is a function without arguments that returns such mappings.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from unlearn_core import registry, tables
from unlearn_core.errors import InvalidInput, Unavailable, one_of
from unlearn_core.prompts import Prompt

GROUP = "unlearn.questions"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about the images of a caption, with the answers to choose from."""

    id: str
    """Of the caption."""
    caption: str
    """The text that was drawn; "" where `id` is that of the row."""
    text: str
    choices: tuple[str, ...]
    answer: str
    """The choice that is right if the image shows what the caption says."""
    kind: str
    """What is asked for: "object", "color", "counting", …"""


@runtime_checkable
class VQA(Protocol):
    """Answers questions about images: a plugin of the group `unlearn.vqa`."""

    revision: str
    """Of the model and of how it is asked."""

    def answer(
        self, images: Sequence[Any], questions: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[str | None]]:
        """Return an answer to each question of each uint8 RGB image (h, w, 3); None where there is none."""
        ...


def load_questions(source: str | Path) -> tuple[Question, ...]:
    """Return the questions of a plugin or of a file.

    Raises:
        Unavailable: there is no such file.
        InvalidInput: no such plugin either, or a file that does not hold questions; the message says where.
    """
    known = registry.names(GROUP)
    if str(source) in known:
        found = [
            (f"{source}, question {n}", each) for n, each in enumerate(registry.load(GROUP, str(source))(), 1)
        ]
    elif Path(source).suffix.lower() in (".json", ".jsonl"):
        found = list(_read(Path(source)))
    else:
        plugin = one_of("plugin of questions", str(source), known)
        raise InvalidInput(f"questions are a .json or .jsonl file in TIFA's format, or a plugin: {plugin}")
    if not found:
        raise InvalidInput(f"{str(source)!r} holds no questions")
    return tuple(_question(each, place) for place, each in found)


class Asked:
    """Which questions are about which row: those of its text, and those without a caption under its id."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self._by_key: dict[tuple[str, str], dict[str, Question]] = {}
        for question in questions:
            key = ("caption", question.caption.strip()) if question.caption.strip() else ("id", question.id)
            self._by_key.setdefault(key, {})[question.text] = question

    def about(self, prompt: Prompt) -> tuple[Question, ...]:
        """Return the questions about the images of `prompt`, each once; possibly none."""
        of_text = self._by_key.get(("caption", prompt.text.strip()), {})
        return tuple({**of_text, **self._by_key.get(("id", prompt.id), {})}.values())


def _read(path: Path) -> Iterable[tuple[str, Any]]:
    if path.suffix.lower() == ".jsonl":
        return tables.read(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Unavailable(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{str(path)!r} is no JSON in UTF-8: {error}") from None
    if not isinstance(found, list):
        raise InvalidInput(f"{str(path)!r}: questions are a JSON list, got {type(found).__name__}")
    return [(f"{str(path)!r}, question {n}", each) for n, each in enumerate(found, 1)]


def _question(mapping: Any, place: str) -> Question:
    if not isinstance(mapping, Mapping):
        raise InvalidInput(f"{place}: a question is a mapping, got {type(mapping).__name__}")
    for key in ("id", "question", "choices", "answer"):
        if key not in mapping:
            raise InvalidInput(
                f"{place}: no {key!r}; a question has id, caption, question, choices and answer"
            )
    choices = mapping["choices"]
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise InvalidInput(f"{place}: 'choices' is a list of texts, got {choices!r}")
    question = Question(
        id=str(mapping["id"]),
        caption=str(mapping.get("caption") or ""),
        text=str(mapping["question"]),
        choices=tuple(map(str, choices)),
        answer=str(mapping["answer"]),
        kind=str(mapping.get("element_type") or "other"),
    )
    if not question.text.strip():
        raise InvalidInput(f"{place}: the question is blank")
    if len(question.choices) < 2 or question.answer not in question.choices:
        raise InvalidInput(
            f"{place}: the answer is one of two or more choices, got {question.answer!r} of "
            f"{', '.join(map(repr, question.choices)) or 'none'}"
        )
    return question
