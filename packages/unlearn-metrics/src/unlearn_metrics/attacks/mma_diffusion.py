"""MMA-Diffusion, its text part: prompts of other words that the text encoder takes for the attacked one.

Paper:
    Y. Yang, R. Gao, X. Wang, T.-Y. Ho, N. Xu, Q. Xu, "MMA-Diffusion: MultiModal Attack on Diffusion Models",
    CVPR 2024, arXiv 2311.17516.
Idea:
    Find tokens whose pooled embedding points where that of the target prompt does, ``min L = 1 - cos(e(Q), e(P))``,
    without sensitive words. As in GCG: the gradient of L by the one-hot tokens names the most promising ones at each
    position, candidates change one position each, and the search moves to the best of them.
Model:
    Only the text encoder is asked. Given the original model, the attack is a `transfer` attack; given the model under
    test, an `adaptive` one. They differ only where a technique edits the text encoder, and share their cache where it
    does not; hooks on condition, guidance or activations are not looked at.
Defaults:
    The official code: 20 tokens begun with random letters, 1000 steps, 512 candidates of the 256 most promising
    tokens, 10 restarts. Always the best candidate is taken, even if it is worse; the best ever seen is returned.
    `avoid="words"`: every token in which a word of the concept stands is forbidden, as with the paper's list of 18
    words, which is not shipped here; `sensitive` adds words or parts of them (theirs: "ak", "na", "ke", "nud").
    "eval-learn" is the budget that framework ships. "pocket" was chosen on pocket-sd's dog.
Deviations:
    The official code takes the gradient one position too far left (`shifted=True` does as well), lets its prompts hold
    begin and end tokens, and fails where no candidate is left; here the search stays where it is. A candidate is the
    prompt as it is read: one that is read as another number of tokens is dropped, as there. Rows of the gradient are
    not normalised: that changes no order. The prompts of the paper are not shipped: two of five name minors.
Reference code:
    https://github.com/cure-lab/MMA-Diffusion (CC BY-NC-ND 3.0): not read; written from a description of the method.
Cost:
    A step reads 513 prompts and takes one gradient of the text encoder: 5.1 million prompts for each row.
"""

import string
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn_core.concept import Concept
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.protocols import Progress
from unlearn_metrics.attacks.crafting import Crafted, Found, Step, at_least, craft
from unlearn_metrics.attacks.target import TextModel, check_length, framed, hidden_states, pooled
from unlearn_metrics.attacks.vocabulary import Avoid, Vocabulary


