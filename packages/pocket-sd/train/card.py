"""Write MODEL_CARD.md from the records: no number in it is typed by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import erase
import invert

import pocket_sd
from pocket_sd.words import BACKGROUNDS, FAMILIES, OBJECTS, PLAIN, STYLES, WORDS, Words

HERE = Path(__file__).parents[1]
RECORDS = HERE / "records"
HEADS = ("object", "style", "background")


def percent(found: Mapping[str, float]) -> str:
    """Return a rate with its interval: "94 % (91-96)"."""
    return f"{100 * found['rate']:.0f} % ({100 * found['low']:.0f}-{100 * found['high']:.0f})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def promises(record: dict, gold: Sequence[str]) -> str:
    """Return what was promised beside what was measured; `gold` are the gold standards that ship."""
    drawn, cost = record["generation"], record["cost"]
    shares = (f"{100 * record['judge']['held-out augmentations'][head]:.1f} %" for head in HEADS)
    with_gold = {0: "", 1: ", with the gold standard", 2: ", with both gold standards"}
    rows = [
        [f"judge on held-out augmentations: {', '.join(HEADS)}", "98 %", ", ".join(shares)],
        ["drawn object judged right", "90 %", percent(drawn["object"])],
        ["drawn style judged right", "85 %", percent(drawn["style"])],
        ["drawn background judged right", "95 %", percent(drawn["background"])],
        ["object drawn for a synonym judged right", "80 %", percent(drawn["synonym"])],
        ["object drawn for a description judged right", "", percent(drawn["description"])],
        [
            "size" + with_gold.get(len(gold), f", with {len(gold)} gold standards"),
            "30 MB",
            f"{record['megabytes']['all']:.1f} MB",
        ],
        ["100 pictures on two cores", "60 s", f"{cost['seconds for 100 pictures']:.0f} s"],
        ["same seeds, same pictures on the CPU", "yes", "yes" if cost["same again"] else "NO"],
    ]
    return table(["what", "promised", "measured"], rows)


def world() -> str:
    """Return the objects of every family with their other words."""
    rows = [[family, ", ".join(n + _more(WORDS[n]) for n in names)] for family, names in FAMILIES.items()]
    return table(["family", "objects and their other words"], rows)


def by_style(drawn: dict) -> str:
    """Return how well the objects are drawn in each style."""
    columns = ("object by style", "style by style")
    rows = [[style, *(percent(drawn[column][style]) for column in columns)] for style in (PLAIN, *STYLES)]
    return table(["style", "object right", "style right"], rows)


def styles(found: dict, before: str, after: str) -> str:
    """Return how often each style and its synonym is seen, under the names of the two models."""
    rows = [
        [
            word
            for said in pair
            for word in (said, percent(found["before"][said]), percent(found["after"][said]))
        ]
        for pair in STYLES.items()
    ]
    return table(["style", before, after, "synonym", before, after], rows)


def edits(forgetting: dict) -> str:
    """Return what the closed-form edits do: the objects in one table, each style in one of its own."""
    rows, of_styles = [], []
    for label, found in forgetting.items():
        if (style := label.removesuffix(" style")) in STYLES:
            of_styles.append(
                f'"{style}" becomes "{PLAIN}" in the same way. How often the judge sees the style that is asked for, '
                f"{found['before'][style]['n']} pictures a cell:\n\n{styles(found, 'before', 'after')}"
            )
            continue
        asked = {word: (found["before"][word], found["after"][word]) for word in found["before"]}
        asked[f"the {len(OBJECTS) - 1} others"] = (found["others before"], found["others after"])
        rows += [[label, found["becomes"], word, *map(percent, pair)] for word, pair in asked.items()]
    return "\n\n".join([table(["taken out", "becomes", "asked for", "before", "after"], rows), *of_styles])


def gold_standards(gold: dict) -> str:
    """Return what the models draw that never saw a concept."""
    if not gold:
        return "None ships yet."
    rows, of_styles = [], []
    for name, found in gold.items():
        asked = {}
        if name in STYLES:
            of_styles.append(
                f'Without "{name}", the style that is asked for is seen this often, '
                f"{found['before'][name]['n']} pictures a cell:\n\n{styles(found, 'full model', 'gold standard')}"
            )
            others = "the objects in other styles"
        else:
            asked = {word: (found["before"][word], found["after"][word]) for word in found["before"]}
            others = "the other objects"
        asked[others] = (found["others before"], found["others after"])
        rows += [[name, word, *map(percent, pair)] for word, pair in asked.items()]
        if instead := found.get("seen instead"):
            shown = ", ".join(f"{seen} {n}" for seen, n in instead.items())
            rows.append([name, f"seen for a {name}, of {sum(instead.values())}", "", shown])
    return "\n\n".join([table(["without", "asked for", "full model", "gold standard"], rows), *of_styles])


def examination(judged: dict) -> str:
    """Return the share of right answers of the judge on every kind of picture."""
    rows = [
        [name, *(f"{100 * found[head]:.1f} %" if head in found else "" for head in HEADS)]
        for name, found in judged.items()
        if name != "temperatures"
    ]
    return table(["pictures", *HEADS], rows)


def training(logs: Path) -> str:
    """Return steps and minutes of every part of the full model, and of CLIP and UNet of each gold standard."""

    def row(part: str, name: str, at_the_end) -> list[object]:
        lines = _log(logs, name)
        steps = max(line.get("step", 0) for line in lines)
        return [part, steps, f"{lines[-1]['seconds'] / 60:.0f}", at_the_end(lines[-1])]

    def clip(last: dict) -> str:
        return f"zero-shot object {100 * last['zero_shot']:.1f} %"

    def unet(last: dict) -> str:
        return f"{last['images'] / 1000:.0f} thousand pictures, loss {last['loss']:.4f}"

    rows = [
        row("autoencoder", "autoencoder", lambda last: f"PSNR {last['psnr']:.1f} dB on held-out emoji"),
        row("CLIP", "clip", clip),
        row("UNet", "unet", unet),
        row("judge", "judge", lambda last: ""),
    ]
    for concept in _trained_without(logs):
        rows.append(row(f"CLIP without {concept}", f"clip-without-{concept}", clip))
        rows.append(row(f"UNet without {concept}", f"unet-without-{concept}", unet))
    return table(["part", "steps", "minutes", "at the end"], rows)


def gold_steps(logs: Path) -> str:
    """Return the sentence that tells how long the gold standards were trained."""
    full, *others = (
        _log(logs, name)[-1]["step"]
        for name in ("unet", *(f"unet-without-{concept}" for concept in _trained_without(logs)))
    )
    if not others:
        return ""
    theirs = " and ".join(map(str, dict.fromkeys(others)))
    return f" Their UNets were trained for {theirs} steps, the full one for {full}."


def card(record: dict, logs: Path, gold: Sequence[str]) -> str:
    """Return the model card.

    Args:
        record: what `measure.py` wrote.
        logs: folder of the training's logs.
        gold: the concepts whose gold standards ship.
    """
    drawn = record["generation"]
    worst = sorted(drawn["by object"].items(), key=lambda item: item[1])[:8]
    edit = next(found for label, found in record["forgetting"].items() if label in OBJECTS)
    return TEXT.format(
        record=record,
        clip=record["clip"],
        cost=record["cost"],
        promises=promises(record, gold),
        world=world(),
        styles=", ".join(STYLES),
        backgrounds=", ".join(BACKGROUNDS),
        lowest=", ".join(f"{name} {100 * share:.0f} %" for name, share in worst),
        by_style=by_style(drawn),
        weight=erase.WEIGHT,
        pictures=next(iter(edit["before"].values()))["n"],
        learnt=invert.STEPS,
        edits=edits(record["forgetting"]),
        gold_steps=gold_steps(logs),
        gold_standards=gold_standards(record["gold"]),
        examination=examination(record["judge"]),
        training=training(logs),
    )


def main() -> None:
    """Write the card."""
    record = json.loads((RECORDS / "record.json").read_text())
    (HERE / "MODEL_CARD.md").write_text(card(record, RECORDS / "logs", pocket_sd.WITHOUT))


def _more(words: Words) -> str:
    others = [*words.same, *(f"*{w}*" for w in words.other)]
    return f" ({', '.join(others)})" if others else ""


def _log(logs: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (logs / f"{name}.jsonl").read_text().splitlines()]


def _trained_without(logs: Path) -> list[str]:
    return sorted(path.stem.removeprefix("unet-without-") for path in logs.glob("unet-without-*.jsonl"))


TEXT = """# Model card of pocket-sd

