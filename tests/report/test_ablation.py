"""Variants of a recipe against the whole of it, on run directories made here."""

import json
from pathlib import Path

from tests.report.said import read, rows
from tests.report.test_systems import fold, make

TITLE = "What each ingredient is worth: best, busi, grouped_kfold protocol"


def vary(folder: Path, variant: str) -> None:
    config = json.loads((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(json.dumps({**config, "variant": variant, "ema": None}))


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


def test_a_variant_with_fewer_runs_is_named(tmp_path: Path) -> None:
    for number, images in enumerate((range(60), range(60, 120))):
        make(tmp_path / f"whole{number}", "best", fold(number), images)
    make(tmp_path / "part", "best", fold(0), range(60), range(5))
    vary(tmp_path / "part", "no_views")
    section = next(found for title, found in read(tmp_path).items() if title.startswith("What each ingredient"))
    assert any(sentence.endswith("not yet comparable: no_views.") for sentence in section.sentences)
