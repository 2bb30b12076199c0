"""How numbers become text, and figures that are drawn once for files and for the page."""

import re

import pytest

from busi_lab.report import words
from busi_lab.report.figures.curves import matrix_panel
from busi_lab.report.figures.png import sheet
from busi_lab.report.figures.shapes import Axis, Group, Mark, Panel, Plot, Rows, Series
from busi_lab.report.figures.svg import inline_svg
from busi_lab.report.results.metrics import without_doubles
from busi_lab.report.sections.section import Cell, Grid, figure
from busi_lab.report.writers.plain import cell_text

MATRIX = matrix_panel("a", ("cyst", "solid"), [[56, 4], [4, 36]])
PANELS = (
    MATRIX,
    Panel("b", (Rows((Mark("run", "0.500", bar=0.5, diamond=0.9), Mark("other", interval=(0.2, 0.4, 0.6)))),), "bars"),
    Panel(
        "c", (Plot((Series([0, 1], [0, 1], words=("here", "")),), Axis("x"), Axis("y", 0, 1)),), "curve", ((0, "line"),)
    ),
)


@pytest.mark.parametrize(
    ("share", "told"),
    [
        *((0, "no"), (1, "all"), (0.125, "about 1 of 8"), (0.04, "about 1 of 25"), (0.4, "about 4 of 10")),
        *((0.9, "about 9 of 10"), (0.951, "about 19 of 20"), (0.985, "about 49 of 50"), (0.999, "nearly all")),
    ],
)
def test_shares_can_be_pictured(share: float, told: str) -> None:
    assert words.about(share) == told


def test_numbers_in_words() -> None:
    assert [words.figure(value) for value in (0.12345, None, float("nan"), 5e6)] == ["0.123", "–", "–", "5e+06"]  # noqa: RUF001
    assert words.leaks([43, 43], 155) == "43 of 155 (28 %)" and words.leaks([3, 1], None) == "1 to 3"
    assert words.spanned([0.2, float("inf")], 1, "none") == "0.2 to none"
    assert words.p_value(0.0001) == "< 0.001" and words.ends(-0.1, 0.1, 1, "+") == "-0.1 to +0.1"
    assert [words.epoch(value) for value in (0, 2, None)] == [1, 3, None]
    assert words.listed(["a", "b", "c"]) == "a, b and c"


def test_cells_keep_their_values() -> None:
    cell = figure(1 / 3, second=["0.1 to 0.5", "± 0.1"])
    assert (cell.text, cell.value) == ("0.333", 1 / 3)
    assert cell_text(cell) == "0.333 (0.1 to 0.5; ± 0.1)"
    grid = Grid(("run", "figure", "folder"), ((Cell("a", "a"), cell, Cell("f", "f")),))
    assert [grid.of_words(column) for column in range(3)] == [False, False, True]


def test_f1_gives_way_to_that_of_the_present_classes() -> None:
    names = ["f1", "f1_present", "dice"]
    assert without_doubles(names, [{"f1", "f1_present"}, {"f1_present", "dice"}]) == ["f1_present", "dice"]
    assert without_doubles(names, [{"f1"}, {"f1_present"}]) == names  # runs that cannot stand in one column


@pytest.mark.parametrize("panel", PANELS, ids="abc")
def test_the_page_and_the_file_show_the_same_drawing(panel: Panel) -> None:
    drawing = inline_svg(panel, "p0-")
    figure = sheet(Group("title", "caption", (panel,), headline="Table 1"))
    in_file = {text.get_text() for ax in figure.axes for text in ax.texts}
    in_page = set(re.findall(r"<text[^>]*>([^<]*)</text>", drawing))
    assert in_file - {""} <= in_page
    assert re.findall(r"#[0-9a-f]{6}\b", drawing) == []  # colours are those of the page
    assert all(name.startswith("p0-") for name in re.findall(r'id="([^"]+)"', drawing))
    assert figure.get_suptitle() == "Table 1\ntitle\ncaption"
