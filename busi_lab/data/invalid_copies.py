"""A dataset with augmented copies, made before it is split: an invalid protocol, to see what it does to figures.

Copies of one scan then stand in training and test set alike. Published figures have been obtained so; nobody should
obtain others so.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from busi_lab.data.dataset import DATASET, is_synthetic
from busi_lab.data.index import Index, read_case
from busi_lab.data.scan import Gray
from busi_lab.data.transforms import Augmentation
from busi_lab.files import new_folder, write_json

REASON = "augmented copies before the split"
"""What the folder says of itself, and with it every run on it."""

CHANGES: dict[str, Any] = {
    "rotation": 5.0,
    "shift": 0.1,
    "shear": 0.05,
    "zoom": 0.05,
    "brightness": [1.0, 1.4],
    "horizontal_flip": True,
}
"""What a copy differs by: the published augmentation (Dajam & Qahmash, IJACSA 16(5), 2025)."""


def make_copies(index: Index, folder: Path, factor: int) -> Path:
    """Write a dataset in BUSI's layout with each class brought to ``factor`` times the images of the largest one.

    Args:
        index: of the dataset.
        folder: to create.
        factor: 1 or more.

    Raises:
        UserError: a scan has become unreadable, or ``folder`` cannot be made.
    """
    cases = [case for case in index.cases if case.label]
    wanted = factor * max(index.counts.values())
    augment = Augmentation(CHANGES)
    with new_folder(folder) as new:
        classes = index.classes
        roles = {"classes": classes.names, "positive": classes.positive, "without_lesion": classes.without_lesion}
        write_json(new / DATASET, {**roles, "synthetic": is_synthetic(index.root), "invalid": REASON})
        for number, label in enumerate(classes.names):
            of_class = [case for case in cases if case.label == label]
            (new / label).mkdir()
            order = np.random.default_rng([factor, number]).permutation(len(of_class)).tolist()
            for k in range(wanted if of_class else 0):
                case = of_class[order[k % len(of_class)]]
                image, mask = read_case(index.root, case)
                lesion: Gray | None = mask.astype(np.uint8)
                name = Path(case.case_id).name
                if k >= len(of_class):
                    image, lesion = augment(image, lesion, seed=k)
                    name = f"{name} copy {k // len(of_class)}"
                assert lesion is not None
                _write(new / label / f"{name}.png", image)
                _write(new / label / f"{name}_mask.png", lesion * np.uint8(255))
    return folder


def _write(path: Path, image: Gray) -> None:
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
