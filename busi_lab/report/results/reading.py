"""Run directories to ranked tables, one table for each test set."""

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError, one_line
from busi_lab.files import read_rows
from busi_lab.report.results.labels import run_labels
from busi_lab.report.results.tables import TASKS, Comparison, Failure, Row, Table
from busi_lab.report.words import number, text
from busi_lab.run_directory import (
    CONFIG,
    LAST_CHECKPOINT,
    METRICS,
    PREVIOUS_CHECKPOINT,
    SPLIT,
    Run,
    find_run_directories,
    read_run,
)
from busi_lab.summary import Summary, is_export


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
    failures, again, pruned = [], [], 0
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
        elif run.summary.status == "pruned":
            pruned += 1
        else:
            reason = text(run.summary.error) or f"no reason recorded (status {run.summary.status})"
            failures.append(Failure(folder, text(run.name) or folder, "failed", reason, run))
    failures += [
        Failure(_relative(directory, base), _relative(directory, base), "not finished", _progress(directory, base))
        for directory in unfinished
    ]
    if not groups and not failures:
        raise UserError(f"all {pruned} runs below {where} were pruned by a search; none has finished")
    if not groups:
        first = failures[0]
        all_of_them = "no run" if len(failures) == 1 else f"none of the {len(failures)} runs"
        raise UserError(f"{all_of_them} below {where} has finished; the first, {first.folder}: {first.reason}")

    def order(key: tuple[str, ...]) -> tuple[Any, ...]:
        task = TASKS.index(key[0]) if key[0] in TASKS else len(TASKS)
        return task, key[1], _protocol(groups[key][0][1].summary), key

    tables = tuple(_table(index, groups[key]) for index, key in enumerate(sorted(groups, key=order), start=1))
    return Comparison(base, tables, tuple(failures), tuple(again), pruned)


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
        if not is_export(path.parent)
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


def objective_of(summary: Summary) -> tuple[str, str]:
    """The validation figure by which a run chose its best epoch, and max or min."""
    metric = text(summary.objective.metric)
    if metric is None:
        return "val/loss", "min"
    return metric, "min" if summary.objective.mode == "min" else "max"


def _table(index: int, runs: Sequence[tuple[str, Run]]) -> Table:
    """Rank ``runs`` by the objective that most of them have (as many have another: the first in the alphabet).

    Equal figures share a rank; their names say which stands first.
    """
    counts = Counter(objective_of(run.summary) for _, run in runs)
    metric, mode = min(counts, key=lambda objective: (-counts[objective], objective))

    def order(entry: tuple[str, Run]) -> tuple[Any, ...]:
        folder, run = entry
        value = number(run.summary.metrics.get(metric))
        ascending = 0.0 if value is None else value if mode == "min" else -value
        return value is None, ascending, run.name, number(run.summary.seed) or 0, folder

    runs = sorted(runs, key=order)
    rows: list[Row] = []
    for place, ((folder, run), label) in enumerate(zip(runs, run_labels(runs), strict=True), start=1):
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
