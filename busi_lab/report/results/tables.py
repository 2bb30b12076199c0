"""Ranked runs: one table for each test set; what every part of a report starts from."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from busi_lab.classes import BUSI, Classes
from busi_lab.report.results.cases import read_test_cases
from busi_lab.report.results.published import PAPER_DATASET, published_for
from busi_lab.report.results.settings import Settings, settings_of
from busi_lab.report.words import number
from busi_lab.run_directory import PREDICTIONS, Run
from busi_lab.summary import Summary

TASKS = ("classification", "segmentation", "multitask", "localization")


@dataclass(frozen=True)
class Row:
    """A finished run in its table; ``rank`` and ``objective`` are None where validation gave no figure.

    Runs with the same objective share a rank, and the next rank leaves room for them: 1, 1, 3.
    """

    run: Run
    folder: str
    label: str
    rank: int | None
    objective: float | None

    @cached_property
    def settings(self) -> Settings | None:
        """What the run was configured with, see :func:`.settings_of`."""
        return settings_of(self.run)

    @cached_property
    def damaged(self) -> bool:
        """Whether there are predictions, and they cannot be used."""
        return (self.run.path / PREDICTIONS).is_file() and read_test_cases(self.run) is None

    @property
    def classes(self) -> Classes:
        """The classes of the images that it was tested on."""
        return self.run.summary.data.roles

    @property
    def evaluated(self) -> bool:
        """Whether this is an evaluation of a run, which was trained on images of its own."""
        return bool(self.run.summary.source)

    @property
    def published(self) -> Mapping[str, float]:
        """The paper's figures for this run's experiment, by metric name; none beside other data or classes."""
        summary = self.run.summary
        trained_on = summary.source.data_digest if summary.source else summary.data.digest
        elsewhere = not of_the_paper(summary) or trained_on != summary.data.digest
        used = summary.data.classes or self.classes.names  # older runs do not say which they used
        elsewhere |= summary.task == "classification" and {*used} != {*BUSI.names}  # fewer classes are easier
        return {} if elsewhere else published_for(summary.experiment)

    def metric(self, name: str) -> float | None:
        """The figure ``val/NAME`` or ``test/NAME``; None where the run has none."""
        return number(self.run.summary.metrics.get(name))

    def confusion(self) -> list[list[float]] | None:
        """Counts on the test set, ``[actual][predicted]`` in the order of the classes; None without any."""
        matrix = self.run.summary.metrics.get("test/confusion_matrix")
        if not isinstance(matrix, list) or len(matrix) != len(self.classes.names):
            return None
        counts = [[number(cell) for cell in line] if isinstance(line, list) else [] for line in matrix]
        complete = [[cell for cell in line if cell is not None] for line in counts]
        return complete if all(len(line) == len(matrix) for line in complete) else None

    def curve(self, name: str) -> tuple[list[float], list[float]]:
        """Epochs and finite values of a column of ``metrics.csv``; both empty where there are none."""
        points = {}
        try:
            for line in self.run.epochs:
                epoch, value = (float(line.get(key) or "nan") for key in ("epoch", name))
                if math.isfinite(epoch) and math.isfinite(value):
                    points[epoch] = value
        except (OSError, ValueError, csv.Error):  # a damaged file costs its curve, not the comparison
            pass
        return list(points), list(points.values())


@dataclass(frozen=True)
class Table:
    """Finished runs of one task on one test set, best validation ``metric`` (``mode`` max or min) first."""

    number: int
    task: str
    dataset: str
    data_digest: str | None
    protocol: str
    test_digest: str | None
    test_images: int | None
    metric: str
    mode: str
    rows: tuple[Row, ...]

    @property
    def classes(self) -> Classes:
        """The classes of the test images."""
        return self.rows[0].classes

    @property
    def phantoms(self) -> bool:
        """Whether the images were made by a program."""
        return self.rows[0].run.summary.data.of_phantoms

    @property
    def of_the_paper(self) -> bool:
        """Whether the paper's figures are of these data."""
        return of_the_paper(self.rows[0].run.summary)

    @property
    def evaluated(self) -> bool:
        """Whether all runs were trained on images of their own."""
        return all(row.evaluated for row in self.rows)

    @property
    def level(self) -> tuple[Row, ...]:
        """The runs that share the first rank; empty where no run has one."""
        return tuple(row for row in self.rows if row.rank == 1)

    @property
    def leaked(self) -> list[int]:
        """Test images with a near-copy or the same patient in training or validation, of each run that counted them."""
        counts = (number(row.run.summary.split.leaked) for row in self.rows)
        return [int(count) for count in counts if count is not None]

    @property
    def unsearched(self) -> bool:
        """Whether some run did not look for near-copies."""
        return any(row.run.summary.split.unsearched for row in self.rows)


@dataclass(frozen=True)
class Failure:
    """A run without a result; ``status`` is failed, unreadable or not finished, ``run`` None but for the first."""

    folder: str
    name: str
    status: str
    reason: str
    run: Run | None = None


@dataclass(frozen=True)
class Comparison:
    """All runs below ``base``, to which every ``folder`` is relative.

    ``again`` has, by folder, evaluations of runs on their own test images, which stand in no table beside them;
    ``pruned`` counts runs that a search has ended before their last epoch.
    """

    base: Path
    tables: tuple[Table, ...]
    failures: tuple[Failure, ...]
    again: tuple[tuple[str, Run], ...] = ()
    pruned: int = 0


def of_the_paper(summary: Summary) -> bool:
    """Whether a run was tested on BUSI, as the name and the classes of its data say."""
    data = summary.data
    return data.name == PAPER_DATASET and {*data.roles.names} == {*BUSI.names} and not data.of_phantoms