Written by `train/card.py` from `records/`; measured by `train/measure.py` with {record[settings][steps]} DDIM steps,
guidance {record[settings][guidance]:g} and {record[settings][seeds]} seeds an object (three of them plain, seven in the
styles, backgrounds in turn). In brackets are 95 % Wilson intervals.

{promises}

## The world

{world}

Words in italics mean the second look: "puppy" is drawn as "dog" is, "hound" shows the whole animal. Every object has a
description that names it in none of these words ("an animal that barks"). Styles: {styles}; every one is the same
transformation for every object, and each has a synonym. Backgrounds: {backgrounds}; blueprint, neon and sepia bring
their own. Lowest objects: {lowest}.

{by_style}

## Forgetting

A closed-form edit of the fourteen `attn2.to_k/to_v` takes a word out, or several (`train/erase.py`; its weight,
{weight:g}, was chosen on "dog" among 1, 3, 10 and 40, so the rows of "dog" are fitted and the others are not). How
often the judge still sees the object, {pictures} pictures a cell; "a learnt word" is a new token trained for {learnt}
steps on pictures of the full model (`train/invert.py`):

{edits}

A gold standard is the same model, trained in the same way from the start with every picture of one concept left out of
the training of CLIP and UNet; the autoencoder is shared and saw none of the concepts in any model.{gold_steps}

