"""The classes that a dataset folder names itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from busi_lab.classes import BUSI, Classes
from busi_lab.data.cache import open_cache
from busi_lab.data.dataset import is_synthetic, read_classes
from busi_lab.data.index import check_dataset, index_dataset
from busi_lab.data.layout import list_files
from busi_lab.data.phantom import generate_phantoms
from busi_lab.errors import UserError


def name_classes(root: Path, **content: Any) -> Path:
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_roles_of_busi() -> None:
    assert (BUSI.lesions, BUSI.negative) == (("benign", "malignant"), "benign")
    assert (BUSI.auroc_positive, BUSI.auroc_lesions) == ("auroc_malignant", "auroc_benign_malignant")
    assert BUSI.accuracy_lesions == "accuracy_without_normal"
    assert [BUSI.number(name) for name in ("malignant", "")] == [1, -1]
    assert [BUSI.name(number) for number in (2, -1)] == ["normal", ""]


@pytest.mark.parametrize(
    ("classes", "negative", "auroc", "accuracy"),
    [
        (Classes(("cyst", "solid"), "solid"), "cyst", None, None),  # all scans have a lesion: nothing to leave out
        (Classes(("a", "b", "c"), "b"), None, None, None),
        (Classes(("a", "b", "c"), "b", "c"), "a", "auroc_a_b", "accuracy_without_c"),
        (Classes(("a", "b")), None, None, None),
    ],
)
def test_figures_of_other_roles(
    classes: Classes, negative: str | None, auroc: str | None, accuracy: str | None
) -> None:
    assert (classes.negative, classes.auroc_lesions, classes.accuracy_lesions) == (negative, auroc, accuracy)


def test_a_folder_names_its_classes(cysts: Path) -> None:
    index, defects = check_dataset(cysts)
    assert defects == [] and index.counts == {"cyst": 12, "solid": 10}
    assert index.classes == Classes(("cyst", "solid"), "solid", None)
    assert open_cache(cysts, 32, cysts.parent / "cache").index == index


def test_a_change_of_roles_is_seen_by_digest_and_cache(cysts: Path) -> None:
    before = open_cache(cysts, 32, cysts.parent / "cache").index
    name_classes(cysts, classes=["cyst", "solid"], positive="cyst")
    after = open_cache(cysts, 32, cysts.parent / "cache").index
    assert (before.classes.positive, after.classes.positive) == ("solid", "cyst")
    assert before.digest != after.digest


def test_a_class_without_lesion_needs_no_mask_file(tmp_path: Path, phantom_root: Path) -> None:
    shutil.copy(next((phantom_root / "normal").iterdir()), tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,label,mask_file\na.png,healthy,\n")
    name_classes(tmp_path, classes=["ill", "healthy"], without_lesion="healthy")
    assert [case.mask_known for case in list_files(tmp_path)[0]] == [True]
    name_classes(tmp_path, classes=["ill", "healthy"])
    assert [case.mask_known for case in list_files(tmp_path)[0]] == [False]


def test_a_label_that_is_not_named_is_a_defect(tmp_path: Path, phantom_root: Path) -> None:
    shutil.copy(next((phantom_root / "normal").iterdir()), tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,label,mask_file\na.png,healthy,\n")
    with pytest.raises(UserError, match=r"label: 'healthy' \(line 2\); expected benign, malignant, normal or .*"):
        index_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected an object with the key classes"),
        ('{"classes": ["a", "b"], "positiv": "a"}', "unknown key positiv; did you mean positive?"),
        ('{"positive": "a"}', "classes is 'None'; expected a list of names"),
        ('{"classes": ["a", "b c"]}', "expected a list of names of letters, digits, dashes and underscores"),
        ('{"classes": ["a"]}', "expected at least two names, each once"),
        ('{"classes": ["a", "A"]}', "expected at least two names, each once"),
        ('{"classes": ["a", "b"], "positive": "c"}', "positive is 'c'; expected null or one of a, b"),
        ('{"classes": ["a", "b"], "positive": "a", "without_lesion": "a"}', "are both a; expected different classes"),
    ],
)
def test_a_file_that_is_not_sound_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=r"dataset\.json: ") as error:
        read_classes(tmp_path)
    assert message in str(error.value)


def test_phantoms_are_marked_and_have_busis_classes(tmp_path: Path) -> None:
    root = generate_phantoms(tmp_path / "demo", {"benign": 1})
    assert is_synthetic(root) and read_classes(root) == BUSI
    assert not is_synthetic(tmp_path)
    with pytest.raises(UserError, match="synthetic is 'yes'; expected true or false"):
        is_synthetic(name_classes(root, synthetic="yes"))
