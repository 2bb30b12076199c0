"""Trained runs applied to scans: class probabilities and lesion masks at the scan's own resolution."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from busi_lab.data.lesion_cut import lesion_cut
from busi_lab.data.reading import read_scan
from busi_lab.data.resizing import resize_scan
from busi_lab.data.scan import Gray, Mask, Scan
from busi_lab.errors import UserError
from busi_lab.exported.sessions import Runtime
from busi_lab.inference.confidence import calibrate, find_calibration
from busi_lab.inference.first_stage import recorded_runs
from busi_lab.inference.measures import measure
from busi_lab.inference.notes import find_notes, notes_on_runs
from busi_lab.inference.prediction import Prediction, UsedRun
from busi_lab.inference.thresholds import set_thresholds
from busi_lab.machine import cpu_count
from busi_lab.models import Outputs
from busi_lab.models.exported import Exported
from busi_lab.plurals import counted
from busi_lab.summary import FirstStageRecord, Summary
from busi_lab.tasks import BaseTask, load_task
from busi_lab.tasks.loading import task_classes

Outline = tuple[Mask, NDArray[np.float32] | None]
"""A lesion mask and the lesion probabilities that it was cut from, ``[H, W]`` each; None where these are none."""


class Predictor:
    """Runs that are loaded once and applied to any number of scans.

    A classifier that has learnt from cut scans (``data.roi``) brings its first stage, which cuts them here as well.

    Args:
        classifiers: directories of runs with a class output, whose probabilities are averaged.
        segmenters: directories of runs with a mask output, whose lesion probabilities are averaged, as are their
            thresholds. A joint run may stand in both lists, and is applied once.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` and so on.
        tta: average over each scan and its mirror image.
        calibrated: divide the class logits of each run by the temperature that it has found on its validation images.
        runtime: how networks are applied on the CPU.
        coverage: that prediction sets are made for; None makes none.

    Raises:
        UserError: no run, a run that cannot be used, has lost its first stage, lacks a temperature or thresholds, or no
            device.
    """

    def __init__(
        self,
        classifiers: Sequence[Path],
        segmenters: Sequence[Path],
        device: str = "auto",
        tta: bool = False,
        calibrated: bool = False,
        runtime: Runtime = Runtime(),  # noqa: B008 # it is frozen
        coverage: float | None = None,
    ) -> None:
        if not classifiers and not segmenters:
            raise UserError("no run to predict with; give a classifier, a segmenter, or a run for both")
        self.device = find_device(device)
        self._tta = tta
        roles = [(path, "classifier") for path in classifiers] + [(path, "segmenter") for path in segmenters]
        torch.set_num_threads(runtime.threads or min(torch.get_num_threads(), cpu_count()))
        loaded = {path: load_task(path, runtime) for path, _ in roles}
        for path, role in roles:
            task = loaded[path][0]
            if not (task.needs_masks if role == "segmenter" else task.needs_labels):
                raise UserError(f"{path} is a {task.kind} run and cannot be the {role}; give another run")
        self._first_stages: dict[Path, tuple[Predictor, FirstStageRecord]] = {}
        for path, (task, summary) in loaded.items():
            if summary.first_stage is not None and not task.needs_masks:
                first = Predictor([], recorded_runs(path, summary.first_stage), device)
                self._first_stages[path] = first, summary.first_stage
        self._temperatures: dict[Path, float] = {}
        if calibrated:
            self._temperatures = _temperatures({path: loaded[path][1] for path in classifiers})
        self.set_thresholds: Mapping[str, float] | None = None
        """By class, the probability from which on it is in the prediction set; 0 puts it into each."""
        if coverage is not None:
            summaries = {path: loaded[path][1] for path in classifiers}
            changed = tta or calibrated or runtime.precision != "32"
            self.set_thresholds = set_thresholds(summaries, coverage, changed)
        summaries = {path: loaded[path][1] for path in segmenters}
        self._calibration = find_calibration(summaries, tta or runtime.precision != "32")
        self._tasks = {path: task.to(self.device) for path, (task, _) in loaded.items()}
        self.classifiers, self.segmenters = list(classifiers), list(segmenters)
        first_runs = {run.directory: run for first, _ in self._first_stages.values() for run in first.runs}
        self.runs: tuple[UsedRun, ...] = (
            *(
                _used(path, *loaded[path], role, self._temperatures.get(path) if role == "classifier" else None)
                for path, role in roles
            ),
            *(replace(run, role="first stage") for run in first_runs.values()),
        )
        self.notes = notes_on_runs(self.runs)
        """What holds for every scan; the notes of each prediction begin with it."""
        self.classes = self._agreed_classes()
        self._without_lesion = self._tasks[(self.classifiers or self.segmenters)[0]].roles.without_lesion
        self.model_seconds = 0.0

    def _agreed_classes(self) -> tuple[str, ...]:
        """The classes of the classifiers, which must be the same; without one, those of the segmenter's data."""
        first, *others = self.classifiers or self.segmenters[:1]
        names = self._tasks[first].roles.names
        for path in others:
            if (own := self._tasks[path].roles.names) != names:
                raise UserError(
                    f"{path} predicts {', '.join(own)}, and {first} {', '.join(names)}: their probabilities have no "
                    "mean; give runs of the same classes"
                )
        return names

    def task(self, path: Path) -> BaseTask:
        """The task of one of the runs."""
        return self._tasks[path]

    @property
    def cuts_scans(self) -> bool:
        """Whether a classifier sees scans that a first stage has cut."""
        return bool(self._first_stages)

    def masks(self, images: Sequence[Gray]) -> list[Mask]:
        """Lesion masks, bool ``[H, W]``, of scans uint8 ``[H, W]`` of any sizes, by the segmenters.

        Raises:
            UserError: the scans do not fit into the device's memory.
        """
        with self._enough_memory(len(images)):
            found = self._outlines({path: self._apply(path, images) for path in self.segmenters}, images)
        return [mask for mask, _ in found]

    def predict(self, image: "Gray | Scan | Image.Image | Path | str") -> Prediction:
        """Predict one scan.

        Args:
            image: gray levels uint8 ``[H, W]``, a scan with its spacing, a picture of Pillow, or a file with one scan.

        Raises:
            UnreadableImageError: the file holds no scan, or several.
            ValueError: an array of another shape or type.
        """
        return self.predict_batch([as_scan(image)])[0]

    def predict_batch(self, scans: Sequence[Scan]) -> list[Prediction]:
        """Predict scans of any sizes together, in their order.

        Raises:
            UserError: they do not fit into the device's memory.
        """
        if not scans:
            return []
        with self._enough_memory(len(scans)):
            return self._predict(scans)

    @contextmanager
    def _enough_memory(self, scans: int) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            raise UserError(
                f"{self.device} has no memory for a batch of {counted(scans, 'scan')}; lower --batch-size"
            ) from None

    def _predict(self, scans: Sequence[Scan]) -> list[Prediction]:
        images = [scan.pixels for scan in scans]
        outputs = {path: self._apply(path, images) for path in self._tasks}
        probabilities = outlines = None
        if self.classifiers:
            probabilities = torch.stack([outputs[path][0] for path in self.classifiers]).mean(dim=0).tolist()
        if self.segmenters:
            outlines = self._outlines(outputs, images)
        found = []
        for i, scan in enumerate(scans):
            height, width = scan.pixels.shape
            mask, certainty = (None, None) if outlines is None else outlines[i]
            shares = None if probabilities is None else dict(zip(self.classes, probabilities[i], strict=True))
            lesions = None
            if mask is not None:
                lesions = calibrate(measure(mask, scan.spacing, scan.regions, certainty), self._calibration)
            prediction = Prediction(height, width, scan.spacing, shares, mask, lesions, self.runs)
            notes = find_notes(scan, prediction.label, lesions, self._without_lesion)
            calibrated = None if certainty is None else self._calibration is not None
            prediction = replace(prediction, notes=(*self.notes, *notes), confidence_calibrated=calibrated)
            found.append(replace(prediction, prediction_set=self._set(shares)))
        return found

    def _set(self, probabilities: Mapping[str, float] | None) -> tuple[str, ...] | None:
        lowest = self.set_thresholds
        if lowest is None or probabilities is None:
            return None
        return tuple(name for name, probability in probabilities.items() if probability >= lowest[name])

    def _outlines(self, outputs: Mapping[Path, tuple[Any, Any]], images: Sequence[Gray]) -> list[Outline]:
        return [
            self._outline([outputs[path][1][i] for path in self.segmenters], image.shape)
            for i, image in enumerate(images)
        ]

    def _seen(self, path: Path, images: Sequence[Gray]) -> Sequence[Gray]:
        """What a run sees of scans: all of them, or what its first stage leaves."""
        if path not in self._first_stages:
            return images
        first, record = self._first_stages[path]
        before = first.model_seconds
        masks = first.masks(images)
        self.model_seconds += first.model_seconds - before
        return [lesion_cut(image, mask, record.mode, record.margin) for image, mask in zip(images, masks, strict=True)]

    @torch.inference_mode()
    def _apply(self, path: Path, scans: Sequence[Gray]) -> tuple[Any, Any]:
        """Class probabilities ``[B, K]`` on the CPU, and mask logits ``[V, 1, S, S]`` of each scan in V views."""
        task, seen = self._tasks[path], self._seen(path, scans)
        images = torch.from_numpy(np.stack([resize_scan(image, task.image_size) for image in seen]))[:, None]
        clock = time.perf_counter()
        images = images.to(self.device)
        views = [images, images.flip(-1)] if self._tta else [images]
        outputs: list[Outputs] = [task(view) for view in views]
        masks: Any = None
        if outputs[0].masks is not None:
            straight = [output.masks.float() for output in outputs if output.masks is not None]
            masks = torch.stack([straight[0], *(view.flip(-1) for view in straight[1:])], dim=1)
        classes: Any = None
        if outputs[0].classes is not None:
            each = [output.classes.float() for output in outputs if output.classes is not None]
            scaled = torch.stack(each) / self._temperatures.get(path, 1.0)
            classes = scaled.softmax(dim=2).mean(dim=0).cpu()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.model_seconds += time.perf_counter() - clock
        return classes, masks

    @torch.inference_mode()
    def _outline(self, logits: Sequence[Tensor], shape: tuple[int, ...]) -> Outline:
        """Average what the runs say, ``[V, 1, S, S]`` each, at the scan's resolution, and cut it at their threshold."""
        views = [view for each in logits for view in each]  # as many of each run; one at a time at full size
        probability = torch.zeros(shape, device=self.device)
        for view in views:
            resized = F.interpolate(view[None], shape, mode="bilinear", align_corners=False)
            probability += resized[0, 0].sigmoid() / len(views)
        thresholds = [value for path in self.segmenters if (value := self._tasks[path].mask_threshold) is not None]
        mask = (probability >= torch.stack(thresholds).mean()).cpu().numpy()
        if not all(self._tasks[path].lesion_probabilities for path in self.segmenters):
            return mask, None
        return mask, probability.clamp(max=1).cpu().numpy()


def can_classify(task: str | None) -> bool:
    """Whether runs of a task, by the name that ``summary.json`` gives it, have a class output; unknown ones may."""
    kind = task_classes().get(str(task))
    return kind is None or kind.needs_labels


def can_segment(task: str | None) -> bool:
    """Whether runs of a task, by the name that ``summary.json`` gives it, have a mask output; unknown ones may."""
    kind = task_classes().get(str(task))
    return kind is None or kind.needs_masks


def as_scan(image: "Gray | Scan | Image.Image | Path | str") -> Scan:
    """What :meth:`Predictor.predict` takes, as a scan.

    Raises:
        UnreadableImageError: the file holds no scan, or several.
        ValueError: an array of another shape or type.
    """
    if isinstance(image, Scan):
        return image
    if isinstance(image, Path | str):
        return read_scan(Path(image))
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("L"))
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image: expected gray levels uint8 [H, W], found {image.dtype} {list(image.shape)}")
    return Scan(image, None, None)


def _temperatures(runs: Mapping[Path, Summary]) -> dict[Path, float]:
    """The temperature of each classifier, all of which must have one."""
    if not runs:
        raise UserError("--calibrated is of class probabilities, and no run here gives them; leave it out")
    found = {path: summary.temperature for path, summary in runs.items() if summary.temperature is not None}
    if missing := [path for path in runs if path not in found]:
        raise UserError(
            f"--calibrated: {missing[0]} has no temperature (of an older version, or none fits its validation images); "
            "leave it out"
        )
    return found


def _used(path: Path, task: BaseTask, summary: Summary, role: str, temperature: float | None) -> UsedRun:
    split = {key: getattr(summary.split, key) for key in ("protocol", "seed", "fold", "digest", "leaked")}
    network, backend = task.network, "torch"
    if isinstance(network, Exported):
        backend = network.session.name + (" int8" if summary.export is not None and summary.export.int8 else "")
    return UsedRun(
        str(path),
        role,
        summary.experiment,
        summary.model,
        summary.seed,
        split,
        temperature,
        backend,
        summary.data.of_phantoms,
    )


def find_device(name: str) -> torch.device:
    """The device that a setting means.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"--device {name}: not to be had here ({first[:100]}); expected auto, cpu or cuda") from None
    return device
