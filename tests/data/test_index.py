import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from busi_lab import datasets
from busi_lab.data import cli
from busi_lab.data.index import (
    CaseFiles,
    check_dataset,
    index_dataset,
    inspect_dataset,
    read_case,
)
from busi_lab.data.layout import list_files, resolve_root
from busi_lab.data.reading import read_image
from busi_lab.errors import UserError

RANDOM = np.random.default_rng(0)
SQUARE = np.zeros((20, 30), np.uint8)
SQUARE[5:10, 5:15] = 255


def write(path: Path, content: NDArray[Any] | Image.Image, **options: Any) -> Path:
    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
    image.save(path, **options)
    return path


def noise(*shape: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images in each class, the second benign one with three masks; no two masks are equal but the empty ones."""
    for place, label in enumerate(("benign", "malignant", "normal")):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in (1, 2):
            write(tmp_path / "set" / label / f"{label} ({number}).png", noise(20, 30))
            mask = np.zeros_like(SQUARE) if label == "normal" else np.roll(SQUARE, (0, 4, 2)[number * place], axis=0)
            write(tmp_path / "set" / label / f"{label} ({number})_mask.png", mask)
    for number, column in ((1, 13), (2, 25)):
        mask = np.zeros_like(SQUARE)
        mask[5:10, column : column + 4] = 255
        write(tmp_path / "set" / "benign" / f"benign (2)_mask_{number}.png", mask)
    return tmp_path / "set"


# ---------------------------------------------------------------------------------------- what is sound


def test_images_and_masks_are_paired_by_name_in_file_order(root: Path) -> None:
    for number in (10, 11):
        write(root / "benign" / f"benign ({number}).png", noise(20, 30))
        write(root / "benign" / f"benign ({number})_mask.png", SQUARE)
    write(root / "benign" / "benign (2)_mask_10.png", SQUARE)
    files, defects = list_files(root)
    assert defects == []
    assert [case.case_id for case in files[:4]] == ["benign (1)", "benign (10)", "benign (11)", "benign (2)"]
    names = ["_mask", "_mask_1", "_mask_2", "_mask_10"]
    assert files[3] == CaseFiles(
        *("benign (2)", "benign", "benign/benign (2).png"),
        tuple(f"benign/benign (2){name}.png" for name in names),
        mask_known=True,
    )


def test_an_index_has_one_row_per_image_and_the_union_of_masks(root: Path) -> None:
    index = index_dataset(root)
    assert index.counts == {"benign": 2, "malignant": 2, "normal": 2}
    one, two = index.cases[:2]
    assert (one.height, one.width, one.lesion_pixels) == (20, 30, 50)
    assert two.lesion_pixels == 50 + 2 * 5 + 4 * 5  # the second mask overlaps the first by two columns
    assert read_case(root, two)[1].sum() == 80
    assert [case.lesion_pixels for case in index.cases[4:]] == [0, 0]
    assert check_dataset(root) == (index, [])


def test_visit_sees_every_case_once(root: Path) -> None:
    seen: dict[int, tuple[int, ...]] = {}
    index_dataset(root, lambda number, image, mask: seen.update({number: (*image.shape, int(mask.sum()))}))
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    assert (seen[1], seen[5]) == ((20, 30, 80), (20, 30, 0))


def test_the_parent_and_hidden_files_are_fine(root: Path) -> None:
    before = index_dataset(root).digest
    for name in (".DS_Store", "Thumbs.db", "benign/.DS_Store", "normal/desktop.ini", "benign/._benign (1).png"):
        (root / name).write_bytes(b"x")
    (root / ".git").mkdir()
    (root.parent / "notes").mkdir()
    assert resolve_root(root.parent) == root
    assert index_dataset(root.parent).digest == before


def test_the_content_hash_knows_pixels_not_files(root: Path) -> None:
    before = index_dataset(root)
    path, mask = root / "benign/benign (1).png", root / "benign/benign (1)_mask.png"
    gray = read_image(path)
    for stored in (np.stack([gray] * 3, axis=-1), np.dstack([gray] * 3 + [noise(20, 30)]), gray):
        old = path.read_bytes()
        write(path, stored, compress_level=0)
        write(mask, Image.fromarray(SQUARE).convert("1"))
        assert path.read_bytes() != old
        assert index_dataset(root) == before
        assert index_dataset(root).digest == before.digest


def test_the_digest_changes_with_a_pixel_a_mask_a_label_and_a_case(root: Path) -> None:
    def flip(name: str) -> None:
        pixels = read_image(root / name).copy()
        pixels[0, 0] ^= 255
        write(root / name, pixels)

    def move() -> None:
        for end in ("", "_mask"):
            (root / f"benign/benign (1){end}.png").rename(root / f"malignant/benign (1){end}.png")

    def remove() -> None:
        for path in (root / "normal").glob("normal (2)*"):
            path.unlink()

    changes: list[Callable[[], None]] = [
        lambda: flip("normal/normal (1).png"),
        lambda: flip("malignant/malignant (2)_mask.png"),
        lambda: (root / "benign/benign (2)_mask_2.png").unlink(),
        move,
        remove,
    ]
    digests = [index_dataset(root).digest]
    for change in changes:
        change()
        digests.append(index_dataset(root).digest)
    assert len(set(digests)) == 6
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in digests)


# ------------------------------------------------------------------------------------------- wrong roots


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (None, "data.root is not set.*BUSI_ROOT"),
        ("", "data.root is not set"),
        ("nowhere", "nowhere: expected a dataset folder, found nothing"),
        ("set/benign/benign (1).png", "expected a dataset folder, found a file"),
        ("set/benign", "expected the folders benign, malignant, normal .* found none"),
        ("two", "in it or in one folder below it, found a, b"),
    ],
)
def test_wrong_roots_are_named(root: Path, where: str | None, message: str) -> None:
    for name in "ab":
        shutil.copytree(root, root.parent / "two" / name)
    with pytest.raises(UserError, match=message):
        resolve_root(str(root.parent / where) if where else where)


# ----------------------------------------------------------------------------------------------- damages


def cut(name: str, share: float) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(share * len(content))])

    return apply


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda root: (shutil.copy(root / source, root / target), None)[1]


def copy_twin(root: Path) -> None:
    for end in ("", "_mask"):
        shutil.copy(root / f"benign/benign (1){end}.png", root / f"normal/benign (1){end}.png")
    write(root / "normal/benign (1)_mask.png", np.zeros_like(SQUARE))


def empty_class(root: Path) -> None:
    for path in (root / "normal").iterdir():
        path.unlink()


IMAGE, MASK = "malignant/malignant (1).png", "malignant/malignant (1)_mask.png"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "class folder empty": (empty_class, "normal", "class folder holds no image"),
    "mask missing": (lambda root: (root / MASK).unlink(), IMAGE, f"mask is missing: expected {MASK}"),
    "mask orphaned": (lambda root: (root / IMAGE).unlink(), MASK, f"mask without image: expected {IMAGE}"),
    "mask of another size": (
        lambda root: write(root / MASK, SQUARE[:, :20]),
        MASK,
        "mask of another size than its image: expected 30 x 20, found 20 x 20",
    ),
    "image empty": (lambda root: (root / IMAGE).write_bytes(b""), IMAGE, "the file is empty"),
    "mask empty": (lambda root: (root / MASK).write_bytes(b""), MASK, "the file is empty"),
    "cut in the header": (cut(IMAGE, 0.01), IMAGE, "the content is not an image"),
    "cut in the middle": (cut(IMAGE, 0.5), IMAGE, "the image cannot be decoded"),
    "cut near the end": (cut(IMAGE, 0.9), IMAGE, "the image cannot be decoded"),
    "mask cut": (cut(MASK, 0.6), MASK, "the image cannot be decoded"),
    "text": (lambda root: (root / IMAGE).write_text("an image"), IMAGE, "the content is not an image"),
    "foreign file": (copy(IMAGE, "benign/scan.gif"), "benign/scan.gif", "foreign entry: expected only image files"),
    "foreign folder": (lambda root: (root / "cysts").mkdir(), "cysts", "foreign entry: expected only benign"),
    "folder in a class": (lambda root: (root / "benign/old").mkdir(), "benign/old", "foreign entry"),
    "broken link": (lambda root: (root / "benign/b.png").symlink_to("gone.png"), "benign/b.png", "foreign entry"),
    "name in two classes": (copy_twin, "benign (1)", "the name stands in two class folders"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_one_defect_that_names_its_file(root: Path, damage: str) -> None:
    apply, path, message = DAMAGES[damage]
    apply(root)
    _, defects = check_dataset(root)
    assert [defect.path for defect in defects] == [path]
    assert defects[0].message.startswith(message)
    with pytest.raises(UserError, match=re.escape(f"{root}: {defects[0]}; list all with: busi-data check")):
        index_dataset(root)


def test_all_defects_are_found_at_once_and_an_error_names_the_first(root: Path) -> None:
    (root / "benign/benign (1)_mask.png").unlink()
    (root / "benign/benign (1).png").write_bytes(b"")
    (root / "benign/benign (2)_mask_1.png").write_bytes(b"")
    (root / "malignant/notes.txt").write_text("mine")
    write(root / "malignant/malignant (2)_mask.png", np.zeros_like(SQUARE))
    write(root / "normal/normal (2)_mask.png", SQUARE)
    index, defects = check_dataset(root)
    assert [str(defect).partition(";")[0] for defect in defects] == [
        "benign/benign (1).png: mask is missing: expected benign/benign (1)_mask.png",
        "malignant/notes.txt: foreign entry: expected only image files",
        "benign/benign (1).png: the file is empty",
        "benign/benign (2)_mask_1.png: the file is empty",
        "malignant/malignant (2).png: malignant scan with an empty mask",
        "normal/normal (2).png: normal scan with 50 lesion pixels in its mask",
    ]
    assert index.counts == {"benign": 0, "malignant": 2, "normal": 2}
    with pytest.raises(UserError, match=r"benign \(1\).png: mask is missing.*\(and 1 more\); list all with"):
        index_dataset(root)  # stops before decoding: names alone are wrong


def test_a_single_unreadable_case_is_named_with_its_root(root: Path) -> None:
    case = list_files(root)[0][0]
    (root / case.image).write_bytes(b"")
    with pytest.raises(UserError, match=r"set: benign/benign \(1\).png: the file is empty"):
        read_case(root, case)


# --------------------------------------------------------------------------------------------- busi-data


def busi_data(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    code = 0
    try:
        datasets.main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_check_prints_counts_and_ends_with_0(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = busi_data(capsys, "check", root)
    assert code == 0
    assert printed.splitlines() == [
        f"dataset: {root}",
        "images: 6 (2 benign, 2 malignant, 2 normal)",
        "mask files: 8",
        "images with several masks: 1",
        "normal images with an empty mask: 2 of 2",
        "image sizes (width x height, by area): smallest 30 x 20, median 30 x 20, largest 30 x 20",
        f"digest: {index_dataset(root).digest}",
        "0 defects",
    ]


def test_check_prints_every_defect_and_ends_with_2(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    code, printed, errors = busi_data(capsys, "check", root)
    assert (code, errors) == (2, "")
    lines = printed.splitlines()
    assert lines[-1] == "14 defects"
    assert sum(line.startswith("defect: ") for line in lines) == 14
    assert "defect: benign/benign (1).png: the file is empty; restore or remove the file" in lines


def test_index_writes_one_row_per_image(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUSI_ROOT", str(root))
    _, printed, _ = busi_data(capsys, "index")
    rows = list(csv.DictReader(StringIO(printed)))
    case = index_dataset(root).cases[1]
    assert list(rows[0]) == list(cli.COLUMNS)
    assert rows[1] == {
        "case_id": "benign (2)",
        "label": "benign",
        "image": "benign/benign (2).png",
        "masks": "benign/benign (2)_mask.png;benign/benign (2)_mask_1.png;benign/benign (2)_mask_2.png",
        "height": "20",
        "width": "30",
        "lesion_pixels": "80",
        "content_hash": case.content_hash,
    }
    assert busi_data(capsys, "index", "--out", tmp_path / "new" / "index.csv")[0] == 0
    assert (tmp_path / "new" / "index.csv").read_text() == printed


def test_describe_writes_three_pictures_and_prints_a_table(
    phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # again into the same folder
        code, printed, _ = busi_data(capsys, "describe", phantom_root, "--out", tmp_path / "new" / "pictures")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "new" / "pictures").iterdir()) == [
        "classes.png",
        "scans.png",
        "sizes.png",
    ]
    for path in (tmp_path / "new" / "pictures").iterdir():
        picture = Image.open(path).convert("L")
        assert picture.width > 900 and picture.height > 400
        assert len(set(picture.tobytes())) > 20
    # Published: 2, 2, 1 of 12, 10, 8 images are tested and 1 of each class validates.
    assert [line.split()[:6] for line in printed.splitlines()[1:4]] == [
        ["benign", "12", "9", "40.9%", "33.3%", "0.81"],
        ["malignant", "10", "7", "31.8%", "33.3%", "1.05"],
        ["normal", "8", "6", "27.3%", "33.3%", "1.22"],
    ]


def test_phantom_and_download_reach_their_modules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--benign", 2, "--malignant", 1, "--normal", 1, "--height", 64, "--width", 64)
    assert busi_data(capsys, "phantom", tmp_path / "set", *small)[0] == 0
    assert index_dataset(tmp_path / "set").counts == {"benign": 2, "malignant": 1, "normal": 1}
    shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "set")
    code, _, errors = busi_data(capsys, "download", tmp_path / "busi", "--from", tmp_path / "set.zip")
    assert code == 2 and "found 4 images" in errors
    assert not (tmp_path / "busi").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["inspect"], "invalid choice: 'inspect'"),
        (["check"], "give ROOT, or set the environment variable BUSI_ROOT"),
        (["check", "TMP/nowhere"], "expected a dataset folder, found nothing"),
        (["describe", "TMP/set"], "--out"),
        (["describe", "TMP/set", "--out", "TMP/file"], "file is a file, expected a folder"),
        (["describe", "TMP/set", "--out", "TMP/file/below"], "file is a file, expected a folder"),
        (["describe", "TMP/set", "--out", "TMP/new"], "leaves no benign image for test"),
        (["index", "TMP/set", "--out", "TMP/file/index.csv"], "file is a file, expected a folder"),
        (["index", "TMP/set", "--out", "TMP/set"], "it is a folder"),
        (["index", "TMP/set", "--out", "/proc/none/index.csv"], "cannot be written"),
        (["index", "TMP/broken", "--out", "TMP/new.csv"], "and 13 more"),
        (["phantom", "TMP/new", "--benign", "-1"], "benign is -1"),
        (["phantom", "TMP/new", "--seed", "x"], "invalid int value: 'x'"),
        (["phantom", "TMP/set"], "is not empty"),
        (["download", "TMP/set"], "is not empty"),
        (["download", "TMP/new", "--from", "TMP/gone.zip"], "gone.zip"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.delenv("BUSI_ROOT", raising=False)
    place = root.parent
    (place / "file").write_text("mine")
    shutil.copytree(root, place / "broken")
    for path in (place / "broken").rglob("*.png"):
        path.write_bytes(b"")
    before = sorted(place.rglob("*"))
    code, printed, errors = busi_data(capsys, *(item.replace("TMP", str(place)) for item in arguments))
    assert code == 2
    assert printed == ""
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert message in errors
    assert sorted(place.rglob("*")) == before


def test_no_subcommand_but_training_needs_torch(phantom_root: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from busi_lab.datasets import main\n"
        "assert 'numpy' not in sys.modules\n"
        "main(['check', sys.argv[1]]); main(['index', sys.argv[1]])\n"
        "main(['phantom', sys.argv[2] + '/set', '--benign', '1', '--malignant', '0', '--normal', '0'])\n"
        "main(['describe', sys.argv[1], '--out', sys.argv[2] + '/pictures'])\n"
        "assert not {'torch', 'lightning', 'albumentations', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(phantom_root), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------ the real one


@pytest.mark.busi
def test_busi_is_as_published(busi_root: Path) -> None:
    index, defects, notes = inspect_dataset(busi_root)
    assert (index.digest, defects, notes) == ("9d2f4e5af2afa956", [], [])
    assert index.counts == {"benign": 437, "malignant": 210, "normal": 133}
    assert len(index.cases) == 780
    assert sum(len(case.masks) for case in index.cases) == 798
    assert sum(len(case.masks) > 1 for case in index.cases) == 17
    assert index.cases[1].case_id == "benign (10)"
