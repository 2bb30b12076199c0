"""Variants of a recipe against the whole of it, on run directories made here."""

import json
from pathlib import Path

from busi_lab.report.words import MISSING
from tests.report.said import read, rows
from tests.report.test_systems import fold, make

TITLE = "What each ingredient is worth: best, busi, grouped_kfold protocol"


def vary(folder: Path, variant: str) -> None:
    config = json.loads((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(json.dumps({**config, "variant": variant, "ema": 0.9}))


def test_each_variant_stands_against_the_recipe(tmp_path: Path) -> None:
    for number, images in enumerate((range(60), range(60, 120))):
        make(tmp_path / f"whole{number}", "best", fold(number), images, range(images.start, images.start + 6))
        for variant, wrong in (("no_ema", 36), ("no_mixup", 6)):
            folder = tmp_path / f"{variant}{number}"
            make(folder, "best", fold(number), images, range(images.start, images.start + wrong))
            vary(folder, variant)
        make(tmp_path / f"other{number}", "other", fold(number), images)
    section = next(found for title, found in read(tmp_path).items() if title.startswith(TITLE))
    (grid,) = section.grids
    assert grid.titles[:3] == ("variant", "runs", "accuracy")
    shown = {line[0]: line[1:3] for line in rows(grid)}
    assert shown == {
        "the whole recipe": ["2", "0.900"],
        "no_ema": ["2", "-0.500"],
        "no_mixup": ["2", "+0.000"],
    }
    assert any("no_ema in accuracy" in sentence for sentence in section.sentences)
    assert not any("no_mixup in accuracy" in sentence for sentence in section.sentences)


def test_a_variant_with_other_runs_is_named_and_not_compared(tmp_path: Path) -> None:
    """Two runs each, of other folds: neither a difference, nor a part of Holm's family."""
    for number, images in enumerate((range(60), range(60, 120), range(120, 180))):
        split = {**fold(number), "folds": 3}
        if number < 2:
            make(tmp_path / f"whole{number}", "best", split, images, range(images.start, images.start + 6))
        if number > 0:
            make(tmp_path / f"part{number}", "best", split, images, images)
            vary(tmp_path / f"part{number}", "no_views")
    section = next(found for title, found in read(tmp_path).items() if title.startswith(TITLE))
    assert {line[0]: line[1:3] for line in rows(section.grids[0])}["no_views"] == ["2", MISSING]
    assert section.sentences[-2].endswith("all variants of a measure: none.")
    assert section.sentences[-1] == "Not compared: no_views (other folds or seeds than the recipe)."


def test_each_variant_stands_beside_the_recipe_that_it_is_of(tmp_path: Path) -> None:
    """The recipe was run at two sizes: a variant belongs to the one from which it differs least."""
    for size, wrong in ((224, 6), (256, 30)):
        config = {"data.image_size": size}
        make(tmp_path / f"whole{size}", "best", fold(0), wrong=range(wrong), config=config)
        make(tmp_path / f"part{size}", "best", fold(0), wrong=range(wrong + 6), config=config)
        vary(tmp_path / f"part{size}", "no_views")
    make(tmp_path / "far", "best", fold(0), config={"data.image_size": 256, "data.batch_size": 2})
    vary(tmp_path / "far", "no_views")
    found = {title: section for title, section in read(tmp_path).items() if title.startswith("What each ingredient")}
    shown = {title.split(":")[1].split(",")[0]: sorted(rows(section.grids[0])) for title, section in found.items()}
    assert {label: [line[:3] for line in lines] for label, lines in shown.items()} == {
        " best (data.image_size=224)": [["no_views", "1", "-0.100"], ["the whole recipe", "1", "0.900"]],
        " best (data.image_size=256)": [
            ["no_views", "1", "-0.100"],
            ["no_views", "1", MISSING],
            ["the whole recipe", "1", "0.500"],
        ],
    }
    told = [section.sentences[-1] for title, section in found.items() if "=256" in title]
    assert told == ["Not compared: no_views (another experiment of this variant is nearer to the recipe, or as near)."]
