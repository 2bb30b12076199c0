"""Published systems beside our runs of them, on run directories made here; expected values worked out by hand."""

import csv
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from busi_lab.compare import compare, describe
from busi_lab.files import write_rows
from busi_lab.report.results.published import PUBLISHED, published_for
from busi_lab.report.sections.section import Section
from busi_lab.summary import Summary, write_summary
from tests.report.said import read

CLASSES = ("benign", "malignant", "normal")
TITLE = "Published systems: as published, and here"
LEAKY = {"protocol": "published", "seed": 0, "digest": "p", "test_digest": "p", "leaked": 9, "near_copies": "searched"}
CHOSEN = {**LEAKY, "protocol": "holdout (invalid protocol: best epoch chosen on the test images)", "test_digest": "i"}


def fold(number: int, **changes: Any) -> dict[str, Any]:
    digest = f"k{number}"
    split = {"protocol": "grouped_kfold", "seed": 0, "fold": number, "folds": 2, "digest": digest}
    return {**split, "test_digest": digest, "leaked": 0, "near_copies": "searched", **changes}


def make(
    folder: Path,
    experiment: str,
    split: dict[str, Any],
    images: range = range(60),
    wrong: Collection[int] = (),
    *,
    classes: Collection[str] = CLASSES,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    """A finished run on BUSI at the full recipe of the paper's classifiers; ``wrong`` images are called the next class.

    ``config`` replaces settings such as ``data.image_size``; other ``changes`` replace fields of the summary.
    """
    names, rows = list(classes), []
    for i in images:
        called = names[(i + (i in wrong)) % len(names)]
        shares = {f"p_{name}": 0.8 if name == called else 0.1 for name in CLASSES}
        label = names[i % len(names)]
        rows.append({"image": f"{i:03}", "label": label, "prediction": called, **shares, "group": f"g{i}"})
    settings = {"data.image_size": 224, "trainer.max_epochs": 50, **(config or {})}
    data = {"name": "busi", "digest": "dd", "train": 560, "val": 60, "test": len(rows), "classes": tuple(names)}
    fields = {
        "task": "classification",
        "experiment": experiment,
        "weights": "imagenet",
        "seed": 0,
        "split": split,
        "data": {**data, **changes.pop("data", {})},
        "epochs": 50,
        "metrics": {"val/f1": 0.8, "test/accuracy": 1 - len(wrong) / len(rows)},
    }
    write_summary(folder, Summary("finished", **(fields | changes)))
    nested: dict[str, dict[str, Any]] = {"data": {}, "trainer": {}, "split": {"protocol": split["protocol"]}}
    for key, value in settings.items():
        group, name = key.split(".")
        nested[group][name] = value
    (folder / "config.yaml").write_text(json.dumps(nested))
    write_rows(folder / "predictions.csv", rows, rows[0])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def lines(section: Section) -> list[dict[str, list[str]]]:
    """What the lines of the table show, by the titles of its columns."""
    (grid,) = section.grids
    return [
        {title: [cell.text, *cell.second] for title, cell in zip(grid.titles, line, strict=True)} for line in grid.lines
    ]


THEIRS, FREE, KIND = "here, under a protocol like theirs", "here, leak-free", "what our runs are"


def test_both_protocols_stand_beside_the_published_figure(runs: Path) -> None:
    make(runs / "p", "paper/mobilenet", LEAKY, wrong=range(6))  # 54 of 60
    make(runs / "k0", "paper/mobilenet", fold(0), range(100, 140), range(100, 110))  # 30 of 40
    make(runs / "k1", "paper/mobilenet", fold(1), range(140, 180), range(140, 160))  # 20 of 40
    told = read(runs)[TITLE]
    (line,) = lines(told)
    assert line["as published"] == ["0.98", "BUSI, 155 images, three classes"]
    figure, interval, where = line[THEIRS]
    low, high = map(float, interval.split(" to "))
    assert (figure, where) == ("0.900", "published, 60 test images, leaked 9 of 60 (15 %)")
    assert 0.75 < low < 0.85 and 0.93 < high < 0.99  # Wilson of 54 of 60: 0.799 to 0.953
    figure, interval, where = line[FREE]
    low, high = map(float, interval.split(" to "))
    assert (figure, where) == ("0.625", "grouped_kfold, 80 test images")
    assert 0.45 < low < 0.54 and 0.70 < high < 0.75  # of 50 of 80: 0.515 to 0.723
    assert line[KIND] == ["replication"]
    facts = {name: line[name] for name in ("initial weights", "pixels", "epochs", "folds", "seeds")}
    assert [cell for (cell,) in facts.values()] == ["imagenet", "224", "50", "2 of 2", "1"]
    assert line["source"] == ["Dajam & Qahmash, IJACSA 16(5), 2025, Table III"]
    assert "the learning rate" in line["what is inferred"][0]
    assert not any("rehearsal" in sentence for sentence in told.sentences)


def test_less_than_the_recipe_is_a_rehearsal_and_says_why(runs: Path) -> None:
    make(runs / "full", "paper/mobilenet", LEAKY)
    less = {"data.image_size": 64, "trainer.max_epochs": 2, "data.subset": 20}
    make(runs / "less", "paper/mobilenet", LEAKY, weights="none", epochs=2, config=less)
    make(runs / "cut", "paper/mobilenet", LEAKY, seed=1, epochs=12, config={"trainer.max_steps": 500})
    make(runs / "other", "paper/mobilenet", LEAKY, weights="/some/where/w.safetensors", config={"data.image_size": 256})
    make(runs / "cnn", "paper/custom_cnn", LEAKY, weights="none")  # the paper's own start
    told = read(runs)[TITLE]
    assert sorted(line[KIND] for line in lines(told)) == [
        ["rehearsal", "12 of 50 epochs", "max_steps=500"],
        ["rehearsal", "from scratch", "64 of 224 px", "2 of 50 epochs", "at most 20 images of each class"],
        ["rehearsal", "from w.safetensors"],
        ["replication"],
        ["replication"],
    ]
    assert told.sentences[1].startswith("3 of 5 rows are rehearsals: the runs lack a part of the recipe")
    assert told.sentences[2].startswith("A replication has the initial weights, the pixels and the epochs")


def test_runs_of_unknown_settings_are_no_replication(runs: Path) -> None:
    make(runs / "a", "paper/mobilenet", LEAKY, epochs=None, weights=None)
    (runs / "a/config.yaml").unlink()
    (line,) = lines(read(runs)[TITLE])
    assert line[KIND] == ["rehearsal", "weights unknown", "unknown of 224 px", "unknown of 50 epochs"]


def test_a_system_that_stops_early_is_judged_by_the_epochs_that_it_may_take(runs: Path) -> None:
    curated = {**LEAKY, "protocol": "curated", "leaked": 0}
    for most, kind in ((200, ["replication"]), (100, ["rehearsal", "100 of 200 epochs"])):
        config = {"data.image_size": 128, "trainer.max_epochs": most}
        changes = {"task": "multitask", "weights": "none", "epochs": 71}
        make(runs / "a", "published/aumente2025/unetpp", curated, config=config, **changes)
        (line,) = lines(read(runs)[TITLE])
        assert (line[KIND], line["epochs"]) == (kind, ["71"])


def test_a_part_of_the_recipe_that_is_not_public_makes_every_run_a_rehearsal(runs: Path) -> None:
    make(runs / "a", "published/ayana2022/resnet50", LEAKY, classes=CLASSES[:2], weights="/runs/cells")
    (line,) = lines(read(runs)[TITLE])
    assert line["as published"][0] == "0.987 ± 0.011"
    assert line[KIND] == ["rehearsal", "no stage on the 20,400 cell images, which are not public"]


def test_a_second_stage_without_its_first_is_a_rehearsal(runs: Path) -> None:
    changes: dict[str, Any] = {"classes": CLASSES[:2], "weights": "none"}
    small = {"data.image_size": 64}
    make(runs / "whole", "published/madhu2024/capsules", LEAKY, config=small, **changes)
    (line,) = lines(read(runs)[TITLE])
    assert line[KIND] == ["rehearsal", "whole scans, not cut to the lesion"]
    make(runs / "whole", "published/madhu2024/capsules", LEAKY, config={**small, "data.roi": "/runs/p"}, **changes)
    split = fold(0)
    make(runs / "k", "published/madhu2024/capsules", split, config={**small, "data.roi": "/runs/k"}, **changes)
    (line,) = lines(read(runs)[TITLE])  # one system, though each split has a first stage of its own
    assert (line[KIND], line[THEIRS][0], line[FREE][0]) == (["replication"], "1.000", "1.000")


def test_invalid_protocols_never_take_the_place_of_a_valid_one(runs: Path) -> None:
    make(runs / "i", "paper/mobilenet", CHOSEN, wrong=range(3))  # 57 of 60
    told = read(runs)[TITLE]
    (line,) = lines(told)
    assert line[THEIRS][0] == line[FREE][0] == "–"  # noqa: RUF001
    (marked,) = line[THEIRS][1:]
    assert marked.startswith(f"{CHOSEN['protocol']}: 0.950 (0.8")
    make(runs / "p", "paper/mobilenet", LEAKY, range(100, 160), range(100, 115))  # 45 of 60
    (line,) = lines(read(runs)[TITLE])
    assert line[THEIRS][0] == "0.750" and line[THEIRS][-1] == marked
    wrong = "busi (invalid protocol: augmented copies before the split)"
    make(runs / "c", "paper/mobilenet", {**LEAKY, "test_digest": "c"}, data={"name": wrong})
    told = read(runs)[TITLE]
    assert len(lines(told)) == 1
    assert told.sentences[-1].startswith("Not compared with published figures: paper/mobilenet")
    assert told.sentences[-1].endswith(f"(data {wrong}).")


def test_a_figure_of_two_classes_stands_beside_runs_of_two_classes_alone(runs: Path) -> None:
    make(runs / "two", "published/hijab2019/vgg16_tuned", LEAKY, wrong=range(6), classes=CLASSES[:2])
    make(runs / "three", "published/hijab2019/vgg16_tuned", {**LEAKY, "test_digest": "q"})
    make(runs / "paper", "paper/mobilenet", {**LEAKY, "test_digest": "r"}, classes=CLASSES[:2])
    told = read(runs)[TITLE]
    (line,) = lines(told)
    assert line["as published"] == ["0.97", "private, two classes, 1,300 images in all"]
    assert line[THEIRS][0] == "0.900"
    assert "benign, malignant, normal, where the published figure is of benign, malignant)" in told.sentences[-1]
    assert (
        "classes benign, malignant, where the published figure is of benign, malignant, normal)" in told.sentences[-1]
    )


def test_the_area_under_the_curve_is_compared_where_it_alone_is_published(runs: Path) -> None:
    make(runs / "a", "published/kim2021/vgg16", LEAKY, wrong=range(60), classes=CLASSES[:2], task="localization")
    (line,) = lines(read(runs)[TITLE])
    assert line["figure"] == ["auroc_benign_malignant"]
    assert line["as published"] == ["0.92 to 0.96", "private, two classes, 200 images"]
    assert line[THEIRS][0] == "0.000"  # every image is called the other class


def test_masks_are_compared_by_dice_or_by_what_is_published_of_them(runs: Path) -> None:
    metrics = {"val/dice": 0.8, "test/dice": 0.7, "test/pixel_accuracy": 0.95}
    changes: dict[str, Any] = {"task": "segmentation", "metrics": metrics, "config": {"data.image_size": 256}}
    for name in ("paper/unet", "published/shilaskar2025/unet", "published/islam2024/unet"):
        make(runs / name, name, LEAKY, weights="imagenet" if name == "paper/unet" else "none", **changes)
        (runs / name / "predictions.csv").unlink()
    paper, islam, shilaskar = lines(read(runs)[TITLE])
    where = ["no interval", "published, 60 test images, leaked 9 of 60 (15 %)"]
    assert (paper["figure"], paper["as published"][0], paper[THEIRS]) == (["dice"], "0.8959", ["0.700", *where])
    assert (islam["figure"], islam["as published"][0], islam[THEIRS]) == (["dice"], "–", ["0.700", *where])  # noqa: RUF001
    assert (shilaskar["figure"], shilaskar["as published"][0]) == (["pixel_accuracy"], "0.98")
    assert shilaskar[THEIRS] == ["0.950", *where, "dice 0.700"]
    assert paper[KIND] == islam[KIND] == shilaskar[KIND] == ["replication"]


def test_a_curated_dataset_is_theirs_and_leak_free_and_other_leaky_protocols_are_neither(runs: Path) -> None:
    name, changes = "published/aumente2025/unetpp", {"task": "multitask", "weights": "none"}
    make(runs / "c", name, {**LEAKY, "protocol": "curated", "leaked": 0, "test_digest": "c"}, wrong=range(6), **changes)
    make(runs / "k", name, fold(0), range(100, 160), range(100, 115), **changes)
    make(runs / "p", name, LEAKY, range(200, 260), **changes)
    told = read(runs)[TITLE]
    (line,) = lines(told)
    assert line[THEIRS][0] == "0.900" and line[THEIRS][-1] == "curated, 60 test images"
    assert line[FREE][0] == "0.750"  # folds test more images, so they stand first
    assert re.fullmatch(r"curated: 0.900 \(0.\d+ to 0.\d+\), 60 test images", line[FREE][-1])
    assert told.sentences[-1] == (
        f"Not compared with published figures: {name} (published, neither curated, as the published figure, nor "
        "leak-free)."
    )


@pytest.mark.parametrize(
    "changes",
    [{"split": fold(0, near_copies="none")}, {"split": fold(0, leaked=2)}],
    ids=["not looked for", "leaked"],
)
def test_a_grouped_split_that_leaks_is_not_called_leak_free(runs: Path, changes: dict[str, Any]) -> None:
    make(runs / "k", "paper/mobilenet", **changes)
    (line,) = lines(read(runs)[TITLE])
    assert line[THEIRS][0] == "1.000" and line[FREE] == ["–"]  # noqa: RUF001


def test_phantoms_and_other_data_are_compared_with_nothing(runs: Path) -> None:
    make(runs / "a", "paper/mobilenet", LEAKY, data={"synthetic": True})
    make(runs / "b", "paper/mobilenet", {**LEAKY, "test_digest": "b"}, data={"name": "clinic", "digest": "ee"})
    make(runs / "c", "mine", {**LEAKY, "test_digest": "c"})
    assert TITLE not in read(runs)


def test_files_and_terminal_have_the_table(runs: Path, tmp_path: Path) -> None:
    make(runs / "p", "published/islam2024/edcnn", LEAKY, wrong=range(6), config={"data.image_size": 96})
    make(runs / "k", "published/islam2024/edcnn", fold(0), range(100, 140), config={"data.image_size": 96})
    made = tmp_path / "made"
    words = describe(compare([runs], made, formats=("html", "md", "csv")), made)
    block = words[words.index(TITLE) :]
    assert re.search(r"\n  as published +0.8782 \(BUSI, number of test images not read\)\n", block)
    assert re.search(r"\n  what our runs are +rehearsal \(96 of 224 px\)\n", block)
    assert "accuracy 0.8569 on UDIAT, two classes, quoted by Dajam & Qahmash" in block
    assert "published.csv" in words
    assert "| published/islam2024/edcnn | accuracy | 0.8782<br>BUSI" in (made / "table.md").read_text(encoding="utf-8")
    assert TITLE in (made / "report.html").read_text(encoding="utf-8")
    with (made / "published.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["kind"], first["protocol"], first["images"]) == ("like theirs", "published", "60")
    assert float(first["value"]) == pytest.approx(0.9)
    assert float(first["low95"]) < 0.9 < float(first["high95"])
    assert (first["published"], first["ours"], first["lacks"]) == ("0.8782", "rehearsal", "96 of 224 px")
    assert (second["kind"], second["folds"], second["expected_folds"]) == ("leak-free", "1", "2")


def test_figures_of_the_sources_and_those_that_others_quote_are_both_there() -> None:
    quoted = {name: result.quoted for name, result in PUBLISHED.items() if result.quoted}
    assert [work.metrics["accuracy"] for work in quoted.values()] == [0.79, 0.8569, 0.8111, 0.854, 0.8583]
    assert PUBLISHED["published/hijab2019/cnn"].metrics["accuracy"] == 0.82
    assert PUBLISHED["published/islam2024/edcnn"].metrics == {"accuracy": 0.8782, "auroc": 0.91}
    assert PUBLISHED["published/madhu2024/capsules"].metrics["accuracy"] == 0.9922
    assert PUBLISHED["published/madhu2024/unet"].metrics == {}
    assert published_for("published/uysal2022/vgg16") == {}  # not a figure of the paper
    assert all(0 < value < 1 for result in PUBLISHED.values() for value in result.metrics.values())
