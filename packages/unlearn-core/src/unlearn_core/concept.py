"""What to forget: a name, other words for it, what it should become, and the neighbours that must survive."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from unlearn_core.errors import InvalidInput, one_of

Kind = Literal["object", "style", "unsafe", "person", "action"]


@dataclass(frozen=True, kw_only=True)
class Concept:
    """A concept to forget; lists become tuples, so a configuration file can hold it.

    Raises:
        InvalidInput: an empty or repeated word, an unknown kind, or a neighbour that is the concept itself.
    """

    name: str
    phrases: tuple[str, ...] = ()
    """Other words for the concept; the name itself is not repeated here."""
    kind: Kind = "object"
    anchor: str = ""
    """What the concept should become ("dog" -> "cat"); empty: the technique decides."""
    adjacent: tuple[str, ...] = ()
    """Near concepts that must survive."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidInput(f"the name of a concept is a text with at least one letter, got {self.name!r}")
        if self.kind not in get_args(Kind):
            raise InvalidInput(f"concept {self.name!r}: " + one_of("kind", str(self.kind), get_args(Kind)))
        if not isinstance(self.anchor, str):
            raise InvalidInput(f"concept {self.name!r}: the anchor is a text, got {self.anchor!r}")
        object.__setattr__(self, "phrases", self._words("phrases", self.phrases))
        object.__setattr__(self, "adjacent", self._words("adjacent", self.adjacent))
        own = {_key(name) for name in self.names}
        if len(own) != len(self.names):
            raise InvalidInput(
                f"concept {self.name!r}: its phrases repeat the name, which is always the first of its names"
            )
        for field, words in (("adjacent", self.adjacent), ("anchor", (self.anchor,))):
            if clash := [w for w in words if _key(w) in own]:
                raise InvalidInput(f"concept {self.name!r}: {field} holds {clash[0]!r}, the concept itself")

    @property
    def names(self) -> tuple[str, ...]:
        """The name, then the phrases."""
        return (self.name, *self.phrases)

    def _words(self, field: str, words: Iterable[str]) -> tuple[str, ...]:
        # A text is a sequence of texts: ("cat") without its comma would become c, a, t.
        if isinstance(words, str) or not isinstance(words, Iterable):
            raise InvalidInput(f"concept {self.name!r}: {field} is a list of texts, got {words!r}")
        found = tuple(words)
        for word in found:
            if not isinstance(word, str) or not word.strip():
                raise InvalidInput(f"concept {self.name!r}: {field} holds {word!r}, which is no word")
        if len({_key(w) for w in found}) != len(found):
            raise InvalidInput(f"concept {self.name!r}: {field} holds a word twice: {', '.join(found)}")
        return found


def _key(word: str) -> str:
    return " ".join(word.casefold().split())
