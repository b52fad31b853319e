"""Sentence embeddings of a BERT-like encoder: the mean of its last hidden states, as sentence-transformers has it."""

import functools
from dataclasses import dataclass
from typing import Any

from unlearn_core.errors import InvalidInput
from unlearn_core.spec import fingerprint
from unlearn_metrics.errors import need


@dataclass(frozen=True, kw_only=True)
class Sbert:
    """Embeds texts with an encoder of transformers, by default TIFA's.

    Paper: Reimers and Gurevych 2019, Sentence-BERT, arXiv 1908.10084.

    Raises:
        InvalidInput: a batch below 1.
        MissingExtra: transformers is not installed.
    """

    model: str = "sentence-transformers/all-mpnet-base-v2"
    """A Hub id or a folder."""
    device: str = "auto"
    batch: int = 64

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidInput(f"a batch holds at least one text, got {self.batch}")
        need("transformers", "transformers")

    @functools.cached_property
    def revision(self) -> str:
        """Of the weights; loads them."""
        from pathlib import Path

        from unlearn_metrics.transformers_models import hash_of

        return f"sbert {Path(self.model).name} {fingerprint(hash_of(self._loaded[0]))[:16]}"

    def embed(self, texts: list[str]) -> Any:
        """Return unit vectors (n, d) float32; what is beyond the encoder's length is cut off.

        Raises:
            Unavailable: the model cannot be loaded.
        """
        import numpy as np
        import torch

        net, tokenizer = self._loaded
        parts = []
        for start in range(0, len(texts), self.batch):
            tokens = tokenizer(
                texts[start : start + self.batch], padding=True, truncation=True, return_tensors="pt"
            ).to(net.device)
            with torch.inference_mode():
                states = net(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"][..., None]
            mean = (states * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(mean, dim=-1).cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, net.config.hidden_size), np.float32)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from unlearn_metrics.transformers_models import load

        return load(self.model, "encoder", "AutoModel", "AutoTokenizer", self.device)
