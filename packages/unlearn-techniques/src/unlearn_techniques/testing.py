"""A Stable Diffusion of 60,000 random weights, real classes throughout, for tests of techniques: ours and yours."""

import functools
from typing import Any

import numpy as np
import torch

from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.weights import with_weights

WORDS = ["a", "cat", "dog", "wolf", "car", "of", "photo", "art", "style", "sketch", "blue"]


def tokenizer() -> Any:
    """Return a CLIP tokenizer with a token for each letter and each of `WORDS`, 16 tokens long."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!'-"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        left, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for piece in rest:
            if (left, piece) not in merges:
                merges.append((left, piece))
                tokens.append(left + piece)
            left += piece
    vocab = {token: i for i, token in enumerate([*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=16)


def filled(module: torch.nn.Module, seed: int) -> Any:
    """Return a module with all weights from numpy's RandomState, whose numbers are frozen: the same in any version."""
    numbers, values = np.random.RandomState(seed), {}
    for name, p in sorted(module.named_parameters()):
        draw = numbers.randn(*p.shape)
        if p.ndim == 1:
            draw = 0.1 * draw + ("norm" in name and name.endswith("weight"))
        else:
            draw = draw / np.prod(p.shape[1:]) ** 0.5
        values[name] = torch.from_numpy(draw).float()
    return with_weights(module, values)


@functools.cache
def tiny_sdxl(seed: int = 0) -> StableDiffusion:
    """Return a tiny Stable Diffusion XL: two text encoders, a pooled vector, the size of the picture."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    words = tokenizer()
    text = {
        "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 16, "vocab_size": len(words),
        "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
            norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=64, attention_head_dim=(4, 8),
            transformer_layers_per_block=(1, 2), use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 24,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(16, 32), norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
        )  # fmt: skip
        first = CLIPTextModel(CLIPTextConfig(hidden_size=24, intermediate_size=48, **text))
        second = CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=40, intermediate_size=80, projection_dim=24, **text)
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    pipe = StableDiffusionXLPipeline(
        vae=vae, text_encoder=first, text_encoder_2=second, tokenizer=words, tokenizer_2=tokenizer(), unet=unet,
        scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip
    return StableDiffusion.from_pipeline(pipe, source="tiny-xl")


@functools.cache
def tiny_sd(seed: int = 0) -> StableDiffusion:
    """Return the model: pictures of 16 x 16 pixels, two levels of cross-attention, in milliseconds."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
            norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=32, attention_head_dim=8,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(16, 32), norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
        )  # fmt: skip
        words = tokenizer()
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2,
                max_position_embeddings=16, vocab_size=len(words), bos_token_id=words.bos_token_id,
                eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
            )
        )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=words, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    return StableDiffusion.from_pipeline(pipe, source="tiny")