@dataclass(frozen=True, kw_only=True)
class MMADiffusion:
    """MMA-Diffusion: a token-gradient search for prompts of other words with the attacked one's embedding."""

    tokens: int = 20
    steps: int = 1000
    candidates: int = 512
    """Prompts tried per step."""
    topk: int = 256
    """Most promising tokens of a position."""
    restarts: int = 10
    """Rows made of each row."""
    avoid: Avoid = "words"
    sensitive: tuple[str, ...] = ()
    """Further words, or parts of words, that the prompt may not contain."""
    whole_words: bool = False
    """Whether only tokens are drawn that are read as themselves when written down."""
    shifted: bool = False
    """Whether a position goes by the gradient of the one before it, as in the official code."""
    batch: int = 512
    """Prompts read at a time."""

    name: ClassVar[str] = "mma_diffusion"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {},
        "style": {},
        "unsafe": {},
        "official": {"shifted": True, "sensitive": ("ak", "na", "ke", "nud")},
        "eval-learn": {"restarts": 5},
        "pocket": {
            "tokens": 5, "steps": 25, "candidates": 64, "topk": 64, "restarts": 1, "avoid": "name", "whole_words": True,
        },
        "pocket-style": {
            "tokens": 6, "steps": 25, "candidates": 64, "topk": 64, "restarts": 1, "avoid": "name", "whole_words": True,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        at_least(1, self, "tokens", "steps", "candidates", "topk", "restarts", "batch")

    def craft(
        self,
        model: TextModel,
        prompts: PromptSet,
        *,
        seed: int,
        progress: Progress | None = None,
        concept: Concept | None = None,
    ) -> Crafted:
        """Return `restarts` prompts for each row of `prompts`, in the group "mma_diffusion"; see `crafting.craft`.

        Raises:
            InvalidInput: more tokens than the model reads.
        """
        check_length(model, self.tokens)

        def prepare(about: Concept) -> tuple[Vocabulary, Tensor]:
            words = Vocabulary.for_attack(self, model, about)
            return words, words.vectors(model)

        def search(row: Prompt, prepared: Any, generator: torch.Generator, step: Step) -> Found:
            with torch.no_grad():
                ids = model.tokens([row.text])
                target = pooled(model, ids, model.encode([row.text]).float())[0]
            return self.search(model, *prepared, target, generator, step)

        return craft(
            self, model, prompts, seed=seed, concept=concept, prepare=prepare, search=search,
            steps=self.steps, tries=self.restarts, progress=progress,
        )  # fmt: skip

    def search(
        self,
        model: TextModel,
        words: Vocabulary,
        table: Tensor,
        target: Tensor,
        generator: torch.Generator,
        step: Step = lambda: None,
    ) -> Found:
        """Return the prompt whose pooled embedding points nearest to `target` (width,) float32.

        Args:
            model: under attack.
            words: tokens that may be drawn.
            table: their vectors (m, width) float32.
            target: pooled embedding.
            generator: of all random choices.
            step: called after each.
        """
        ids = self._start(words, generator)
        text = words.texts(ids[None])[0]
        best, best_text, best_loss = ids, text, float(self._losses(model, ids[None], target))
        places = torch.arange(self.candidates) * self.tokens // self.candidates
        evaluations = 1
        for _ in range(self.steps):
            promising = self._promising(model, words, table, ids, target)
            picks = torch.randint(promising.shape[1], places.shape, generator=generator)
            changed = ids.repeat(len(places), 1)
            changed[torch.arange(len(places)), places] = promising[places, picks]
            if found := self._readable(words, changed, text):
                read = torch.tensor(list(found.values()))
                losses = self._losses(model, read, target)
                at = int(losses.argmin())
                ids, text = read[at], list(found)[at]
                if losses[at] < best_loss:
                    best, best_text, best_loss = ids, text, float(losses[at])
                evaluations += len(read) + 1
            step()
        read_loss = float(cosine_losses(model, model.tokens([best_text]), target, self.batch))
        return Found(
            text=best_text, ids=tuple(best.tolist()), read=tuple(words.read([best_text])[0]), loss=best_loss,
            read_loss=read_loss, evaluations=evaluations,
        )  # fmt: skip

    def _start(self, words: Vocabulary, generator: torch.Generator) -> Tensor:
        """Return ids (tokens,) of random letters, each a token, or of random words where letters are forbidden."""
        allowed = set(words.ids.tolist())
        read = words.read(list(string.ascii_lowercase))
        letters = [back[0] for back in read if len(back) == 1 and back[0] in allowed]
        ids = torch.tensor(letters) if letters else words.ids
        return ids[torch.randint(len(ids), (self.tokens,), generator=generator)]

    def _promising(
        self, model: TextModel, words: Vocabulary, table: Tensor, ids: Tensor, target: Tensor
    ) -> Tensor:
        """Return for each position the ids (tokens, topk) whose one-hot entries the loss falls fastest along."""
        gradient = one_hot_gradient(model, framed(model, ids[None]), table, target)
        first = 0 if self.shifted else 1  # position 0 of what is read is the begin token
        falls = gradient[first : first + self.tokens].topk(min(self.topk, len(table)), largest=False).indices
        return words.ids[falls.cpu()]

    def _readable(self, words: Vocabulary, ids: Tensor, current: str) -> dict[str, list[int]]:
        """Return prompt -> ids as read, of those that are read as so many tokens, and none of them forbidden."""
        allowed = set(words.ids.tolist())
        texts = [text for text in dict.fromkeys(words.texts(ids)) if text != current]
        return {
            text: read
            for text, read in zip(texts, words.read(texts), strict=True)
            if len(read) == self.tokens and allowed.issuperset(read) and not words.says_forbidden(text)
        }

    def _losses(self, model: TextModel, ids: Tensor, target: Tensor) -> Tensor:
        return cosine_losses(model, framed(model, ids), target, self.batch)


@torch.no_grad()
def cosine_losses(model: TextModel, ids: Tensor, target: Tensor, batch: int) -> Tensor:
    """Return ``1 - cos(pooled, target)`` of ids (n, tokens) and a target (width,), (n,) in [0, 2] on the CPU."""
    states = hidden_states(model, ids, batch)
    return torch.cat([_loss(pooled(model, some, found), target) for some, found in states]).cpu()


def one_hot_gradient(model: TextModel, ids: Tensor, table: Tensor, target: Tensor) -> Tensor:
    """Return the gradient (tokens, m) of the loss of ids (1, tokens) by one-hot entries of m tokens per position.

    A one-hot row times the table is a vector, so the gradient by the row is the table times that by the vector.
    """
    vectors = model.token_vectors(ids).detach().requires_grad_()
    loss = _loss(pooled(model, ids, model.encode_vectors(ids, vectors).float()), target).sum()
    (gradient,) = torch.autograd.grad(loss, vectors)
    return gradient[0].float() @ table.T


def _loss(embeddings: Tensor, target: Tensor) -> Tensor:
    return 1 - torch.cosine_similarity(embeddings, target[None], dim=1)
