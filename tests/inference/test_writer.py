import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from busi_lab.inference import writer
from busi_lab.report.figures import overlay
from tests.inference.small_runs import Cli, scan


@pytest.mark.skipif(sys.platform == "darwin", reason="such names are refused there")
def test_a_file_name_that_is_no_text(cli: Cli, runs: Path, tmp_path: Path) -> None:
    source = scan(tmp_path / "scan.png")
    (tmp_path / "scans").mkdir()
    shutil.copy(source, os.fsencode(tmp_path) + b"/scans/sc\xff.png")
    called = cli(tmp_path / "scans", "--run", runs / "random")
    assert called.code == 0
    assert called.table()[0]["file"].endswith("sc\\udcff.png")


@pytest.mark.parametrize("run", ["all", "none"])
def test_overlays_show_outline_and_class(
    cli: Cli, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    written = []
    draw = overlay.draw_overlay

    def note(pixels: Any, mask: Any, lines: list[str]) -> Image.Image:
        written.append(lines)
        return draw(pixels, mask, lines)

    monkeypatch.setattr(writer, "draw_overlay", note)
    path = scan(tmp_path / "scan.png", 20, 20)
    called = cli(path, "--classifier", runs / "constant/first", "--segmenter", runs / run)
    picture, mask = called.picture("scan_overlay"), called.picture("scan_mask")
    assert picture.shape[1] == 320  # enlarged sixteen times
    assert picture.shape[0] > 320  # with room for words
    assert (picture == overlay.PREDICTED).all(axis=2).any() == (run == "all")
    assert mask.shape == (20, 20)
    assert mask.sum() == called.lines[0]["lesion_pixels"] == (400 if run == "all" else 0)
    found = "lesion 28 px long, 400 px" if run == "all" else "no lesion found"
    assert written == [["benign", "benign 0.70  malignant 0.20  normal 0.10", found]]
    assert called.lines[0]["lesion_found"] == (run == "all")
    assert called.lines[0]["lesion_area_mm2"] is None


def test_a_single_pixel_is_outlined_and_a_narrow_scan_stays_small() -> None:
    mask = np.zeros((30, 30), bool)
    mask[10, 20] = True
    picture = np.asarray(overlay.draw_overlay(np.zeros((30, 30), np.uint8), mask, ["benign"]).convert("RGB"))
    rows, columns = np.nonzero((picture == overlay.PREDICTED).all(axis=2))
    assert abs(rows.mean() / 11 - 10.5) < 0.2  # enlarged eleven times
    assert abs(columns.mean() / 11 - 20.5) < 0.2
    assert overlay.draw_overlay(np.zeros((100_000, 1), np.uint8), None, ["benign"]).width < 10


def test_an_overlay_has_the_scans_gray_levels_and_none_looks_like_an_outline() -> None:
    levels = np.tile(np.arange(256, dtype=np.uint8), (320, 2))[:, :320]
    drawn = np.asarray(overlay.draw_overlay(levels, None, ["benign"]).convert("RGB"))
    assert (drawn[:320] == np.minimum(levels, 254)[..., None]).all()


def test_every_json_says_what_it_is_not_for(cli: Cli, runs: Path, tmp_path: Path) -> None:
    called = cli(scan(tmp_path / "scan.png"), "--run", runs / "random", "--no-overlays")
    notice = "Research only. Not a medical device: what it says must not guide the care of anyone."
    assert called.lines[0]["notice"] == called.record("scan")["notice"] == notice


def test_overlays_can_be_left_out(cli: Cli, runs: Path, tmp_path: Path) -> None:
    called = cli(scan(tmp_path / "scan.png"), "--run", runs / "all", "--no-overlays")
    assert called.lines[0]["pictures"] == {"mask": "scan_mask.png"}
    assert sorted(path.name for path in called.out.iterdir()) == ["predictions.csv", "scan.json", "scan_mask.png"]
