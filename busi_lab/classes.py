"""The classes of a dataset, and the roles that they have in figures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Classes:
    """Class names in the order of every probability column, logit and confusion matrix.

    Attributes:
        names: two at least, each once.
        positive: the class that is looked for: sensitivity is the share of its images that are found. None for none.
        without_lesion: the class of scans without a lesion, whose mask is empty. None where every scan has a lesion.
    """

    names: tuple[str, ...]
    positive: str | None = None
    without_lesion: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def number(self, label: str) -> int:
        """Position of a label; -1 for the empty label of a scan whose class is not known.

        Raises:
            ValueError: it is no class of these.
        """
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
        """The other class with a lesion beside ``positive``; None where there is not exactly one."""
        others = [name for name in self.lesions if name != self.positive]
        return others[0] if self.positive in self.lesions and len(others) == 1 else None

    @property
    def auroc_positive(self) -> str | None:
        """Name of the AUROC of the positive class against the rest, as ``auroc_malignant``; None without that class."""
        return None if self.positive is None else f"auroc_{self.positive}"

    @property
    def auroc_lesions(self) -> str | None:
        """Name of the AUROC between the two classes with a lesion, as ``auroc_benign_malignant``."""
        return f"auroc_{self.negative}_{self.positive}" if self._lesions_apart else None

    @property
    def accuracy_lesions(self) -> str | None:
        """Name of the accuracy among scans with a lesion, as ``accuracy_without_normal``."""
        return f"accuracy_without_{self.without_lesion}" if self._lesions_apart else None

    @property
    def _lesions_apart(self) -> bool:
        """Whether figures of scans with a lesion alone say more than those of all scans."""
        return self.negative is not None and self.without_lesion is not None


BUSI = Classes(("benign", "malignant", "normal"), positive="malignant", without_lesion="normal")
"""The classes of BUSI, and of every dataset that does not say its own."""
