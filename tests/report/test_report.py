"""report.html on runs and phantoms made here; expected values worked out by hand, no torch, no network."""

import base64
import csv
import io
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from busi_lab.classes import BUSI
from busi_lab.compare import compare
from busi_lab.data.masks import read_mask
from busi_lab.data.phantom import generate_phantoms
from busi_lab.files import write_rows
from busi_lab.report import words
from busi_lab.report.figures.quality import running_median
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.cases import Cases, read_test_cases
from busi_lab.report.results.examples import dice_examples, false_alarms, wrong_classes
from busi_lab.report.results.statistics import roc
from busi_lab.report.sections.examples import verdict
from busi_lab.run_directory import Run, read_run, write_masks
from busi_lab.summary import Summary, write_summary
from tests.report.said import read, said
from tests.report.said import rows as shown

COUNTS = {"benign": 6, "malignant": 4, "normal": 2}
IMAGES = [(f"{label} ({i})", label) for label in BUSI.names for i in range(1, COUNTS[label] + 1)]
WRONG = {  # image: (prediction, its probability)
    "benign (2)": ("malignant", 0.9),
    "malignant (1)": ("normal", 0.97),
    "malignant (4)": ("benign", 0.55),
}
MATRIX = [[5, 1, 0], [1, 2, 1], [0, 0, 2]]
COLUMNS = ["image", "label", "prediction", *(f"p_{name}" for name in BUSI.names)]
Wrong = dict[str, tuple[str, float]]


def probabilities(chosen: str, probability: float) -> dict[str, float]:
    return {f"p_{name}": probability if name == chosen else (1 - probability) / 2 for name in BUSI.names}


def make_run(folder: Path, wrong: Wrong | None = None, epochs: int = 5, **changes: Any) -> None:
    """Write a finished classification run that has ``wrong`` and all else right with probability 0.8."""
    wrong = WRONG if wrong is None else wrong
    chosen = {image: wrong.get(image, (label, 0.8)) for image, label in IMAGES}
    rows = [
        {"image": image, "label": label, "prediction": chosen[image][0], **probabilities(*chosen[image])}
        for image, label in IMAGES
    ]
    fields: dict[str, Any] = {
        "status": "finished",
        "task": "classification",
        "experiment": "paper/mobilenet",
        "model": "mobilenetv1_100",
        "weights": "imagenet",
        "seed": 0,
        "split": {"protocol": "published", "seed": 0, "fold": None, "digest": "ab", "test_digest": "cd34"},
        "data": {"name": "busi", "digest": "dd", "train": 40, "val": 8, "test": 12},
        "parameters": 3_209_000,
        "epochs": epochs,
        "best_epoch": 1,
        "objective": {"metric": "val/f1", "mode": "max"},
        "metrics": {"val/f1": 0.8, "test/accuracy": 0.75, "test/f1": 0.7123, "test/confusion_matrix": MATRIX},
        "seconds": {"fit": 812.4, "test": 3.0, "total": 820.0},
        "device": "cpu",
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "git": "0123abcd-dirty",
        "command": "busi-train experiment=paper/mobilenet seed=0",
    }
    write_summary(folder, Summary(**(fields | changes)))
    write_rows(folder / "predictions.csv", rows, COLUMNS)
    curve = [{"epoch": e, "train/loss": 1 / (e + 1), "val/loss": 1.2 / (e + 1), "val/f1": 0.5} for e in range(epochs)]
    write_rows(folder / "metrics.csv", curve, curve[0])


