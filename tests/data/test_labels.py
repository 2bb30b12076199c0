"""A folder with labels.csv: what is read from it, what is refused, and what a datamodule makes of it."""

import csv
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from busi_lab import datasets
from busi_lab.data import cli
from busi_lab.data.cache import open_cache
from busi_lab.data.case_files import CaseFiles
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.groups import GROUPS
from busi_lab.data.index import check_dataset, index_dataset, read_case
from busi_lab.data.layout import list_files, require_layout, resolve_root
from busi_lab.data.manifest import write_manifest
from busi_lab.data.options import AS_FOUND
from busi_lab.data.splits import make_manifest
from busi_lab.errors import UserError
from busi_lab.report.figures.gallery import _files, _picture
from busi_lab.report.results.examples import Example
from busi_lab.run_directory import Run, add_further, write_masks
from busi_lab.summary import Summary
from tests.programs import outcome

RANDOM = np.random.default_rng(0)
SQUARE = np.zeros((20, 30), np.uint8)
SQUARE[5:10, 5:15] = 255
HEADING = "file,label,mask_file,patient,age"
ROWS = (
    "site2/a.png,malignant,masks/a.png,p1,70",
    "site1/scan_3.png,benign,masks/b1.png; masks/b2.png,p1,41",
    "site1/c.jpg,normal,,p2,",
    "site1/d.tif,,masks/d.bmp,,33",
    "e.bmp,benign,,p3,50",
    "f.png,,,,",
)


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(content).save(path)
    return path