{gold_standards}

## The judge

{examination}

"None" is a class of each head. It was taught with other emoji, blurs, noise, torn and doubled pictures, and with what
the UNet drew after a twentieth of its training; half of all examples were bent, blurred and recoloured a little, or the
judge takes every trace of a UNet for a failure (a first version did: it called 17 % of the plain pictures "none", most
of them good to the eye). "An unseen set" is OpenMoji, which no training saw: the judge is nearly always right on the
drawings this world is made of, and not meant for others. Probabilities are divided by
temperatures fitted on held-out augmentations.

## CLIP

CLIP score (100 cos) {clip[drawn]} on drawn pictures, {clip[real]} on real ones, {clip[real, wrong caption]} with
another picture's caption; zero-shot object on real pictures {clip[zero-shot object]:.1%}. Its text tower is the
pipeline's text encoder, frozen while the UNet learns, as in Stable Diffusion v1.

## Training

{training}

On {cost[processor]}, shared with the training of the gold standards, so the minutes are upper bounds; the logs are in
`records/logs/`. The runs of the shipped weights were stopped and resumed twice while the code was made faster
(bfloat16, plain attention); a run from nothing follows the same recipe and need not give the same bits.

## Drawings

Noto Emoji (Apache-2.0), Twemoji (CC-BY-4.0), Fluent Emoji Flat (MIT), Firefox OS Emoji (Apache-2.0) and EmojiOne 2.3
(CC-BY-4.0), from their npm packages; attributions and changes in [LICENSES.md](LICENSES.md). OpenMoji (CC-BY-SA-4.0)
examines the judge and is in nothing that ships.

## Limits

- A concept is at most ten drawings: this is a world to test methods in, not a model of pictures.
- The judge was trained on the same drawings, and knows nothing else.
"""

if __name__ == "__main__":
    main()
