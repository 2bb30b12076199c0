"""What a mistyped name was meant to be: the nearest of those that there are, and all of them."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def nearest(word: str, choices: Iterable[str]) -> str:
    """``did you mean CHOICE?`` for the choice that is most like ``word``; empty where none is."""
    found = get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else ""


def one_of(beginning: str, word: str, choices: Sequence[str], what: str) -> str:
    """``BEGINNING; did you mean CHOICE? WHAT: all choices``."""
    listed = f"{what}: {', '.join(choices)}"
    return f"{beginning}; {f'{nearest(word, choices)} {listed}'.strip()}"
