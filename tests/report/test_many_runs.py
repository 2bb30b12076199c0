"""Comparisons of very many runs: what is cut says so, and nothing that is claimed changes."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from busi_lab.report import words
from busi_lab.report.results import analysis, estimates
from busi_lab.report.results.cases import Cases
from busi_lab.report.results.experiments import Experiment
from busi_lab.report.sections.section import LINES_SHOWN, Grid, Section, shortened, word


def section(lines: int, parts: int = 0) -> Section:
    grid = Grid(("run",), tuple((word(f"run{i}"),) for i in range(lines)))
    return Section("Table 1", ("Ranked.",), grids=(grid,), parts=tuple(Section(f"run{i}") for i in range(parts)))


def test_a_long_table_is_cut_and_says_so() -> None:
    assert shortened(section(LINES_SHOWN)) == section(LINES_SHOWN)
    cut = shortened(section(12_345))
    assert [line[0].text for line in cut.grids[0].lines] == [f"run{i}" for i in range(LINES_SHOWN)]
    assert cut.sentences == ("Ranked.", "Shown are the first 100 of 12,345; the CSV files have all.")
    assert len(shortened(section(3, 150)).parts) == LINES_SHOWN
    nested = shortened(replace(section(1), parts=(section(150),)))
    assert nested.sentences == ("Ranked.",)
    assert nested.parts[0].sentences[-1] == "Shown are the first 100 of 150; the CSV files have all."


def test_long_lists_of_names() -> None:
    assert words.some(["a", "b"]) == "a, b"
    assert words.some([f"r{i}" for i in range(1_204)], most=2) == "r0, r1, 1,202 more"


def test_columns_of_words() -> None:
    grid = Grid(("run", "seed", "weights"), ((word("a"), word(None), word("none")),))
    assert [grid.of_words(i) for i in range(3)] == [False, False, True]


def test_the_mean_over_thousands_of_runs_is_that_of_a_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    images = np.array([f"i{i}" for i in range(6)])
    parts: list[Any] = [PartOf(images, generator.random(6)) for _ in range(9)]
    parts[3].values[:] = np.nan  # a run that does not define the figure
    weights = generator.random((50, 6))
    together = estimates.mean_figures(parts, parts[0], weights, figures)
    monkeypatch.setattr(estimates, "_TOGETHER", 2)
    streamed = estimates.mean_figures(parts, parts[0], weights, figures)
    assert list(together) == list(streamed) == ["f1_present", "share"]
    for name in together:
        np.testing.assert_array_equal(together[name], streamed[name])


class PartOf:
    """Images with a value each; the first lacks a class."""

    def __init__(self, images: Any, values: Any) -> None:
        self.images, self.values = images, values

    def __len__(self) -> int:
        return len(self.images)


def figures(part: Cases, weights: Any) -> dict[str, Any]:
    values: Any = part.values  # type: ignore[attr-defined]
    share = weights @ values / weights.sum(axis=1)
    lacks = bool(values[0] > 0.5)  # then the plain average is over the classes that are there
    return {("f1_present" if lacks else "f1"): share**2, "share": share}


def test_the_best_experiments_have_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "ESTIMATED", 2)
    split = SimpleNamespace(test_digest="t", protocol="holdout", fold=None)
    row = SimpleNamespace(run=SimpleNamespace(summary=SimpleNamespace(split=split)))
    table: Any = SimpleNamespace(dataset="d", data_digest="x", test_digest="t")

    def experiment(rank: int) -> Experiment:
        rows: Any = (SimpleNamespace(**vars(row), rank=rank),)
        return Experiment(f"e{rank}", table, frozenset({1}), rows, 0, None)

    found = analysis._with_intervals([experiment(rank) for rank in (3, 1, 2, 4)])
    assert [item.estimated for item in found] == [False, True, True, False]
    assert found[0].estimates == {}
