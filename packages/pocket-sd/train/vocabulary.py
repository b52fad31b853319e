"""The tokenizer: CLIP's, with every word of the world as one token and letters for the rest."""

import itertools
from pathlib import Path

from transformers import CLIPTokenizer

from pocket_sd.words import BACKGROUNDS, FAMILIES, OBJECTS, PLAIN, STYLES, WORDS

CONTEXT = 32
"""Tokens of a caption, its ends included (SD: 77)."""
_MORE = (
    "a an the of on in style background picture emoji drawing image photo painting art and with no not or "
    "person animal fruit vehicle weapon thing object small large big little red orange purple brown black dark "
    "light colourful colorful cute scary funny realistic color colour left right top bottom middle one two many"
)


def words() -> list[str]:
    """Return every word that is one token, in a fixed order."""
    texts = [*OBJECTS, *FAMILIES, PLAIN, *STYLES, *STYLES.values(), *BACKGROUNDS, _MORE]
    for entry in WORDS.values():
        texts += [*entry.same, *entry.other, entry.description]
    return sorted({word for text in texts for word in text.lower().split()})


def tokenizer() -> CLIPTokenizer:
    """Return the tokenizer; the end of a text has the highest id, as in CLIP, where pooling looks for it."""
    letters = list(_byte_letters())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: dict[tuple[str, str], int] = {}
    for word in words():
        pieces = _pieces(word, merges)
        while len(pieces) > 1:  # later merges rank lower, so the words before stay whole
            pair = (pieces[0], pieces[1])
            pieces[:2] = ["".join(pair)]
            merges[pair] = len(merges)
            tokens.append(pieces[0])
    vocab = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=list(merges), model_max_length=CONTEXT)


def _pieces(word: str, merges: dict[tuple[str, str], int]) -> list[str]:
    """Return what byte-pair encoding makes of `word`: the pair of the lowest rank first."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while pairs := [pair for pair in itertools.pairwise(pieces) if pair in merges]:
        first = min(pairs, key=merges.__getitem__)
        at = list(itertools.pairwise(pieces)).index(first)
        pieces[at : at + 2] = ["".join(first)]
    return pieces


def _byte_letters() -> list[str]:
    """Return GPT-2's printable letter of every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = itertools.count(256)
    return [chr(b) if b in plain else chr(next(rest)) for b in range(256)]


def save(folder: Path) -> None:
    """Write the tokenizer where diffusers and open_clip look for it."""
    tokenizer().save_pretrained(folder)
