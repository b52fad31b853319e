"""VQA models of transformers: BLIP, which writes its answer, and ViLT, which chooses among 3,129 answers."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_core.errors import InvalidInput
from unlearn_core.spec import fingerprint
from unlearn_metrics.errors import need

CLASSES = {"blip": "BlipForQuestionAnswering", "vilt": "ViltForQuestionAnswering"}
"""Type of a model -> its class in transformers."""
LONGEST = 10
"""Tokens of an answer, as in BLIP's own code."""


@dataclass(frozen=True, kw_only=True)
class TransformersVQA:
    """Answers questions with a VQA model of transformers, by default BLIP fine-tuned on VQAv2.

    Paper: Li et al. 2022, BLIP, arXiv 2201.12086; Kim et al. 2021, ViLT, arXiv 2102.03334.
    Deviations: the likeliest word is taken at each step; BLIP's own code searches three beams.

    Raises:
        InvalidInput: a batch below 1.
        MissingExtra: transformers is not installed.
    """

    model: str = "Salesforce/blip-vqa-base"
    """A Hub id or a folder, such as Salesforce/blip-vqa-capfilt-large or dandelin/vilt-b32-finetuned-vqa."""
    device: str = "auto"
    batch: int = 16
    """Questions that the model sees at once; changes nothing but the time."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidInput(f"a batch holds at least one question, got {self.batch}")
        need("transformers", "transformers")

    @functools.cached_property
    def revision(self) -> str:
        """Of weights and preprocessing; loads the model."""
        from unlearn_metrics.transformers_models import hash_of

        net, processor = self._loaded
        how = {k: str(v) for k, v in processor.to_dict().items()}
        return f"{self._kind} {Path(self.model).name} {fingerprint([hash_of(net), how])[:16]}"

    def answer(self, images: Sequence[Any], questions: Sequence[Sequence[str]]) -> list[list[str | None]]:
        """Return an answer to each question of each uint8 RGB image (h, w, 3); None where it is empty.

        Raises:
            InvalidInput: a model that is no VQA model.
            Unavailable: it cannot be loaded.
        """
        pairs = [(i, text) for i, each in enumerate(questions) for text in each]
        answers: list[str | None] = []
        for start in range(0, len(pairs), self.batch):
            part = pairs[start : start + self.batch]
            answers += self._answer([images[i] for i, _ in part], [text for _, text in part])
        rest = iter(answers)
        return [list(itertools.islice(rest, len(each))) for each in questions]

    def _answer(self, images: list[Any], texts: list[str]) -> list[str | None]:
        import torch
        from PIL import Image

        net, processor = self._loaded
        pictures = [Image.fromarray(image).convert("RGB") for image in images]
        inputs = processor(
            images=pictures, text=texts, padding=True, truncation=True, return_tensors="pt"
        ).to(net.device)
        with torch.inference_mode():
            if self._kind == "vilt":
                found = net(**inputs).logits.argmax(-1)
                said = [str(net.config.id2label[int(i)]) for i in found]
            else:
                found = net.generate(**inputs, max_new_tokens=LONGEST, do_sample=False, num_beams=1)
                said = processor.batch_decode(found, skip_special_tokens=True)
        return [text.strip() or None for text in said]

    @functools.cached_property
    def _kind(self) -> str:
        from unlearn_metrics.transformers_models import kind_of

        kind = kind_of(self.model)
        if kind not in CLASSES:
            raise InvalidInput(
                f"{self.model!r} is of the type {kind!r}, which is none of {', '.join(CLASSES)}; "
                "models that chat about images are the plugin chat"
            )
        return kind

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from unlearn_metrics.transformers_models import load

        return load(self.model, "VQA model", CLASSES[self._kind], "AutoProcessor", self.device)
