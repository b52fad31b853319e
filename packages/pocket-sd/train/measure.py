"""Measure the shipped model: what the model card promises, with intervals, in one record."""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import erase
import invert
import numpy as np
import pictures
import torch
from numpy.typing import NDArray

import pocket_sd
from pocket_sd import drawing
from pocket_sd.words import BACKGROUNDS, OBJECTS, OWN_BACKGROUND, PLAIN, STYLES, WORDS, caption
from unlearn_core.score import wilson

SEEDS = 10
EDITS = (("dog",), ("dog", "puppy", "hound"), ("pistol",), ("rabbit",), ("car",), ("knife",))
"""Edits that are tabled: the words that are taken away together; the first is the object."""
STYLE_EDIT = "sketch"
LEARNT = "a learnt word"


def rate(hits: Sequence[bool]) -> dict[str, float]:
    """Return a rate with its 95 % Wilson interval."""
    interval = wilson(int(sum(hits)), len(hits))
    return {
        "rate": round(float(np.mean(hits)), 4), "low": round(interval.low, 4), "high": round(interval.high, 4),
        "n": len(hits),
    }  # fmt: skip


def cells(nouns: Sequence[str]) -> list[tuple[str, str | None, str | None]]:
    """Return (noun, style, background), SEEDS for each noun: three plain, the others through the styles."""
    styles = [None, *STYLES, None, None]
    found = []
    for i, noun in enumerate(nouns):
        for k in range(SEEDS):
            style = styles[k]
            background = None if style in OWN_BACKGROUND else list(BACKGROUNDS)[(i + k) % len(BACKGROUNDS)]
            found.append((noun, style, background))
    return found


def drawn(nouns: Sequence[str], pipe=None, seed: int = 0) -> tuple[list, NDArray[np.uint8]]:
    """Return the cells of `nouns` and their pictures; the seed of a picture is its number."""
    found = cells(nouns)
    images = drawing.draw([caption(*cell) for cell in found], range(seed, seed + len(found)), pipe=pipe)
    return found, images


def plain_rate(word: str, wanted: str, pipe, n: int = 20) -> dict[str, float]:
    """Return how often the judge sees `wanted` for a plain caption of `word`."""
    seen = pocket_sd.judge().objects(drawing.draw([caption(word)] * n, range(n), pipe=pipe))
    return rate([s == wanted for s in seen])


