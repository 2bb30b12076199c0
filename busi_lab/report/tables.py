"""Run directories to ranked tables, one table for each test set; what every rendering starts from."""

import csv
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError, one_line
from busi_lab.files import read_rows
from busi_lab.report.blocks import Analysis
from busi_lab.report.cases import read_test_cases
from busi_lab.report.published import CAVEATS, PAPER_DATASET, published_for
from busi_lab.report.settings import Settings, differences, in_words, settings_of
from busi_lab.run_directory import (
    CLASSES,
    CONFIG,
    LAST_CHECKPOINT,
    METRICS,
    PREDICTIONS,
    PREVIOUS_CHECKPOINT,
    SPLIT,
    Run,
    find_run_directories,
    read_run,
)
from busi_lab.summary import Summary

TEST_METRICS = (
    *("accuracy", "accuracy_without_normal", "precision", "recall", "f1"),
    *("precision_present", "recall_present", "f1_present", "auroc", "auroc_malignant", "auroc_benign_malignant"),
    *("dice", "iou", "dice_pooled", "pixel_accuracy", "false_positive_rate", "hd95", "hd95_pixels", "hd95_mm"),
)
"""The test metrics of the tables for people, in their order; ``table.csv`` has every scalar of a run."""

MISSING = "–"  # noqa: RUF001 (an en dash is meant)
"""What a cell without a value shows."""

TASKS = ("classification", "segmentation", "multitask")


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
    def published(self) -> Mapping[str, float]:
        """The paper's figures for this run's experiment, by metric name; none beside figures on other data."""
        summary = self.run.summary
        trained_on = summary.source.data_digest if summary.source else summary.data.digest
        elsewhere = summary.data.name != PAPER_DATASET or trained_on != summary.data.digest
        return {} if elsewhere else published_for(summary.experiment)

    def metric(self, name: str) -> float | None:
        """The figure ``val/NAME`` or ``test/NAME``; None where the run has none."""
        return number(self.run.summary.metrics.get(name))

    def confusion(self) -> list[list[float]] | None:
        """Counts on the test set, ``[actual][predicted]`` in the order of ``CLASSES``; None without any."""
        matrix = self.run.summary.metrics.get("test/confusion_matrix")
        if not isinstance(matrix, list) or len(matrix) != len(CLASSES):
            return None
        counts = [[number(cell) for cell in line] if isinstance(line, list) else [] for line in matrix]
        complete = [[cell for cell in line if cell is not None] for line in counts]
        return complete if all(len(line) == len(CLASSES) for line in complete) else None

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
    def level(self) -> tuple[Row, ...]:
        """The runs that share the first rank; empty where no run has one."""
        return tuple(row for row in self.rows if row.rank == 1)

    @property
    def leaked(self) -> list[int]:
        """Test images with a near-copy or the same patient in training or validation, of each run that counted them."""
        counts = (number(row.run.summary.split.leaked) for row in self.rows)
        return [int(count) for count in counts if count is not None]

    @property
    def title(self) -> str:
        """Number, task, data, protocol and number of test images."""
        images = "unknown number of" if self.test_images is None else self.test_images
        return f"Table {self.number}: {self.task} on {self.dataset}, {self.protocol}, {images} test images"

    @property
    def notes(self) -> list[str]:
        """What a reader must know before believing the ranking or the figures beside each other."""
        summaries = [row.run.summary for row in self.rows]
        protocols = sorted({str(summary.split.protocol) for summary in summaries})
        unmeasured = {str(s.split.protocol) for s in summaries if number(s.split.leaked) is None}
        caveats = CAVEATS if self.dataset == PAPER_DATASET else {}
        notes = [caveats[name] for name in protocols if name in unmeasured & caveats.keys()]
        if any(count > 0 for count in self.leaked):
            notes.insert(
                0,
                f"Of the test images {leak_words(self.leaked, self.test_images)} have a near-copy or the same "
                "patient in training or validation: figures on them may be too good to be believed as they stand.",
            )
        if any(row.published for row in self.rows) and (self.dataset, protocols) != (PAPER_DATASET, ["published"]):
            notes.append("The paper's figures (in brackets) come from its own test set, not from this one.")
        if damaged := [row.label for row in self.rows if row.damaged]:
            notes.append(f"{PREDICTIONS} is damaged, so nothing is made of it: {', '.join(damaged)}.")
        if self.test_digest is None:
            notes.append("The runs do not say which images they were tested on: they may differ.")
        if len({text(summary.split.digest) for summary in summaries}) > 1:
            notes.append("Training or validation images differ between these runs, so the ranking is rough.")
        if len({_objective(summary) for summary in summaries}) > 1:
            notes.append(f"The runs chose their best epochs by different objectives; {self.metric} ranks them.")
        return notes


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
    """All runs below ``base``, to which every ``folder`` is relative; ``analysis`` is empty where none was made.

    ``again`` has, by folder, evaluations of runs on their own test images, which stand in no table beside them.
    """

    base: Path
    tables: tuple[Table, ...]
    failures: tuple[Failure, ...]
    again: tuple[tuple[str, Run], ...] = ()
    analysis: Analysis = field(default_factory=Analysis)


