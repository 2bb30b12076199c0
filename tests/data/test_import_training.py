"""Every format from its published layout to a trained network, as a user types it."""

from pathlib import Path

import pytest

from tests.data.published_layouts import LAYOUTS, phantom_cases
from tests.programs import call


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_an_imported_dataset_trains(
    name: str, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = phantom_cases(phantom_root)
    if name in ("coco", "yolo", "oasbud", "udiat"):  # which have no scans without a lesion
        cases = [case for case in cases if case.label != "normal"]
    LAYOUTS[name](tmp_path / "source", cases)
    assert call("datasets", "import", name, "source", "--out", "set") == 0
    assert call("datasets", "check", "set") == 0
    small = ("trainer=smoke", "logger=none", "data.image_size=32", "model.weights=none", "hydra.run.dir=run")
    if name == "pairs":
        small += ("task=segmentation", "model=mobilenet_unet")
    assert call("train", "data=labels", "data.root=set", *small) == 0
    assert (tmp_path / "run/summary.json").is_file()
