"""Train the judge: what is on a picture, and above all when it is none of the classes."""

import json
from pathlib import Path

import autoencoder
import options
import pictures
import torch
import torch.nn.functional as F
import unet as unet_script
from diffusers import AutoencoderKL, UNet2DConditionModel
from pictures import BACKGROUND_NAMES, STYLE_NAMES
from progress import Log, half_precision
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur
from training import Training, one_cycle

from pocket_sd.judging import CLASSES, JudgeNet
from pocket_sd.words import OBJECTS, caption

IGNORED = -100
NONE = {head: len(names) - 1 for head, names in CLASSES.items()}
# A head's classes are the training's names and "none" after them.
assert CLASSES["style"][:-1] == STYLE_NAMES and CLASSES["background"][:-1] == BACKGROUND_NAMES

Labelled = tuple[Tensor, Tensor]
"""Pictures uint8 (n, 3, 64, 64) and labels (n, 3): object, style, background; IGNORED teaches nothing."""


def labels_of(drawn: pictures.Pictures) -> Tensor:
    """Return the labels (n, 3) of captioned pictures; a background of the style's own is none of ours."""
    background = torch.where(drawn.background < 0, NONE["background"], drawn.background)
    return torch.stack([drawn.object, drawn.style, background], 1)


@torch.no_grad()
def reconstructed(vae: AutoencoderKL, images: Tensor, device: str) -> Tensor:
    """Return uint8 pictures as the autoencoder gives them back: what a perfect UNet would draw."""
    scale = vae.config.scaling_factor
    latents = unet_script.latents_of(vae, images, device)
    return torch.cat([_as_bytes(vae.decode(part.to(device) / scale).sample) for part in latents.split(250)])


def strangers(icons: Path, n: int, generator: torch.Generator, *, unseen: bool = False) -> Labelled:
    """Return drawings of none of the objects, in our styles over our backgrounds."""
    rgba = autoencoder.bank(icons, generator, unseen=unseen)
    rgba = rgba[torch.randint(len(rgba), (n,), generator=generator)]
    style, background = pictures.styles_and_backgrounds(n, generator)
    images = pictures.draw(pictures.place(rgba, generator), style, background)
    background = torch.where(background < 0, NONE["background"], background)
    labels = torch.stack([torch.full((n,), NONE["object"]), style, background], 1)
    return (images * 255).byte(), labels


def spoiled(images: Tensor, labels: Tensor, generator: torch.Generator) -> Labelled:
    """Return blurs, noise, torn-up pictures and double exposures of pictures: no object on any of them."""
    x, n = images.float(), len(images)
    other = torch.randperm(n, generator=generator)
    kind = torch.randint(5, (n,), generator=generator)
    blurred = gaussian_blur(x, [31, 31], [5.0, 5.0])
    noise = 127.5 + 80 * torch.randn(x.shape, generator=generator)
    amount = 0.75 + 0.25 * torch.rand(n, 1, 1, 1, generator=generator)
    tiles = x.unfold(2, 16, 16).unfold(3, 16, 16).reshape(n, 3, 16, 16, 16)
    tiles = tiles[:, :, torch.randperm(16, generator=generator)].view(n, 3, 4, 4, 16, 16)
    torn = tiles.permute(0, 1, 2, 4, 3, 5).reshape(n, 3, 64, 64)
    double = (x + x[other]) / 2
    smeared = F.interpolate(F.avg_pool2d(x, 16), scale_factor=16, mode="bilinear")
    choices = torch.stack([blurred, noise * amount + x * (1 - amount), torn, double, smeared])
    found = choices[kind, torch.arange(n)].clamp(0, 255).byte()
    spoiled_labels = torch.full((n, 3), IGNORED)
    spoiled_labels[:, 0] = NONE["object"]
    spoiled_labels[kind == 1] = torch.tensor(
        list(NONE.values())
    )  # noise is no style and no background either
    same = (kind == 3) & (labels[:, 0] == labels[other, 0])
    spoiled_labels[same, 0] = IGNORED
    return found, spoiled_labels


@torch.no_grad()
def half_learnt(run: Path, n: int, generator: torch.Generator, device: str) -> Labelled:
    """Return what the UNet drew early in its training: colours without a thing."""
    pipe = unet_script.pipeline(UNet2DConditionModel.from_pretrained(run / "early"), run).to(device)
    pipe.set_progress_bar_config(disable=True)
    texts = [caption(OBJECTS[i]) for i in torch.randint(len(OBJECTS), (n,), generator=generator)]
    found = []
    for start in range(0, n, 50):
        drawn = pipe(
            texts[start : start + 50],
            generator=generator,
            num_inference_steps=10,
            guidance_scale=4.0,
            output_type="pt",
        )
        found.append((drawn.images.cpu() * 255).byte())
    labels = torch.full((n, 3), IGNORED)
    labels[:, 0] = NONE["object"]
    return torch.cat(found), labels


