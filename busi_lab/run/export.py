"""A finished run -> a directory that needs no torch: its network as ONNX or for OpenVINO, checked, or nothing."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from busi_lab.config import OptimConfig, SchedulerConfig, parse_eval_config
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.groups import NO_SEARCH
from busi_lab.data.phantom import make_phantom
from busi_lab.data.resizing import resize_scan
from busi_lab.data.scan_dataset import ScanDataset
from busi_lab.errors import UserError
from busi_lab.exported.record import EXPORT, MODELS, SCHEMA, ExportRecord, file_digests
from busi_lab.exported.sessions import require
from busi_lab.files import new_folder, write_json
from busi_lab.inference.first_stage import checkpoint_digest
from busi_lab.plurals import counted
from busi_lab.run.build import build_data
from busi_lab.run.environment import quieten
from busi_lab.run.graph import Graph, output_names, write_onnx, write_openvino
from busi_lab.run.own_data import own_data, saved_group
from busi_lab.run.parity import Scans, check_parity, torch_logits
from busi_lab.run.quantization import CALIBRATION_SCANS, Truth, Verdict, quantize_checked
from busi_lab.run_directory import CONFIG, PREDICTIONS, SPLIT, VALIDATION
from busi_lab.summary import Summary
from busi_lab.tasks import BaseTask, load_task

COMPARED_SCANS = 32
"""Scans on which the logits of run and file are compared."""

_EXAMPLE = "example.py"


def make_export(run: Path, out: Path, to: str, int8: bool = False, root: Path | None = None) -> list[str]:
    """Write an exported run, whole or not at all; :mod:`busi_lab.run.parity` says what it must hold.

    Args:
        run: directory of a finished run, or of an ensemble.
        out: a new or an empty folder.
        to: ``onnx`` or ``openvino``.
        int8: quantise it, for OpenVINO alone.
        root: folder of the data that the run has learnt from; None for where it was.

    Returns:
        What a user should know, in lines.

    Raises:
        GateError: what was written does not answer as the run does.
        UserError: an input is wrong, or a library is missing.
    """
    if int8 and to != "openvino":
        raise UserError(f"--int8 with --to {to}: expected --to openvino, for which NNCF quantises")
    libraries = ("onnx", "onnxscript", *(("onnxruntime",) if to == "onnx" else ("openvino",)))
    for library in (*libraries, *(("nncf",) if int8 else ())):
        require(library)
    quieten()
    with new_folder(out) as directory:
        task, summary = load_task(run)
        _refuse(run, task, summary, int8)
        outputs = output_names(task)
        data = _run_data(run, summary, task, root, required=int8)
        scans, compared_on = _compared(data, task)
        model = directory / MODELS[to]
        write_network(task, outputs, model, str(run))
        difference = check_parity(task, scans, outputs, model)
        record = _record(run, task, to, outputs, libraries)
        record = replace(record, compared_on=compared_on, difference=difference)
        lines = [f"parity: on {compared_on} logits differ by {difference:.1e} x max(1, |logit|) at most"]
        if int8:
            assert data is not None
            verdict, quantization, told = _quantize(model, data, task, outputs)
            versions = {**record.versions, "nncf": version("nncf")}
            record = replace(record, int8=True, quantization=quantization, versions=versions)
            lines += [*told, *(f"  {change}" for change in verdict.changed)]
        names = _copy(run, directory, to)
        record = replace(record, files=file_digests(directory, names))
        write_json(directory / EXPORT, asdict(replace(summary, export=record)))
    size = sum((out / name).stat().st_size for name in names if name.startswith("model."))
    kind = f"{to}{' INT8' if int8 else ''}"
    return [
        f"{summary.experiment}: {summary.model} as {kind}, {size / 1e6:.1f} MB, gives {' and '.join(outputs)}",
        *lines,
    ]


def write_network(task: BaseTask, outputs: Sequence[str], path: Path, what: str) -> None:
    """Write the network of a task as ONNX or for OpenVINO, as the ending of ``path`` says."""
    graph = Graph(task, outputs).eval()
    if path.suffix == ".onnx":
        write_onnx(graph, task.image_size, outputs, path, what)
        return
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / MODELS["onnx"]
        write_onnx(graph, task.image_size, outputs, source, what)
        write_openvino(source, path)


def _refuse(run: Path, task: BaseTask, summary: Summary, int8: bool) -> None:
    """Refuse what an export could not hold."""
    if summary.export is not None:
        raise UserError(f"{run} is exported already; give the run that it is of, {summary.export.run}")
    if summary.first_stage is not None:
        raise UserError(
            f"{run}: sees scans that are cut by another run (data.roi), which an export does not hold; use the run "
            "itself"
        )
    if int8 and task.kind == "localization":
        raise UserError(
            f"--int8: masks of {run} are class activation maps (task=localization), whose Dice is not judged; leave "
            "--int8 out"
        )


def _run_data(run: Path, summary: Summary, task: BaseTask, root: Path | None, required: bool) -> BusiDataModule | None:
    """The data and the split of a run; None where its folder is gone and no data are required."""
    data = own_data(run, summary)
    data.update(root=str(root) if root else data.root, num_workers=0, cache_dir="auto")
    if root is not None:
        data.update(sources=None)  # that folder holds them all
    made = data.get("phantom") is not None or data.get("sources") is not None
    if root is None and not made and not (data.root and Path(data.root).is_dir()):
        if required:
            raise UserError(
                f"--int8 needs scans to calibrate on, and the data of {run} are not in {data.root} now; give --root DIR"
            )
        return None
    split = saved_group(run, "split")
    split.update(manifest=str(run / SPLIT), exclude=None, groups=NO_SEARCH)
    content = {"run_dir": str(run), "run": str(run), "data": data, "split": split}
    config = parse_eval_config(OmegaConf.create(content))
    config.data.image_size = task.image_size
    return build_data(config.data, config.split, task)


def _compared(data: BusiDataModule | None, task: BaseTask) -> tuple[Scans, str]:
    """Scans uint8 ``[N, 1, S, S]`` to compare logits on, and what they are."""
    if data is not None and len(data.val_set):
        chosen = _spread(len(data.val_set), COMPARED_SCANS)
        return _images(data.val_set, chosen), f"{counted(len(chosen), 'validation scan')} of the run"
    size, draw = task.image_size, np.random.default_rng(0)
    side = max(size, 64)
    names = ("benign", "malignant", "normal")
    drawn = [make_phantom(names[i % 3], draw, side, side)[0] for i in range(COMPARED_SCANS)]
    why = "the run has no validation scans" if data is not None else "the run's own data are not here"
    return np.stack([resize_scan(scan, size) for scan in drawn])[:, None], f"{COMPARED_SCANS} phantoms ({why})"


def _spread(count: int, most: int) -> list[int]:
    """Up to ``most`` of so many positions, evenly over all."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, most)).round()})


