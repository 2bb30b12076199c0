"""What an evaluation asks of a run beside its metrics: flags, stress, shortcuts, explanations."""

import csv
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch.utils.data import Dataset

from busi_lab.data.cache import sizes_of
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.index import Case, read_case
from busi_lab.data.resizing import resize_mask, resize_scan
from busi_lab.data.scan import Gray, Mask
from busi_lab.data.stress import LADDERS, SEVERITIES, degrade, lesion_alone, without_lesion
from busi_lab.errors import UserError, one_line
from busi_lab.inference.explain import Explainer, energy_inside, pointing_hit
from busi_lab.plurals import counted
from busi_lab.run.record import plain_metrics
from busi_lab.run_directory import EXPLANATIONS, write_heat
from busi_lab.summary import Summary
from busi_lab.tasks import BaseTask

log = logging.getLogger(__name__)

Changed = Callable[[Gray, Mask, int], tuple[Gray, Mask]]
"""What is done to a scan and its mask, with the scan's own seed, before they are resized."""


def read_flags(path: Path, data: BusiDataModule) -> list[dict[str, str]]:
    """Flags of the test images: rows of ``image`` and ``flag``, an image with several flags in several rows.

    Raises:
        UserError: the file cannot be read, lacks a column or a flag, or names an image that the dataset has not.
    """
    expected = "expected a CSV file with the columns image,flag"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            columns, rows = table.fieldnames or [], [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"flags={path}: cannot be read ({one_line(error)}); {expected}") from None
    if missing := [name for name in ("image", "flag") if name not in columns]:
        raise UserError(f"flags={path}: {missing[0]} missing; {expected}")
    known, tested = {case.case_id for case in data.index.cases}, set(data.manifest.test)
    found: dict[tuple[str, str], None] = {}
    for line, row in rows:
        image, flag = ((row[name] or "").strip() for name in ("image", "flag"))
        if image not in known:
            known_as = f"named as in predictions.csv, such as {data.manifest.test[0]!r}"
            raise UserError(
                f"flags={path}, line {line}: expected an image of {data.index.root}, {known_as}, found {image!r}"
            )
        if not flag:
            raise UserError(f"flags={path}, line {line}: {image} has no flag; leave such lines out")
        if image in tested:
            found[image, flag] = None
    if not found:
        raise UserError(f"flags={path}: none of its images is tested; choose a split that tests them")
    return [{"image": image, "flag": flag} for image, flag in found]


def _has_lesion(case: Case) -> bool:
    return case.mask_known and case.lesion_pixels > 0


def cases_with_lesion(data: BusiDataModule) -> list[Case]:
    """The test scans with a class and a known lesion."""
    return [case for case in data.tested_cases() if _has_lesion(case) and case.label in data.index.classes.lesions]


class _ChangedScans(Dataset[dict[str, Any]]):
    """Test scans as :class:`ScanDataset` has them, changed at their own resolution before they are resized."""

    def __init__(
        self, data: BusiDataModule, cases: Sequence[Case], image_size: int, change: Changed, originals: bool
    ) -> None:
        self._root, self._classes, self._masks = data.index.root, data.roles, data.delivers[1]
        self._cases, self._size, self._change, self._originals = cases, image_size, change, originals

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, number: int) -> dict[str, Any]:
        case = self._cases[number]
        seed = int(case.content_hash[:8], 16)  # so that a scan meets the same noise in any test set
        image, mask = self._change(*read_case(self._root, case), seed)
        scan = {
            "image": torch.from_numpy(np.array(resize_scan(image, self._size)))[None],
            "label": self._classes.number(case.label),
            "case_id": case.case_id,
        }
        if not self._masks:
            return scan
        scan |= {
            "mask": torch.from_numpy(resize_mask(mask, self._size).astype(np.uint8))[None],
            **sizes_of(case),
        }
        return {**scan, "original_mask": torch.from_numpy(mask)[None]} if self._originals else scan


