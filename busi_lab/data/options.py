"""How a dataset folder is to be read: its table, what the labels in it mean, and what is lesion in mask files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busi_lab.summary import DataRecord

LABELS = "labels.csv"
"""The table of a folder that has one."""


@dataclass(frozen=True)
class DatasetOptions:
    """How a dataset folder is to be read.

    Attributes:
        labels: ``data.labels``, a table outside the folder; None for ``labels.csv`` in it.
        label_map: ``data.label_map``, words and the classes that they mean.
        lesion_values: ``data.lesion_values``, what is lesion in mask files; empty where the files themselves tell.
        layout: ``data.layout``, see :mod:`busi_lab.data.layouts`.
    """

    labels: str | None = None
    label_map: tuple[tuple[str, str], ...] = ()
    lesion_values: tuple[str, ...] = ()
    layout: str = "auto"

    def table(self, root: Path) -> Path:
        """The table of a folder."""
        return root / LABELS if self.labels is None else Path(self.labels).expanduser()

    @property
    def table_name(self) -> str:
        """The table in messages."""
        return LABELS if self.labels is None else self.labels

    def has_table(self, root: Path) -> bool:
        """Whether there is such a table for a folder, or should be."""
        path = self.table(root)
        return self.labels is not None or path.exists() or path.is_symlink()


AS_FOUND = DatasetOptions()
"""``labels.csv`` in the folder, where there is one."""


def options_record(options: DatasetOptions) -> dict[str, Any]:
    """The fields of a :class:`DataRecord` that say how a dataset was read."""
    file = None if options.labels is None else str(options.table(Path()).resolve())
    return {
        "labels": file,
        "label_map": dict(options.label_map),
        "lesion_values": options.lesion_values,
        "layout": options.layout,
    }


def recorded_options(data: DataRecord) -> DatasetOptions:
    """How the dataset of a run was read."""
    return DatasetOptions(data.labels, tuple(data.label_map.items()), data.lesion_values, data.layout)
