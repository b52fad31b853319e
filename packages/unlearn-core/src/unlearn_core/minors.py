"""Safety guard: no sexual prompt that mentions a minor is ever loaded, crafted or drawn.

Always on, with no switch. `PromptSet` applies it to every row, whatever made the row, and counts what it
dropped. It errs towards dropping: "girl" and "boy" count as minors because nobody can tell an age from a
prompt, and a lost row costs a benchmark nothing. It reads English words; it does not understand text, and it
is no substitute for looking at what a prompt source holds.
"""

import re
import unicodedata


def sexual_and_minor(text: str) -> bool:
    """Return whether `text` has both a word for a minor and a sexual word.

    Case, accents, look-alike characters, punctuation inside words, letters spaced out, letters repeated and
    digits for letters are seen through. Either kind of word alone is let pass.
    """
    readings = _readings(text)
    return any(_has(r, *_MINOR) for r in readings) and any(_has(r, *_SEXUAL) for r in readings)


def _has(reading: str, words: frozenset[str], stems: tuple[str, ...], phrases: re.Pattern[str]) -> bool:
    found = any(word in words or word.startswith(stems) for word in reading.split())
    return found or phrases.search(reading) is not None


def _readings(text: str) -> set[str]:
    """Return `text` as lower-case words parted by single spaces, once for every way to undo a disguise."""
    plain = text.lower()
    if not text.isascii():
        plain = unicodedata.normalize("NFKD", text).casefold()  # NFKC, with accents apart
        # Mn: accents, Cf: zero-width characters.
        plain = "".join(c for c in plain if unicodedata.category(c) not in ("Mn", "Cf")).translate(
            _LOOK_ALIKE
        )
    spellings = {plain, plain.translate(_LEET), plain.translate(_LEET_L)}
    if _RUN.search(plain):  # three and more of a letter stand for one, or for two
        spellings = {_RUN.sub(letters, s) for s in spellings for letters in (r"\1", r"\1\1")}
    readings = set()
    for spelling in spellings:
        close = _SPACED.sub(lambda run: run[0].replace(" ", ""), spelling)
        joined = _MARKS.sub("", " ".join(spelling.split()))
        readings |= {_PARTS.sub(" ", spelling), _PARTS.sub(" ", close), joined}
    return readings


_LOOK_ALIKE = str.maketrans("аеорсухіјѕԁɡɑοαενι", "aeopcyxijsdgaoaevi")  # Cyrillic, IPA, Greek
_LEET = str.maketrans("013457@$!", "oieastasi")
_LEET_L = _LEET | {ord("1"): "l"}
_RUN = re.compile(r"([a-z])\1{2,}")
_SPACED = re.compile(r"(?<![a-z])(?:[a-z] ){2,}[a-z](?![a-z])")
_MARKS = re.compile(r"[^a-z0-9 ]+")
_PARTS = re.compile(r"[^a-z0-9]+")

# Kept short and clinical: whole words, stems (whatever begins with them), phrases.
_BOTH = "lolicon loli lolis shotacon shota shotas csam"
_BOTH_STEMS = "pedophil paedophil jailbait"

_YEARS = (
    r"(?:1[0-7]|0?[0-9]|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen"
    r"|fifteen|sixteen|seventeen)"
)
_MINOR = (
    frozenset(
        "boy boys girl girls kid kids kiddo kiddos baby babies minor minors tween tweens lolita lolitas "
        f"underage underaged {_BOTH}".split()
    ),
    tuple(
        "child teen preteen infant toddler newborn adolescen juvenile youngster pubescen prepubescen "
        f"schoolboy schoolgirl schoolkid schoolchild highschool kindergart preschool {_BOTH_STEMS}".split()
    ),
    re.compile(
        rf"(?<!ty )\b{_YEARS} ?(?:(?:years?|yrs?) ?(?:old|of age)|y ?o)\b"  # not the "one" of "forty one"
        rf"|\b(?:aged?|age of) {_YEARS}\b"
        r"|\bunder (?:aged?|18|eighteen)\b|\b(?:high|middle|elementary|primary) school"
    ),
)
_SEXUAL = (
    frozenset(f"sex nude nudes rape raped raping anal cum busty {_BOTH}".split()),
    tuple(
        "sexual sexy nudi naked topless undress unclothed porn erotic nsfw hentai ecchi genital penis vagina "
        "vulva pubic nipple breast boob masturbat orgasm ejaculat intercourse lingerie cleavage stripper "
        "striptease seductive sensual lewd obscen arous horny fetish bdsm bondage rapist molest incest "
        f"{_BOTH_STEMS}".split()
    ),
    re.compile(r"\b(?:no|without)(?: any)? cloth(?:es|ing)\b"),
)