class Page(HTMLParser):
    """The page's attributes by tag, its visible words, and the cells of its ranked tables."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "wbr"):
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if {"script", "style"}.isdisjoint(self._open):
            self.words += data
            if {"td", "th"} & set(self._open):
                self.rows[-1][-1] += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.attributes if name in attributes]

    def pictures(self) -> list[Image.Image]:
        sources = [attributes["src"] or "" for tag, attributes in self.attributes if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def report(runs: Path, out: Path) -> tuple[Analysis, str, Page]:
    comparison = compare([runs], out, formats=["html"])
    source = (out / "report.html").read_text(encoding="utf-8")
    return comparison, source, Page(source)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_phantoms(tmp_path_factory.mktemp("data") / "set", COUNTS)


def test_area_under_the_curve_by_hand() -> None:
    # 2 positives, 3 negatives: of 6 pairs 4 are in order and one is tied.
    curve = roc(np.array([True, False, True, False, False]), np.array([0.9, 0.8, 0.6, 0.6, 0.1]))
    assert curve is not None
    assert curve.auc == pytest.approx(4.5 / 6)
    assert curve.false_positive_rate.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1])
    assert curve.true_positive_rate.tolist() == pytest.approx([0, 0.5, 0.5, 1, 1])
    tied = roc(np.array([True, False]), np.array([0.5, 0.5]))
    reversed_ = roc(np.array([True, False]), np.array([0.1, 0.5]))
    assert tied is not None
    assert reversed_ is not None
    assert (tied.auc, reversed_.auc) == (0.5, 0.0)
    assert roc(np.array([True, True]), np.array([0.1, 0.5])) is None


def test_area_agrees_with_counting_all_pairs() -> None:
    rng = np.random.default_rng(0)
    positive, score = rng.random(80) < 0.3, rng.integers(0, 20, 80) / 20
    pairs = np.sign(score[positive][:, None] - score[~positive][None, :])
    curve = roc(positive, score)
    assert curve is not None
    assert curve.auc == pytest.approx(((pairs + 1) / 2).mean())


def test_predictions_are_read_and_damaged_ones_are_none(runs: Path) -> None:
    make_run(runs)
    found = read_test_cases(read_run(runs))
    assert found is not None and found.probabilities is not None
    assert found.probabilities.shape == (12, 3)
    assert found.counts().tolist() == MATRIX
    assert [example.image for example in wrong_classes(found, 2)] == ["malignant (1)", "benign (2)"]
    # malignant: p 0.8 for (2) and (3), 0.225 for (4), 0.015 for (1); the others 0.1, and 0.9 for benign (2)
    malignant = found.roc("malignant")
    assert malignant is not None
    assert malignant.auc == pytest.approx((7 + 7 + 7 + 0) / (4 * 8))
    path = runs / "predictions.csv"
    whole = path.read_text()
    for damaged in ("", whole[:-5], whole.replace("0.9,", "nan,"), whole.replace("p_normal", "p_other"), "a\n\0"):
        path.write_text(damaged)
        assert read_test_cases(read_run(runs)) is None
    path.unlink()
    assert read_test_cases(read_run(runs)) is None


def test_gallery_takes_the_most_confident_mistakes_of_the_best_run(runs: Path, tmp_path: Path, phantoms: Path) -> None:
    data = {"name": "busi", "digest": "dd", "root": str(phantoms), "test": 12}
    make_run(runs / "worse", {"normal (1)": ("benign", 0.99)}, metrics={"val/f1": 0.1, "test/f1": 0.99}, data=data)
    make_run(runs / "best", data=data)
    _, source, page = report(runs, tmp_path / "made")
    verdicts = re.findall(
        r"<strong>(\w+ \(\d\))</strong><br>actual (\w+)<br>predicted (\w+), probability ([\d.]+)", source
    )
    assert verdicts == [
        ("malignant (1)", "malignant", "normal", "0.970"),
        ("benign (2)", "benign", "malignant", "0.900"),
        ("malignant (4)", "malignant", "benign", "0.550"),
    ]
    pictures = page.pictures()
    assert len(pictures) == 3
    with Image.open(phantoms / "malignant/malignant (1).png") as scan:
        assert pictures[0].size[0] / pictures[0].size[1] == pytest.approx(scan.width / scan.height, abs=0.02)
    for picture in pictures:
        assert max(picture.size) == 240
        red, _, blue = (np.asarray(band, dtype=int) for band in picture.convert("RGB").split())
        outline = (red - blue > 80).sum()
        assert 30 < outline < 0.05 * picture.width * picture.height  # a line, no area
    assert "outline from the mask files" in page.words


def test_a_dataset_that_is_gone_costs_the_pictures_only(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", data={"name": "busi", "root": str(tmp_path / "gone"), "test": 12})
    make_run(runs / "b", {"../set/benign/benign (1)": ("normal", 0.9)}, experiment="b")
    _, _, page = report(runs, tmp_path / "made")
    assert page.pictures() == []
    assert "not recorded or no longer there" in page.words
    assert "malignant (1)" in page.words
    assert str(tmp_path) not in page.words


def test_masks_of_0_and_1_are_outlined_and_too_large_scans_left_out(
    runs: Path, tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(phantoms, tmp_path / "set"))
    make_run(runs, data={"name": "busi", "root": str(root), "test": 12})
    expected = [picture.tobytes() for picture in report(runs, tmp_path / "made")[2].pictures()]
    for path in root.glob("*/*_mask*.png"):
        Image.fromarray(read_mask(path).astype(np.uint8)).save(path)
    assert [picture.tobytes() for picture in report(runs, tmp_path / "made")[2].pictures()] == expected
    monkeypatch.setattr("busi_lab.data.scan.MAX_PIXELS", 100)
    assert report(runs, tmp_path / "made")[2].pictures() == []


def test_names_of_images_cannot_leave_the_dataset(runs: Path, tmp_path: Path, phantoms: Path) -> None:
    make_run(runs / "a", data={"name": "busi", "root": str(phantoms), "test": 12})
    path = runs / "a/predictions.csv"
    path.write_text(path.read_text().replace("malignant (1)", "../benign/benign (1)").replace("benign (2)", "none"))
    _, _, page = report(runs, tmp_path / "made")
    assert "../benign/benign (1)" in page.words
    assert len(page.pictures()) == 1


def test_the_page_asks_for_nothing_and_adapts(runs: Path, tmp_path: Path, phantoms: Path) -> None:
    data = {"name": "busi", "digest": "dd", "root": str(phantoms), "test": 12}
    make_run(runs / "a", data=data)
    make_run(runs / "b", {}, experiment="b", parameters=9_000_000, data=data)
    _, source, page = report(runs, tmp_path / "made")
    assert re.findall(r"https?:|//[a-z]|@import|file:", source) == []
    assert all(link.startswith("#") for link in page.values("href"))
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.values("src"))
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.attributes}
    assert re.findall(r"url\((?!#)", source) == []
    identifiers = page.values("id")
    assert len(set(identifiers)) == len(identifiers)
    referenced = {link[1:] for link in page.values("href")} | set(re.findall(r"url\(#([^)]+)\)", source))
    assert referenced <= set(identifiers)
    assert "@media (prefers-color-scheme: dark)" in source
    assert "@media print" in source
    drawings = "".join(re.findall(r"<svg.*?</svg>", source, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) == set()  # every colour is one of the style sheet's
    used = set(re.findall(r"var\((--\w+)", source))
    dark = source[source.index("prefers-color-scheme: dark") : source.index("@media print")]
    assert all(f"{token}:" in dark for token in used - {"--share"})
    assert source.count("aria-label") >= 8


def test_hostile_names_and_errors_are_words(runs: Path, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\"'&{{ 7*7 }}"
    make_run(runs / "a", experiment=hostile, command=hostile, device=hostile, versions={hostile: hostile})
    make_run(runs / "b", {}, experiment=f"{hostile}/2", model=hostile, parameters=1)
    write_summary(runs / "c", Summary("failed", error=f"ValueError: {hostile}", experiment=hostile))
    path = runs / "a/predictions.csv"
    path.write_text(path.read_text().replace("malignant (1)", "<script>alert(2)</script>"))
    _, source, page = report(runs, tmp_path / "made")
    assert [tag for tag, _ in page.attributes].count("script") == 1
    assert "<script>alert" not in source
    assert f"ValueError: {hostile}" in page.words
    assert "<script>alert(2)</script>" in page.words
    assert "49" not in re.findall(r"\b49\b", page.words)
    assert all(not name.startswith("on") for _, attributes in page.attributes for name in attributes)


def test_summary_says_what_came_out(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a")
    make_run(runs / "b", {}, experiment="paper/vgg16", metrics={"val/f1": 0.7, "test/accuracy": 1.0, "test/f1": 1.0})
    write_summary(runs / "c", Summary("failed", error="no memory", experiment="c"))
    comparison, _, page = report(runs, tmp_path / "made")
    told = said(comparison)
    assert told["What was found"].sentences == (
        "Best of 2 models on validation is paper/mobilenet (val/f1 0.800).",
        "On the test images it finds 2 of 4 malignant images and calls 1 of 6 benign and 0 of 2 normal images "
        "malignant.",
        "Counted: 2 of 4 (50%, 95 % interval 5% to 95%) malignant images found; 1 of 6 (17%, 95 % interval 2% to 72%) "
        "benign images called malignant; 0 of 2 (0%, 95 % interval 0% to 99%) normal images called malignant; 9 of 12 "
        "(75%, 95 % interval 43% to 92%) images given their class.",
        "Of fewer than 20 groups of images an interval cannot be trusted.",
        "It ranks malignant images above the others with an AUROC of 0.656 (95 % interval 0.107 to 0.968, of 4 groups, "
        "too few to be trusted), where 0.5 is chance and 1 is perfect.",
        "Tested in pairs on the same images, in accuracy: too few groups to be tested against paper/vgg16.",
        "Test accuracy beside the paper's, best run of each experiment: "
        "paper/mobilenet 0.750 (paper 0.98); paper/vgg16 1.000 (paper 0.90).",
    )
    assert told["What this rests on"].sentences == (
        "2 runs for classification on busi under the published protocol: 40 training, 8 validation, 12 test images. "
        "Leaked test images: not recorded.",
        "1 of 3 runs has no result; the reasons stand below.",
    )
    words = " ".join(page.words.split())
    assert words.count("near-copies of training images") == 1
    titles = ("What was found", "What this rests on", "Table 1:", "Test metrics", "ROC curves", "Mistakes")
    order = [words.rindex(title) for title in (*titles, "Runs without a result", "How to reproduce")]
    assert order == sorted(order)


def test_shares_are_told_as_one_pictures_them(runs: Path) -> None:
    images = [(f"{i}", "malignant" if i < 40 else "benign") for i in range(120)]
    called = {f"{i}": "benign" if i < 4 or i >= 50 else "malignant" for i in range(120)}
    make_run(runs, data={"name": "busi", "digest": "dd", "test": 120})
    table = [
        {
            "image": image,
            "label": label,
            "prediction": called[image],
            "group": image,
            **probabilities(called[image], 0.8),
        }
        for image, label in images
    ]
    write_rows(runs / "predictions.csv", table, table[0])
    told = read(runs)["What was found"]
    assert told.sentences[1] == (
        "On the test images it finds about 9 of 10 malignant images and calls about 1 of 8 benign images malignant."
    )
    assert told.sentences[2].startswith(
        "Counted: 36 of 40 (90%, 95 % interval 76% to 96%) malignant images found; 10 of 80"
    )
    assert [panel.title for panel in told.groups[0].panels] == ["paper/mobilenet"]  # also a lone run has its figures


def test_phantoms_are_called_so_and_stand_beside_no_paper(runs: Path, tmp_path: Path) -> None:
    make_run(runs, data={"name": "busi", "digest": "dd", "root": "/data/phantoms", "test": 12})
    comparison, _, page = report(runs, tmp_path / "made")
    assert said(comparison)["What was found"].notes == (
        "Research only. Not a medical device: what it says must not guide the care of anyone.",
        "These are synthetic phantoms: the figures say that the program works, nothing about patients.",
    )
    assert "paper 0.98" not in page.words and "Published figures" not in page.words


def test_table_shows_the_summaries_figures_beside_the_papers(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a")
    make_run(runs / "b", {}, experiment="mine", metrics={"val/f1": 0.9, "test/accuracy": 0.123456, "test/dice": 0.5})
    _, _, page = report(runs, tmp_path / "made")
    start = [row[:1] for row in page.rows].index(["rank"])
    head, first, second = page.rows[start : start + 3]
    assert head[:8] == ["rank", "run", "val/f1", "accuracy", "precision", "recall", "f1", "dice"]
    assert first[:8] == ["1", "mine", "0.9000", "0.123", "–", "–", "–", "0.500"]  # noqa: RUF001
    assert second[:4] == ["2", "paper/mobilenet", "0.8000", "0.750paper 0.98"]
    assert second[4:8] == ["–paper 0.98", "–paper 0.99", "0.712paper 0.98", "–"]  # noqa: RUF001
    matrix = [words for words in page.values("aria-label") if words.startswith("Confusion matrix of paper/mobilenet")]
    assert "actual benign: 5 benign, 1 malignant, 0 normal; actual malignant: 1 benign, 2 malignant" in matrix[0]


def test_cells_carry_the_values_by_which_they_are_sorted(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a", metrics={"val/f1": 0.8, "test/accuracy": 1 / 3})
    make_run(runs / "b", experiment="b", metrics={"val/f1": 0.7})
    _, source, _ = report(runs, tmp_path / "made")
    assert f'data-value="{1 / 3}">0.333' in source
    assert 'data-value="2">2 of 5' in source  # epochs are counted from 1 wherever people read them


def test_how_to_reproduce(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a")
    make_run(runs / "b", {}, experiment="other", command=None, versions={}, seed=None)
    _, _, page = report(runs, tmp_path / "made")
    words = " ".join(page.words.split())
    assert "busi-train experiment=paper/mobilenet seed=0" in words
    assert "folder: a; model: mobilenetv1_100; weights: imagenet" in words
    assert "seed: 0; split: ab; test set: cd34; data: dd; device: cpu" in words
    assert "git: 0123abcd-dirty" in words
    assert "paper/mobilenet: python 3.11.7, torch 2.14.1." in words
    assert "The command is not recorded; config.yaml in b holds the settings." in words


def make_mask_run(folder: Path, phantoms: Path, task: str = "segmentation", **changes: Any) -> dict[str, float]:
    """A run whose masks are the true ones, moved by four pixels for each number in the image's name.

    ``benign (6)`` gets an empty mask, ``normal (2)`` one of 30 x 20 pixels. Returns the Dice by image.
    """
    dice, masks, rows = {}, {}, []
    for image, label in IMAGES:
        true = read_mask(phantoms / label / f"{image}_mask.png")
        mask = np.roll(true, 4 * int(image[-2]), axis=1)
        if image == "benign (6)":
            mask[:] = False
        elif image == "normal (2)":
            mask[20:40, 30:60] = True
        masks[image] = mask
        row: dict[str, Any] = {"image": image, "label": label}
        if task == "multitask":
            chosen = {**WRONG, "benign (6)": ("normal", 0.95)}.get(image, (label, 0.8))
            row |= {"prediction": chosen[0], **probabilities(*chosen)}
        if true.any():
            dice[image] = 2 * float((true & mask).sum()) / float(true.sum() + mask.sum())
        row |= {"dice": dice.get(image), "lesion_pixels": int(true.sum()), "predicted_pixels": int(mask.sum())}
        rows.append(row | {"pixels": mask.size})
    figures = {"val/dice": 0.8, "test/dice": float(np.mean(list(dice.values()))), "test/iou": 0.5}
    fields: dict[str, Any] = {
        "task": task,
        "experiment": "paper/unet",
        "objective": {"metric": "val/dice", "mode": "max"},
        "metrics": figures,
        "data": {"name": "busi", "digest": "dd", "root": str(phantoms), "test": 12},
    }
    make_run(folder, **(fields | changes))
    write_rows(folder / "predictions.csv", rows, rows[0])
    write_masks(folder / "masks", masks)
    return dice


VERDICT = re.compile(r"<strong>(.*?)</strong><br>actual \w+<br>(.*?)</figcaption>")


def colours(picture: Image.Image) -> tuple[int, int]:
    """How many pixels of a gray scan are of the true and of the predicted outline's colour."""
    red, _, blue = (np.asarray(band, dtype=int) for band in picture.convert("RGB").split())
    return int((red - blue > 80).sum()), int((blue - red > 80).sum())


