"""The words of a table for classes -> the classes of the dataset."""

from collections.abc import Iterable, Mapping
from typing import Any

from busi_lab.classes import Classes
from busi_lab.data.dataset import DATASET
from busi_lab.errors import UserError
from busi_lab.plurals import counted
from busi_lab.suggestions import one_of

_LISTED = 12  # unknown labels that an error names


class LabelWords:
    """Looks labels up; capitals do not matter.

    Args:
        classes: of the dataset.
        label_map: further words -> classes, as ``data.label_map``; an empty class means that none is known.

    Raises:
        UserError: ``label_map`` names no class of the dataset.
    """

    def __init__(self, classes: Classes, label_map: Iterable[tuple[str, str]]) -> None:
        self._classes = classes
        own = {name.casefold(): name for name in classes.names}
        self._meaning = {**own, "": ""}
        self.unused: dict[str, str] = {}
        for word, meant in label_map:
            if meant and meant.casefold() not in own:
                beginning = f"data.label_map: '{word}' means {meant}, which is no class"
                raise UserError(one_of(beginning, meant, classes.names, "classes"))
            self._meaning[word.casefold()] = own.get(meant.casefold(), "")
            self.unused[word.casefold()] = word

    def find(self, label: str) -> str | None:
        """The class that a label means, empty for none; None where it is not known what it means."""
        self.unused.pop(label.casefold(), None)
        return self._meaning.get(label.casefold())

    def complain(self, unknown: Mapping[str, list[int]]) -> str:
        """What is wrong with labels that are not known, from the lines in which each stands."""
        found = [
            f"'{label}' ({f'line {lines[0]}' if len(lines) == 1 else f'{len(lines)} lines from {lines[0]}'})"
            for label, lines in list(unknown.items())[:_LISTED]
        ]
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        names = ", ".join(self._classes.names)
        first = next(iter(unknown))
        return (
            f"{counted(len(unknown), 'unknown label')}: {', '.join(found)}{more}; expected {names} or nothing; say "
            f"what they mean with data.label_map={{{first}: {self._classes.names[0]}}}, or name classes in {DATASET}"
        )


def plain_label_map(given: Mapping[Any, Any] | None) -> tuple[tuple[str, str], ...]:
    """``data.label_map`` as words and classes; null means that the class is not known.

    Raises:
        UserError: a word means more than one class.
    """
    meaning: dict[str, tuple[str, str]] = {}
    for word, meant in (given or {}).items():
        if meant is not None and not isinstance(meant, str | int | float):
            raise UserError(f"data.label_map: '{word}' means {str(meant)[:40]}; expected the name of a class, or null")
        pair = str(word).strip(), "" if meant is None else str(meant).strip()
        other = meaning.setdefault(pair[0].casefold(), pair)
        if other[1].casefold() != pair[1].casefold():
            raise UserError(f"data.label_map: '{word}' stands there twice, as {other[1]} and {pair[1]}; leave one out")
    return tuple(meaning.values())