def number(value: Any) -> float | None:
    """``value`` as a finite number, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def leak_words(counts: Sequence[int], images: float | None) -> str:
    """``43 of 155 (28 %)``, a range where the runs' ``counts`` differ; without a share where ``images`` is unknown."""
    ends = sorted({min(counts), max(counts)})
    words = " to ".join(map(str, ends))
    if not images:
        return words
    shares = dict.fromkeys(f"{100 * end / images:.0f}" for end in ends)
    return f"{words} of {images:g} ({' to '.join(shares)} %)"


def text(value: Any) -> str | None:
    """``value`` on one line, in characters that every UTF-8 file can hold; None where there is none."""
    return None if value is None else " ".join(str(value).encode("utf-8", "replace").decode().split())


def build(folders: Sequence[Path]) -> Comparison:
    """Read all runs at or below ``folders``, group them by test set and rank each group.

    Raises:
        UserError: a folder is missing, holds no run directory, or none of the runs has finished.
    """
    where = ", ".join(map(str, folders))
    directories = find_run_directories(folders)
    unfinished = _find_unfinished(folders, directories)
    if not directories and not unfinished:
        raise UserError(f"no run directory (a folder with summary.json) at or below {where}; run busi-train first")
    base = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    base = base.parent if base in directories or base in unfinished else base
    groups: dict[tuple[str, ...], list[tuple[str, Run]]] = defaultdict(list)
    failures, again = [], []
    for directory in directories:
        folder = _relative(directory, base)
        try:
            run = read_run(directory)
        except UserError as error:
            reason = one_line(error).replace(f"{directory}{os.sep}", "")
            failures.append(Failure(folder, folder, "unreadable", text(reason) or ""))
            continue
        if run.summary.status == "finished" and _is_again(run.summary, directories):
            again.append((folder, run))
        elif run.summary.status == "finished":
            groups[_group(run.summary)].append((folder, run))
        else:
            reason = text(run.summary.error) or f"no reason recorded (status {run.summary.status})"
            failures.append(Failure(folder, text(run.name) or folder, "failed", reason, run))
    failures += [
        Failure(_relative(directory, base), _relative(directory, base), "not finished", _progress(directory, base))
        for directory in unfinished
    ]
    if not groups:
        first = failures[0]
        raise UserError(
            f"none of the {len(failures)} runs below {where} has finished; the first, {first.folder}: {first.reason}"
        )

    def order(key: tuple[str, ...]) -> tuple[Any, ...]:
        task = TASKS.index(key[0]) if key[0] in TASKS else len(TASKS)
        return task, key[1], _protocol(groups[key][0][1].summary), key

    tables = tuple(_table(index, groups[key]) for index, key in enumerate(sorted(groups, key=order), start=1))
    return Comparison(base, tables, tuple(failures), tuple(again))


def _is_again(summary: Summary, directories: Sequence[Path]) -> bool:
    """Whether this is the evaluation of one of the runs on its own test images."""
    source = summary.source
    return (
        source is not None
        and source.split is not None
        and Path(str(source.directory)) in directories
        and source.data_digest == summary.data.digest
        and source.split.test_digest == summary.split.test_digest
    )


def _relative(directory: Path, base: Path) -> str:
    return text(Path(os.path.relpath(directory, base)).as_posix()) or "."


def _find_unfinished(folders: Sequence[Path], ended: Sequence[Path]) -> list[Path]:
    """Run directories that were begun and are not among those that have ``ended``, sorted, each once.

    A run begins with ``config.yaml`` and ``split.json``; Hydra and W&B have a ``config.yaml`` of their own, and W&B
    may hold copies of both.
    """
    begun = {
        path.parent.resolve()
        for folder in folders
        for path in folder.rglob(CONFIG)
        if path.with_name(SPLIT).exists() and "wandb" not in path.relative_to(folder).parts
    }
    return sorted(begun.difference(ended))