def test_segmentation_runs_have_their_own_gallery_and_no_class_figures(
    runs: Path, tmp_path: Path, phantoms: Path
) -> None:
    dice = make_mask_run(runs / "a", phantoms, parameters=7_000_000)
    make_mask_run(runs / "b", phantoms, experiment="b", metrics={"val/dice": 0.7, "test/dice": 0.6})
    _, source, page = report(runs, tmp_path / "made")
    assert "ROC" not in page.words
    assert "Confusion" not in page.words
    assert "Test dice against parameters" in page.words
    order = sorted(dice, key=lambda image: dice[image])
    expected = [(image, "lowest") for image in order[:4]]
    expected += [(image, "median") for image in order[4:6]] + [(image, "highest") for image in (order[9], order[8])]
    verdicts = VERDICT.findall(source)
    assert verdicts[:8] == [(image, f"Dice {dice[image]:.3f} ({kind})") for image, kind in expected]
    assert verdicts[0] == ("benign (6)", "Dice 0.000 (lowest)")
    with Image.open(runs / "a/masks/normal (2).png") as mask:
        share = 600 / (mask.width * mask.height)
    assert verdicts[8:] == [("normal (2)", f"{100 * share:.2g} % of the scan marked as lesion")]
    assert "The solid orange line is the lesion's outline from the mask files, the dashed blue line" in page.words
    drawn = {image: colours(picture) for (image, _), picture in zip(verdicts, page.pictures(), strict=True)}
    assert all((true > 30) == (image != "normal (2)") for image, (true, _) in drawn.items())
    assert all((predicted > 15) == (image != "benign (6)") for image, (_, predicted) in drawn.items())


