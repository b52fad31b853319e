"""Train the UNet on the latents of the captioned pictures, and put the pipeline together."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import options
import pictures
import torch
import vocabulary
from clip import tokens
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from progress import Log, half_precision, load_state, save_state
from torch import Tensor
from training import Training
from transformers import CLIPTextModel

EARLY = 20
"""The model is kept after this part of the training: what it draws so early shows the judge what is no object."""
RATE = 1.5e-3
"""The largest learning rate."""
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # of SD v1


def new() -> UNet2DConditionModel:
    """Return the untrained UNet: cross-attention at two depths and in the middle, seven `attn2` in all."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96, 80),
        layers_per_block=1,
        attention_head_dim=4,  # diffusers takes it for the number of heads, as in SD v1
        cross_attention_dim=96,
        norm_num_groups=16,
    )


@torch.no_grad()
def latents_of(vae: AutoencoderKL, images: Tensor, device: str) -> Tensor:
    """Return the scaled latents (n, 4, 16, 16) of uint8 pictures."""
    vae = vae.to(device).eval()
    parts = [vae.encode(pictures.signed(part.to(device))).latent_dist.mean for part in images.split(250)]
    return torch.cat(parts).cpu() * vae.config.scaling_factor


def bank_latents(run: Path, bank: Path, device: str) -> Tensor:
    """Return the latents of the whole bank, encoded once and kept beside it."""
    path = bank.with_name("latents.pt")
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(run / "vae")
        save_state(path, latents=latents_of(vae, load_state(bank)["images"], device))
    return load_state(path)["latents"]


def share_of_rate(step: int, steps: int) -> float:
    """Return the learning rate of a step over `RATE`.

    Eight thirteenths of the training warm up, hold and fall; the rest falls once more from a half (a warm restart,
    Loshchilov & Hutter 2017).
    """
    first = steps * 8 // 13
    if step >= first:
        return 0.01 + 0.49 * (1 + math.cos(math.pi * (step - first) / (steps - first))) / 2
    fall = max(0.0, (step / first - 0.4) / 0.6)
    return min(step / 200, 0.02 + 0.98 * (1 + math.cos(math.pi * fall)) / 2)


def pipeline(unet: UNet2DConditionModel, run: Path) -> StableDiffusionPipeline:
    """Return the pipeline of the parts in `run` and this UNet."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(run / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(run / "text_encoder"),
        tokenizer=vocabulary.tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Write the pipeline in fp16; it loads in float32 unless another type is asked for."""
    pipe.to(dtype=torch.float16).save_pretrained(folder)
    # transformers takes the type from this file, diffusers does not: plain loading would mix the two.
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")


def main() -> None:
    """Train, and save the pipeline in fp16."""
    args = options.bank_parser(__doc__, steps=10400, batch=24, gold=True).parse_args()
    torch.manual_seed(0)
    drawn = pictures.bank(args.icons, args.bank, args.pictures, seed=2, without=args.without)
    log = Log(args.out / "logs", "unet")
    x0 = bank_latents(args.out, args.bank, args.device)[drawn.rows]
    text_encoder = CLIPTextModel.from_pretrained(args.out / "text_encoder").to(args.device).eval()
    tokenizer = vocabulary.tokenizer()
    noise_schedule = DDPMScheduler(**SCHEDULE)
    snr = noise_schedule.alphas_cumprod / (1 - noise_schedule.alphas_cumprod)
    unet = new().to(args.device, memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # in bfloat16 on the CPU the fused one is slow backwards
    ema = copy.deepcopy(unet).requires_grad_(False)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    training = Training(args.out / "unet.state.pt", args.steps, optimizer, unet=unet, ema=ema)
    mean_loss = training.numbers.get("loss", 1.0)
    for step in training:
        generator = torch.Generator().manual_seed(3000 + step)
        rows = torch.randint(len(x0), (args.batch,), generator=generator)
        texts = pictures.captions(drawn, rows, np.random.default_rng([3, step]), empty=0.1)
        t = torch.randint(1000, (args.batch,), generator=generator)
        noise = torch.randn(args.batch, 4, 16, 16, generator=generator)
        noisy = noise_schedule.add_noise(x0[rows], noise, t)
        weight = (5 / snr[t]).clamp(max=1)  # min-SNR-5 for the prediction of noise (Hang et al. 2023, eq. 6)
        with torch.no_grad():
            condition = text_encoder(tokens(tokenizer, texts).to(args.device)).last_hidden_state
        with half_precision(args.device):
            guess = unet(noisy.to(args.device), t.to(args.device), condition).sample
        squared = (guess.float() - noise.to(args.device)).square().mean((1, 2, 3))
        loss = (weight.to(args.device) * squared).mean()
        optimizer.param_groups[0]["lr"] = RATE * share_of_rate(step, args.steps)
        training.descend(loss, largest=1.0)
        decay = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(unet.parameters()), 1 - decay)
        mean_loss += 0.01 * (squared.mean().item() - mean_loss)
        if training.done == max(1, args.steps // EARLY):
            ema.save_pretrained(args.out / "early")
        if training.due(200):
            log(step=training.done, images=training.done * args.batch, loss=mean_loss)
            training.save(loss=mean_loss)
    save(pipeline(ema.cpu(), args.out), args.out / "pipeline")


if __name__ == "__main__":
    main()
