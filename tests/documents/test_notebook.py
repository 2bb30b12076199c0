"""The notebook works from its first cell to its last, and is stored without what it gave somewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.documents.pages import ROOT

NOTEBOOK = ROOT / "busi_lab/quickstart.ipynb"


def cells() -> list[dict[str, Any]]:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_it_is_stored_without_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells())


@pytest.mark.slow
def test_its_cells_work_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # it is asked for anew
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells()):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), names)
    assert names["work"].parent == tmp_path
    assert "classifier" in names["report"].read_text(encoding="utf-8")
    assert set(names["prediction"].probabilities) == {"benign", "malignant", "normal"}
    assert isinstance(names["overlay"], Image.Image)
    assert names["summaries"]["segmenter"].metrics["test/dice"] >= 0
    assert not list(tmp_path.glob("runs"))  # nothing but in its own folder