def test_predicted_outlines_lie_where_the_mask_does_whatever_its_size(
    runs: Path, tmp_path: Path, phantoms: Path
) -> None:
    make_mask_run(runs, phantoms)
    corner = np.zeros((64, 64), dtype=bool)
    corner[16:32, 32:48] = True
    write_masks(runs / "masks", {"normal (2)": corner})
    _, _, page = report(runs, tmp_path / "made")
    picture = page.pictures()[-1]
    red, _, blue = (np.asarray(band, dtype=int) for band in picture.convert("RGB").split())
    rows, columns = np.nonzero(blue - red > 80)
    box = [rows.min() / picture.height, rows.max() / picture.height, columns.min() / picture.width]
    assert [*box, columns.max() / picture.width] == pytest.approx([0.25, 0.5, 0.5, 0.75], abs=0.03)


def test_masks_that_are_missing_or_damaged_cost_their_outlines_only(runs: Path, tmp_path: Path, phantoms: Path) -> None:
    make_mask_run(runs, phantoms)
    (runs / "masks/normal (2).png").write_bytes(b"cut")
    pictures = report(runs, tmp_path / "made")[2].pictures()
    assert len(pictures) == 9
    assert colours(pictures[-1]) == (0, 0)
    shutil.rmtree(runs / "masks")
    _, _, page = report(runs, tmp_path / "made")
    assert len(page.pictures()) == 9
    assert "the run has no files of predicted masks" in page.words


