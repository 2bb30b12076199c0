"""Figures over the share of annotated scans, on run directories made here."""

import json
from pathlib import Path

from tests.report.said import read, rows
from tests.report.test_systems import LEAKY, fold, make

TITLE = "What annotations are worth: busi, published protocol, test set p"


def test_each_experiment_is_a_curve(tmp_path: Path) -> None:
    for name, share, wrong in (("plain", 0.1, 30), ("plain", 1.0, 6), ("semi", 0.1, 12), ("semi", 0.5, 9)):
        make(tmp_path / f"{name}{share}", name, LEAKY, wrong=range(wrong), config={"data.annotated": share})
    make(tmp_path / "alone", "alone", LEAKY, config={"data.annotated": 0.25})
    section = read(tmp_path)[TITLE]
    (grid,) = section.grids
    shown = [line[:2] + line[4:5] for line in rows(grid)]
    assert sorted(shown) == [
        ["plain", "10%", "0.500"],
        ["plain", "100%", "0.900"],
        ["semi", "10%", "0.800"],
        ["semi", "50%", "0.850"],
    ]
    (group,) = section.groups
    accuracy = next(panel for panel in group.panels if panel.title == "accuracy")
    assert "plain from 0.500 at 10% to 0.900 at 100%" in accuracy.alt
    assert any("Single runs" in sentence for sentence in section.sentences)


def test_only_what_differs_in_the_share_alone_makes_a_curve(tmp_path: Path) -> None:
    """One name, two ways of learning, and an ordinary run of it with another size."""
    for semi, share, wrong in (
        ("none", 0.1, 30),
        ("none", 1.0, 6),
        ("mean_teacher", 0.1, 12),
        ("mean_teacher", 1.0, 3),
    ):
        folder = tmp_path / f"{semi}{share}"
        make(folder, "plain", LEAKY, wrong=range(wrong), config={"data.annotated": share})
        config = json.loads((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(json.dumps({**config, "task": {"semi": semi}}))
    make(tmp_path / "ordinary", "plain", LEAKY, config={"data.image_size": 256})
    shown = [line[:2] + line[4:5] for line in rows(read(tmp_path)[TITLE].grids[0])]
    assert sorted(shown) == [
        ["plain (task.semi=mean_teacher)", "10%", "0.800"],
        ["plain (task.semi=mean_teacher)", "100%", "0.950"],
        ["plain (task.semi=none)", "10%", "0.500"],
        ["plain (task.semi=none)", "100%", "0.900"],
    ]


def test_points_of_other_folds_are_named(tmp_path: Path) -> None:
    for share, folds in ((0.1, (0,)), (1.0, (0, 1))):
        for number in folds:
            images, changes = range(60 * number, 60 * number + 60), {"data": {"train": 500 + number}}
            config = {"data.annotated": share}
            make(tmp_path / f"{share}{number}", "plain", fold(number), images, config=config, **changes)
    section = next(section for title, section in read(tmp_path).items() if title.startswith("What annotations"))
    assert [line[1:4] for line in rows(section.grids[0])] == [["10%", "1", "500"], ["100%", "2", "500 to 501"]]
    assert section.sentences[-1].endswith("so that figures differ by these as well: plain.")


def test_runs_of_one_share_make_no_section(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, name, LEAKY)
    assert not [title for title in read(tmp_path) if title.startswith("What annotations")]
