import math
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from busi_lab.data.scan import Scan
from busi_lab.inference import batch
from tests.data.image_files import dicom, region
from tests.inference.small_runs import Cli, scan


def test_the_batch_changes_nothing(cli: Cli, runs: Path, tmp_path: Path) -> None:
    for number in range(5):
        scan(tmp_path / "scans" / f"{number}.png", 20 + number, 40 - number, seed=number)
    chosen = ("--run", runs / "random", "--run", runs / "noise")
    one, three = (cli(tmp_path / "scans", *chosen, "--batch-size", size) for size in (1, 3))
    for a, b in zip(one.lines, three.lines, strict=True):
        assert a["file"] == b["file"]
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-6)
        name = f"{Path(a['file']).stem}_mask"
        assert (one.picture(name) == three.picture(name)).mean() > 0.99


def test_millimetres_of_dicom(cli: Cli, runs: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    (tmp_path / "scans").mkdir()
    dicom(tmp_path / "scans/1.2.840.77", pixels, SequenceOfUltrasoundRegions=[region(0.01, 0.02)])
    dicom(
        tmp_path / "scans/cine.dcm",
        np.concatenate([pixels] * 3),
        Rows=30,
        NumberOfFrames=3,
    )
    called = cli(tmp_path / "scans", "--segmenter", runs / "all", "--batch-size", 2)
    assert called.code == 0
    single, *frames = called.lines
    assert single["spacing_mm"] == [pytest.approx(0.1), pytest.approx(0.2)]  # centimetres in the file
    assert single["lesion_pixels"] == 30 * 40
    assert single["lesion_area_mm2"] == pytest.approx(30 * 40 * 0.02)
    (lesion,) = single["lesions"]
    assert lesion["bounding_box"] == [0, 0, 40, 30]
    assert lesion["longest_diameter_mm"] == pytest.approx(math.hypot(30 * 0.1, 40 * 0.2))
    assert float(called.table()[0]["longest_diameter_mm"]) == pytest.approx(lesion["longest_diameter_mm"], rel=1e-6)
    assert called.record("1.2.840.77") == single
    assert [line["frame"] for line in frames] == [0, 1, 2]
    assert frames[0]["lesion_area_mm2"] is None
    assert called.picture("cine_frame0002_mask").shape == (30, 40)


def test_pages_of_tiff(cli: Cli, runs: Path, tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((10 + page, 20), 60 * page, np.uint8)) for page in range(3)]
    (tmp_path / "scans").mkdir()
    pages[0].save(tmp_path / "scans/stack.tiff", save_all=True, append_images=pages[1:])
    scan(tmp_path / "scans/stack_frame0001.png")  # the name that the second page's files would have
    called = cli(tmp_path / "scans", "--segmenter", runs / "all")
    assert [(line["frame"], line["height"]) for line in called.lines] == [(0, 10), (1, 11), (2, 12), (None, 24)]
    names = {path.name for path in called.out.glob("*.json")}
    assert names == {*(f"stack_frame000{page}.json" for page in range(3)), "stack_frame0001_png.json"}


def test_kinds_of_pictures(cli: Cli, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    gray = Image.open(scan(folder / "gray.png", 20, 40))
    Image.fromarray(np.asarray(gray).astype(np.uint16) * 16).save(folder / "deep.png")
    gray.convert("P").save(folder / "palette.png")
    gray.convert("RGBA").save(folder / "alpha.png")
    gray.convert("RGB").convert("CMYK").save(folder / "print.jpg", quality=100)
    turned = Image.Exif()
    turned[0x0112] = 6
    gray.save(folder / "turned.jpg", exif=turned)
    gray.save(folder / "gray2.BMP")
    scan(folder / "tiny.png", 20, 20)
    scan(folder / "one.png", 1, 1)
    called = cli(folder, "--run", runs / "random", "--run", runs / "noise")
    assert called.code == 0
    lines = {Path(line["file"]).name: line for line in called.lines}
    assert len(lines) == 9
    for line in lines.values():
        mask = called.picture(f"{Path(line['file']).stem}_mask")
        assert mask.shape == (line["height"], line["width"])
        assert mask.sum() == line["lesion_pixels"] == sum(lesion["area_pixels"] for lesion in line["lesions"])
        assert line["pictures"]["mask"] == f"{Path(line['file']).stem}_mask.png"
    assert (lines["turned.jpg"]["width"], lines["turned.jpg"]["height"]) == (20, 40)
    same = ("deep.png", "palette.png", "alpha.png", "gray2.BMP")
    for name in same:
        assert lines[name]["probabilities"] == pytest.approx(lines["gray.png"]["probabilities"], abs=2e-2), name


def test_a_large_scan(cli: Cli, runs: Path, tmp_path: Path) -> None:
    called = cli(scan(tmp_path / "large.png", 3000, 4000), "--run", runs / "noise")
    mask = called.picture("large_mask")
    assert mask.shape == (3000, 4000)
    assert mask.sum() == called.lines[0]["lesion_pixels"] > 0
    assert called.picture("large_overlay").shape[1] == 4000


def test_what_cannot_be_read_stops_nothing(cli: Cli, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    good = scan(folder / "good.png")
    Image.open(good).save(folder / "moving.gif")
    (folder / "cut.png").write_bytes(good.read_bytes()[:-60])
    (folder / "empty.jpg").write_bytes(b"")
    dicom(folder / "report.dcm", [], PixelData=None)
    scan(folder / "zebra.png")
    called = cli(folder, folder / "moving.gif", "--run", runs / "random", "--batch-size", 2)
    assert called.code == 1
    table = {Path(row["file"]).name: row for row in called.table()}
    bad = {name for name, row in table.items() if row["error"]}
    assert bad == {"cut.png", "empty.jpg", "report.dcm", "moving.gif"}
    assert {Path(line["file"]).name for line in called.lines} == table.keys() - bad == {"good.png", "zebra.png"}
    assert not any(table[name]["class"] for name in bad)
    assert [name for name in table if name != "moving.gif"] == sorted(name for name in table if name != "moving.gif")
    listed = [line for line in called.errors if line.startswith("not read: ")]
    assert len(listed) == 4
    assert any("moving.gif: the file is GIF" in line for line in listed)
    assert sorted(path.name for path in called.out.glob("*.json")) == ["good.json", "zebra.json"]


def test_memory_does_not_grow_with_the_folder(
    cli: Cli, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scan(tmp_path / "scan.png", 8, 8)
    (tmp_path / "scans").mkdir()
    for number in range(60):
        (tmp_path / f"scans/{number}.png").symlink_to(source)
    alive, peak, lock = [0], [0], threading.RLock()
    read_scans = batch.read_scans

    def count(change: int) -> None:
        with lock:
            alive[0] += change
            peak[0] = max(alive[0], peak[0])

    def counted(path: Path) -> Iterator[Scan]:
        for item in read_scans(path):
            count(1)
            weakref.finalize(item, count, -1)
            yield item

    monkeypatch.setattr(batch, "read_scans", counted)
    monkeypatch.setattr(batch, "_WORKERS", 2)
    called = cli(tmp_path / "scans", "--run", runs / "random", "--batch-size", 4)
    assert len(called.lines) == 60
    # two batches read ahead, one predicted, two being written, and one or two scans in hand
    assert peak[0] <= 8 + 4 + 8 + 2