def _progress(directory: Path, base: Path) -> str:
    """How far an unfinished run came, and how to get it finished."""
    try:
        epochs = len(read_rows(directory / METRICS))
    except (OSError, ValueError, csv.Error):
        epochs = 0
    done = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    if not any((directory / name).exists() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)):
        return f"still running or cut off after {done}; no checkpoint to continue from: run it again"
    here = Path.cwd()  # a path that can be typed from here, where that needs no machine's path
    near = str(directory.relative_to(here)) if directory.is_relative_to(here) else _relative(directory, base)
    return f"still running or cut off after {done}; continue it with busi-train resume={near}"


def _group(summary: Summary) -> tuple[str, ...]:
    """Runs are compared only where all of these agree."""
    split, data = summary.split, summary.data
    test_set = split.test_digest or split.digest or _protocol(summary)
    return tuple(text(part) or "" for part in (summary.task, data.name, data.digest, test_set))


def _protocol(summary: Summary) -> str:
    """Protocol with its fold and seed; `published` is deterministic and needs neither."""
    split = summary.split
    name = text(split.protocol) or "unknown"
    fold, seed = split.fold, split.seed
    parts = [f"{name} protocol"] if fold is None else [f"{name} protocol", f"fold {fold}"]
    return ", ".join(parts if seed is None or name == "published" else [*parts, f"split seed {seed}"])


def _objective(summary: Summary) -> tuple[str, str]:
    metric = text(summary.objective.metric)
    if metric is None:
        return "val/loss", "min"
    return metric, "min" if summary.objective.mode == "min" else "max"


def _table(index: int, runs: Sequence[tuple[str, Run]]) -> Table:
    """Rank ``runs`` by the objective that most of them have (as many have another: the first in the alphabet).

    Equal figures share a rank; their names say which stands first.
    """
    counts = Counter(_objective(run.summary) for _, run in runs)
    metric, mode = min(counts, key=lambda objective: (-counts[objective], objective))

    def order(entry: tuple[str, Run]) -> tuple[Any, ...]:
        folder, run = entry
        value = number(run.summary.metrics.get(metric))
        ascending = 0.0 if value is None else value if mode == "min" else -value
        return value is None, ascending, run.name, number(run.summary.seed) or 0, folder

    runs = sorted(runs, key=order)
    rows: list[Row] = []
    for place, ((folder, run), label) in enumerate(zip(runs, _labels(runs), strict=True), start=1):
        objective = number(run.summary.metrics.get(metric))
        rank = rows[-1].rank if rows and rows[-1].objective == objective else place
        rows.append(Row(run, folder, label, None if objective is None else rank, objective))
    first = runs[0][1].summary
    digest = first.split.test_digest or first.split.digest
    protocol = " / ".join(sorted({_protocol(run.summary) for _, run in runs}))
    return Table(
        index,
        text(first.task) or "unknown task",
        text(first.data.name) or "unknown data",
        text(first.data.digest),
        protocol,
        text(digest),
        first.data.test,
        metric,
        mode,
        tuple(rows),
    )


def _labels(runs: Sequence[tuple[str, Run]]) -> list[str]:
    """A label for each run: its name, and the least that tells its namesakes apart.

    That is the seed, the weights, both, what differs in their settings, or the folder.
    """
    namesakes: dict[str, list[tuple[str, Run]]] = defaultdict(list)
    for entry in runs:
        namesakes[entry[1].name].append(entry)
    additions: dict[str, str] = {}
    for group in namesakes.values():
        folders = [folder for folder, _ in group]
        additions.update(zip(folders, _told_apart(group) if len(group) > 1 else [""], strict=True))
    names = ((text(run.name) or folder, additions[folder]) for folder, run in runs)
    return [f"{name} ({addition})" if addition else name for name, addition in names]


def _told_apart(group: Sequence[tuple[str, Run]]) -> list[str]:
    """Words that tell runs of one name apart."""
    seeds = [f"seed {run.summary.seed}" for _, run in group]
    weights = [Path(str(run.summary.weights)).name for _, run in group]
    both = [f"{weight}, {seed}" for weight, seed in zip(weights, seeds, strict=True)]
    settings = [settings_of(run) for _, run in group]
    keys = differences(settings)
    words = [in_words(each, keys, most=3) for each in settings]
    with_seed = [f"{each}, {seed}" for each, seed in zip(words, seeds, strict=True)]
    folders = [folder for folder, _ in group]
    choices = (words, with_seed) if keys else (seeds, weights, both)
    return next((choice for choice in choices if len(set(choice)) == len(group)), folders)