def _test_changed(
    task: BaseTask, data: BusiDataModule, trainer: Trainer, cases: Sequence[Case], change: Changed
) -> dict[str, Any]:
    """Test metrics on changed scans; the task keeps their predictions."""
    scans = _ChangedScans(data, cases, task.image_size, change, task.original_masks)
    trainer.test(task, dataloaders=data.eval_loader(scans), verbose=False)
    return plain_metrics(task.results["test"], "test")


def stress_columns(task: BaseTask) -> list[str]:
    """Columns of ``stress.csv``."""
    return ["ladder", "severity", *(name for name in task.metric_names if name != "threshold")]


def stress(task: BaseTask, data: BusiDataModule, trainer: Trainer, summary: Summary) -> list[dict[str, Any]]:
    """Rows of ``stress.csv``: the metrics at each step of each ladder; severity 0 is the scan as it is."""
    rows = [{"ladder": "none", "severity": 0, **_bare(summary.metrics)}]
    cases = data.tested_cases()
    for ladder in LADDERS:
        for severity in SEVERITIES:
            metrics = _test_changed(task, data, trainer, cases, partial(_degraded, ladder, severity))
            rows.append({"ladder": ladder, "severity": severity, **_bare(metrics)})
        log.info("stress: %s done", ladder)
    return rows


def _degraded(ladder: str, severity: int, image: Gray, mask: Mask, seed: int) -> tuple[Gray, Mask]:
    return degrade(image, mask, ladder, severity, seed)


def _bare(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("test/"): value for name, value in metrics.items() if name.startswith("test/")}


def shortcuts(task: BaseTask, data: BusiDataModule, trainer: Trainer) -> Iterator[dict[str, Any]]:
    """Rows of ``shortcuts.csv``: what is predicted for scans with a lesion, whole, without it, and for it alone."""
    cases = cases_with_lesion(data)
    conditions: dict[str, Callable[[Gray, Mask], Gray] | None] = {
        "whole scan": None,
        "lesion blanked": without_lesion,
        "lesion alone": lesion_alone,
    }
    columns = ("image", "label", "prediction", *(f"p_{name}" for name in task.roles.names))
    for condition, alter in conditions.items():
        _test_changed(task, data, trainer, cases, partial(_altered, alter))
        for row in task.predictions():
            group = data.group(row["image"])
            yield {"condition": condition, **{name: row[name] for name in columns}, "group": group}


def _altered(alter: Callable[[Gray, Mask], Gray] | None, image: Gray, mask: Mask, seed: int) -> tuple[Gray, Mask]:
    return image if alter is None else alter(image, mask), mask


def explain(
    explainer: Explainer, data: BusiDataModule, rows: Sequence[Mapping[str, Any]], directory: Path
) -> dict[str, float]:
    """Draw maps of the predicted classes, and measure how they hit the lesions."""
    clock = time.perf_counter()
    cases = {case.case_id: case for case in data.index.cases}
    measured: list[dict[str, Any]] = []
    for row in rows:
        case = cases[row["image"]]
        image, mask = read_case(data.index.root, case)
        for method, heat in explainer.explain(image, row["prediction"]).items():
            write_heat(directory / EXPLANATIONS / method / f"{case.case_id}.png", heat)
            if _has_lesion(case):
                hit, energy = pointing_hit(heat, mask), energy_inside(heat, mask)
                measured.append({"method": method, "hit": hit, "energy": energy, "share": float(mask.mean())})
    log.info("explained %s in %.0f s", counted(len(rows), "scan"), time.perf_counter() - clock)
    found: dict[str, float] = {}
    for method in dict.fromkeys(each["method"] for each in measured):
        of_method = [each for each in measured if each["method"] == method]
        means = {name: float(np.mean([each[name] for each in of_method])) for name in ("hit", "energy", "share")}
        found |= {f"test/{method}_pointing": means["hit"], f"test/{method}_energy": means["energy"]}
        found["test/lesion_share"] = means["share"]
        log.info(
            "%s: its highest point lies in the lesion in %.1f %% of %d scans with one, and %.1f %% of its sum; a map "
            "without knowledge would have %.1f %%",
            *(method, 100 * means["hit"], len(of_method), 100 * means["energy"], 100 * means["share"]),
        )
    return found
