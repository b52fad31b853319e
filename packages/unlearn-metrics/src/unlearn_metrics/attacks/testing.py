"""A model that reads, of random weights and real classes, and what every attack has to do: for tests, ours and yours.

def test_my_attack():
    check_attack(MyAttack(steps=2), tiny_reader(), rows("a dog", "a cat"))
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.testing.settings import check_settings, require
from unlearn_metrics.origins import raw_ids

WORDS = (
    "dog",
    "puppy",
    "cat",
    "wolf",
    "car",
    "house",
    "photo",
    "park",
    "blue",
    "style",
    "sketch",
    "thing",
    "snow",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class TinyReader:
    """A text encoder of 16 tokens and 32 dimensions with its tokenizer, as an attack sees a model."""

    text_encoder: Any
    tokenizer: Any
    fingerprint: str = "tiny"

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return ids (n, 16)."""
        return self.tokenizer(  # type: ignore[no-any-return]
            list(texts), padding="max_length", max_length=16, truncation=True, return_tensors="pt"
        ).input_ids

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the last hidden states (n, 16, 32)."""
        return self.text_encoder(self.tokens(texts)).last_hidden_state  # type: ignore[no-any-return]

    def token_vectors(self, ids: Tensor) -> Tensor:
        """Return the vocabulary's vectors (n, tokens, 32)."""
        return self.text_encoder.get_input_embeddings()(ids)  # type: ignore[no-any-return]

    def encode_vectors(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """Return the last hidden states of vectors in place of those of the ids."""
        table = self.text_encoder.get_input_embeddings()
        handle = table.register_forward_hook(lambda module, inputs, output: vectors)
        try:
            return self.text_encoder(ids).last_hidden_state  # type: ignore[no-any-return]
        finally:
            handle.remove()


@functools.cache
def tiny_reader(seed: int = 0) -> TinyReader:
    """Return the model; every letter and each of `WORDS` is a token.

    Raises:
        MissingExtra: transformers is not installed.
    """
    from unlearn_metrics.errors import need

    need("transformers", "transformers")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!'-"
    tokens = ["!", *letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        left, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for piece in rest:
            merges.append((left, piece))
            left += piece
            tokens.append(left)
    vocab = {token: i for i, token in enumerate([*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"])}
    words = CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2,
                max_position_embeddings=16, vocab_size=len(words), bos_token_id=words.bos_token_id,
                eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, initializer_factor=20.0,
            )
        )  # fmt: skip
    return TinyReader(text_encoder=text.eval().requires_grad_(False), tokenizer=words)


@dataclass(frozen=True, kw_only=True, eq=False)
class TinyDrawer(TinyReader):
    """`TinyReader` with noise and pictures of 8 x 8 pixels, as a white-box attack sees a model; a toy for a UNet."""

    query: Tensor
    """(64, 32): what latents ask of the hidden states."""
    answer: Tensor
    """(32, 64): the noise that the hidden states stand for."""
    hooks: tuple[Any, ...] = ()
    """Defences: what each makes of hidden states is what the noise depends on."""

    scheduler: ClassVar[Any] = SimpleNamespace(
        alphas_cumprod=torch.linspace(0.999, 0.005, 1000), config=SimpleNamespace(prediction_type="epsilon")
    )

    @property
    def vae(self) -> Any:
        """An autoencoder of means over 2 x 2 pixels."""

        def encode(pixels: Tensor) -> Any:
            small = torch.nn.functional.avg_pool2d(pixels, 2)
            found = torch.cat([small, small.mean(1, keepdim=True)], 1)
            return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: found))

        return SimpleNamespace(encode=encode, dtype=torch.float32, config=SimpleNamespace(scaling_factor=2.0))

    def trajectory(self, texts: Sequence[str], *, embeddings: Tensor) -> Tensor:
        """Return hidden states (n, 16, 32) after all defences."""
        for hook in self.hooks:
            embeddings = hook(embeddings)
        return embeddings

    def noise(self, x: Tensor, t: Tensor, trajectory: Tensor, *, guidance_scale: float) -> Tensor:
        """Return the noise (n, 4, 4, 4)."""
        asked = x.flatten(1).to(self.query) @ self.query + t / 1000
        share = (trajectory @ asked[..., None] / 32**0.5).softmax(1)
        return guidance_scale * ((trajectory * share).sum(1) @ self.answer).tanh().view_as(x)

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt]) -> Iterator[Any]:
        """Yield a picture (8, 8, 3) for each prompt."""
        for row in prompts:
            x = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(row.seed))
            for t in (900, 500, 100):
                seen = self.trajectory([row.text], embeddings=self.encode([row.text]))
                x = x - 0.6 * self.noise(x, torch.tensor(t), seen, guidance_scale=1.0)
            pixels = (x[0, :3].sigmoid() * 255).byte().permute(1, 2, 0)
            yield pixels.repeat_interleave(2, 0).repeat_interleave(2, 1).numpy()


