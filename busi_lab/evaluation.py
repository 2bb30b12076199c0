"""A finished run on another split or on other data -> a result directory of its own."""

import contextlib
import csv
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.utils.data import Dataset
from yaml import YAMLError

from busi_lab.config import EvalConfig
from busi_lab.data.cache import resize_mask, resize_scan
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.duplicates import cached_groups
from busi_lab.data.index import Case, Index, index_dataset, read_case
from busi_lab.data.scan import Gray, Mask
from busi_lab.data.splits import STRATA, Manifest, read_manifest
from busi_lab.data.stress import LADDERS, SEVERITIES, degrade, lesion_alone, without_lesion
from busi_lab.errors import UserError, one_line
from busi_lab.experiment import (
    build_data,
    build_trainer,
    environment_record,
    leak_line,
    plain_metrics,
    quieten,
    split_record,
    trainer_settings,
    with_columns,
    write_inputs,
)
from busi_lab.inference.explain import Explainer, energy_inside, pointing_hit
from busi_lab.run_directory import (
    CLASSES,
    CONFIG,
    EXPLANATIONS,
    FLAGS,
    MASKS,
    PREDICTIONS,
    SHORTCUTS,
    SOURCE_PREDICTIONS,
    SPLIT,
    STRESS,
    VALIDATION,
    Summary,
    class_number,
    locked,
    refuse_result,
    write_atomically,
    write_heat,
    write_masks,
    write_rows,
    write_summary,
)
from busi_lab.tasks import BaseTask, MaskTask, load_task
from busi_lab.tracking import WandbRun, choose_mode, wandb_settings

log = logging.getLogger(__name__)

Changed = Callable[[Gray, Mask, int], tuple[Gray, Mask]]
"""What is done to a scan and its mask, with the scan's own seed, before they are resized."""


def evaluate(config: EvalConfig, resolved: Any) -> Summary:
    """Evaluate a run and write a result directory in the contract of runs.

    Args:
        config: the checked configuration; ``data`` and ``split`` are what is to be evaluated.
        resolved: the same as an OmegaConf container, saved as ``config.yaml``.

    Raises:
        UserError: an input is wrong; nothing has been written then, but for a scan that has become unreadable since
            the data were read, which leaves a failed result.
    """
    started = time.perf_counter()
    assert config.run is not None
    source_directory, directory = Path(config.run), Path(config.run_dir)
    quieten()
    settings = trainer_settings({**config.trainer, "max_epochs": 1})
    task, source = load_task(source_directory)
    config.data.image_size = resolved.data.image_size = task.image_size
    data = build_data(config.data, config.split, task)
    if not data.manifest.test:
        raise UserError(f"{data.index.root}: no image to test on; choose another data= or split=")
    flags = read_flags(Path(config.flags), data) if config.flags else []
    explainer = Explainer([task] if task.has_classes else [], [config.explain]) if config.explain else None
    if config.shortcuts and not (task.has_classes and _with_lesion(data)):
        raise UserError("shortcuts=true: needs a run with classes, and benign or malignant images with a lesion mask")
    trainer = build_trainer(settings, [], {}, directory)
    summary = _start_summary(config, source, source_directory, data, trainer)
    log.info(
        "%s of %s on %s, split %s: %d test images; %s",
        *(summary.model, source_directory, summary.data["name"], summary.split["protocol"], summary.data["test"]),
        summary.device,
    )
    learnt = source.data.get("classes") or list(CLASSES)
    if foreign := [name for name in summary.data["classes"] if name not in learnt]:
        log.info(
            "the run has learnt no %s scans, which are tested here; data.classes=[%s] leaves them out",
            *(" or ".join(foreign), ",".join(learnt)),
        )
    log.info(leak_line(summary) if summary.split["leaked"] is not None else _UNCOUNTED)
    tracker: WandbRun | None = None
    with locked(directory):
        refuse_result(directory)  # another process may have finished meanwhile
        try:
            tracker = _start_tracker(config, summary, resolved)
            write_inputs(directory, resolved, data)
            clock = time.perf_counter()
            trainer.test(task, datamodule=data, verbose=False)
            summary.metrics |= plain_metrics(task.results["test"], "test")
            summary.seconds["test"] = time.perf_counter() - clock
            rows = with_columns(task.predictions(), data)
            summary.metrics |= _without_normal(rows)
            write_rows(directory / PREDICTIONS, rows, rows[0])
            masks = task.predicted_masks()
            write_masks(directory / MASKS, masks)
            _copy_source(source_directory, directory)
            if flags:
                write_rows(directory / FLAGS, flags, ("image", "flag"))
            if config.stress:
                write_rows(directory / STRESS, _stress(task, data, trainer, summary), _stress_columns(task))
            if config.shortcuts:
                found = list(_shortcuts(task, data, trainer))
                write_rows(directory / SHORTCUTS, found, found[0])
            if explainer:
                task.to(trainer.strategy.root_device)  # after a test it lies in main memory
                summary.metrics |= _explain(explainer, data, rows, directory)
            summary.status = "finished"
            if tracker:
                tracker.log_result(summary, rows, data.pictures(), data.true_masks(), masks)
                tracker.log_explanations(directory / EXPLANATIONS, rows, data.pictures())
        except BaseException as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            summary.status, summary.error = "failed", f"{kind}{one_line(error)}"
            raise
        finally:
            if summary.status == "finished" or isinstance(summary.error, str):
                summary.seconds["total"] = time.perf_counter() - started
                with contextlib.suppress(OSError):  # a full disk must not hide the first error
                    write_summary(directory, summary)
            if tracker:
                tracker.finish(failed=summary.status != "finished")
    shown = ("accuracy", "accuracy_without_normal", "f1", "auroc_malignant", "dice", "iou")
    figures = [
        f"test/{name} {summary.metrics[f'test/{name}']:.4f}" for name in shown if f"test/{name}" in summary.metrics
    ]
    log.info("%s\nresult directory: %s", "  ".join(figures), directory)
    return summary