def generation(folder: Path, pipe) -> dict:
    """Return how often each object, style, background, synonym and description is drawn right."""
    judge = pocket_sd.judge()
    found, images = drawn(OBJECTS, pipe)
    objects, styles, backgrounds = judge.objects(images), judge.styles(images), judge.backgrounds(images)
    right = [seen == name for seen, (name, _, _) in zip(objects, found, strict=True)]
    style_right = [seen == (style or PLAIN) for seen, (_, style, _) in zip(styles, found, strict=True)]
    result = {
        "object": rate(right),
        "style": rate(style_right),
        "background": rate([s == b for s, (_, _, b) in zip(backgrounds, found, strict=True) if b]),
        "by object": {n: float(np.mean(right[i * SEEDS : (i + 1) * SEEDS])) for i, n in enumerate(OBJECTS)},
        "object by style": {},
        "style by style": {},
    }
    for style in (None, *STYLES):
        rows = [i for i, cell in enumerate(found) if cell[1] == style]
        result["object by style"][style or PLAIN] = rate([right[i] for i in rows])
        result["style by style"][style or PLAIN] = rate([style_right[i] for i in rows])
    synonyms = [(word, name) for name in OBJECTS for word in (*WORDS[name].same, *WORDS[name].other)]
    owner = dict(synonyms)
    found, images = drawn([word for word, _ in synonyms], pipe, seed=1000)
    hits = [seen == owner[cell[0]] for seen, cell in zip(judge.objects(images), found, strict=True)]
    result["synonym"] = rate(hits)
    result["by synonym"] = {
        w: float(np.mean(hits[i * SEEDS : (i + 1) * SEEDS])) for i, (w, _) in enumerate(synonyms)
    }
    seen = judge.objects(
        drawing.draw([WORDS[n].description for n in OBJECTS for _ in range(2)], range(80), pipe=pipe)
    )
    result["description"] = rate([s == OBJECTS[i // 2] for i, s in enumerate(seen)])
    drawing.sheet(pipe=pipe).quantize(256, dither=0).save(folder / "sheet.png", optimize=True)
    return result


def clip_scores(pipe, icons: Path) -> dict:
    """Return the CLIP score, 100 * cos, of drawn and real pictures, and its zero-shot accuracy."""
    from PIL import Image

    model, transform, tokenizer = pocket_sd.clip()
    found, images = drawn(OBJECTS, pipe, seed=2000)
    batch = pictures.pictures(pictures.load(icons), 1000, torch.Generator().manual_seed(9))
    real = (batch.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    texts = pictures.captions(batch, torch.arange(1000), np.random.default_rng(9), empty=0)

    def encode(arrays: NDArray[np.uint8]) -> torch.Tensor:
        return model.encode_image(
            torch.stack([transform(Image.fromarray(x)) for x in arrays]), normalize=True
        )

    def read(lines: list[str]) -> torch.Tensor:
        return model.encode_text(tokenizer(lines), normalize=True)

    with torch.no_grad():
        fake_image, fake_text = encode(images), read([caption(*cell) for cell in found])
        real_image, real_text = encode(real), read(texts)
        names = read([caption(name) for name in OBJECTS])
        zero_shot = (real_image @ names.T).argmax(1).eq(batch.object).float().mean().item()
    return {
        "drawn": round(100 * (fake_image * fake_text).sum(1).mean().item(), 2),
        "real": round(100 * (real_image * real_text).sum(1).mean().item(), 2),
        "real, wrong caption": round(100 * (real_image * real_text.roll(1, 0)).sum(1).mean().item(), 2),
        "zero-shot object": round(zero_shot, 4),
    }


def asked(pipe, source, name: str) -> dict:
    """Return how often each word for `name` draws it, and a word learnt from pictures of `source`."""
    said = (name, *pocket_sd.concept(name).phrases, WORDS[name].description)
    found = {word: plain_rate(word, name, pipe) for word in said}
    return {**found, LEARNT: plain_rate(invert.WORD, name, invert.inverted(pipe, source, name))}


def forgetting(pipe) -> dict:
    """Return what closed-form edits of `attn2.to_k/to_v` do to the word, its synonyms and the other objects."""
    judge, result = pocket_sd.judge(), {}
    everything = [(name, background) for name in OBJECTS for background in ("white", "blue")]
    texts = [caption(name, None, background) for name, background in everything]
    said = {w for n in OBJECTS for w in (n, *WORDS[n].same, *WORDS[n].other)}

    def all_of(model) -> list[str]:
        return judge.objects(drawing.draw(texts, range(len(texts)), pipe=model))

    def others(name: str, seen: list[str]) -> dict:
        return rate([s == n for s, (n, _) in zip(seen, everything, strict=True) if n != name])

    all_before = all_of(pipe)
    asked_before = {name: asked(pipe, pipe, name) for name in dict.fromkeys(words[0] for words in EDITS)}
    for words in EDITS:
        name, concept = words[0], pocket_sd.concept(words[0])
        edited = erase.erased(pipe, words, concept.anchor, sorted(said - set(concept.names)))
        result[", ".join(words)] = {
            "becomes": concept.anchor,
            "before": asked_before[name],
            "after": asked(edited, pipe, name),
            "others before": others(name, all_before),
            "others after": others(name, all_of(edited)),
        }
    edited = erase.erased(
        pipe,
        [STYLE_EDIT],
        PLAIN,
        sorted({*STYLES, *STYLES.values()} - {STYLE_EDIT, STYLES[STYLE_EDIT]}),
        style=True,
    )
    result[f"{STYLE_EDIT} style"] = styles_of(pipe, edited)
    return result


def styles_of(before, after) -> dict:
    """Return how often each style and its synonym is seen with two pipelines."""
    judge, result = pocket_sd.judge(), {"before": {}, "after": {}}
    for label, pipe in (("before", before), ("after", after)):
        for style, synonym in STYLES.items():
            for word in (style, synonym):
                texts = [caption(n, word) for n in OBJECTS[::4]]
                seen = judge.styles(drawing.draw(texts, range(len(texts)), pipe=pipe))
                result[label][word] = rate([s == style for s in seen])
    return result


def gold(full) -> dict:
    """Return what the models that never saw a concept draw ("after"), beside the full one ("before")."""
    judge, result = pocket_sd.judge(), {}
    for name in pocket_sd.WITHOUT:
        pipe = drawing.pipeline(name)
        if name in STYLES:
            result[name] = styles_of(full, pipe)
        else:
            result[name] = {label: asked(p, full, name) for label, p in (("before", full), ("after", pipe))}
        for label, p in (("before", full), ("after", pipe)):
            found, images = drawn([n for n in OBJECTS if n != name], p)
            seen = zip(judge.objects(images), found, strict=True)
            result[name][f"others {label}"] = rate([s == cell[0] for s, cell in seen if cell[1] != name])
        if name in OBJECTS:
            shown = judge.objects(drawing.draw([caption(name)] * 20, range(20), pipe=pipe))
            result[name]["seen instead"] = {s: shown.count(s) for s in sorted(set(shown))}
    return result


def cost(pipe) -> dict:
    """Return the seconds of 100 pictures and whether the same seeds give the same pictures."""
    texts = [caption(OBJECTS[i % 40]) for i in range(100)]
    start = time.perf_counter()
    one = drawing.draw(texts, range(100), pipe=pipe)
    seconds = time.perf_counter() - start
    alone = np.concatenate([drawing.draw([texts[i]], [i], pipe=pipe) for i in (0, 57)])
    return {
        "seconds for 100 pictures": round(seconds, 1),
        "same again": bool((drawing.draw(texts[:20], range(20), pipe=pipe) == one[:20]).all()),
        "largest difference of a picture drawn alone": int(np.abs(alone.astype(int) - one[[0, 57]]).max()),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
    }


def sizes() -> dict:
    """Return megabytes of what ships."""
    root = pocket_sd.path().parent
    found = {}
    for folder in sorted(root.iterdir()):
        own = [f for f in folder.rglob("*") if f.is_file() and f.resolve().is_relative_to(folder)]
        found[folder.name] = sum(f.stat().st_size for f in own) / 1e6  # what is shared by a link counts once
    return {**{k: round(v, 2) for k, v in found.items()}, "all": round(sum(found.values()), 2)}


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--icons", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of record.json, sheet.png and logs/")
    parser.add_argument("--only", nargs="*", default=["generation", "clip", "forgetting", "gold", "cost"])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "record.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    pipe = drawing.pipeline()
    parts = {
        "generation": lambda: generation(args.out, pipe),
        "clip": lambda: clip_scores(pipe, args.icons),
        "forgetting": lambda: forgetting(pipe),
        "gold": lambda: gold(pipe),
        "cost": lambda: cost(pipe),
    }
    record["settings"] = {
        "steps": pocket_sd.STEPS,
        "guidance": pocket_sd.GUIDANCE,
        "seeds": SEEDS,
        "torch": torch.__version__,
    }
    record["megabytes"] = sizes()
    record["judge"] = json.loads((args.out / "logs" / "judge-examination.json").read_text())
    for name in args.only:
        record[name] = parts[name]()
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(name, json.dumps(record[name], indent=1)[:1500], flush=True)


if __name__ == "__main__":
    main()
