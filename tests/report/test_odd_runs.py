"""Reports on runs that are unlike, damaged or small: nothing wrong is said, and nothing ends in a traceback."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from busi_lab.classes import BUSI, Classes
from busi_lab.files import write_rows
from busi_lab.summary import DataRecord, Objective, Source, SplitRecord, Summary, write_summary
from tests.report.said import read, rows


def roles(classes: Classes) -> dict[str, Any]:
    return {
        "class_names": classes.names,
        "positive_class": classes.positive,
        "class_without_lesion": classes.without_lesion,
    }


def make_run(
    folder: Path,
    classes: Classes = BUSI,
    *,
    task: str = "classification",
    tested: Sequence[str] | None = None,
    images: int = 60,
    wrong: int = 6,
    **changes: Any,
) -> None:
    """A run with ``images`` test images of the classes ``tested`` in turn, of which the first ``wrong`` are wrong."""
    present, lines = tested or classes.names, []
    for i in range(images):
        label = present[i % len(present)]
        called = classes.names[(classes.number(label) + (i < wrong)) % len(classes)]
        line: dict[str, Any] = {"image": f"{i:02}", "label": label, "group": f"{i}"}
        if task != "segmentation":
            shares = {f"p_{name}": 0.8 if name == called else 0.2 / (len(classes) - 1) for name in classes.names}
            line |= {"prediction": called, **shares}
        if task != "classification":
            lesion = 0 if label == classes.without_lesion else 40
            line |= {"dice": 0.5 + i / 200 if lesion else "", "iou": 0.4 if lesion else ""}
            line |= {"lesion_pixels": lesion, "predicted_pixels": 40, "pixels": 900}
        lines.append(line)
    fields: dict[str, Any] = {
        "status": "finished",
        "task": task,
        "experiment": "one",
        "seed": 0,
        "split": SplitRecord("holdout", 0, digest="s", test_digest="t", leaked=0),
        "data": DataRecord("scans", digest="d", test=images, **roles(classes)),
        "objective": Objective("val/f1", "max"),
        "metrics": {"val/f1": 1 - wrong / 100, "test/accuracy": 1 - wrong / images},
    }
    write_summary(folder, Summary(**(fields | changes)))
    write_rows(folder / "predictions.csv", lines, lines[0])
    for name in ("config.yaml", "source_config.yaml"):
        (folder / name).write_text(json.dumps({"trainer": {"max_epochs": 3}}))


def source_of(digest: str, classes: Classes = BUSI) -> Source:
    split = SplitRecord("holdout", 0, digest="q", test_digest="own")
    return Source(f"/runs/{digest}", data="labels", data_digest=digest, split=split, **roles(classes))


def everything(folder: Path) -> str:
    """All sentences of a report."""
    return "\n".join(sentence for section in read(folder).values() for sentence in section.sentences)


def test_runs_that_have_learnt_from_other_data_are_no_repeats_where_they_are_evaluated(tmp_path: Path) -> None:
    for digest, wrong in {"aaaa": 6, "bbbb": 30}.items():
        make_run(tmp_path / digest, wrong=wrong, source=source_of(digest))
    said = read(tmp_path)
    assert said["What was found"].sentences[0].startswith("Best of 2 models on its own validation images is one (train")
    (grid,) = next(section for title, section in said.items() if title.startswith("Experiments with")).grids
    assert [line[0] for line in rows(grid)] == ["one (trained on data aaaa)", "one (trained on data bbbb)"]
