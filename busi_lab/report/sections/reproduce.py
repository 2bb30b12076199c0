"""What it takes to get the runs again."""

from pathlib import Path

from busi_lab.report import words
from busi_lab.report.results.analysis import Analysis
from busi_lab.report.results.tables import Row
from busi_lab.report.sections.section import Section


def reproduce(analysis: Analysis) -> list[Section]:
    """One section with a part for each run."""
    sentences = [
        "Commands that do not set data.root take the dataset's folder from the environment variable BUSI_ROOT; equal "
        "digests mean equal images."
    ]
    parts = tuple(_origin(row) for table in analysis.tables for row in table.rows)
    return [Section("How to reproduce", (*sentences, *_versions(analysis)), parts=parts, folded=True)]


def _origin(row: Row) -> Section:
    summary = row.run.summary
    speed = None if row.evaluated else words.number(summary.images_per_second)
    known = {
        "folder": row.folder,
        "model": summary.model,
        "weights": summary.weights and Path(str(summary.weights)).name,
        "seed": summary.seed,
        "split": summary.split.digest,
        "test set": summary.split.test_digest,
        "data": summary.data.digest,
        "device": summary.device,
        "precision": summary.precision,
        "images/s": None if speed is None else words.figure(speed, 1),
        "git": summary.git,
    }
    facts = "; ".join(f"{key}: {words.text(value) or words.MISSING}" for key, value in known.items())
    command = words.text(summary.command)
    if command is None:
        unknown = f"The command is not recorded; config.yaml in {row.folder} holds the settings."
        return Section(row.label, (unknown, f"{facts}."))
    return Section(row.label, (f"{facts}.",), code=command)


def _versions(analysis: Analysis) -> list[str]:
    """Library versions, each set once with the runs that used it."""
    found: dict[str, list[str]] = {}
    rows = [row for table in analysis.tables for row in table.rows]
    for row in rows:
        versions = row.run.summary.versions
        if isinstance(versions, dict) and versions:
            told = ", ".join(f"{words.text(name)} {words.text(version)}" for name, version in versions.items())
            found.setdefault(told, []).append(row.label)
    return [
        f"{'All runs' if len(labels) == len(rows) else words.some(labels)}: {told}." for told, labels in found.items()
    ]