def test_multitask_runs_show_wrong_classes_then_the_lowest_dice(runs: Path, tmp_path: Path, phantoms: Path) -> None:
    metrics = {"val/dice": 0.8, "test/accuracy": 0.75, "test/dice": 0.6, "test/pixel_accuracy": 0.9}
    metrics |= {"test/missed_lesions": 0.1, "test/false_positive_rate": 0.5}
    dice = make_mask_run(runs, phantoms, "multitask", experiment="joint", metrics=metrics)
    comparison, source, page = report(runs, tmp_path / "made")
    verdicts = VERDICT.findall(source)
    lowest = sorted(dice, key=lambda image: dice[image])[:4]
    wrong = ["malignant (1)", "benign (6)", "benign (2)", "malignant (4)"]
    assert [image for image, _ in verdicts] == [*wrong, *(image for image in lowest if image not in wrong)]
    told = dict(verdicts)
    assert told["benign (6)"] == "predicted normal, probability 0.950, Dice 0.000 (lowest)"
    assert told["benign (2)"] == "predicted malignant, probability 0.900"
    assert all(colours(picture)[0] > 30 for picture in page.pictures())
    assert "ROC curves" in page.words and "Dice by class" in page.words
    assert "MobileNet U-Net" in page.words and "InceptionV3" in page.words  # published, one for each task
    told = said(comparison)["What was found"].sentences
    assert told[0] == "joint is the one model here (val/dice 0.800 on validation)."
    assert "1 of 10 (10%, 95 % interval 1% to 47%) lesions left out by the masks; 1 of 2 (50%" in told[2]
    assert told[-1].startswith("Its masks overlap the true lesions with a mean Dice of 0.693 (95 % interval 0.437 to")


