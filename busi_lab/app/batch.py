"""Many files at once -> a table, and a zip with the files of each scan."""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busi_lab.app.findings import Finding
from busi_lab.app.papers import plain_name, write_papers
from busi_lab.app.uploads import Upload, read_frame
from busi_lab.app.words import measure_rows
from busi_lab.data.scan import Scan
from busi_lab.errors import UserError, one_line
from busi_lab.files import write_rows
from busi_lab.plurals import counted

MOST_FILES, MOST_SCANS = 100, 300
COLUMNS = ("file", "frame", "model", "class", "probability", "set", "lesions", "largest", "warnings")


@dataclass(frozen=True)
class BatchResult:
    """Rows of :data:`COLUMNS`, a row for each scan and model, and a zip with everything."""

    rows: list[list[str]]
    archive: Path


def predict_many(
    sent: Sequence[tuple[Path, str]],
    take: Callable[[Path, str], Upload],
    spacing: str,
    findings_of: Callable[[Scan], list[Finding]],
    folder: Path,
    progress: Callable[[float], Any],
) -> BatchResult:
    """Apply the models to all frames of many files; those that cannot be read have a row that says why.

    Args:
        sent: paths with the names that their owner gave them.
        take: opens one.
        spacing: as of :func:`read_frame`.
        findings_of: applies the models.
        folder: that does not exist yet, for what is written.
        progress: is told the share that is done.

    Raises:
        UserError: there are too many files or frames, or the spacing is none.
    """
    if len(sent) > MOST_FILES:
        raise UserError(f"{counted(len(sent), 'file')}: expected at most {MOST_FILES}; use busi-predict for more")
    rows: list[dict[str, str]] = []
    scans = 0
    for number, (path, name) in enumerate(sent, start=1):
        progress((number - 1) / len(sent))
        try:
            upload = take(path, name)
        except UserError as error:
            rows.append({"file": name, "warnings": one_line(error)})
            continue
        scans += upload.frames
        if scans > MOST_SCANS:
            raise UserError(
                f"{name}: with it there are {scans} frames; expected at most {MOST_SCANS}: use busi-predict"
            )
        for frame in range(upload.frames):
            scan = read_frame(upload, frame, spacing)
            findings = findings_of(scan)
            place = f"{number:03d}-{plain_name(upload.name)}" + (f"-frame{frame:04d}" if upload.several else "")
            write_papers(folder / "files" / place, upload, scan, findings, page=False)
            rows += [_row(upload, frame, finding) for finding in findings]
    write_rows(folder / "files" / "results.csv", rows, COLUMNS)
    archive = folder / "results.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for item in sorted(path for path in (folder / "files").rglob("*") if path.is_file()):
            file.write(item, item.relative_to(folder / "files"))
    return BatchResult([[row.get(column, "") for column in COLUMNS] for row in rows], archive)


def _row(upload: Upload, frame: int, finding: Finding) -> dict[str, str]:
    label = finding.prediction.label
    measures = dict(measure_rows(finding))
    return {
        "file": upload.name,
        "frame": str(frame + 1) if upload.several else "",
        "model": finding.model.name,
        "class": label or "",
        "probability": "" if finding.probabilities is None or label is None else f"{finding.probabilities[label]:.3f}",
        "set": " ".join(finding.prediction.prediction_set or ()),
        "lesions": measures.get("lesions", ""),
        "largest": measures.get("lesion 1", measures.get("lesion", "")),
        "warnings": " ".join(finding.warnings),
    }
