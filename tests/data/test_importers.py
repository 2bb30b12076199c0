"""busi-data import: what is read of each published layout, compared with what was put into it."""

import math
from pathlib import Path

import numpy as np
import pytest

from busi_lab import datasets
from busi_lab.data import cli
from busi_lab.data.formats import IMPORT_FORMATS
from busi_lab.data.importers.oasbud import AXIAL_MM, b_mode
from busi_lab.data.index import check_dataset, index_dataset, read_case
from busi_lab.files import read_rows
from tests.data.published_layouts import LAYOUTS, small_cases

CASES = small_cases()
NAMES = {
    "busbra": ["bus_0000-l", "bus_0001-l", "bus_0002-l"],
    "breast": ["case001", "case002", "case003"],
    "udiat": ["000001", "000002", "000003"],
    "busuclm": ["BBBB_000", "BBBB_001", "CCCC_002"],
    "oasbud": [f"lesion00{number}_plane{plane}" for number in (1, 2, 3) for plane in (1, 2)],
    "pairs": ["case0", "case1", "case2"],
    "folder": ["train/benign/0", "train/benign/2", "val/malignant/1"],
    "coco": ["0", "1", "2"],
    "yolo": ["0", "1", "2"],
    "nnunet": ["bus_0", "bus_1", "bus_2"],
}
PATIENTS = {
    "busbra": ["1", "1", "2"],
    "breast": ["1", "2", "3"],
    "busuclm": ["BBBB", "BBBB", "CCCC"],
    "oasbud": ["p1"] * 4 + ["p2"] * 2,
}
FURTHER = {
    "busbra": {"histology": "Cyst", "birads": "4", "device": "Logiq 7", "side": "left", "bbox": "[5, 6, 7, 8]"},
    "breast": {"age": "not available", "birads": "4b"},
    "udiat": {"pathology": "FA"},
    "busuclm": {"doppler": "No", "marks": "Yes", "combined": "No"},
    "oasbud": {"birads": "4a", "axial_spacing_mm": "0.01925", "plane": "1"},
    "folder": {"part": "train"},
}


def run(*arguments: object) -> None:
    datasets.main([str(argument) for argument in arguments])


def test_every_format_has_a_module_and_a_layout_here() -> None:
    folder = Path(cli.__file__).parent / "importers"
    shared = {"__init__", "command", "item", "source", "tables", "writing"}
    assert {path.stem for path in folder.glob("*.py")} - shared == IMPORT_FORMATS.keys()
    assert IMPORT_FORMATS.keys() == LAYOUTS.keys() == NAMES.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_becomes_a_sound_dataset(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    LAYOUTS[name](source, CASES)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    run("import", name, source, "--out", out)
    said = capsys.readouterr().out
    index, defects = check_dataset(out)
    assert defects == []
    assert [case.case_id for case in index.cases] == [f"images/{case}" for case in NAMES[name]]
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before

    twice = [case for case in CASES for _ in (1, 2)] if name == "oasbud" else CASES
    order = [twice[0], twice[2], twice[1]] if name == "folder" else twice
    labels = ["" if name == "pairs" else case.label for case in order]
    assert [case.label for case in index.cases] == labels
    assert [case.patient for case in index.cases] == PATIENTS.get(name, [""] * len(order))
    assert dict(index.cases[0].further) == FURTHER.get(name, {})
    assert index.cases[0].spacing == ((0.07, 0.07) if name == "breast" else None)
    for number, (case, truth) in enumerate(zip(index.cases, order, strict=True)):
        scan, mask = read_case(out, case)
        turned = slice(None, None, -1 if name == "oasbud" and number % 2 else 1)
        if name not in ("oasbud", "folder"):  # made from echoes, JPEG
            assert np.array_equal(scan, truth.scan)
        assert np.array_equal(mask, truth.mask[:, turned] if name != "folder" else np.zeros_like(truth.mask))
    assert f"{len(order)} scans" in said and "note:" not in said
    advice = " task=segmentation model=smp" if name == "pairs" else " 'data.classes=[benign,malignant]'"
    assert said.endswith(f"busi-train data=labels data.root='{out}' data.name=NAME{advice}\n")

    rows = read_rows(out / "import.csv")
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert files <= {row["source"] for row in rows}
    assert all(row["used_as"] for row in rows)
    assert f"files of {source}: {len(files)} (" in said and "0 left out" in said


def test_links_lead_to_the_source_and_copies_stand_alone(tmp_path: Path) -> None:
    LAYOUTS["busbra"](tmp_path / "source", CASES)
    run("import", "busbra", tmp_path / "source", "--out", tmp_path / "links")
    run("import", "busbra", tmp_path / "source", "--out", tmp_path / "copies", "--copy")
    scan = tmp_path / "links/images/bus_0000-l.png"
    assert scan.is_symlink() and scan.readlink() == (tmp_path / "source/BUSBRA/Images/bus_0000-l.png").resolve()
    assert (tmp_path / "links/masks/bus_0000-l.png").is_symlink()
    assert not any(path.is_symlink() for path in (tmp_path / "copies").rglob("*"))
    assert index_dataset(tmp_path / "links").digest == index_dataset(tmp_path / "copies").digest


def test_where_there_are_no_links_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    LAYOUTS["pairs"](tmp_path / "source", CASES)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    run("import", "pairs", tmp_path / "source", "--out", tmp_path / "out")
    assert "files are copied: this file system has no links" in capsys.readouterr().out
    assert len(index_dataset(tmp_path / "out").cases) == 3
    with pytest.raises(SystemExit, match="2"):
        run("import", "pairs", tmp_path / "source", "--out", tmp_path / "other", "--link")
    assert "use --copy" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_echoes_become_decibels_below_the_largest() -> None:
    carrier = np.cos(np.pi / 2 * np.arange(64))
    amplitudes = np.array([1.0, 10 ** (-10 / 20), 10 ** (-25 / 20), 10 ** (-50 / 20), 1e-6])
    picture = b_mode(carrier[:, None] * amplitudes)
    assert picture.dtype == np.uint8 and picture.shape == (64, 5)
    assert np.array_equal(picture, np.tile(np.array([255, 204, 128, 0, 0], np.uint8), (64, 1)))
    assert not b_mode(np.zeros((8, 4))).any()
    assert math.isclose(AXIAL_MM, 0.01925)


def test_other_classes_are_named_in_dataset_json(tmp_path: Path) -> None:
    renamed = {"benign": "Cyst (simple)", "malignant": "normal"}
    cases = [case._replace(label=renamed[case.label]) for case in CASES]
    LAYOUTS["folder"](tmp_path / "source", cases)
    run("import", "folder", tmp_path / "source", "--out", tmp_path / "out")
    classes = index_dataset(tmp_path / "out").classes
    assert (classes.names, classes.positive, classes.without_lesion) == (("Cyst_simple", "normal"), None, "normal")