def _images(scans: ScanDataset, positions: Sequence[int]) -> Scans:
    return np.stack([scans[position]["image"].numpy() for position in positions])


def _quantize(
    model: Path, data: BusiDataModule, task: BaseTask, outputs: Sequence[str]
) -> tuple[Verdict, dict[str, Any], list[str]]:
    """Quantise the written file; returns the verdict, its record, and what is said of it."""
    for split, scans in (("training", data.train_set), ("validation", data.val_set)):
        if not len(scans):
            raise UserError(f"--int8 needs {split} scans, and the split of this run has none; leave --int8 out")
    calibration = _images(data.train_set, _spread(len(data.train_set), CALIBRATION_SCANS))
    held_out = [data.val_set[position] for position in range(len(data.val_set))]
    if task.needs_masks and not any(bool(scan["mask"].any()) for scan in held_out):
        raise UserError("--int8 is judged by the Dice of validation lesions, and this run has none; leave --int8 out")
    threshold = None if task.mask_threshold is None else float(task.mask_threshold)
    truth = Truth(
        data.val_set.case_ids,
        np.stack([scan["image"].numpy() for scan in held_out]),
        np.array(data.val_set.labels) if task.needs_labels else None,
        np.stack([scan["mask"].numpy() for scan in held_out]).astype(np.bool_) if task.needs_masks else None,
        task.roles,
        threshold,
    )
    verdict, control = quantize_checked(model, calibration, truth, torch_logits(task, truth.scans, outputs))
    how = f"calibrated on {counted(len(calibration), 'training scan')}{', with accuracy control' if control else ''}"
    quantization = {"calibration_scans": len(calibration), "accuracy_control": control, **asdict(verdict)}
    return verdict, quantization, [f"INT8, {how}; on {counted(verdict.scans, 'validation scan')} {verdict.figures()}"]


def _record(run: Path, task: BaseTask, to: str, outputs: Sequence[str], libraries: Sequence[str]) -> ExportRecord:
    """What is known of the export before it is compared."""
    threshold = None if task.mask_threshold is None else float(task.mask_threshold)
    settings: dict[str, Any] = {key: value for key, value in task.hparams.items() if key != "model"}
    settings |= {"optim": asdict(OptimConfig()), "scheduler": asdict(SchedulerConfig()), "channels_last": False}
    settings["views"] = "none"  # the graph has them all
    if "threshold" in settings:  # perhaps one that was chosen on validation
        settings["threshold"] = threshold
    return ExportRecord(
        schema=SCHEMA,
        format=to,
        outputs=tuple(outputs),
        classes=tuple(task.roles.names) if task.needs_labels else (),
        image_size=task.image_size,
        mask_threshold=threshold,
        task=settings,
        run=str(run.resolve()),
        checkpoint=checkpoint_digest(run),
        versions={name: version(name) for name in ("busi-lab", "torch", *libraries)},
    )


def _copy(run: Path, directory: Path, to: str) -> list[str]:
    """Take along what an evaluation needs of the run, and an example; returns the names of all files."""
    for name in (CONFIG, SPLIT, PREDICTIONS, VALIDATION):
        if (run / name).is_file():
            shutil.copyfile(run / name, directory / name)
    if to == "onnx":
        shutil.copyfile(Path(__file__).parents[1] / "exported" / _EXAMPLE, directory / _EXAMPLE)
    return sorted(path.name for path in directory.iterdir())
