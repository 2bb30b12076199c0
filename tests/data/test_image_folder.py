"""A folder of images as a dataset: its classes, its cases, what is refused, and a run on it."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from busi_lab.classes import Classes
from busi_lab.data.cache import open_cache
from busi_lab.data.index import index_dataset
from busi_lab.data.options import DatasetOptions
from busi_lab.datasets import main
from busi_lab.errors import UserError
from tests.programs import call

TINY = (
    *("trainer=smoke", "trainer.max_epochs=1", "data.image_size=32", "data.subset=null", "logger=none"),
    *("model.weights=none", "model.backbone=test_resnet"),
)

FOLDER = DatasetOptions(layout="folder")


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48), np.uint8)
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Three classes of cells in several formats, one file deeper than the others."""
    root = tmp_path / "cells"
    for number in range(12):
        for place, label in enumerate(("hela", "a549", "MCF-7")):
            below = "plate" if number == 3 else "."
            write(root / label / below / f"{number}.{('png', 'jpg', 'bmp', 'tif')[number % 4]}", 100 * place + number)
    (root / "README.txt").write_text("not a class")
    (root / ".git").mkdir()
    (root / "hela/.hidden").write_text("")
    return root


def test_subfolders_are_classes_in_alphabetical_order(cells: Path) -> None:
    index = index_dataset(cells, options=FOLDER)
    assert index.classes == Classes(("MCF-7", "a549", "hela"))
    assert index.counts == {"MCF-7": 12, "a549": 12, "hela": 12}
    assert [case.case_id for case in index.cases[:2]] == ["MCF-7/0", "MCF-7/1"]
    assert "hela/plate/3" in {case.case_id for case in index.cases}
    assert not any(case.masks or case.mask_known or case.patient for case in index.cases)


def test_both_layouts_of_one_folder_have_caches_of_their_own(phantom_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("benign", "malignant", "normal"):
        (root / name).mkdir(parents=True)
        for path in phantom_root.glob(f"{name}/*).png"):
            shutil.copy(path, root / name)
            shutil.copy(path.with_stem(f"{path.stem}_mask"), root / name)
    with pytest.raises(UserError, match=r"benign/benign \(1\)_mask\.png: this looks like a mask; use data=busi"):
        open_cache(root, 32, tmp_path / "cache", FOLDER)
    plain = open_cache(root, 32, tmp_path / "cache")
    for path in root.glob("*/*_mask.png"):
        path.unlink()
    images = open_cache(root, 32, tmp_path / "cache", FOLDER)
    again = open_cache(root, 32, tmp_path / "cache", FOLDER)
    assert plain.index.classes.positive == "malignant" and images.index.classes.positive is None
    caches = [path for path in (tmp_path / "cache").glob("*-32px-*") if not path.name.startswith(".")]  # but locks
    assert again.index == images.index and len(caches) == 2


def test_what_is_no_folder_of_classes(cells: Path) -> None:
    shutil.rmtree(cells / "hela")
    shutil.rmtree(cells / "a549")
    with pytest.raises(UserError, match=r"expected a subfolder of images for each class, two at least, found MCF-7"):
        index_dataset(cells, options=FOLDER)
    (cells / "two words").mkdir()
    with pytest.raises(UserError, match=r"two words: expected a class of at most 40 letters.*; rename this folder"):
        index_dataset(cells, options=FOLDER)
    (cells / "two words").rename(cells / "empty")
    write(cells / "MCF-7/0.tif", 7)
    with pytest.raises(UserError, match=r"empty: class folder holds no image \(and 1 more\); list all.*--layout"):
        index_dataset(cells, options=FOLDER)
    with pytest.raises(UserError, match=r"data=folder needs data\.root=DIR"):
        index_dataset(None, options=FOLDER)


def test_a_folder_is_checked(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(cells), "--layout", "folder"])
    assert "images: 36 (12 MCF-7, 12 a549, 12 hela)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_on_a_folder_is_the_middle_stage_of_another(cells: Path, phantom_root: Path, tmp_path: Path) -> None:
    folder = (f"data.root={cells}", "data=folder", "data.name=cells")
    assert call("train", *TINY, *folder, f"hydra.run.dir={tmp_path / 'middle'}") == 0
    summary = json.loads((tmp_path / "middle/summary.json").read_text())
    assert summary["data"]["class_names"] == ["MCF-7", "a549", "hela"] and summary["data"]["layout"] == "folder"
    last = (f"data.root={phantom_root}", "data.classes=[benign,malignant]")
    weights = f"model.weights={tmp_path / 'middle'}"
    assert call("train", *TINY[:-2], TINY[-1], *last, weights, f"hydra.run.dir={tmp_path / 'last'}") == 0
    initial = json.loads((tmp_path / "last/summary.json").read_text())["initial"]
    assert (
        initial["data"].startswith("cells (") and initial["taken"] == initial["tensors"] - 2
    )  # all but the last layer
    assert call("evaluate", f"run={tmp_path / 'middle'}", "logger=none", f"hydra.run.dir={tmp_path / 'judged'}") == 0


def test_one_class_ends_in_a_line(cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(cells / "hela")
    shutil.rmtree(cells / "a549")
    assert call("train", *TINY, "data=folder", f"data.root={cells}", f"hydra.run.dir={tmp_path / 'run'}") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: data.root=") and printed.count("\n") == 1 and not (tmp_path / "run").exists()
