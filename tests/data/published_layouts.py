"""Small folders in the layouts that public datasets and other programs have, for the tests of importers.

Each function writes the same scans; the module of the importer names the source of the layout.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from openpyxl import Workbook
from PIL import Image
from scipy.io import savemat

from busi_lab.data.outlines import encode_runs, find_polygons


class Case(NamedTuple):
    """A scan with its truth; ``mask`` is bool, and empty for ``normal``."""

    patient: int
    label: str
    scan: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def small_cases() -> list[Case]:
    """A benign and a malignant scan of one patient, and a benign one of another, 20 x 30, with squares as lesions."""
    random = np.random.default_rng(0)
    cases = []
    for number, (patient, label) in enumerate([(1, "benign"), (1, "malignant"), (2, "benign")]):
        mask = np.zeros((20, 30), np.bool_)
        mask[5 : 11 + number, 4:14] = True
        cases.append(Case(patient, label, random.integers(0, 256, (20, 30), dtype=np.uint8), mask))
    return cases


def phantom_cases(root: Path) -> list[Case]:
    """The scans of a folder in BUSI's layout, two of a patient."""
    cases = []
    for label in ("benign", "malignant", "normal"):
        for path in sorted((root / label).glob("* (*).png")):
            if "_mask" not in path.name:
                masks = [np.asarray(Image.open(file)) > 0 for file in sorted(path.parent.glob(f"{path.stem}_mask*"))]
                mask = np.logical_or.reduce(masks)
                cases.append(Case(len(cases) // 2, label, np.asarray(Image.open(path).convert("L")), mask))
    return cases


def write(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == np.bool_ else pixels).save(path)


def sheet(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """An Excel file."""
    book = Workbook()
    assert book.active is not None
    for row in rows:
        book.active.append(list(row))
    book.save(path)


def busbra(root: Path, cases: Sequence[Case]) -> None:
    lines = ["ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"]
    for number, case in enumerate(cases):
        name = f"{number:04}-l"
        write(root / "BUSBRA/Images" / f"bus_{name}.png", case.scan)
        write(root / "BUSBRA/Masks" / f"mask_{name}.png", case.mask)
        lines.append(f'bus_{name},{case.patient},Cyst,{case.label},4,Logiq 7,30,20,left,"[5, 6, 7, 8]"')
    (root / "BUSBRA/bus_data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def breast(root: Path, cases: Sequence[Case]) -> None:
    heading = "CaseID,Image_filename,Mask_tumor_filename,Mask_other_filename,Pixel_size,Age,BIRADS,Classification"
    rows: list[list[Any]] = [heading.split(",")]
    for number, case in enumerate(cases, start=1):
        stem = f"case{number:03}"
        write(root / f"{stem}.png", case.scan)
        outline = f"{stem}_tumor.png" if case.mask.any() else None
        if outline:
            write(root / outline, case.mask)
        rows.append([number, f"{stem}.png", outline, None, 0.007, "not available", "4b", case.label])
    sheet(root / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx", rows)


def udiat(root: Path, cases: Sequence[Case]) -> None:
    rows: list[list[Any]] = [["Image", "Type", "Pathology"]]
    for number, case in enumerate(cases, start=1):
        write(root / "original" / f"{number:06}.png", case.scan)
        write(root / "GT" / f"{number:06}.png", case.mask)
        rows.append([number, case.label.capitalize(), "FA"])
    sheet(root / "DatasetB.xlsx", rows)


def busuclm(root: Path, cases: Sequence[Case]) -> None:
    lines = ["Image;Label;Doppler;Marks;Combined"]
    for number, case in enumerate(cases):
        name = f"{chr(65 + case.patient) * 4}_{number:03}.png"
        colours = np.zeros((*case.mask.shape, 3), np.uint8)
        if case.label != "normal":
            colours[case.mask, {"malignant": 0, "benign": 1}[case.label]] = 255
        write(root / "images" / name, case.scan)
        write(root / "masks" / name, colours)
        lines.append(f"{name};{case.label.capitalize()};No;Yes;No")
    (root / "INFO.csv").write_bytes("\r\n".join(lines).encode())


def oasbud(root: Path, cases: Sequence[Case]) -> None:
    """A lesion a case, its scan as amplitudes of a carrier of a quarter of the sampling rate, in both planes."""
    kinds = [(name, object) for name in ("id", "rf1", "rf2", "roi1", "roi2", "birads", "class")]
    data = np.empty((1, len(cases)), dtype=kinds)
    for number, case in enumerate(cases):
        carrier = np.cos(np.pi / 2 * np.arange(len(case.scan)))[:, None]
        echoes = 10 ** ((case.scan / 255 - 1) * 50 / 20) * carrier
        roi = case.mask.astype(np.uint8)
        label = float(case.label == "malignant")
        data[0, number] = (f"p{case.patient}", echoes, echoes[:, ::-1], roi, roi[:, ::-1], "4a", label)
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "OASBUD.mat", {"data": data})


def pairs(root: Path, cases: Sequence[Case]) -> None:
    for number, case in enumerate(cases):
        write(root / "Original" / f"case{number}.png", case.scan)
        write(root / "GT" / f"case{number}_GT.bmp", case.mask)


def folder(root: Path, cases: Sequence[Case]) -> None:
    for number, case in enumerate(cases):
        write(root / ("train", "val")[number % 2] / case.label / f"{number}.jpg", case.scan)


def coco(root: Path, cases: Sequence[Case]) -> None:
    """Runs for malignant lesions, polygons for others, and nothing for a scan without one."""
    labels = ["benign", "malignant"]
    images, annotations = [], []
    for number, case in enumerate(cases):
        write(root / "images" / f"{number}.png", case.scan)
        height, width = case.mask.shape
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        if case.mask.any():
            outline: Any = {"size": [height, width], "counts": encode_runs(case.mask)}
            if case.label == "benign":
                outline = find_polygons(case.mask)
            annotation = {
                "id": number,
                "image_id": number,
                "category_id": labels.index(case.label),
                "bbox": [0, 0, 1, 1],
            }
            annotations.append(annotation | {"segmentation": outline})
    categories = [{"id": number, "name": label} for number, label in enumerate(labels)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/instances.json").write_text(json.dumps(content))


def yolo(root: Path, cases: Sequence[Case]) -> None:
    (root / "labels").mkdir(parents=True)
    (root / "data.yaml").write_text("names:\n  0: benign\n  1: malignant\n")
    for number, case in enumerate(cases):
        write(root / "images" / f"{number}.png", case.scan)
        shares = np.array(case.mask.shape[::-1])
        lines = [
            " ".join(map(str, [int(case.label == "malignant"), *(np.reshape(polygon, (-1, 2)) / shares).ravel()]))
            for polygon in find_polygons(case.mask) or []
        ]
        (root / "labels" / f"{number}.txt").write_text("\n".join(lines))


def nnunet(root: Path, cases: Sequence[Case]) -> None:
    labels = {"background": 0, "benign": 1, "malignant": 2}
    for number, case in enumerate(cases):
        write(root / "imagesTr" / f"bus_{number}_0000.png", case.scan)
        write(root / "labelsTr" / f"bus_{number}.png", case.mask * np.uint8(labels.get(case.label, 0)))
    content = {"channel_names": {"0": "US"}, "labels": labels, "numTraining": len(cases), "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(content))


LAYOUTS: dict[str, Callable[[Path, Sequence[Case]], None]] = {
    "busbra": busbra,
    "breast": breast,
    "udiat": udiat,
    "busuclm": busuclm,
    "oasbud": oasbud,
    "pairs": pairs,
    "folder": folder,
    "coco": coco,
    "yolo": yolo,
    "nnunet": nnunet,
}
