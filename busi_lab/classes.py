"""The classes of a dataset and what they stand for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Classes:
    """Class names in the order of every probability column, and which of them have a role."""

    names: tuple[str, ...]
    positive: str | None
    without_lesion: str | None

    def number(self, label: str) -> int:
        """Position of a label; -1 for the empty label of a scan whose class is not known."""
        return self.names.index(label) if label else -1

    def name(self, number: int) -> str:
        """The label that :meth:`number` turned into a number."""
        return self.names[number] if number >= 0 else ""

    @property
    def lesions(self) -> tuple[str, ...]:
        """The classes of scans with a lesion."""
        return tuple(name for name in self.names if name != self.without_lesion)

    @property
    def negative(self) -> str | None:
        """The other lesion class beside ``positive`` where there are exactly two."""
        others = [name for name in self.lesions if name != self.positive]
        return others[0] if self.positive and len(self.lesions) == 2 else None

    @property
    def auroc_positive(self) -> str | None:
        """The metric of the positive class against the rest."""
        return f"auroc_{self.positive}" if self.positive else None

    @property
    def auroc_lesions(self) -> str | None:
        """The metric of the positive class against the other lesions."""
        return f"auroc_{self.negative}_{self.positive}" if self.negative else None

    @property
    def accuracy_lesions(self) -> str | None:
        """The accuracy over the scans with a lesion."""
        return f"accuracy_without_{self.without_lesion}" if self.without_lesion else None


BUSI = Classes(("benign", "malignant", "normal"), "malignant", "normal")
