"""Whether experiments are worse than in an earlier ``table.csv``: for the continuous integration of others."""

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from busi_lab.errors import UserError
from busi_lab.files import read_rows
from busi_lab.report.words import number

FIGURES = ("accuracy", "auroc", "dice")
"""The test metrics that are compared, as far as the baseline has them; of all of them more is better."""

_COLUMNS = ("run", "status", "task", "experiment", "data_digest", "protocol", "test_digest")


class Key(NamedTuple):
    """What makes two experiments the same one."""

    experiment: str
    task: str
    data_digest: str
    protocol: str


@dataclass(frozen=True)
class Level:
    """The mean of each figure over the finished runs of an experiment, and their test sets."""

    figures: Mapping[str, float]
    test_sets: frozenset[str]


@dataclass(frozen=True)
class Worse:
    """A figure that has fallen by more than is tolerated."""

    key: Key
    figure: str
    before: float
    now: float


@dataclass(frozen=True)
class Verdict:
    """What a baseline says: figures that are worse, experiments that lack a figure now, and those on other images."""

    compared: int
    worse: tuple[Worse, ...]
    missing: tuple[Key, ...]
    elsewhere: tuple[Key, ...]


def read_baseline(path: Path) -> dict[Key, Level]:
    """The experiments of a ``table.csv``.

    Raises:
        UserError: the file is missing or no such table, or no finished run in it has one of the figures.
    """
    if not path.is_file():
        raise UserError(f"--baseline: {path} is no file; expected the table.csv of an earlier comparison")
    try:
        rows = read_rows(path)
        lacking = [name for name in _COLUMNS if rows and name not in rows[0]]
        typed = [{**row, **{name: float(row.get(name) or "nan") for name in _names()}} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"--baseline: {path} cannot be read as a table.csv: {error}") from None
    if not rows:
        raise UserError(f"--baseline: {path} has no row; expected the table.csv of an earlier comparison")
    if lacking:
        raise UserError(f"--baseline: {path} lacks the columns {', '.join(lacking)}; expected an earlier table.csv")
    found = levels_of(typed)
    if not found:
        raise UserError(f"--baseline: {path} has no finished run with {', '.join(_names())}")
    return found


def _names() -> list[str]:
    return [f"test/{name}" for name in FIGURES]


def levels_of(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Level]:
    """The experiments of rows as of ``table.csv``, those without any of the figures left out."""
    runs: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row.get("status") == "finished" and any(number(row.get(name)) is not None for name in _names()):
            parts = (row.get("experiment") or row.get("run"), *(row.get(name) for name in Key._fields[1:]))
            runs[Key(*(str(part or "") for part in parts))].append(row)
    found = {}
    for key, held in runs.items():
        values = {
            figure: [value for row in held if (value := number(row.get(f"test/{figure}"))) is not None]
            for figure in FIGURES
        }
        means = {figure: statistics.fmean(each) for figure, each in values.items() if each}
        found[key] = Level(means, frozenset(str(row.get("test_digest") or "") for row in held))
    return found


def judge_against(baseline: Mapping[Key, Level], now: Mapping[Key, Level], tolerance: float) -> Verdict:
    """What is worse now than in ``baseline`` by more than ``tolerance``; experiments that are new are passed over."""
    worse, missing, elsewhere, compared = [], [], [], 0
    for key, before in baseline.items():
        after = now.get(key)
        common = [figure for figure in before.figures if after is not None and figure in after.figures]
        if after is None or len(common) < len(before.figures):  # a figure that is gone is no better than a worse one
            missing.append(key)
        elif after.test_sets != before.test_sets:
            elsewhere.append(key)
        else:
            compared += len(common)
            fallen = [Worse(key, figure, before.figures[figure], after.figures[figure]) for figure in common]
            worse += [each for each in fallen if each.before - each.now > tolerance + 1e-9]
    return Verdict(compared, tuple(worse), tuple(missing), tuple(elsewhere))
