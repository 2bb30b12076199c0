"""Protocols that are wrong on purpose: they do what they say, and everything says that they are wrong."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from busi_lab.config import config_dir
from busi_lab.data.index import index_dataset
from busi_lab.data.invalid_copies import CHANGES, make_copies
from busi_lab.data.manifest import read_manifest, write_manifest
from busi_lab.data.phantom import generate_phantoms
from busi_lab.data.splits import make_manifest
from busi_lab.errors import UserError
from busi_lab.run.record import split_record
from busi_lab.summary import read_summary
from tests.data.augmentations import settings
from tests.data.test_splits import make_index
from tests.programs import call
from tests.test_config import load


def test_test_images_choose_the_epoch_and_all_count_as_leaked(tmp_path: Path) -> None:
    index = make_index(20, 20, 20)
    valid, wrong = (make_manifest(index, "holdout", choose_on_test=choice) for choice in (False, True))
    assert wrong.val == wrong.test == valid.test
    assert set(wrong.train) == {*valid.train, *valid.val}
    assert wrong.leaked({}) == wrong.test and valid.leaked({}) == ()
    assert wrong.digest != valid.digest
    write_manifest(tmp_path / "split.json", wrong)
    assert read_manifest(tmp_path / "split.json", index) == wrong
    record = split_record(wrong, 12, "searched")
    assert record.protocol == "holdout (invalid protocol: best epoch chosen on the test images)"
    assert split_record(valid, 0, "searched").protocol == "holdout"


def test_copies_fill_each_class_and_stay_near_to_their_scans(tmp_path: Path) -> None:
    source = generate_phantoms(tmp_path / "set", {"benign": 4, "malignant": 3, "normal": 1}, height=128, width=128)
    copied = index_dataset(make_copies(index_dataset(source), tmp_path / "copies", 2))
    assert copied.counts == {"benign": 8, "malignant": 8, "normal": 8}
    names = {case.case_id for case in copied.cases}
    assert {case.case_id for case in index_dataset(source).cases} <= names
    assert {f"normal (1) copy {n}" for n in range(1, 8)} <= names
    folder = tmp_path / "copies/normal"
    one, other = (cv2.imread(str(folder / f"normal (1){end}.png"), 0) for end in ("", " copy 1"))
    assert one.shape == other.shape and not np.array_equal(one, other)
    assert all(case.lesion_pixels for case in copied.cases if case.label != "normal")


def test_a_copy_differs_as_the_published_augmentation_says() -> None:
    assert {**settings("paper"), **CHANGES} == settings("paper")


def test_a_run_on_copies_says_it_and_so_does_its_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUSI_LAB_CACHE", str(tmp_path / "cache"))
    source = generate_phantoms(tmp_path / "set", {"benign": 6, "malignant": 6, "normal": 6}, height=64, width=64)
    small = ("trainer=smoke", "model=custom_cnn", "logger=csv", "data.image_size=32", "split.groups=none")
    run = ("data=invalid_copies", f"data.root={source}", *small, f"hydra.run.dir={tmp_path / 'run'}")
    assert call("train", *run) == 0
    assert call("evaluate", f"run={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'again'}") == 0
    for folder in ("run", "again"):
        data = read_summary(tmp_path / folder).data
        assert data.name == "busi (invalid protocol: augmented copies before the split)" and data.synthetic
    with pytest.raises(UserError, match=r"copies are made of a folder"):
        load("data=phantom", "data.copies_before_split=2")


def test_no_other_sweep_takes_them() -> None:
    for path in sorted((config_dir() / "sweep").glob("*.yaml")):
        params = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
        assert ("invalid" in str(params)) == (path.stem == "how_098")