def worn(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures in [-1, 1] in other colours, a little blurred and bent, as a UNet may draw them.

    Without these the judge takes every trace of a UNet for a sign of failure: only failures had one.
    """
    n = len(x)
    gain = 1 + 0.5 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5)
    shift = 0.4 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5)
    bend = F.interpolate(torch.randn(n, 2, 6, 6, generator=generator), size=x.shape[-2:], mode="bicubic")
    identity = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), list(x.shape), align_corners=False)
    strength = 0.035 * torch.rand(n, 1, 1, 1, generator=generator)  # of half the side: about one pixel
    x = F.grid_sample(
        x, identity + strength * bend.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )
    soft = torch.rand(n, 1, 1, 1, generator=generator)
    x = soft * gaussian_blur(x, [5, 5], [1.0, 1.0]) + (1 - soft) * x
    return (x * gain + shift).clamp(-1, 1)


def temperature(logits: Tensor, labels: Tensor) -> float:
    """Return what to divide the logits by for the least cross-entropy on pictures no training saw."""
    grid = torch.logspace(-0.7, 0.7, 141)
    losses = torch.stack([F.cross_entropy(logits / t, labels, ignore_index=IGNORED) for t in grid])
    return float(grid[losses.argmin()])


@torch.no_grad()
def logits_of(net: JudgeNet, images: Tensor, device: str) -> dict[str, Tensor]:
    """Return the logits of each head."""
    net.eval()
    parts = [net(pictures.signed(part.to(device)))[1] for part in images.split(250)]
    net.train()
    return {head: torch.cat([part[head].cpu() for part in parts]) for head in CLASSES}


def accuracy(net: JudgeNet, images: Tensor, labels: Tensor, device: str) -> dict[str, float]:
    """Return the share of right answers of each head, over the labels there are."""
    found = {}
    for column, (head, logits) in enumerate(logits_of(net, images, device).items()):
        known = labels[:, column] != IGNORED
        if known.any():
            found[head] = logits.argmax(1).eq(labels[:, column])[known].float().mean().item()
    return found


def main() -> None:
    """Train, calibrate, examine and save the judge."""
    args = options.bank_parser(__doc__, steps=4000, batch=64).parse_args()
    torch.manual_seed(0)
    log = Log(args.out / "logs", "judge")
    generator = torch.Generator().manual_seed(4)
    vae = AutoencoderKL.from_pretrained(args.out / "vae")
    drawn = pictures.bank(args.icons, args.bank, args.pictures, seed=2)
    labels = labels_of(drawn)
    n = len(labels)
    some = torch.randperm(n, generator=generator)[: n // 5]
    sources: list[tuple[float, Labelled]] = [
        (0.5, (drawn.images, labels)),
        (0.25, (reconstructed(vae, drawn.images[some], args.device), labels[some])),
        (0.1, strangers(args.icons, n // 6, generator)),
        (0.1, spoiled(drawn.images[some[: n // 6]], labels[some[: n // 6]], generator)),
        (0.05, half_learnt(args.out, n // 80, generator, args.device)),
    ]
    fresh = pictures.pictures(pictures.load(args.icons), n // 6, torch.Generator().manual_seed(5))
    held = ((fresh.images * 255).round().byte(), labels_of(fresh))
    log(examples=[len(source[1][0]) for source in sources])

    net = JudgeNet().to(args.device, memory_format=torch.channels_last)
    descent = one_cycle(net, args.steps, rate=3e-3, rise=0.1, weight_decay=0.02)
    training = Training(args.out / "judge.state.pt", args.steps, *descent, net=net)
    for step in training:
        generator = torch.Generator().manual_seed(5000 + step)
        images, wanted = [], []
        for share, (some_images, some_labels) in sources:
            rows = torch.randint(len(some_images), (round(args.batch * share),), generator=generator)
            images.append(some_images[rows])
            wanted.append(some_labels[rows])
        x, y = pictures.signed(torch.cat(images)), torch.cat(wanted)
        half = torch.rand(len(x), generator=generator) < 0.5
        x[half] = worn(x[half], generator)
        y[half, 1:] = IGNORED  # its colours and edges are no longer those of a style or a background
        x = x + 0.06 * torch.rand(1, generator=generator) * torch.randn(x.shape, generator=generator)
        y = y.to(args.device)
        with half_precision(args.device):
            logits = net(x.to(args.device, memory_format=torch.channels_last))[1]
        loss = sum(
            F.cross_entropy(logits[head].float(), y[:, column], ignore_index=IGNORED, label_smoothing=0.02)
            for column, head in enumerate(CLASSES)
        )
        training.descend(loss)
        if training.due(250):
            log(step=training.done, loss=loss.item(), **accuracy(net, *held, args.device))
            training.save()

    examinations = {
        "held-out augmentations": held,
        "the same through the autoencoder": (reconstructed(vae, held[0], args.device), held[1]),
        "other drawings of an unseen set": strangers(
            args.icons, 1000, torch.Generator().manual_seed(6), unseen=True
        ),
        "blurred, torn, doubled, noise": spoiled(*held, torch.Generator().manual_seed(6)),
    }
    unseen = pictures.pictures(pictures.load(args.icons, unseen=True), 2000, torch.Generator().manual_seed(6))
    examinations["drawings of an unseen set"] = ((unseen.images * 255).round().byte(), labels_of(unseen))
    results = {name: accuracy(net, *pair, args.device) for name, pair in examinations.items()}
    logits = logits_of(net, held[0], args.device)
    temperatures = {head: temperature(logits[head], held[1][:, c]) for c, head in enumerate(CLASSES)}
    results["temperatures"] = temperatures
    (args.out / "logs" / "judge-examination.json").write_text(json.dumps(results, indent=2) + "\n")
    for name, result in results.items():
        log(examination=name, **result)
    (args.out / "judge").mkdir(exist_ok=True)
    weights = {k: v.half() if v.is_floating_point() else v for k, v in net.cpu().state_dict().items()}
    save_file(
        {k: v.contiguous() for k, v in weights.items()},
        args.out / "judge" / "judge.safetensors",
        metadata={head: f"{t:.4f}" for head, t in temperatures.items()},
    )


def _as_bytes(x: Tensor) -> Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().cpu()


if __name__ == "__main__":
    main()