def table(root: Path, *rows: str, heading: str = HEADING, encoding: str = "utf-8") -> None:
    (root / "labels.csv").write_text("\n".join((heading, *rows)) + "\n", encoding=encoding)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six scans in several formats and folders: two without a label, two without a mask."""
    folder = tmp_path / "set"
    for name in ("site2/a.png", "site1/scan_3.png", "site1/c.jpg", "site1/d.tif", "e.bmp", "f.png"):
        write(folder / name, RANDOM.integers(0, 256, (20, 30), dtype=np.uint8))
    second = np.roll(SQUARE, 8, axis=1)  # two columns overlap the first
    for name, mask in (("a.png", SQUARE), ("b1.png", SQUARE), ("b2.png", second), ("d.bmp", SQUARE)):
        write(folder / "masks" / name, mask)
    write(folder / "unlisted.png", SQUARE)
    table(folder, *ROWS)
    return folder


# ---------------------------------------------------------------------------------------- what is sound


def test_a_row_is_a_case_named_by_its_path(root: Path) -> None:
    files, defects = list_files(root)
    assert defects == []
    assert [case.case_id for case in files] == ["e", "f", "site1/c", "site1/d", "site1/scan_3", "site2/a"]
    assert files[4] == CaseFiles(
        *("site1/scan_3", "benign", "site1/scan_3.png", ("masks/b1.png", "masks/b2.png")),
        mask_known=True,
        patient="p1",
        further=(("age", "41"),),
    )
    assert [case.mask_known for case in files] == [False, False, True, True, True, True]


def test_an_index_unites_masks_and_takes_unknown_ones_as_empty(root: Path) -> None:
    index = index_dataset(root)
    assert index.counts == {"benign": 2, "malignant": 1, "normal": 1}
    assert [case.lesion_pixels for case in index.cases] == [0, 0, 0, 50, 90, 50]
    assert read_case(root, index.cases[4])[1].sum() == 90
    assert check_dataset(root) == (index, [])
    assert index_dataset(root.parent) == index


def test_how_the_table_is_written_does_not_matter(root: Path) -> None:
    before = index_dataset(root)
    rows = [row.replace("/", "\\") if row.startswith("site1") else f"./{row}" for row in reversed(ROWS)]
    table(root, "", *(f"{row}," for row in rows), ",,,,,", heading=f" {HEADING} ,", encoding="utf-8-sig")
    assert index_dataset(root) == before
    content = (root / "labels.csv").read_bytes().replace(b"\n", b"\r\n")
    (root / "labels.csv").write_bytes(content)
    assert index_dataset(root) == before


def test_the_three_columns_are_enough(root: Path) -> None:
    table(root, *(",".join(row.split(",")[:3]) for row in ROWS), heading="file,label,mask_file")
    assert {(case.patient, case.further) for case in index_dataset(root).cases} == {("", ())}


def test_the_digest_knows_labels_masks_and_whether_one_is_known(root: Path) -> None:
    digests = [index_dataset(root).digest]
    write(root / "masks/nothing.png", np.zeros_like(SQUARE))
    for before, after in (
        ("f.png,,,", "f.png,,masks/nothing.png,"),
        ("f.png,,", "f.png,benign,"),
        ("masks/b1.png; ", ""),
    ):
        (root / "labels.csv").write_text((root / "labels.csv").read_text().replace(before, after))
        digests.append(index_dataset(root).digest)
    assert len(set(digests)) == 4
    (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("p1", "p9").replace("41", "42"))
    assert index_dataset(root).digest == digests[-1]


def test_the_cache_keeps_all_and_notices_every_change(root: Path, tmp_path: Path) -> None:
    def opened() -> tuple[Any, ...]:
        cache, alone = open_cache(root, 32, tmp_path / "cache"), open_cache(root, 32, None)
        assert cache.index.cases == alone.index.cases == index_dataset(root).cases
        assert torch.equal(cache.images, alone.images) and torch.equal(cache.packed_masks, alone.packed_masks)
        return cache.index.cases

    seen = [opened(), opened()]
    assert seen[0] == seen[1]
    write(root / "site1/d.tif", 255 - SQUARE)
    seen.append(opened())
    write(root / "masks/a.png", np.roll(SQUARE[:, ::-1], 3, axis=0))
    seen.append(opened())
    (root / "labels.csv").write_text((root / "labels.csv").read_text().replace("p3", "p4"))
    seen.append(opened())
    assert len(set(seen)) == 4
    assert len(list((tmp_path / "cache").glob("[!.]*"))) == 1
    (root / "masks/d.bmp").unlink()
    with pytest.raises(UserError, match=r"'masks/d.bmp' is missing"):
        open_cache(root, 32, tmp_path / "cache")


# ----------------------------------------------------------------------------------------------- damages


def broken(target: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        (root / "f.png").unlink()
        (root / "f.png").symlink_to(target)

    return apply


def row(*rows: str, **options: str) -> Callable[[Path], None]:
    return lambda root: table(root, *rows, **options)


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        text = (root / "labels.csv").read_text()
        assert old in text
        (root / "labels.csv").write_text(text.replace(old, new))

    return apply


def folder_instead(root: Path) -> None:
    (root / "labels.csv").unlink()
    (root / "labels.csv").mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty table": (
        lambda root: (root / "labels.csv").write_bytes(b""),
        "labels.csv: expected the column file, and perhaps label and mask_file, in the first line; found nothing",
    ),
    "column misnamed": (
        replaced("mask_file", "Mask"),
        "labels.csv: the column mask_file is missing; rename Mask to mask_file if it holds that, or add an empty",
    ),
    "its own mask": (replaced("e.bmp,benign,,", "e.bmp,benign,e.bmp,"), "'e.bmp' is named as its own mask"),
    "column twice": (replaced("age", "patient"), "labels.csv: the column patient stands twice in the first line"),
    "not UTF-8": (
        lambda root: table(root, "ä.png,,", heading="file,label,mask_file", encoding="latin-1"),
        "labels.csv: the text is not UTF-8",
    ),
    "no table": (folder_instead, "labels.csv: the table cannot be read"),
    "open quotation": (replaced("site2/a.png", '"site2/a.png'), "labels.csv: the table cannot be read"),
    "no rows": (row(), "labels.csv: the table names no image"),
    "short row": (replaced("f.png,,,,", "f.png,,"), "labels.csv, line 7: expected 5 cells, found 3"),
    "unknown label": (
        replaced("malignant", "cancer"),
        "labels.csv: 1 unknown label: 'cancer' (line 2); expected benign, malignant, normal or nothing; say what they "
        "mean with data.label_map={cancer: benign}, or name classes in dataset.json",
    ),
    "file empty": (replaced("e.bmp,", ","), "labels.csv, line 6: file is empty; expected the path"),
    "file missing": (
        lambda root: (root / "e.bmp").unlink(),
        "labels.csv, line 6: 'e.bmp' is missing; restore the file or correct the path",
    ),
    "file a folder": (replaced("e.bmp", "site1"), "labels.csv, line 6: 'site1' is missing"),
    "mask missing": (lambda root: (root / "masks/b2.png").unlink(), "labels.csv, line 3: 'masks/b2.png' is missing"),
    "absolute": (replaced("e.bmp", "/e.bmp"), "line 6: '/e.bmp' leaves the folder; expected a path within it"),
    "absolute on Windows": (replaced("e.bmp", "C:\\e.bmp"), "line 6: 'C:/e.bmp' leaves the folder"),
    "climbing": (replaced("masks/d.bmp", "masks/../../x.bmp"), "line 5: 'masks/../../x.bmp' leaves the folder"),
    "a link into an empty cache": (
        broken("../.dvc/cache/files/md5/aa/bb"),
        "labels.csv, line 7: 'f.png' is a link to ../.dvc/cache/files/md5/aa/bb, which is not there; fetch the file "
        "(dvc pull) or put it there",
    ),
    "a link into an empty annex": (broken(".git/annex/objects/W/x"), "fetch the file (git annex get) or put it there"),
    "null byte": (replaced("e.bmp", "e\0.bmp"), "labels.csv"),
    "listed twice": (
        replaced("f.png,,,,", "./e.bmp,,,,"),
        "labels.csv, line 7: 'e.bmp' stands in line 6 already; list each file once",
    ),
    "one name for two": (
        lambda root: (shutil.copy(root / "f.png", root / "e.png"), replaced("f.png", "e.png")(root)),
        "labels.csv, line 7: 'e.png' and 'e.bmp' of line 6 are both named e; rename one",
    ),
    "mask of another size": (
        lambda root: write(root / "masks/b1.png", SQUARE[:, :20]),
        "masks/b1.png: mask of another size than its image: expected 30 x 20, found 20 x 20",
    ),
    "unreadable": (lambda root: (root / "e.bmp").write_text("an image"), "e.bmp: the content is not an image"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_one_defect(root: Path, damage: str) -> None:
    apply, message = DAMAGES[damage]
    apply(root)
    _, defects = check_dataset(root)
    assert len(defects) == 1
    assert message in str(defects[0])
    with pytest.raises(UserError, match=re.escape(f"{root}: {defects[0]}; list all with: busi-data check")):
        index_dataset(root)
    with pytest.raises(UserError, match=re.escape(str(defects[0]))):
        open_cache(root, 32, root.parent / "cache")


def test_check_finds_masks_that_do_not_fit_their_labels(root: Path) -> None:
    replaced("site1/c.jpg,normal,", "site1/c.jpg,normal,masks/a.png")(root)
    write(root / "masks/b1.png", np.zeros_like(SQUARE))
    write(root / "masks/b2.png", np.zeros_like(SQUARE))
    _, defects = check_dataset(root)
    assert [str(defect) for defect in defects] == [
        "site1/c.jpg: normal scan with 50 lesion pixels in its mask",
        "site1/scan_3.png: benign scan with an empty mask",
    ]
    index_dataset(root)  # as in BUSI's layout, training does without


def test_all_defects_are_listed_and_an_error_counts_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "masks/b2.png").unlink()
    replaced("malignant", "cyst")(root)
    (root / "f.png").write_bytes(b"")
    with pytest.raises(SystemExit):
        datasets.main(["check", str(root)])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("defect")]
    assert [line.partition(";")[0] for line in printed] == [
        "defect: labels.csv: 1 unknown label: 'cyst' (line 2)",
        "defect: labels.csv, line 3: 'masks/b2.png' is missing",
        "defect: f.png: the file is empty",
    ]
    with pytest.raises(UserError, match=r"unknown label: 'cyst'.*\(and 1 more\); list all with"):
        index_dataset(root)


@pytest.mark.parametrize(
    ("name", "labelled", "message"),
    [
        ("busi", True, "found labels.csv; use data=labels"),
        ("labels", False, "expected labels.csv, found .* use data=busi"),
        ("busi", False, None),
        ("labels", True, None),
    ],
)
def test_each_layout_has_its_name(root: Path, phantom_root: Path, name: str, labelled: bool, message: str) -> None:
    folder = root if labelled else phantom_root
    if message is None:
        require_layout(folder, name)
    else:
        with pytest.raises(UserError, match=message):
            require_layout(folder, name)


def test_a_root_must_be_named_and_hold_a_dataset(root: Path) -> None:
    with pytest.raises(UserError, match=r"data=labels needs data.root=DIR, the folder that holds labels.csv"):
        require_layout(None, "labels")
    (root / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"expected the folders benign, malignant, normal or labels.csv in it"):
        resolve_root(root)


# --------------------------------------------------------------------------------------------- busi-data


def test_check_and_index_tell_what_is_not_known(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets.main(["check", str(root)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "images: 6 (2 benign, 1 malignant, 1 normal, 2 without a label)"
    assert printed[5:7] == ["images without a known mask: 2", "patients: 3"]
    assert printed[-1] == "0 defects"
    datasets.main(["index", str(root)])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert list(rows[0]) == [*cli.COLUMNS, "patient"]
    assert (rows[4]["case_id"], rows[4]["masks"], rows[4]["patient"]) == (
        *("site1/scan_3", "masks/b1.png;masks/b2.png"),
        "p1",
    )


@pytest.fixture(scope="session")
def labelled(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms as a labels folder, to read only."""
    return relabel(phantom_root, tmp_path_factory.mktemp("labels") / "labelled")


