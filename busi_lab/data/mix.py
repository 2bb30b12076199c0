"""Several datasets as one: a folder of links to them, with one table that says of each scan where it comes from."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from busi_lab.classes import Classes
from busi_lab.data.case_files import CaseFiles
from busi_lab.data.dataset import CLASS_NAME, DATASET, is_synthetic
from busi_lab.data.label_words import plain_label_map
from busi_lab.data.layouts import classes_of, find_root, list_cases
from busi_lab.data.options import LABELS, DatasetOptions
from busi_lab.errors import UserError
from busi_lab.files import new_folder, write_json, write_rows
from busi_lab.suggestions import one_of

SOURCE = "source"
"""The column that names the dataset of a scan."""

_COLUMNS = ("file", "label", "mask_file", "patient", "spacing", SOURCE)


@dataclass(frozen=True)
class MixSource:
    """One of the datasets, as the keys of an item of ``data.sources`` describe it.

    Attributes:
        name: of letters, digits, dashes and underscores; what tables call it.
        root: its folder.
        labels: as ``data.labels``.
        label_map: as ``data.label_map``.
        layout: as ``data.layout``.
    """

    name: str
    root: Path
    labels: str | None = None
    label_map: Mapping[str, Any] | None = None
    layout: str = "auto"

    @property
    def options(self) -> DatasetOptions:
        """How its folder is to be read."""
        return DatasetOptions(self.labels, plain_label_map(self.label_map), (), self.layout)


def parse_sources(items: Sequence[Any]) -> list[MixSource]:
    """What ``data.sources`` lists.

    Raises:
        UserError: fewer than two, an item without name or root, an unknown key, or a name that stands twice.
    """
    keys = [item.name for item in fields(MixSource)]
    found: list[MixSource] = []
    for number, item in enumerate(items):
        where = f"data.sources[{number}]"
        if not isinstance(item, Mapping):
            raise UserError(f"{where}={item}: expected {{name: NAME, root: DIR}}")
        if unknown := [str(key) for key in item if key not in keys]:
            raise UserError(one_of(f"{where}: unknown key {unknown[0]}", unknown[0], keys, "known keys"))
        name, root = item.get("name"), item.get("root")
        if not isinstance(name, str) or not CLASS_NAME.fullmatch(name):
            raise UserError(f"{where}.name={name}: expected letters, digits, dashes and underscores, as busbra")
        if not root:
            raise UserError(f"{where}.root={root}: expected the folder of a dataset")
        options = {key: item[key] for key in ("labels", "label_map", "layout") if item.get(key) is not None}
        found.append(MixSource(name, Path(str(root)).expanduser(), **options))
    names = [source.name.casefold() for source in found]
    if len(found) < 2:
        raise UserError(f"data.sources: expected two datasets at least, found {len(found)}; for one set data.root")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"data.sources: the name {twice[0]} stands twice; give each dataset a name of its own")
    return found


def mix_folder(sources: Sequence[MixSource], parent: Path) -> Path:
    """The folder that these datasets have in ``parent``, written if it is not there yet.

    Its name follows from the datasets and from all that their tables say; scans are read where they are.

    Raises:
        UserError: a dataset is not sound or has other classes, or ``parent`` cannot be written to.
    """
    rows: list[dict[str, str]] = []
    all_classes: dict[str, Classes] = {}
    roots: dict[str, Path] = {}
    for source in sources:
        root = roots[source.name] = find_root(source.root, source.options).resolve()
        all_classes[source.name] = classes_of(root, source.options)
        cases, defects = list_cases(root, source.options)
        if defects:
            others = f" (and {len(defects) - 1} more)" if len(defects) > 1 else ""
            raise UserError(f"data.sources: {root}: {defects[0]}{others}; see: busi-data check '{root}'")
        rows += [_row(source.name, case) for case in cases]
    first, *others_ = all_classes.items()
    for name, classes in others_:
        if classes != first[1]:
            raise UserError(
                f"data.sources: {name} has the classes {', '.join(classes.names)}, and {first[0]} has "
                f"{', '.join(first[1].names)}; give all the same, with label_map or {DATASET}"
            )
    columns = list(dict.fromkeys([*_COLUMNS, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writerows(rows)
    content = json.dumps([text.getvalue(), {name: str(root) for name, root in roots.items()}, asdict(first[1])])
    folder = parent / f"mix-1-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        try:
            with new_folder(folder) as new:
                for name, root in roots.items():
                    (new / name).symlink_to(root, target_is_directory=True)
                roles = {"positive": first[1].positive, "without_lesion": first[1].without_lesion}
                synthetic = all(is_synthetic(root) for root in roots.values())
                write_json(new / DATASET, {"classes": first[1].names, **roles, "synthetic": synthetic})
                write_rows(new / LABELS, rows, columns)
        except (OSError, UserError):
            if not folder.is_dir():  # else another job was faster, with the same links
                raise
    return folder


def _row(name: str, case: CaseFiles) -> dict[str, str]:
    """The row of a scan; patients of two datasets are different people, whatever they are called."""
    spacing = "" if case.spacing is None else "x".join(f"{value:.9g}" for value in case.spacing)
    row = {
        "file": f"{name}/{case.image}",
        "label": case.label,
        "mask_file": "|".join(f"{name}/{mask}" for mask in case.masks),
        "patient": f"{name} {case.patient}" if case.patient else "",
        "spacing": spacing,
        SOURCE: name,
    }
    return {**{key: value for key, value in case.further if key not in row}, **row}
