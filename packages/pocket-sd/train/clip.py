"""Train the small CLIP; its text tower, frozen from then on, is the text encoder of the pipeline, as in SD v1."""

import json
import math
from pathlib import Path

import numpy as np
import open_clip
import options
import pictures
import torch
import torch.nn.functional as F
import vocabulary
from progress import Log, half_precision
from safetensors.torch import save_file
from torch import Tensor
from training import Training, one_cycle
from transformers import CLIPTextConfig, CLIPTextModel

from pocket_sd.words import OBJECTS, caption

WIDTH, LAYERS, HEADS = 96, 4, 4
MODEL = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": {
        "context_length": vocabulary.CONTEXT,
        "vocab_size": len(vocabulary.tokenizer()),
        "hf_tokenizer_name": ".",
        "width": WIDTH,
        "heads": HEADS,
        "layers": LAYERS,
    },
}
MEAN = STD = (0.5, 0.5, 0.5)


def new() -> open_clip.CLIP:
    """Return the untrained CLIP."""
    return open_clip.CLIP(**MODEL)


def tokens(tokenizer, texts: list[str]) -> Tensor:
    """Return the token ids (n, CONTEXT)."""
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=vocabulary.CONTEXT, return_tensors="pt"
    ).input_ids


def text_model(clip: open_clip.CLIP) -> CLIPTextModel:
    """Return the text tower as transformers' CLIPTextModel, equal up to its projection."""
    size = MODEL["text_cfg"]["vocab_size"]
    config = CLIPTextConfig(
        vocab_size=size, hidden_size=WIDTH, intermediate_size=4 * WIDTH, projection_dim=MODEL["embed_dim"],
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, max_position_embeddings=vocabulary.CONTEXT,
        hidden_act="gelu", bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1,
    )  # fmt: skip
    found = {
        "embeddings.token_embedding.weight": clip.token_embedding.weight,
        "embeddings.position_embedding.weight": clip.positional_embedding,
        "final_layer_norm.weight": clip.ln_final.weight,
        "final_layer_norm.bias": clip.ln_final.bias,
    }
    for i, block in enumerate(clip.transformer.resblocks):
        parts = {
            "layer_norm1": block.ln_1,
            "layer_norm2": block.ln_2,
            "self_attn.out_proj": block.attn.out_proj,
            "mlp.fc1": block.mlp.c_fc,
            "mlp.fc2": block.mlp.c_proj,
        }
        for name, part in parts.items():
            found[f"encoder.layers.{i}.{name}.weight"] = part.weight
            found[f"encoder.layers.{i}.{name}.bias"] = part.bias
        for kind in ("weight", "bias"):
            joined = getattr(block.attn, f"in_proj_{kind}").chunk(3)
            for name, piece in zip("qkv", joined, strict=True):
                found[f"encoder.layers.{i}.self_attn.{name}_proj.{kind}"] = piece
    model = CLIPTextModel(config)
    prefix = "" if "embeddings.token_embedding.weight" in model.state_dict() else "text_model."
    model.load_state_dict({prefix + k: v.detach().clone() for k, v in found.items()}, strict=True)
    return model.eval()


def save(clip: open_clip.CLIP, folder: Path) -> None:
    """Write the CLIP in open_clip's local-dir form, fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.half() if v.is_floating_point() else v for k, v in clip.state_dict().items()}
    save_file({k: v.contiguous().cpu() for k, v in weights.items()}, folder / "open_clip_model.safetensors")
    config = {"model_cfg": MODEL, "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    vocabulary.save(folder)


@torch.no_grad()
def zero_shot(clip: open_clip.CLIP, tokenizer, images: Tensor, labels: Tensor) -> float:
    """Return how often the nearest of "a {object}" is the right one."""
    clip.eval()
    device = clip.logit_scale.device
    texts = clip.encode_text(
        tokens(tokenizer, [caption(name) for name in OBJECTS]).to(device), normalize=True
    )
    found = torch.cat([clip.encode_image(part.to(device), normalize=True) for part in images.split(250)])
    clip.train()
    return (found @ texts.T).argmax(1).cpu().eq(labels).float().mean().item()


def main() -> None:
    """Train, and save the CLIP and the text encoder."""
    args = options.bank_parser(__doc__, steps=3000, batch=96, gold=True).parse_args()
    torch.manual_seed(0)
    drawn = pictures.bank(args.icons, args.bank, args.pictures, seed=2, without=args.without)
    log = Log(args.out / "logs", "clip")
    held = torch.arange(len(drawn.object) - 1000, len(drawn.object))
    seen = len(drawn.object) - 1000
    tokenizer = vocabulary.tokenizer()
    clip = new().to(args.device).train()
    clip.visual.to(memory_format=torch.channels_last)
    descent = one_cycle(clip, args.steps, rate=2e-3, rise=0.1, betas=(0.9, 0.98), weight_decay=0.05)
    training = Training(args.out / "clip.state.pt", args.steps, *descent, clip=clip)
    for step in training:
        generator = torch.Generator().manual_seed(2000 + step)
        rows = torch.randint(seen, (args.batch,), generator=generator)
        texts = pictures.captions(drawn, rows, np.random.default_rng(step), empty=0)
        ids = tokens(tokenizer, texts).to(args.device)
        x = pictures.signed(drawn.images[rows]).to(args.device, memory_format=torch.channels_last)
        with half_precision(args.device):
            image, text = clip.encode_image(x), clip.encode_text(ids)
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        logits = clip.logit_scale.exp() * image @ text.T
        # Equal captions of one batch are all right.
        same = (ids[:, None] == ids[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        training.descend(loss)
        with torch.no_grad():
            clip.logit_scale.clamp_(0, math.log(100))
        if training.due(250):
            right = zero_shot(clip, tokenizer, pictures.signed(drawn.images[held]), drawn.object[held])
            log(step=training.done, loss=loss.item(), zero_shot=right, scale=clip.logit_scale.exp().item())
            training.save()
    clip.eval()
    save(clip, args.out / "clip")
    text_model(clip).save_pretrained(args.out / "text_encoder")


if __name__ == "__main__":
    main()
