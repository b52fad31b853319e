"""Search, for every concept, a prompt without its words that the text encoder takes for the concept.

Coordinate ascent on the cosine between the CLIP text embeddings of the prompt and of the concept, over the words of
the vocabulary: a small black-box cousin of Ring-A-Bell and MMA-Diffusion. Writes `src/pocket_sd/adversarial.py`.
"""

import json
from pathlib import Path

import numpy as np
import torch
import vocabulary
from torch import Tensor

import pocket_sd
from pocket_sd.words import STYLES, WORDS, caption

LENGTH, SWEEPS = 5, 3


def main() -> None:
    """Search and write."""
    model, _, tokenizer = pocket_sd.clip()

    @torch.no_grad()
    def encode(texts: list[str]) -> Tensor:
        return model.encode_text(tokenizer(texts), normalize=True)

    found, rng = {}, np.random.default_rng(0)
    for concept in pocket_sd.concepts():
        if concept.kind == "unsafe":
            continue
        target = encode(
            [caption("house", concept.name) if concept.kind == "style" else caption(concept.name)]
        )[0]
        description = "" if concept.name in STYLES else WORDS[concept.name].description
        taken = {*concept.names, *description.split()} | ({"house"} if concept.kind == "style" else set())
        words = [w for w in vocabulary.words() if w not in taken or w in ("a", "an", "the")]
        prompt = [str(w) for w in rng.choice(words, LENGTH)]
        for _ in range(SWEEPS):
            for at in range(LENGTH):
                texts = [" ".join([*prompt[:at], word, *prompt[at + 1 :]]) for word in words]
                prompt = texts[int((encode(texts) @ target).argmax())].split()
        found[concept.name] = " ".join(prompt)
        print(concept.name, found[concept.name], float(encode([found[concept.name]])[0] @ target), flush=True)
    lines = [f"    {json.dumps(name)}: {json.dumps(text)}," for name, text in found.items()]
    path = Path(pocket_sd.__file__).with_name("adversarial.py")
    path.write_text(
        '"""For every concept a prompt without its words, searched by `train/adversarial.py`."""\n\n'
        "ADVERSARIAL = {\n" + "\n".join(lines) + "\n}\n"
    )


if __name__ == "__main__":
    main()
