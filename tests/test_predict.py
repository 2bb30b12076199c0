"""busi-predict as a user types it, and from Python: what it finds, what it writes, and what it refuses."""

import csv
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from busi_lab import predict, train
from busi_lab.data.scan import Scan
from busi_lab.errors import UserError
from busi_lab.inference import batch, writer
from busi_lab.inference.measures import measure
from busi_lab.report import overlay
from busi_lab.run_directory import BEST_CHECKPOINT, CLASSES, SCHEMA, Summary, read_run, write_summary
from busi_lab.tasks import BaseTask, ClassificationTask, SegmentationTask
from tests.test_reading import dicom, region

OPTIM = {"name": "adam", "lr": 1e-3, "weight_decay": 0.0, "backbone_lr": None}
SCHEDULER = {"name": "none", "warmup_fraction": 0.3, "factor": 0.3, "patience": 5}
SPLIT = {"protocol": "holdout", "seed": 3, "fold": None, "digest": "abc", "leaked": 0}
SHARES = {"first": (0.7, 0.2, 0.1), "second": (0.1, 0.5, 0.4)}
"""What two classifiers say of any scan."""


def make_task(kind: type[BaseTask], size: int = 32, **model: Any) -> Any:
    settings = {"weights": "none", "in_chans": 3, "dropout": 0.0, "freeze": "none", **model}
    loss = {} if kind is ClassificationTask else {"loss": {"dice": 1.0, "bce": 1.0}}
    torch.manual_seed(0)
    return kind(model=settings, image_size=size, optim=OPTIM, scheduler=SCHEDULER, **loss).eval()  # type: ignore[call-arg]


def make_classifier(shares: tuple[float, ...] | None = None) -> ClassificationTask:
    """A small classifier; with ``shares`` one that answers them whatever it sees."""
    task: ClassificationTask = make_task(ClassificationTask, name="custom_cnn", backbone=None)
    last: Any = list(task.network.modules())[-1]
    if shares is None:
        torch.nn.init.normal_(last.weight)  # untrained, it would say about a third of everything
    else:
        torch.nn.init.zeros_(last.weight)
        last.bias.data = torch.tensor(shares).log()
    return task


def make_segmenter(lesion: bool | None = None) -> SegmentationTask:
    """A segmenter; with ``lesion`` one that takes every pixel for it, or none."""
    task: SegmentationTask = make_task(SegmentationTask, size=64, name="mobilenet_unet")
    head: Any = task.head_modules[-1]
    if lesion is None:
        torch.nn.init.normal_(head.weight)
    else:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, 4.0 if lesion else -4.0)
    return task


def save_run(directory: Path, task: BaseTask, **changes: Any) -> Path:
    (directory / BEST_CHECKPOINT).parent.mkdir(parents=True)
    content = {"schema": SCHEMA, "state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    torch.save(content, directory / BEST_CHECKPOINT)
    values: dict[str, Any] = {"task": task.kind, "experiment": directory.name, "seed": 0, "split": SPLIT, **changes}
    write_summary(directory, Summary(**{"status": "finished", **values}))
    return directory


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were never trained: classifiers ``random``, ``first``, ``second``; segmenters."""
    folder = tmp_path_factory.mktemp("runs")
    save_run(folder / "random", make_classifier())
    for name, shares in SHARES.items():
        save_run(folder / "constant" / name, make_classifier(shares))
    save_run(folder / "noise", make_segmenter())
    save_run(folder / "all", make_segmenter(lesion=True))
    save_run(folder / "none", make_segmenter(lesion=False))
    return folder


@pytest.fixture(scope="session")
def joint_run(phantom_root: Path, _cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joint run that was trained for two epochs, with the masks of its test at the scans' resolution."""
    directory = tmp_path_factory.mktemp("trained") / "joint"
    places = (f"data.root={phantom_root}", f"data.cache_dir={_cache_dir}", "data.image_size=64", "logger=csv")
    settings = ("task=multitask", "model=mobilenet_unet", "task.resolution=original", "optim.lr=0.01")
    arguments = ("trainer=smoke", "split=holdout", *places, *settings, f"hydra.run.dir={directory}")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["busi-train", *arguments])
        train.main()
    assert not stopped.value.code
    return directory


