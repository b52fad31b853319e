"""Write MODEL_CARD.md from the records: no number in it is typed by hand."""

import json
from pathlib import Path

from pocket_sd.words import BACKGROUNDS, FAMILIES, PLAIN, STYLES, WORDS

HERE = Path(__file__).parents[1]
RECORDS = HERE / "records"


def percent(found: dict) -> str:
    """Return a rate with its interval: "94 % (91-96)"."""
    return f"{100 * found['rate']:.0f} % ({100 * found['low']:.0f}-{100 * found['high']:.0f})"


def table(head: list[str], rows: list[list[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def log(name: str) -> list[dict]:
    """Return the lines of a training log."""
    return [json.loads(line) for line in (RECORDS / "logs" / f"{name}.jsonl").read_text().splitlines()]


def main() -> None:
    """Write the card."""
    record = json.loads((RECORDS / "record.json").read_text())
    drawn, judged, clip, cost = (record[k] for k in ("generation", "judge", "clip", "cost"))
    shares = ", ".join(
        f"{100 * judged['held-out augmentations'][h]:.1f} %" for h in ("object", "style", "background")
    )
    promised = table(
        ["what", "promised", "measured"],
        [
            ["judge on held-out augmentations: object, style, background", "98 %", shares],
            ["drawn object judged right", "90 %", percent(drawn["object"])],
            ["drawn style judged right", "85 %", percent(drawn["style"])],
            ["drawn background judged right", "95 %", percent(drawn["background"])],
            ["object drawn for a synonym judged right", "80 %", percent(drawn["synonym"])],
            ["object drawn for a description judged right", "", percent(drawn["description"])],
            ["size", "30 MB", f"{record['megabytes']['all']:.1f} MB"],
            ["100 pictures on two cores", "60 s", f"{cost['seconds for 100 pictures']:.0f} s"],
            ["same seeds, same pictures on the CPU", "yes", "yes" if cost["same again"] else "NO"],
        ],
    )  # fmt: skip
    by_style = table(
        ["style", "object right", "style right"],
        [
            [s, percent(drawn["object by style"][s]), percent(drawn["style by style"][s])]
            for s in (PLAIN, *STYLES)
        ],
    )
    worst = sorted(drawn["by object"].items(), key=lambda item: item[1])[:8]
    examination = table(
        ["pictures", "object", "style", "background"],
        [
            [
                name,
                *(f"{100 * found[h]:.1f} %" if h in found else "" for h in ("object", "style", "background")),
            ]
            for name, found in judged.items()
            if name != "temperatures"
        ],
    )
    edits = []
    for label, found in record["forgetting"].items():
        if "becomes" not in found:
            continue
        for word in found["before"]:
            edits.append(
                [label, found["becomes"], word, percent(found["before"][word]), percent(found["after"][word])]
            )
        edits.append(
            [
                label,
                found["becomes"],
                "the 39 others",
                percent(found["others before"]),
                percent(found["others after"]),
            ]
        )
    forgetting = table(["taken out", "becomes", "asked for", "before", "after"], edits)
    gold = []
    for name, found in record["gold"].items():
        for word in found["before"]:
            gold.append([name, word, percent(found["before"][word]), percent(found["after"][word])])
        gold.append([name, "the other objects", percent(drawn["object"]), percent(found["others after"])])
        if "seen instead" in found:
            instead = ", ".join(f"{k} {v}" for k, v in found["seen instead"].items())
            gold.append([name, f"seen for a {name}, of 20", "", instead])
    gold_table = (
        table(["without", "asked for", "full model", "gold standard"], gold) if gold else "None ships yet."
    )
    minutes = {name: log(name)[-1]["seconds"] / 60 for name in ("autoencoder", "clip", "unet", "judge")}
    training = table(
        ["part", "steps", "minutes", "at the end"],
        [
            ["autoencoder", log("autoencoder")[-1]["step"], f"{minutes['autoencoder']:.0f}",
             f"PSNR {log('autoencoder')[-1]['psnr']:.1f} dB on held-out emoji"],
            ["CLIP", log("clip")[-1]["step"], f"{minutes['clip']:.0f}",
             f"zero-shot object {100 * log('clip')[-1]['zero_shot']:.1f} %"],
            ["UNet", log("unet")[-1]["step"], f"{minutes['unet']:.0f}",
             f"{log('unet')[-1]['images'] / 1000:.0f} thousand pictures, loss {log('unet')[-1]['loss']:.4f}"],
            ["judge", max(row.get("step", 0) for row in log("judge")), f"{minutes['judge']:.0f}", ""],
        ],
    )  # fmt: skip
    synonyms = table(
        ["family", "objects and their other words"],
        [
            [family, ", ".join(n + _more(WORDS[n]) for n in names)]
            for family, names in FAMILIES.items()
        ],
    )  # fmt: skip
    text = TEXT.format_map(
        {
            **locals(),
            "styles": ", ".join(STYLES),
            "backgrounds": ", ".join(BACKGROUNDS),
            "lowest": ", ".join(f"{name} {100 * share:.0f} %" for name, share in worst),
        }
    )
    (HERE / "MODEL_CARD.md").write_text(text)


def _more(words) -> str:
    others = [*words.same, *(f"*{w}*" for w in words.other)]
    return f" ({', '.join(others)})" if others else ""


TEXT = """# Model card of pocket-sd

Written by `train/card.py` from `records/`; measured by `train/measure.py` with {record[settings][steps]} DDIM steps,
guidance {record[settings][guidance]:g} and {record[settings][seeds]} seeds an object (three of them plain, seven in the
styles, backgrounds in turn). In brackets are 95 % Wilson intervals.

{promised}

## The world

{synonyms}

Words in italics mean the second look: "puppy" is drawn as "dog" is, "hound" shows the whole animal. Every object has a
description that names it in none of these words ("an animal that barks"). Styles: {styles}; every one is the same
transformation for every object, and each has a synonym. Backgrounds: {backgrounds}; blueprint, neon and sepia bring
their own. Lowest objects: {lowest}.

{by_style}

## Forgetting

A closed-form edit of the fourteen `attn2.to_k/to_v` takes one word out (`train/erase.py`; its weight, 3, was chosen on
"dog" among 1, 3, 10 and 40, so that row is fitted and "pistol" is not). How often the judge still sees the object, 20
pictures a cell; "a learnt word" is a new token trained for 120 steps on pictures of the full model (`train/invert.py`):

{forgetting}

A gold standard is the same model, trained in the same way from the start with every picture of one concept left out of
the training of CLIP and UNet; the autoencoder is shared and saw none of the concepts in any model.

{gold_table}

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