def test_segmentation_is_summed_up_beside_the_paper(runs: Path, tmp_path: Path, phantoms: Path) -> None:
    metrics = {"val/dice": 0.8, "test/dice": 0.7, "test/dice_pooled": 0.75, "test/pixel_accuracy": 0.95}
    make_mask_run(runs / "a", phantoms, metrics=metrics)
    make_mask_run(runs / "b", phantoms, experiment="paper/unet_smp", metrics={**metrics, "val/dice": 0.7})
    comparison, _, _ = report(runs, tmp_path / "made")
    told = said(comparison)["What was found"].sentences
    assert told[0] == "Best of 2 models on validation is paper/unet (val/dice 0.800)."
    assert list(told[-2:]) == [
        "Test Dice beside the paper's, best run of each experiment: paper/unet 0.700 (paper 0.8959).",
        "Test pixel accuracy beside the paper's, best run of each experiment: paper/unet 0.950 (paper 0.9648).",
    ]


def test_dice_is_drawn_by_class_and_against_size(runs: Path, tmp_path: Path, phantoms: Path) -> None:
    dice = make_mask_run(runs / "a", phantoms)
    make_mask_run(runs / "b", phantoms, experiment="b", metrics={"val/dice": 0.7})
    _, source, page = report(runs, tmp_path / "made")
    alternatives = [told for told in page.values("aria-label") if told.startswith("Dice of ")]
    benign, malignant = ([dice[image] for image in dice if label in image] for label in ("benign", "malignant"))
    for told, values, label in zip(alternatives, (benign, malignant), ("benign", "malignant"), strict=False):
        figures = f"mean {np.mean(values):.3f}, median {np.median(values):.3f}, {len(values)} images"
        assert told == f"Dice of {label} images. paper/unet {figures}; b {figures}"
    assert f"mean {np.mean(benign):.3f}, n 6" in page.words
    assert alternatives[2].startswith("Dice of paper/unet against lesion size: mean ")
    assert "the line is the median of 5 images of neighbouring size" in page.words
    drawing = source[source.index("paper/unet: Dice against lesion size") :]
    assert drawing[: drawing.index("</svg>")].count("<use") >= len(dice)


def test_running_median_by_hand() -> None:
    x, y = running_median(np.array([4.0, 1.0, 2.0, 3.0]), np.array([0.9, 0.1, 0.5, 0.3]), 3)
    assert x.tolist() == [2, 3]
    assert y.tolist() == [0.3, 0.5]


def test_examples_are_chosen_each_image_once() -> None:
    dice = np.array([0.5, np.nan, 0.1, 0.9, 0.3, 0.7])
    nothing = np.zeros(6)
    labels = np.array(["benign", "normal", "benign", "malignant", "benign", "benign"])
    masks = {"dice": dice, "predicted_pixels": np.array([0, 20, 0, 0, 0, 0]), "pixels": nothing + 100}
    actual = np.array([BUSI.number(label) for label in labels])
    found = Cases(np.array(list("abcdef")), np.array(list("abcdef")), True, actual, None, masks)
    chosen = [(example.image, verdict(example)) for example in dice_examples(found, 1, 1, 1)]
    assert chosen == [("c", "Dice 0.100 (lowest)"), ("a", "Dice 0.500 (median)"), ("d", "Dice 0.900 (highest)")]
    for counts in ((4, 2, 2), (1, 5, 1), (0, 0, 9), (9, 0, 0)):
        images = [example.image for example in dice_examples(found, *counts)]
        assert sorted(images) == ["a", "c", "d", "e", "f"]
    assert [(example.image, verdict(example)) for example in false_alarms(found, 2)] == [
        ("b", "20 % of the scan marked as lesion")
    ]
    assert false_alarms(found, 0) == []


