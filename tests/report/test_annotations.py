"""Figures over the share of annotated scans, on run directories made here."""

from pathlib import Path

from tests.report.said import read, rows
from tests.report.test_systems import LEAKY, make

TITLE = "What annotations are worth: busi, published protocol, test set p"


def test_each_experiment_is_a_curve(tmp_path: Path) -> None:
    for name, share, wrong in (("plain", 0.1, 30), ("plain", 1.0, 6), ("semi", 0.1, 12), ("semi", 0.5, 9)):
        make(tmp_path / f"{name}{share}", name, LEAKY, wrong=range(wrong), config={"data.annotated": share})
    make(tmp_path / "alone", "alone", LEAKY, config={"data.annotated": 0.25})
    section = read(tmp_path)[TITLE]
    (grid,) = section.grids
    shown = [line[:2] + line[3:4] for line in rows(grid)]
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


def test_runs_of_one_share_make_no_section(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, name, LEAKY)
    assert not [title for title in read(tmp_path) if title.startswith("What annotations")]
