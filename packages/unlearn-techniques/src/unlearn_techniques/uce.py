"""UCE: Unified Concept Editing.

Paper:
    R. Gandikota, H. Orgad, Y. Belinkov, J. Materzyńska, D. Bau, "Unified Concept Editing in Diffusion Models",
    WACV 2024, arXiv 2308.14761.
Idea:
    Keys and values of the cross-attention are linear in the text. Solve, for each matrix W, for the one that gives the
    anchor's output where the text says the concept and its old output where it says anything to be preserved:
    ``W' = (e sum W r c^T + p sum W q q^T + lamb W) (e sum c c^T + p sum q q^T + lamb I)^-1``. One solve serves all
    matrices: ``W' = W M`` (`diffusion.ridge`).
Changes:
    Weights: every `attn2.to_k` and `attn2.to_v` of the UNet (32 in SD v1.4).
Defaults:
    lamb 0.5 and erase_scale 1: both official codes. variant "2025": head 28c81ed; "2023": f7222e6, the paper's.
    preserve_scale: 1 (2025), max(0.1, 1/number of preserved prompts) (2023). Preserving the concept's neighbours is
    ours, `preserve_adjacent=False` leaves it out. Presets: object -> "" and style -> "art" as in the paper's tables
    and the 2025 script, nudity "violence, nudity, harm" -> "" (paper, section 5.3). "pocket" and
    "pocket-style" were chosen on pocket-sd's dog, pistol and sketch style. "pocket-multi", for several concepts in one
    solve, weighs what is preserved as the 2023 code would: the neighbours of all would hold back each one's edit.
Deviations:
    Solved in float64 (official: float32 inverse, percents off with hundreds of preserved prompts). The paper's formula
    has no lamb, both codes do. Templates may hold words after the concept; the official codes read its last word token
    at the end of the prompt, which is the same for theirs. Debiasing is left out: it needs generated pictures.
Reference code:
    https://github.com/rohitgandikota/unified-concept-editing (MIT), read, not copied.
Cost:
    Passes of the text encoder and one 768 x 768 solve: 3.6 s for SD v1.4's 32 matrices on two CPU cores, float32, and
    0.25 GiB beyond the model; 12 s for the 2023 variant with six templates (benchmarks/records/techniques_sd14.json).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_techniques.diffusion.attention import text_projections
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.ridge import change_of_reading, ridge_edit
from unlearn_techniques.diffusion.weights import with_weights


@dataclass(frozen=True, kw_only=True)
class UCE:
    """Unified Concept Editing: a closed form for the keys and values of the cross-attention."""

    variant: Literal["2025", "2023"] = "2025"
    """Which vectors stand for a concept: its last word token, or all rows from there to the padding's end."""
    edit: Literal["replace", "erase", "tensor"] = "replace"
    """What is read instead: the anchor; the empty prompt; the anchor less what it shares with the concept."""
    anchor: str | None = None
    """In place of the concept's own anchor."""
    lamb: float = 0.5
    erase_scale: float = 1.0
    preserve_scale: float | None = None
    preserve: tuple[str, ...] = ()
    """Words whose output stays."""
    preserve_adjacent: bool = True
    """Whether the concept's neighbours are preserved as well."""
    phrases: bool = False
    """Whether the concept's other words are edited like its name."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a word; the paper's optional expansion adds "image of {}", "photo of {}" and others."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {"edit": "erase"},
        "style": {"anchor": "art"},
        "unsafe": {"edit": "erase"},
        "paper": {"variant": "2023", "edit": "erase"},
        "pocket": {"lamb": 10.0, "templates": ("a {}",)},
        "pocket-multi": {"lamb": 10.0, "templates": ("a {}",), "preserve_scale": 0.1},
        "pocket-style": {
            "lamb": 10.0, "templates": ("a dog, {} style", "an apple, {} style", "a house, {} style, blue background"),
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.lamb <= 0 or min(self.erase_scale, self.preserve_scale or 0) < 0:
            raise InvalidInput(
                "UCE: lamb is above 0, erase_scale and preserve_scale are at least 0; got "
                f"{self.lamb}, {self.erase_scale}, {self.preserve_scale}"
            )
        if not self.templates or any(t.count("{}") != 1 for t in self.templates):
            raise InvalidInput(f"UCE: each template has one {{}} for the word, got {self.templates}")

    def check(self, concepts: Sequence[Concept]) -> None:
        """Check what can be checked without a model.

        Raises:
            InvalidInput: a concept without anchor.
        """
        for concept in concepts:
            self._anchor(concept)

    @torch.no_grad()
    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model that reads the anchor where a text says one of `concepts`; `seed` is not used.

        Raises:
            InvalidInput: a concept without anchor, or a UNet whose projections are fused or adapted.
        """
        projections = text_projections(model.unet)
        edited, read, kept_words = [], [], dict.fromkeys(self.preserve)
        forgotten = {word for c in concepts for word in (c.names if self.phrases else (c.name,))}
        for concept in concepts:
            anchor = self._anchor(concept)
            for word in concept.names if self.phrases else (concept.name,):
                for template in self.templates:
                    c, r = self._rows(model, template, word), self._rows(model, template, anchor)
                    n = min(len(c), len(r))
                    edited.append(c[:n])
                    read.append(r[:n])
            kept_words |= dict.fromkeys(concept.adjacent if self.preserve_adjacent else ())
        prompts = [(t, w) for w in kept_words if w not in forgotten for t in self.templates]
        kept = self._kept(model, prompts)
        default = 1.0 if self.variant == "2025" else max(0.1, 1 / (len(prompts) + 1))
        scales = {
            "lamb": self.lamb,
            "erase": self.erase_scale,
            "preserve": default if self.preserve_scale is None else self.preserve_scale,
        }
        c, r = torch.cat(edited), torch.cat(read)
        changes = {}
        if self.edit == "tensor":
            for name, linear in projections.items():
                w = linear.weight.double()
                wanted = [_orthogonal(b @ w.T, a @ w.T) for a, b in zip(edited, read, strict=True)]
                changes[f"{name}.weight"] = ridge_edit(w, c, torch.cat(wanted), kept, **scales)
        else:
            m = change_of_reading(c, r, kept, **scales)
            changes = {f"{name}.weight": linear.weight.double() @ m for name, linear in projections.items()}
        return dataclasses.replace(model, unet=with_weights(model.unet, changes))

    def _anchor(self, concept: Concept) -> str:
        if self.edit == "erase":
            return ""
        anchor = concept.anchor if self.anchor is None else self.anchor
        if not anchor:
            raise InvalidInput(
                f"UCE(edit={self.edit!r}): the concept {concept.name!r} has no anchor; set anchor=WORD, what it is to "
                "become, or edit=erase"
            )
        return anchor

    def _rows(self, model: StableDiffusion, template: str, word: str) -> Tensor:
        """Return the vectors (n, width) float64 that stand for `word` in a prompt; "" stands for an empty prompt."""
        before, _, after = template.partition("{}")
        # BOS is row 0, so the last token of the word has the number of tokens up to it.
        last = len(model.tokenizer(before + word, add_special_tokens=False).input_ids) if word else 0
        rows = model.encode([before + word + after if word else ""])[0, last:].double()
        if not len(rows):
            raise InvalidInput(
                f"UCE: {before + word!r} is longer than the {model.tokenizer.model_max_length} tokens read"
            )
        return rows[:1] if self.variant == "2025" else rows

    def _kept(self, model: StableDiffusion, prompts: Sequence[tuple[str, str]]) -> Tensor:
        """Return the vectors (m, width) float64 of what is preserved: last tokens, or every row, "" included."""
        if self.variant == "2025":
            none = torch.empty(0, model.unet.config.cross_attention_dim, device=model.device).double()
            return torch.cat([none, *(self._rows(model, template, word) for template, word in prompts)])
        texts = ["", *(template.format(word) for template, word in prompts)]
        return torch.cat([model.encode([text])[0] for text in texts]).double()


def _orthogonal(wanted: Tensor, u: Tensor) -> Tensor:
    """Return `wanted` without its projection on u, both (n, out), over the whole block of tokens."""
    u = u / u.norm()
    return wanted - (wanted * u).sum() * u