def relabel(
    source: Path, target: Path, classes: Sequence[str] = ("benign", "malignant", "normal"), unknown: bool = True
) -> Path:
    """Phantoms as a labels folder: four scans without a label, of which two have no mask either."""
    rows = []
    for label in classes:
        for path in sorted((source / label).glob("*).png")):
            number = path.stem.partition("(")[2][:-1]
            name = f"{label[0]}/{label}_{number}"
            (target / label[0]).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / f"{name}.png")
            shutil.copy(path.with_name(f"{path.stem}_mask.png"), target / f"{name}_mask.png")
            hidden = unknown and label == "benign" and int(number) <= 4
            mask = "" if label == "normal" or (hidden and int(number) <= 2) else f"{name}_mask.png"
            rows.append(f"{name}.png,{'' if hidden else label},{mask},{label[0]}{(int(number) - 1) // 2},{number},x")
    table(target, *rows, heading="file,label,mask_file,patient,age,dice")
    return target


def test_duplicates_and_describe_work_on_unknown_labels(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(labelled, tmp_path / "set"))
    for kind in ("", "_mask"):
        shutil.copy(root / f"b/benign_1{kind}.png", root / f"m/malignant_1{kind}.png")
    datasets.main(["duplicates", str(root), "--out", str(tmp_path / "groups")])
    assert "1 group with 2 of 30 images" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "groups" / GROUPS).open()))
    assert [row["image"] for row in rows] == ["b/benign_1", "m/malignant_1"]
    assert {row["conflict"] for row in rows} == {""}  # one label and one mask are not known
    datasets.main(["describe", str(root), "--out", str(tmp_path / "pictures")])
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["benign", "8", "6"]


