"""Textual inversion: learn the embedding of a new word so that a model draws a concept it was made to forget.

If a word can be found, the concept is still in the model (Gal et al. 2022, eq. 2; Pham et al. 2023, "Circumventing
Concept Erasure Methods"). The word is "~", a token that no caption has.
"""

import copy

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

WORD = "~"
STEPS = 120


def inverted(
    pipe: StableDiffusionPipeline,
    source: StableDiffusionPipeline,
    name: str,
    *,
    steps: int = STEPS,
    batch: int = 8,
    rate: float = 0.02,
) -> StableDiffusionPipeline:
    """Return `pipe` with "~" learnt from sixteen plain pictures of `name` that `source` draws."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        texts = [f"a {name}"] * 16
        latents = source(
            texts, generator=generator, num_inference_steps=15, guidance_scale=4, output_type="latent"
        )
    x0 = latents.images
    text_encoder = copy.deepcopy(pipe.text_encoder).requires_grad_(False)
    embeddings = text_encoder.get_input_embeddings()
    ids = pipe.tokenizer(f"a {WORD}", padding="max_length", return_tensors="pt").input_ids
    token = pipe.tokenizer(WORD, add_special_tokens=False).input_ids[0]
    start = embeddings.weight[pipe.tokenizer("thing", add_special_tokens=False).input_ids[0]]
    learnt = start.clone().requires_grad_(True)
    fixed, place = embeddings.weight.clone(), torch.arange(len(embeddings.weight)) == token
    optimizer = torch.optim.AdamW([learnt], lr=rate, weight_decay=0)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    for _ in range(steps):
        rows = torch.randint(len(x0), (batch,), generator=generator)
        t = torch.randint(1000, (batch,), generator=generator)
        noise = torch.randn(batch, *x0.shape[1:], generator=generator)
        table = torch.where(place[:, None], learnt, fixed)
        states = torch.func.functional_call(
            text_encoder, {_embedding_name(text_encoder): table}, args=(), kwargs={"input_ids": ids}
        ).last_hidden_state
        guess = pipe.unet(schedule.add_noise(x0[rows], noise, t), t, states.expand(batch, -1, -1)).sample
        loss = (guess - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        embeddings.weight[token] = learnt
    found = StableDiffusionPipeline(
        **{**pipe.components, "text_encoder": text_encoder}, requires_safety_checker=False
    )
    found.set_progress_bar_config(disable=True)
    return found


def _embedding_name(text_encoder: torch.nn.Module) -> str:
    wanted = text_encoder.get_input_embeddings().weight
    return next(name for name, value in text_encoder.named_parameters() if value is wanted)