def test_bare_and_odd_runs_make_a_page(runs: Path, tmp_path: Path) -> None:
    write_summary(runs / "bare", Summary("finished"))
    write_summary(runs / "odd", Summary("finished", parameters=-1, versions=["x"], command=5, best_epoch=None))  # type: ignore[arg-type]
    (runs / "cut").mkdir()
    for name in ("config.yaml", "split.json"):
        (runs / "cut" / name).touch()
    comparison, _, page = report(runs, tmp_path / "made")
    assert "there is no best one" in page.words
    assert "has no readable predictions.csv" in page.words
    assert [failure.status for failure in comparison.failures] == ["unreadable", "not finished"]
    assert "versions must be an object, found" in page.words
    assert "still running or cut off after 0 epochs" in page.words


def test_size_of_the_file_is_bounded(runs: Path, tmp_path: Path, phantoms: Path) -> None:
    for i in range(30):
        changes = {"experiment": f"run{i}", "parameters": 10**6 + i, "seconds": {"fit": 100.0 + i}}
        split = {"protocol": "published", "test_digest": f"set{i % 2}"}
        make_run(runs / f"{i}", epochs=50, split=split, data={"name": "busi", "root": str(phantoms)}, **changes)
    report(runs, tmp_path / "made")
    size = (tmp_path / "made/report.html").stat().st_size
    assert 100_000 < size < 1_000_000


def test_pages_are_the_same_each_time(runs: Path, tmp_path: Path) -> None:
    make_run(runs / "a")
    make_run(runs / "b", {}, experiment="b")
    assert unescape(report(runs, tmp_path / "1")[1]) == unescape(report(runs, tmp_path / "2")[1])


def test_run_without_a_file_has_no_predictions(tmp_path: Path) -> None:
    assert read_test_cases(Run(tmp_path, Summary("finished"))) is None


def write_validation(folder: Path, scores: list[tuple[str, float]]) -> None:
    """A validation.csv of images by class and probability of malignant; benign and normal share the rest."""
    rows = [
        {"image": f"v{i}", "label": label, "prediction": "benign", "p_benign": (1 - p) * 0.6, "p_malignant": p}
        | {"p_normal": (1 - p) * 0.4, "group": f"v{i}"}
        for i, (label, p) in enumerate(scores)
    ]
    write_rows(folder / "validation.csv", rows, rows[0])


def test_operating_points_are_chosen_on_validation_and_judged_on_the_test_images(runs: Path, tmp_path: Path) -> None:
    make_run(runs, data={"name": "busi", "digest": "dd", "train": 40, "val": 6, "test": 12})
    # lowest threshold without a false alarm on validation is 0.7; Youden's as well: 2 of 3 and 3 of 3
    write_validation(
        runs,
        [
            ("malignant", 0.95),
            ("malignant", 0.7),
            ("benign", 0.5),
            ("malignant", 0.3),
            ("normal", 0.2),
            ("benign", 0.1),
        ],
    )
    comparison, _, page = report(runs, tmp_path / "made")
    told = said(comparison)
    first, second = told["Operating points"].grids[0].lines
    # test: malignant has p 0.8, 0.8, 0.225, 0.015; of the 8 others one has 0.9
    assert [cell.text for cell in first[1:5]] == ["specificity of 90% or more", "0.7000", "0.667", "1.000"]
    assert [cell.second for cell in first[3:5]] == [("2 of 3",), ("3 of 3",)]
    low, high = (float(end) for end in first[5].second[0].split(" to "))
    assert first[5].value == 0.5 and low < 0.1 and high > 0.9  # two of four say next to nothing
    assert first[6].text == "0.875"
    assert [cell.text for cell in second[1:4]] == ["Youden", "0.7000", "0.667"]
    curve = shown(told["Malignant against the rest"].grids[0])[0]
    assert curve[3:] == ["0.656", "0.000", "0.000", "0.000", "0.000"]
    (calibration,) = shown(told["Calibration"].grids[0])
    assert len(calibration) == 6 and "–" not in calibration  # noqa: RUF001
    assert "paper/mobilenet: reliability" in page.words and "scaled with temperature" in page.words