@dataclass
class Called:
    """What a call of ``busi-predict`` left."""

    code: int
    lines: list[dict[str, Any]]
    errors: list[str]
    out: Path

    def table(self) -> list[dict[str, str]]:
        with (self.out / writer.TABLE).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def record(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / f"{name}.json").read_text())
        return found

    def picture(self, name: str) -> NDArray[Any]:
        return np.asarray(Image.open(self.out / f"{name}.png"))


Cli = Callable[..., Called]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Call ``busi-predict`` with ``--out`` (a new folder) and ``--json -`` in this process."""

    def call(*arguments: object, out: Path | None = None) -> Called:
        folder = out or tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        try:
            predict.main([*map(str, arguments), "--out", str(folder), "--json", "-"])
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = capfd.readouterr()
        lines = [json.loads(line) for line in printed.out.splitlines()]
        return Called(code, lines, printed.err.splitlines(), folder)

    return call


def scan(path: Path, height: int = 24, width: int = 32, seed: int = 0) -> Path:
    """Speckle with dark blobs, as a file of the format that ``path`` ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


# ------------------------------------------------------------------------------------------ what is found


def test_a_runs_own_predictions_are_found_again(cli: Cli, joint_run: Path, phantom_root: Path) -> None:
    rows = read_run(joint_run).predictions
    files = {row["image"]: phantom_root / row["label"] / f"{row['image']}.png" for row in rows}
    called = cli(*files.values(), "--run", joint_run)
    assert called.code == 0
    assert len(called.lines) == len(rows) > 3
    for row, line, cells in zip(rows, called.lines, called.table(), strict=True):
        expected = [float(row[f"p_{name}"]) for name in CLASSES]
        assert list(line["probabilities"]) == list(CLASSES)
        assert list(line["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        assert [float(cells[f"p_{name}"]) for name in CLASSES] == pytest.approx(expected, abs=1e-5)
        assert line["class"] == cells["class"] == row["prediction"]
        assert str(line["lesion_pixels"]) == cells["lesion_pixels"] == row["predicted_pixels"]
        mask = called.picture(f"{row['image']}_mask")
        assert (mask == np.asarray(Image.open(joint_run / "masks" / f"{row['image']}.png"))).all()
        assert mask.shape == Image.open(files[row["image"]]).size[::-1] == (line["height"], line["width"])
        assert called.record(row["image"]) == line
        assert {run["role"] for run in line["runs"]} == {"classifier", "segmenter"}
        assert {(run["directory"], run["split"]["protocol"]) for run in line["runs"]} == {(str(joint_run), "holdout")}
    assert (
        0
        < sum(line["lesion_pixels"] for line in called.lines)
        < sum(line["width"] * line["height"] for line in called.lines)
    )


def test_from_python(runs: Path, tmp_path: Path) -> None:
    path = scan(tmp_path / "scan.png")
    predictor = predict.load(classifier=str(runs / "random"), segmenter=runs / "noise")
    found = predictor.predict(path)
    assert found.mask is not None
    assert found.mask.shape == (found.height, found.width) == (24, 32)
    assert found.lesion_pixels == found.mask.sum() > 0
    assert found.probabilities is not None
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.label == max(CLASSES, key=lambda name: (found.probabilities or {})[name])
    again = predictor.predict(np.asarray(Image.open(path)))
    assert again.probabilities == found.probabilities
    assert (again.mask == found.mask).all()
    for wrong in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"expected gray levels uint8 \[H, W\]"):
            predictor.predict(wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no run to predict with"):
        predict.load()


def test_one_part_alone(runs: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    classified = predict.load(runs / "random").predict(pixels)
    assert (classified.mask, classified.lesions, classified.lesion_pixels) == (None, None, None)
    outlined = predict.load(runs / "all").predict(pixels)
    assert (outlined.probabilities, outlined.label) == (None, None)
    assert outlined.lesion_pixels == 64


def test_several_runs_are_averaged(runs: Path) -> None:
    mean = [(a + b) / 2 for a, b in zip(*SHARES.values(), strict=True)]
    pixels = np.zeros((8, 8), np.uint8)

    def shares(*given: Path) -> list[float]:
        return list((predict.load(classifier=given).predict(pixels).probabilities or {}).values())

    first, second = (runs / "constant" / name for name in SHARES)
    assert shares(first) == pytest.approx(SHARES["first"])
    assert shares(first, second) == pytest.approx(mean)
    assert shares(runs / "constant") == pytest.approx(mean)
    # one given twice counts once, however it is spelt
    assert shares(first, second, first.parent / ".." / "constant" / "first") == pytest.approx(mean)
    # lesion probabilities are averaged: (sigmoid(4) + sigmoid(-4)) / 2 is the threshold itself, 0.5
    both = predict.load(segmenter=[runs / "all", runs / "none"]).predict(pixels)
    assert both.lesion_pixels in (0, 64)
    twice = predict.load(segmenter=[runs / "all", runs / "none", runs / "all"]).predict(pixels)
    assert twice.lesion_pixels == both.lesion_pixels


def test_a_folder_of_runs_stands_for_its_finished_ones(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    shutil.copytree(runs / "constant", folder)
    for name, changes in {"failed": {"status": "failed"}, "evaluation": {"source": {"directory": "elsewhere"}}}.items():
        (folder / name).mkdir()
        write_summary(folder / name, Summary(**{"status": "finished", "task": "classification", **changes}))  # type: ignore[arg-type]
    names = [Path(run.directory).name for run in predict.load(folder).runs]
    assert names == ["first", "second"]


def test_mirrored_scans_have_mirrored_answers_with_tta(runs: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    answers = {}
    for tta in (True, False):
        predictor = predict.load([runs / "random", runs / "noise"], tta=tta)
        answers[tta] = predictor.predict(pixels), predictor.predict(mirrored)
    straight, flipped = answers[True]
    assert straight.mask is not None
    assert flipped.mask is not None
    assert 0 < straight.mask.mean() < 1
    assert (straight.mask == flipped.mask[:, ::-1]).mean() > 0.999
    assert straight.probabilities == pytest.approx(flipped.probabilities, abs=1e-6)
    straight, flipped = answers[False]
    assert straight.probabilities != pytest.approx(flipped.probabilities, abs=1e-6)


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


# ------------------------------------------------------------------------------------------------ measures


def test_measures_of_a_rectangle() -> None:
    mask = np.zeros((40, 50), bool)
    mask[5:35, 20:30] = True  # 30 rows, 10 columns
    (lesion,) = measure(mask, (0.1, 0.2))
    assert lesion.area_pixels == 300
    assert lesion.area_mm2 == pytest.approx(6.0)
    assert lesion.bounding_box == (20, 5, 10, 30)
    assert lesion.longest_diameter_pixels == pytest.approx(math.hypot(30, 10))
    assert lesion.longest_diameter_mm == pytest.approx(math.hypot(30 * 0.1, 10 * 0.2))
    (plain,) = measure(mask)
    assert (plain.area_mm2, plain.longest_diameter_mm) == (None, None)


def test_the_longest_way_in_millimetres_is_not_that_in_pixels() -> None:
    mask = np.zeros((30, 30), bool)
    mask[10, :20] = True  # 20 pixels of 0.1 mm across
    mask[:20, 0] = True  # 20 of 1 mm down
    (lesion,) = measure(mask, (1.0, 0.1))
    assert lesion.longest_diameter_mm == pytest.approx(math.hypot(20, 0.1), rel=1e-2)
    assert lesion.longest_diameter_pixels == pytest.approx(math.hypot(20, 11), rel=0.2)


def test_parts_touch_at_corners_and_the_largest_comes_first() -> None:
    mask = np.zeros((12, 12), bool)
    mask[0, 0] = True
    mask[4:6, 4:6] = mask[6:8, 6:8] = True  # two squares that meet at a corner
    large, small = measure(mask)
    assert (large.area_pixels, large.bounding_box) == (8, (4, 4, 4, 4))
    assert large.longest_diameter_pixels == pytest.approx(math.hypot(4, 4))
    assert (small.area_pixels, small.bounding_box) == (1, (0, 0, 1, 1))
    assert small.longest_diameter_pixels == pytest.approx(math.sqrt(2))
    assert measure(np.zeros((5, 5), bool)) == ()


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


# ---------------------------------------------------------------------------------------------------- files


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


def test_equal_names_are_told_apart(cli: Cli, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    for name in ("scan.png", "scan.jpg", "Scan.bmp", "a/scan.png", "b/scan.png"):
        scan(folder / name)
    called = cli(folder, folder, folder / "a/scan.png", "--run", runs / "random")
    assert called.code == 0
    assert len(called.lines) == 11
    records = sorted(path.relative_to(called.out).as_posix() for path in called.out.rglob("*.json"))
    assert len({name.lower() for name in records}) == 11
    assert {"scan_png.json", "a/scan.json", "b/scan.json"} <= set(records)
    for line in called.lines:
        assert (called.out / "a" / line["pictures"]["overlay"]).exists() or any(
            called.out.rglob(line["pictures"]["overlay"])
        )


def test_masks_and_hidden_files_of_a_folder_are_left_out(cli: Cli, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    for name in ("case (1).png", "case (1)_mask.png", "case (1)_mask_1.png", "lone_mask.png", ".hidden.png"):
        scan(folder / name)
    (folder / "notes.txt").write_text("no scan")
    called = cli(folder, "--run", runs / "random")
    assert called.code == 0
    assert [Path(line["file"]).name for line in called.lines] == ["case (1).png", "lone_mask.png"]
    assert "left out: 2 mask files" in called.errors[-1]
    given = cli(folder / "case (1)_mask.png", "--run", runs / "random")
    assert len(given.lines) == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="such names are refused there")
def test_a_file_name_that_is_no_text(cli: Cli, runs: Path, tmp_path: Path) -> None:
    source = scan(tmp_path / "scan.png")
    (tmp_path / "scans").mkdir()
    shutil.copy(source, os.fsencode(tmp_path) + b"/scans/sc\xff.png")
    called = cli(tmp_path / "scans", "--run", runs / "random")
    assert called.code == 0
    assert called.table()[0]["file"].endswith("sc\\udcff.png")


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
    monkeypatch.setattr(batch, "_AHEAD", 2)
    called = cli(tmp_path / "scans", "--run", runs / "random", "--batch-size", 4)
    assert len(called.lines) == 60
    # read ahead, in the batch, being written, and one or two in hand
    assert peak[0] <= 2 + 4 + 2 + 2


# ------------------------------------------------------------------------------------------------- overlays


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
    picture = np.asarray(overlay.draw_overlay(np.zeros((30, 30), np.uint8), mask, ["benign"]))
    rows, columns = np.nonzero((picture == overlay.PREDICTED).all(axis=2))
    assert abs(rows.mean() / 11 - 10.5) < 0.2  # enlarged eleven times
    assert abs(columns.mean() / 11 - 20.5) < 0.2
    assert overlay.draw_overlay(np.zeros((100_000, 1), np.uint8), None, ["benign"]).width < 10


# ---------------------------------------------------------------------------------------------- wrong input


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_that_would_run_code_is_refused(cli: Cli, runs: Path, tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "created"
    path = shutil.copytree(runs / "random", run) / BEST_CHECKPOINT
    content = {**torch.load(path, weights_only=True), "more": Evil(target)}
    source = scan(tmp_path / "scan.png")
    torch.save(content, path)
    as_torch = cli(source, "--run", run)
    with path.open("wb") as file:
        pickle.dump(content, file)
    for called in (as_torch, cli(source, "--run", run)):
        assert called.code == 2
        assert len(called.errors) == 1
        assert "more than tensors and plain values" in called.errors[0]
        assert not called.out.exists()
    assert not target.exists()


def spoil(run: Path, what: str) -> None:
    checkpoint, summary = run / BEST_CHECKPOINT, run / "summary.json"
    content = json.loads(summary.read_text())
    if what == "missing":
        shutil.rmtree(run)
    elif what == "no summary":
        summary.unlink()
    elif what == "failed":
        summary.write_text(json.dumps({**content, "status": "failed", "error": "out of luck"}))
    elif what == "newer":
        summary.write_text(json.dumps({**content, "schema": SCHEMA + 1}))
    elif what == "cut summary":
        summary.write_text(summary.read_text()[:-9])
    elif what == "evaluation":
        summary.write_text(json.dumps({**content, "source": {"directory": "elsewhere"}}))
    elif what == "unknown task":
        summary.write_text(json.dumps({**content, "task": "detection"}))
    elif what == "other task":
        summary.write_text(json.dumps({**content, "task": "multitask"}))
    elif what == "no checkpoint":
        checkpoint.unlink()
    elif what == "cut checkpoint":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-5000])
    elif what == "empty checkpoint":
        checkpoint.write_bytes(b"")
    elif what == "newer checkpoint":
        torch.save({**torch.load(checkpoint, weights_only=True), "schema": SCHEMA + 1}, checkpoint)
    elif what == "bare weights":
        torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], checkpoint)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "no such folder"),
        ("no summary", "holds no finished run"),
        ("failed", "the run failed (out of luck)"),
        ("newer", f"has schema {SCHEMA + 1}, this version reads {SCHEMA}"),
        ("cut summary", "cut or not JSON"),
        ("evaluation", "holds the evaluation of a run; give the directory of that run, elsewhere"),
        ("unknown task", "task 'detection', expected classification"),
        ("other task", "does not fit a multitask task"),
        ("no checkpoint", "best.ckpt is missing"),
        ("cut checkpoint", "is damaged"),
        ("empty checkpoint", "is damaged"),
        ("newer checkpoint", f"has schema {SCHEMA + 1}"),
        ("bare weights", "is no checkpoint of busi-lab"),
    ],
)
def test_runs_that_cannot_be_used(cli: Cli, runs: Path, tmp_path: Path, what: str, message: str) -> None:
    run = Path(shutil.copytree(runs / "random", tmp_path / "run"))
    spoil(run, what)
    called = cli(scan(tmp_path / "scan.png"), "--run", run)
    assert called.code == 2
    assert len(called.errors) == 1, called.errors
    assert called.errors[0].startswith("error: ")
    assert message in called.errors[0]
    assert not called.lines
    assert not called.out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no run to predict with"),
        (("--classifier", "RUNS/noise"), "is a segmentation run and cannot be the classifier"),
        (("--segmenter", "RUNS/random"), "is a classification run and cannot be the segmenter"),
        (("--run", "RUNS/random", "--batch-size", "0"), "--batch-size 0: expected at least 1"),
        (("--run", "RUNS/random", "--batch-size", "many"), "--batch-size: invalid int value"),
        (("--run", "RUNS/random", "--device", "cuda:99"), "--device cuda:99: not to be had here"),
        (("--run", "RUNS/random", "--device", "abacus"), "--device abacus: not to be had here"),
        (("--run", "RUNS/random", "--device", "meta"), "--device meta: not to be had here"),
        (("--run", "RUNS/none", "--explain", "gradcam"), "explanations are of a class: give a classifier"),
        (("--run", "RUNS/random", "--explain", "tea"), "invalid choice: 'tea'"),
        (("--run", "RUNS/random", "--color"), "unrecognized arguments: --color"),
        (("--run", "RUNS/random", "TMP/nothing.png"), "nothing.png: no such file or folder"),
        (("--run", "RUNS/random", "x" * 300), "File name too long"),
        (("--run", "RUNS/random", "--json", "TMP/no/lines.json"), "expected a new file in a folder that exists"),
        (("--run", "RUNS/random", "--out", "TMP/full"), "expected a new or an empty folder"),
        (("--run", "RUNS/random", "--out", "TMP/full/file"), "expected a new or an empty folder"),
        (("--run", "RUNS/random", "--out", "TMP/full/file/below"), "cannot be read or written (Not a directory)"),
        (("--run", "RUNS/random", "--out", "TMP/" + "x" * 300), "cannot be read or written (File name too long)"),
        (("--run", "RUNS/random", "--out", "/proc/nothing"), "cannot be read or written ("),
    ],
)
def test_wrong_input_is_one_line(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    given = [item.replace("RUNS", str(runs)).replace("TMP", str(tmp_path)) for item in arguments]
    out = () if "--out" in given else ("--out", str(tmp_path / "out"))
    source = str(scan(tmp_path / "scan.png"))
    with pytest.raises(SystemExit) as stopped:
        predict.main([source, *out, *given])
    printed = capfd.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "scan.png"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("empty", "--out", "out"), "no scan found; expected PNG"),
        (("scan.png",), "nowhere to write to"),
        (("scan.png", "--json", "-", "--explain", "gradcam"), "--explain draws pictures: give --out"),
        (("--out", "out"), "the following arguments are required: IMAGE_OR_FOLDER"),
    ],
)
def test_nothing_to_do(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    scan(tmp_path / "scan.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        predict.main([*arguments, "--run", str(runs / "random")])
    assert stopped.value.code == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_lines_to_a_file(runs: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.json"
    predict.main([str(scan(tmp_path / "scan.png")), "--run", str(runs / "constant/first"), "--json", str(lines)])
    (record,) = map(json.loads, lines.read_text().splitlines())
    assert record["probabilities"] == pytest.approx(dict(zip(CLASSES, SHARES["first"], strict=True)))
    assert "pictures" not in record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.json", "scan.png"]


@pytest.mark.parametrize("place", ["scan.png", "out/lines.json", "out"])
def test_lines_take_no_place_of_another_file(
    runs: Path, tmp_path: Path, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    before = scan(tmp_path / "scan.png").read_bytes()
    with pytest.raises(SystemExit):
        out = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / place)]
        predict.main([str(tmp_path / "scan.png"), "--run", str(runs / "random"), *out])
    assert "expected a new file" in capfd.readouterr().err
    assert (tmp_path / "scan.png").read_bytes() == before and not any((tmp_path / "out").iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        predict.main([str(scan(tmp_path / "scan.png")), "--run", str(runs / "random"), "--json", "/dev/full"])
    assert stopped.value.code == 2
    assert "cannot be read or written (No space left on device)" in capfd.readouterr().err


def test_help_and_a_wrong_option_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from busi_lab import predict\n"
        "for option in ('--help', '--nonsense'):\n"
        "    try: predict.main([option, 'scan.png'])\n"
        "    except SystemExit as stopped: print('code', stopped.code)\n"
        "assert not {'torch', 'numpy', 'PIL', 'tqdm'} & sys.modules.keys(), 'heavy import'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "IMAGE_OR_FOLDER" in done.stdout
    assert done.stdout.splitlines()[-1] == "code 2"
    assert done.stderr == "error: unrecognized arguments: --nonsense; see busi-predict --help\n"