def tiny_drawer(seed: int = 0, **fields: Any) -> TinyDrawer:
    """Return the model; another seed, another UNet, and the same text encoder."""
    read, generator = tiny_reader(), torch.Generator().manual_seed(seed)
    return TinyDrawer(
        text_encoder=read.text_encoder, tokenizer=read.tokenizer,
        query=torch.randn((64, 32), generator=generator) / 8, answer=torch.randn((32, 64), generator=generator) / 3,
        **{"fingerprint": f"drawer {seed}", **fields},
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Colours:
    """An extractor of features: the pixels of a picture around grey."""

    revision: str = "1"

    def features(self, images: Sequence[Any]) -> Any:
        """Return the features (n, pixels) float32."""
        return np.stack([image.astype(np.float32).ravel() - 127.5 for image in images])


@dataclass(frozen=True, kw_only=True)
class Redness:
    """A detector of red."""

    revision: str = "1"

    def presence(self, images: Sequence[Any]) -> list[float]:
        """Return how red each picture is, in [0, 1]."""
        return [float(image[..., 0].mean() / 255) for image in images]


def rows(*texts: str, concept: str | None = "dog") -> PromptSet:
    """Return texts as rows of the group "target", with seeds and a guidance of their own."""
    made = [
        Prompt(id=f"target-{i}", text=text, seed=100 + i, group="target", concept=concept, guidance=3.0 + i)
        for i, text in enumerate(texts)
    ]
    return PromptSet(name="targets", rows=tuple(made))


def check_attack(attack: Any, model: Any, prompts: PromptSet, *, other_noise: bool = False) -> None:
    """Check what every attack has to do.

    Args:
        attack: an instance, small enough for a test.
        model: a tiny one.
        prompts: a few rows with concept and guidance.
        other_noise: whether the attack draws its rows from other noises than those of `prompts`.

    Raises:
        AssertionError: a property does not hold.
    """
    check_settings(attack)
    calls: list[tuple[int, int]] = []
    with _empty_cache():
        made = attack.craft(model, prompts, seed=0, progress=lambda *call: calls.append(call))
    by_id = {row.id: row for row in prompts}
    require(
        {raw_ids(made)[row.id] for row in made} == set(by_id),
        "each row is attacked, and its origin says which",
    )
    for row in made:
        old = by_id[raw_ids([row])[row.id]]
        require(row.group == attack.name, "rows are of the group of the attack")
        require((row.concept, row.guidance) == (old.concept, old.guidance), "they keep concept and guidance")
        require(other_noise or row.seed == old.seed, "they keep the noise")
    done = [at for at, _ in calls]
    require(done == sorted(done) and calls[-1][0] == calls[-1][1], "progress rises to its end")
    with _empty_cache():
        require(attack.craft(model, prompts, seed=0).rows == made.rows, "the same seed gives the same rows")
    with _empty_cache():
        backwards = PromptSet(name="backwards", rows=tuple(reversed(prompts.rows)))
        again = attack.craft(model, backwards, seed=0)
        require({r.id: r for r in again} == {r.id: r for r in made}, "a row does not depend on its company")


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    """Let nothing be found on disk: what is found there is the same for a bad reason."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, UNLEARN_BENCH_CACHE=folder):
        yield