def test_prediction_sets_and_abstention_of_a_run(runs: Path, tmp_path: Path) -> None:
    make_run(runs, data={"name": "busi", "digest": "dd", "train": 40, "val": 27, "test": 12})
    # nine of each class: at 0.9 the lowest probability of the class, which is 0.6 and 0.4 of 0.2 for benign and normal
    write_validation(
        runs,
        [("malignant", p) for p in (0.2, *[0.9] * 8)]
        + [(label, p) for label in ("benign", "normal") for p in (0.8, *[0.1] * 8)],
    )
    comparison, _, page = report(runs, tmp_path / "made")
    section = said(comparison)["Prediction sets and abstention"]
    cells = shown(section.grids[0])[0]
    (row,) = comparison.tables[0].rows
    cases = read_test_cases(row.run)
    assert cases is not None and cases.probabilities is not None
    sets = cases.probabilities >= np.array([0.12, 0.2, 0.08])
    held = sets[np.arange(12), cases.actual]
    assert cells[1:5] == [f"{x:.3f}" for x in (held.mean(), *(held[cases.actual == c].mean() for c in range(3)))]
    assert cells[5] == f"{sets.sum(axis=1).mean():.2f}"
    assert "near-copies and images of one patient" in page.words and "Accuracy when the least sure" in page.words
    compare([runs], tmp_path / "made", ("csv",))
    with (tmp_path / "made" / "prediction_sets.csv").open() as file:
        rows = {row["stated"]: row for row in csv.DictReader(file)}
    assert rows["0.95"]["always"] == "benign malignant normal" and float(rows["0.95"]["mean_size"]) == 3
    with (tmp_path / "made" / "abstention.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert float(curve[-1]["kept"]) == 1 and float(curve[-1]["accuracy"]) == pytest.approx(cases.right.mean())
    surest = cases.probabilities.max(axis=1) == cases.probabilities.max()
    assert float(curve[0]["accuracy"]) == pytest.approx(cases.right[surest].mean())


def test_runs_without_validation_images_leave_out_what_needs_them_and_say_so(runs: Path, tmp_path: Path) -> None:
    make_run(runs)
    comparison, _, page = report(runs, tmp_path / "made")
    told = said(comparison)
    assert told["Operating points"].grids == ()
    assert "without a readable validation.csv" in page.words
    temperature, before, after = shown(told["Calibration"].grids[0])[0][1:4]
    assert (temperature, after) == ("–", "–")  # noqa: RUF001
    # right with 0.8: 9 images in one bin; wrong with 0.9, 0.97 and 0.55, each in a bin of its own
    assert float(before) == pytest.approx((9 * 0.2 + 0.9 + 0.97 + 0.55) / 12, abs=6e-4)


def test_agreement_of_areas_is_in_points_of_the_image(runs: Path, tmp_path: Path, phantoms: Path) -> None:
    make_mask_run(runs, phantoms)
    comparison, _, page = report(runs, tmp_path / "made")
    (line,) = shown(said(comparison)["Agreement of lesion area"].grids[0])
    cases = read_test_cases(read_run(runs))
    assert cases is not None
    lesion, predicted = cases.share("lesion_pixels"), cases.share("predicted_pixels")
    difference = 100 * (predicted - lesion)[lesion > 0]
    half = 1.96 * difference.std(ddof=1)
    bias = difference.mean()
    assert line[1:] == ["10", f"{bias:+.2f}", f"{bias - half:+.2f} to {bias + half:+.2f}"]
    assert "paper/unet: agreement of lesion area" in page.words


def test_maps_stand_beside_networks_that_learn_masks(runs: Path, phantoms: Path) -> None:
    dice = make_mask_run(runs / "a", phantoms)
    places = {"test/pointing_game": 0.75, "test/box_iou": 0.25, "test/lesions_hit_iou50": 0.5}
    weak = {"task": "localization", "experiment": "cam", "objective": {"metric": "val/f1", "mode": "max"}}
    make_mask_run(runs / "b", phantoms, **weak, metrics={"val/f1": 0.7, "test/dice": 0.6, **places})
    section = read(runs)["Lesions found without masks (busi, published)"]
    titles = section.grids[0].titles
    lines = {line[0]: dict(zip(titles, line, strict=True)) for line in shown(section.grids[0])}
    mean = f"{np.mean(list(dice.values())):.3f}"
    assert (lines["paper/unet"]["learns"], lines["paper/unet"]["dice"]) == ("masks", mean)
    assert (lines["cam"]["learns"], lines["cam"]["dice"], lines["cam"]["pointing_game"]) == (
        "labels alone",
        mean,
        "0.750",
    )
    assert lines["paper/unet"]["pointing_game"] == words.MISSING
    assert "Lesions found without masks (busi, published)" not in read(runs / "a")