@pytest.mark.parametrize("classes", [("benign", "malignant"), ("normal",)])
def test_describe_works_on_some_classes(phantom_root: Path, tmp_path: Path, classes: tuple[str, ...]) -> None:
    root = relabel(phantom_root, tmp_path / "some", classes, unknown=False)
    datasets.main(["describe", str(root), "--out", str(tmp_path / "pictures")])


def test_describe_needs_a_label(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(root, "e.bmp,,,,", "f.png,,,,")
    with pytest.raises(SystemExit):
        datasets.main(["describe", str(root), "--out", str(tmp_path / "pictures")])
    assert "no image has a label" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------- datamodule


WIDE = {"test_fraction": 0.4, "val_fraction": 0.4}  # room for the pairs of patients among a few images


def ready(root: Path, **arguments: Any) -> BusiDataModule:
    data = BusiDataModule(str(root), **{"image_size": 32, "num_workers": 0, "cache_dir": "auto", **arguments})
    data.setup()
    return data


@pytest.mark.parametrize(
    ("labels", "masks", "left_out", "line"),
    [
        (True, False, 4, "4 scans without a label are left out"),
        (False, True, 2, "2 scans without a mask are left out"),
        (True, True, 4, "4 scans without a label or mask are left out"),
        (False, False, 0, None),
    ],
)
def test_a_task_uses_what_it_can(
    labelled: Path, caplog: pytest.LogCaptureFixture, labels: bool, masks: bool, left_out: int, line: str | None
) -> None:
    with caplog.at_level("INFO", "busi_lab.data.requirements"):
        data = ready(labelled, labels=labels, masks=masks, split={"protocol": "holdout"})
    assert [record.message for record in caplog.records if "left out" in record.message] == ([line] if line else [])
    assert len(data.manifest.excluded) == left_out
    used = [case_id for part in (data.train_set, data.val_set, data.test_set) for case_id in part.case_ids]
    assert len(used) == 30 - left_out
    drawn = {number for part in (data.train_set, data.val_set, data.test_set) for number in part.labels}
    assert drawn == ({0, 1, 2} if labels else {-1, 0, 1, 2})
    assert all(len(batch["label"]) for batch in data.train_dataloader())
    numbers = [number for batch in data.test_dataloader() for number in batch["label"].tolist()]
    assert len(numbers) == len(data.manifest.test)


def test_classes_leave_scans_without_one_out(labelled: Path) -> None:
    data = ready(labelled, labels=False, masks=False, classes=["benign", "malignant"], split={"protocol": "holdout"})
    assert set(data.train_set.labels) == {0, 1}


def test_a_manifest_of_another_task_is_used_without_what_this_one_cannot(labelled: Path, tmp_path: Path) -> None:
    everything = make_manifest(index_dataset(labelled), "holdout")
    write_manifest(tmp_path / "split.json", everything)
    data = ready(labelled, split={"manifest": str(tmp_path / "split.json")})
    assert len(data.manifest.excluded) == 4
    assert set(data.manifest.test) == set(everything.test) - set(data.manifest.excluded)


def test_images_of_a_patient_share_a_group_and_count_as_leaks(labelled: Path) -> None:
    random, grouped = (ready(labelled, split={**WIDE, "protocol": name}) for name in ("holdout", "grouped_holdout"))
    assert random.group("b/benign_5") == random.group("b/benign_6") != random.group("b/benign_7")
    patients = {case.case_id: case.patient for case in index_dataset(labelled).cases}
    learnt = {patients[i] for i in (*random.manifest.train, *random.manifest.val)}
    assert random.leaked() == sum(patients[i] in learnt for i in random.manifest.test) > 0
    assert grouped.leaked() == 0


def test_a_file_of_groups_is_joined_with_the_patients(labelled: Path, tmp_path: Path) -> None:
    digest = index_dataset(labelled).digest
    lines = ["group,image,data_digest", *(f"7,{i},{digest}" for i in ("b/benign_5", "m/malignant_1"))]
    (tmp_path / "groups.csv").write_text("\n".join(lines))
    data = ready(labelled, split={**WIDE, "protocol": "grouped_holdout", "groups": str(tmp_path / "groups.csv")})
    names = ("b/benign_5", "b/benign_6", "m/malignant_1", "m/malignant_2")
    assert len({data.group(name) for name in names}) == 1
    assert data.leaked() == 0


@pytest.mark.parametrize("classes", [("benign",), ("normal",), ("benign", "malignant")])
@pytest.mark.parametrize("masks", [True, False])
def test_split_all_tests_any_classes(phantom_root: Path, tmp_path: Path, classes: tuple[str, ...], masks: bool) -> None:
    root = relabel(phantom_root, tmp_path / "some", classes, unknown=False)
    data = ready(root, masks=masks, split={"protocol": "all"})
    assert data.manifest.train == data.manifest.val == ()
    seen = [case_id for batch in data.test_dataloader() for case_id in batch["case_id"]]
    assert seen == list(data.manifest.test) == sorted(case.case_id for case in index_dataset(root).cases)
    assert data.leaked() == 0
    assert set(data.pictures()) == set(data.true_masks()) == set(seen)
    write_manifest(tmp_path / "split.json", data.full_manifest)
    assert ready(root, masks=masks, split={"manifest": str(tmp_path / "split.json")}).manifest == data.manifest


def test_one_class_or_nothing_to_use_is_a_line(phantom_root: Path, root: Path, tmp_path: Path) -> None:
    alone = relabel(phantom_root, tmp_path / "alone", ("benign",), unknown=False)
    with pytest.raises(UserError, match=r"expected scans of two classes at least, found benign alone"):
        ready(alone)
    ready(alone, labels=False)
    table(root, "e.bmp,,,,", "f.png,,,,")
    for split in ("all", "holdout"):
        with pytest.raises(UserError, match=r"all 2 scans are without a label, which this task needs"):
            ready(root, masks=False, split={"protocol": split})
    with pytest.raises(UserError, match=r"all 2 scans are without a mask"):
        ready(root, labels=False)


# ----------------------------------------------------------------------------------------- run directory


def test_further_columns_never_take_a_name_of_the_contract() -> None:
    extended = add_further({"image": "a", "label": ""}, [("age", "7"), ("dice", "x"), ("image", "y"), ("p_cyst", "0")])
    taken = {"labels_dice": "x", "labels_image": "y", "labels_p_cyst": "0"}
    assert extended == {"image": "a", "label": "", "age": "7", **taken}


def test_masks_and_pictures_of_cases_in_folders(root: Path, tmp_path: Path) -> None:
    write_masks(tmp_path / "masks", {"site1/scan_3": SQUARE > 0, "f": SQUARE > 0})
    assert (tmp_path / "masks/site1/scan_3.png").is_file()
    run, example = Run(tmp_path, Summary("finished")), Example("site1/scan_3", "benign", dice=0.5)
    picture = _picture(root, _files(root, AS_FOUND).get(example.image), run, example)
    assert picture.uri is not None and picture.predicted
    missing = Example("../site1/scan_3", "benign", dice=0.5)
    assert _picture(root, _files(root, AS_FOUND).get(missing.image), run, missing).uri is None


# -------------------------------------------------------------------------------------------- busi-train

FAST = (
    *("trainer=smoke", "logger=none", "data.subset=null", "data.image_size=32"),
    *("split=grouped_holdout", "split.test_fraction=0.4", "split.val_fraction=0.4"),
)
MODELS = {
    "classification": ("model=custom_cnn",),
    "segmentation": ("task=segmentation", "model=smp", "model.encoder=tu-test_efficientnet", "model.weights=none"),
}


def train(*arguments: str) -> tuple[int, str]:
    """Exit code and error line of ``busi-train``."""
    return outcome("train", *arguments)


@pytest.mark.parametrize("task", MODELS)
def test_a_smoke_run(labelled: Path, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from busi_lab.run_directory import read_run

    monkeypatch.chdir(tmp_path)
    assert train("data=labels", f"data.root={labelled}", *FAST, *MODELS[task], "hydra.run.dir=run") == (0, "")
    run = read_run(tmp_path / "run")
    assert run.summary.data.name == "labels"
    assert run.summary.split.leaked == 0
    log = (tmp_path / "run/train.log").read_text()
    assert f"{4 if task == 'classification' else 2} scans without a" in log
    for rows in (run.predictions, run.validation):
        assert list(rows[0])[-2:] == ["age", "labels_dice"]
        assert all(row["image"].endswith(f"_{row['age']}") and row["labels_dice"] == "x" for row in rows)
    labels = {row["image"]: row["label"] for row in (*run.predictions, *run.validation)}
    expected = {case.case_id: case.label for case in index_dataset(labelled).cases}
    assert all(label == expected[image] for image, label in labels.items())
    if task == "segmentation":
        masks = sorted(path.relative_to(tmp_path / "run/masks") for path in (tmp_path / "run/masks").rglob("*.png"))
        assert [os.fspath(path.with_suffix("")) for path in masks] == sorted(row["image"] for row in run.predictions)


def test_two_classes_train_and_one_is_refused(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    two = relabel(phantom_root, tmp_path / "two", ("benign", "malignant"))
    one = relabel(phantom_root, tmp_path / "one", ("benign",))
    fast = (*FAST, "model=custom_cnn")
    assert train("data=labels", f"data.root={two}", *fast, "hydra.run.dir=run") == (0, "")
    code, error = train("data=labels", f"data.root={one}", *fast, "hydra.run.dir=other")
    assert code == 2 and "found benign alone" in error


def test_what_training_refuses(labelled: Path, phantom_root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUSI_ROOT", str(phantom_root))
    write_manifest(tmp_path / "split.json", make_manifest(index_dataset(phantom_root), "all"))
    for arguments, message in (
        ((f"data.root={labelled}",), "use data=labels"),
        (("data=labels", f"data.root={phantom_root}"), "use data=busi"),
        (("data=labels",), "data=labels needs data.root=DIR"),
        (("split=all",), "split=all tests everything and leaves nothing to train on; it is for busi-eval"),
        (("split.manifest=split.json",), "split.manifest=split.json: split=all tests everything"),
    ):
        code, error = train(*FAST, "model=custom_cnn", *arguments)
        assert code == 2 and message in error