_UNCOUNTED = "leaks: not counted, because the data that the run learnt from are not at hand"


def _start_summary(
    config: EvalConfig, source: Summary, source_directory: Path, data: BusiDataModule, trainer: Trainer
) -> Summary:
    """The source's record, with what is evaluated in place of what was trained on."""
    leaked = _leaked(source, source_directory, data)
    return replace(
        source,
        status="failed",
        error=None,
        split=split_record(data.manifest, leaked),
        data={
            "name": config.data.name,
            "root": str(data.index.root.resolve()),
            "digest": data.index.digest,
            "train": source.data.get("train"),
            "val": source.data.get("val"),
            "test": len(data.manifest.test),
            "classes": sorted({case.label for case in _tested(data)} - {""}, key=CLASSES.index),
        },
        metrics={name: value for name, value in source.metrics.items() if name.startswith("val/")},
        seconds={},
        device=torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else "cpu",
        precision=str(trainer.precision),
        wandb=None,
        command=config.command,
        source={
            "directory": str(source_directory.resolve()),
            "data": source.data.get("name"),
            "data_digest": source.data.get("digest"),
            "split": source.split,
            "test": source.data.get("test"),
            "metrics": {name: value for name, value in source.metrics.items() if name.startswith("test/")},
        },
        **environment_record(),
    )


def _start_tracker(config: EvalConfig, summary: Summary, resolved: Any) -> WandbRun | None:
    settings = wandb_settings(config.logger)
    if settings is None:
        return None
    directory = Path(config.run_dir)
    mode = choose_mode(settings, f"'{directory}'/wandb/offline-run-*")
    name = f"{summary.experiment}-on-{summary.data['name']}"
    tracker = WandbRun(settings, mode, directory, name, "eval", OmegaConf.to_container(resolved))  # type: ignore[arg-type]
    summary.wandb = tracker.record
    tracker.log_start(summary)
    return tracker


