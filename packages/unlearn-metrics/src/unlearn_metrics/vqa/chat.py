"""Models that chat about images, asked for an answer in a few words: SmolVLM, Qwen-VL, LLaVA and their kind."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_core.errors import InvalidInput
from unlearn_core.spec import fingerprint
from unlearn_metrics.errors import need

LONGEST = 16
"""Tokens of an answer."""


@dataclass(frozen=True, kw_only=True)
class ChatVQA:
    """Answers questions with a chat model of transformers that sees images.

    Raises:
        InvalidInput: a batch below 1, an instruction without ``{}``.
        MissingExtra: transformers is not installed.
    """

    model: str
    """A Hub id or a folder, such as HuggingFaceTB/SmolVLM-256M-Instruct."""
    instruction: str = "{} Answer in one or two words."
    """What is asked; ``{}`` is the question."""
    device: str = "auto"
    batch: int = 8
    """Questions that the model sees at once."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidInput(f"a batch holds at least one question, got {self.batch}")
        if self.instruction.count("{}") != 1:
            raise InvalidInput(
                f"an instruction has one {{}} where the question goes, got {self.instruction!r}"
            )
        need("transformers", "transformers")

    @functools.cached_property
    def revision(self) -> str:
        """Of weights, preprocessing and instruction; loads the model."""
        from unlearn_metrics.transformers_models import hash_of

        net, processor = self._loaded
        how = {k: str(v) for k, v in processor.to_dict().items()}
        what = [hash_of(net), how, str(processor.chat_template), self.instruction]
        return f"chat {Path(self.model).name} {fingerprint(what)[:16]}"

    def answer(self, images: Sequence[Any], questions: Sequence[Sequence[str]]) -> list[list[str | None]]:
        """Return an answer to each question of each uint8 RGB image (h, w, 3); None where it is empty.

        Raises:
            InvalidInput: a model that does not chat.
            Unavailable: it cannot be loaded.
        """
        pairs = [(images[i], text) for i, each in enumerate(questions) for text in each]
        answers: list[str | None] = []
        for start in range(0, len(pairs), self.batch):
            answers += self._answer(pairs[start : start + self.batch])
        rest = iter(answers)
        return [list(itertools.islice(rest, len(each))) for each in questions]

    def _answer(self, pairs: Sequence[tuple[Any, str]]) -> list[str | None]:
        import torch
        from PIL import Image

        net, processor = self._loaded
        texts = [
            processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": said}]}],
                add_generation_prompt=True,
            )
            for said in (self.instruction.format(text) for _, text in pairs)
        ]
        pictures = [[Image.fromarray(image).convert("RGB")] for image, _ in pairs]
        inputs = processor(images=pictures, text=texts, padding=True, return_tensors="pt").to(net.device)
        with torch.inference_mode():
            found = net.generate(**inputs, max_new_tokens=LONGEST, do_sample=False, num_beams=1)
        said = processor.batch_decode(found[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() or None for text in said]

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from unlearn_metrics.transformers_models import load

        net, processor = load(
            self.model, "chat model", "AutoModelForImageTextToText", "AutoProcessor", self.device
        )
        if not getattr(processor, "chat_template", None):
            raise InvalidInput(f"{self.model!r} has no chat template: it does not chat")
        # Answers begin where the prompts end, in all rows of a batch alike.
        processor.tokenizer.padding_side = "left"
        return net, processor