def _tested(data: BusiDataModule) -> list[Case]:
    tested = set(data.manifest.test)
    return [case for case in data.index.cases if case.case_id in tested]


def _has_lesion(case: Case) -> bool:
    return case.mask_known and case.lesion_pixels > 0


def _with_lesion(data: BusiDataModule) -> list[Case]:
    return [case for case in _tested(data) if _has_lesion(case) and case.label in ("benign", "malignant")]


def _leaked(source: Summary, source_directory: Path, data: BusiDataModule) -> int | None:
    """Test images that the run has learnt from, or that have a near-copy or their patient among those.

    None where the data that it learnt from are not at hand. Patients are not compared across datasets, because equal
    names need not mean the same person.
    """
    try:
        index = data.index
        if index.digest == source.data.get("digest"):
            learnt = _learnt(source_directory, index)
            known = replace(data.manifest, train=learnt.train, val=learnt.val)
            same = {*learnt.train, *learnt.val}
            return len({*known.leaked(data.groups), *(case_id for case_id in data.manifest.test if case_id in same)})
        root = source.data.get("root")
        if not root or not Path(root).is_dir():
            return None
        source_index = index_dataset(root)
        if source_index.digest != source.data.get("digest"):
            return None
        learnt = _learnt(source_directory, source_index)
    except UserError as error:
        log.info("leaks: %s", one_line(error))
        return None
    log.info("looking for near-copies of the test images among those that the run has learnt from")
    train = {*learnt.train, *learnt.val}
    cases = [*_named("learnt", source_index, train), *_named("test", index, set(data.manifest.test))]
    joined = Index(Path("/"), tuple(cases))
    groups = cached_groups(joined, data.cache_dir)
    together = Manifest("all", 0, None, "", *_split_names(cases))
    pixels = {case.content_hash for case in source_index.cases if case.case_id in train}
    equal = {f"test/{case.case_id}" for case in _tested(data) if case.content_hash in pixels}  # also without features
    return len({*together.leaked(groups), *equal})


def _learnt(source: Path, index: Index) -> Manifest:
    """What a run has learnt from: its manifest, but for the classes and the number of scans that it used."""
    manifest = read_manifest(source / SPLIT, index)
    try:
        used: Any = OmegaConf.load(source / CONFIG)
        limit, classes = used.data.subset, used.data.classes
    except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException, AttributeError):
        return manifest
    labels = {case.case_id: case.label for case in index.cases}
    return manifest.subset(labels, limit, STRATA if classes is None else tuple(classes))


def _named(prefix: str, index: Index, chosen: set[str]) -> Iterator[Case]:
    """Cases that can stand in an index with those of other datasets."""
    root = index.root.resolve()
    for case in index.cases:
        if case.case_id in chosen:
            masks = tuple(str(root / mask) for mask in case.masks)
            yield replace(case, case_id=f"{prefix}/{case.case_id}", image=str(root / case.image), masks=masks)


def _split_names(cases: Sequence[Case]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    train, test = ([c.case_id for c in cases if c.case_id.startswith(prefix)] for prefix in ("learnt/", "test/"))
    return tuple(train), (), tuple(test)


def _without_normal(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Accuracy between benign and malignant, of test images without normal ones; says what is compared."""
    if "prediction" not in rows[0] or {row["label"] for row in rows} != {"benign", "malignant"}:
        return {}
    right = [(row["p_malignant"] > row["p_benign"]) == (row["label"] == "malignant") for row in rows]
    log.info(
        "the test images are benign and malignant alone: auroc_malignant compares malignant with the rest by the "
        "probability of malignant; accuracy counts a scan called normal as wrong; accuracy_without_normal takes the "
        "more probable one of benign and malignant"
    )
    return {"test/accuracy_without_normal": sum(right) / len(right)}


def _copy_source(source: Path, directory: Path) -> None:
    """Take along what intervals, operating points and calibration need of the run, so that the result stands alone."""
    for name, copy in ((PREDICTIONS, SOURCE_PREDICTIONS), (VALIDATION, VALIDATION)):
        if (source / name).is_file():
            write_atomically(directory / copy, (source / name).read_bytes())


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


class _ChangedScans(Dataset[dict[str, Any]]):
    """Test scans as :class:`ScanDataset` has them, changed at their own resolution before they are resized."""

    def __init__(self, root: Path, cases: Sequence[Case], image_size: int, change: Changed, originals: bool) -> None:
        self._root, self._cases, self._size = root, cases, image_size
        self._change, self._originals = change, originals

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, number: int) -> dict[str, Any]:
        case = self._cases[number]
        seed = int(case.content_hash[:8], 16)  # so that a scan meets the same noise in any test set
        image, mask = self._change(*read_case(self._root, case), seed)
        scan = {
            "image": torch.from_numpy(np.array(resize_scan(image, self._size)))[None],
            "label": class_number(case.label),
            "case_id": case.case_id,
            "mask": torch.from_numpy(resize_mask(mask, self._size).astype(np.uint8))[None],
        }
        return {**scan, "original_mask": torch.from_numpy(mask)[None]} if self._originals else scan


def _test_changed(
    task: BaseTask, data: BusiDataModule, trainer: Trainer, cases: Sequence[Case], change: Changed
) -> dict[str, Any]:
    """Test metrics on changed scans; the task keeps their predictions."""
    originals = isinstance(task, MaskTask) and task.masks.original
    scans = _ChangedScans(data.index.root, cases, task.image_size, change, originals)
    trainer.test(task, dataloaders=data.eval_loader(scans), verbose=False)
    return plain_metrics(task.results["test"], "test")


def _stress_columns(task: BaseTask) -> list[str]:
    return ["ladder", "severity", *(name for name in task.metric_names if name != "threshold")]


def _stress(task: BaseTask, data: BusiDataModule, trainer: Trainer, summary: Summary) -> list[dict[str, Any]]:
    """Rows of ``stress.csv``: the metrics at each step of each ladder; severity 0 is the scan as it is."""
    rows = [{"ladder": "none", "severity": 0, **_bare(summary.metrics)}]
    cases = _tested(data)
    for ladder in LADDERS:
        for severity in SEVERITIES:
            metrics = _test_changed(task, data, trainer, cases, partial(_degraded, ladder, severity))
            rows.append({"ladder": ladder, "severity": severity, **_bare(metrics)})
        log.info("stress: %s done", ladder)
    return rows


def _degraded(ladder: str, severity: int, image: Gray, mask: Mask, seed: int) -> tuple[Gray, Mask]:
    return degrade(image, mask, ladder, severity, seed)


def _altered(alter: Callable[[Gray, Mask], Gray] | None, image: Gray, mask: Mask, seed: int) -> tuple[Gray, Mask]:
    return image if alter is None else alter(image, mask), mask


def _bare(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("test/"): value for name, value in metrics.items() if name.startswith("test/")}


def _shortcuts(task: BaseTask, data: BusiDataModule, trainer: Trainer) -> Iterator[dict[str, Any]]:
    """Rows of ``shortcuts.csv``: what is predicted for scans with a lesion, whole, without it, and for it alone."""
    cases = _with_lesion(data)
    conditions: dict[str, Callable[[Gray, Mask], Gray] | None] = {
        "whole scan": None,
        "lesion blanked": without_lesion,
        "lesion alone": lesion_alone,
    }
    columns = ("image", "label", "prediction", *(f"p_{name}" for name in CLASSES))
    for condition, alter in conditions.items():
        _test_changed(task, data, trainer, cases, partial(_altered, alter))
        for row in task.predictions():
            group = data.group(row["image"])
            yield {"condition": condition, **{name: row[name] for name in columns}, "group": group}


def _explain(
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
    log.info("explained %d scans in %.0f s", len(rows), time.perf_counter() - clock)
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
