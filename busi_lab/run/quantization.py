"""INT8 by NNCF, from OpenVINO's file and the run's training scans, with a gate on its validation scans."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from busi_lab.classes import Classes
from busi_lab.exported.sessions import require
from busi_lab.metrics import overlap
from busi_lab.run.graph import save_openvino
from busi_lab.run.parity import GateError, Logits, Scans, written_logits

CALIBRATION_SCANS = 300
"""Training scans from which ranges are taken, at most; NNCF's own default."""

MAX_DICE_DROP = 0.002
"""How much the mean Dice of validation lesions may fall."""

MAX_WORSE = 1 / 50
"""The share of validation scans whose label may change from the right one to a wrong one."""


@dataclass(frozen=True)
class Truth:
    """Validation scans with what is known of them.

    Attributes:
        case_ids: of the scans.
        scans: uint8 ``[N, 1, S, S]``.
        labels: position of the class, int64 ``[N]``; None without classes.
        masks: bool ``[N, 1, S, S]``; None without masks.
        classes: that ``labels`` count.
        threshold: lesion probability from which on a pixel is lesion.
    """

    case_ids: Sequence[str]
    scans: Scans
    labels: NDArray[np.int64] | None
    masks: NDArray[np.bool_] | None
    classes: Classes
    threshold: float | None

    def predicted(self, logits: Logits) -> NDArray[np.int64]:
        """Positions of the most probable classes."""
        positions: NDArray[np.int64] = logits["classes"].argmax(axis=1)
        return positions

    def accuracy(self, logits: Logits) -> float | None:
        """Share of scans with the right label; None without classes."""
        return None if self.labels is None else float((self.predicted(logits) == self.labels).mean())

    def dice(self, logits: Logits) -> float | None:
        """Mean Dice of the scans with a lesion, at the network's resolution; None where there are none."""
        if self.masks is None or self.threshold is None or not self.masks.any():
            return None
        found = torch.from_numpy(logits["masks"]).sigmoid() >= self.threshold
        truth = torch.from_numpy(self.masks)
        counts = [each.flatten(1).sum(dim=1) for each in (found & truth, found, truth)]
        return float(overlap(*counts)[0].nanmean())


@dataclass(frozen=True)
class Verdict:
    """Validation figures before and after, and the scans whose label changes, in words."""

    accuracy: tuple[float, float] | None
    dice: tuple[float, float] | None
    changed: tuple[str, ...]
    worse: int
    scans: int

    @property
    def broken(self) -> str | None:
        """Which bound it breaks, in words; None where it breaks none."""
        if self.worse > MAX_WORSE * self.scans:
            return (
                f"{self.worse} of {self.scans} labels change for the worse, expected at most 1 in {1 / MAX_WORSE:.0f}"
            )
        if self.dice is not None and not self.dice[0] - self.dice[1] <= MAX_DICE_DROP:
            return f"Dice falls from {self.dice[0]:.4f} to {self.dice[1]:.4f}, expected at most {MAX_DICE_DROP:g} less"
        return None

    def figures(self) -> str:
        """All of it in a line."""
        pairs = (("accuracy", self.accuracy), ("Dice", self.dice))
        told = [f"{name} {pair[0]:.4f} -> {pair[1]:.4f}" for name, pair in pairs if pair is not None]
        if self.accuracy is not None:
            told.append(f"{len(self.changed)} labels change, {self.worse} for the worse")
        return ", ".join(told)


def judge(truth: Truth, before: Logits, after: Logits) -> Verdict:
    """What becomes of validation figures."""
    changed: list[str] = []
    worse = 0
    if truth.labels is not None:
        old, new = truth.predicted(before), truth.predicted(after)
        worse = int(((old == truth.labels) & (new != truth.labels)).sum())
        for i in np.flatnonzero(old != new).tolist():
            names = [truth.classes.name(int(number)) for number in (old[i], new[i], truth.labels[i])]
            changed.append(f"{truth.case_ids[i]}: {names[0]} -> {names[1]}, is {names[2]}")
    accuracy, dice = (
        None if first is None or second is None else (first, second)
        for first, second in (
            (truth.accuracy(before), truth.accuracy(after)),
            (truth.dice(before), truth.dice(after)),
        )
    )
    return Verdict(accuracy, dice, tuple(changed), worse, len(truth.scans))


def quantize_checked(path: Path, calibration: Scans, truth: Truth, before: Logits) -> tuple[Verdict, bool]:
    """Replace a file of OpenVINO by its INT8: plain first, with accuracy control where that breaks a bound.

    Args:
        path: of the file.
        calibration: training scans uint8 ``[N, 1, S, S]``.
        truth: of the validation scans.
        before: their logits by the run itself.

    Returns:
        What becomes of validation figures, and whether accuracy control was needed.

    Raises:
        GateError: it breaks a bound even so; says which.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # no CUDA is needed here
    nncf, openvino = require("nncf"), require("openvino")
    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(str(path))
    scans = nncf.Dataset([{"image": scan[None]} for scan in calibration])
    broken = None
    for control in (False, True):
        with contextlib.redirect_stdout(sys.stderr):  # progress
            if control:
                held_out = nncf.Dataset([{"image": scan[None]} for scan in truth.scans])
                quantized = nncf.quantize_with_accuracy_control(
                    *(model, scans, held_out, _score(truth)), max_drop=MAX_DICE_DROP / 2, subset_size=len(calibration)
                )
            else:
                quantized = nncf.quantize(model, scans, subset_size=len(calibration))
        written = path.with_name("int8.xml")
        save_openvino(quantized, written)
        verdict = judge(truth, before, written_logits(written, truth.scans, list(before)))
        broken = verdict.broken
        if broken is None:
            for suffix in (".xml", ".bin"):
                written.with_suffix(suffix).replace(path.with_suffix(suffix))
            return verdict, control
    raise GateError(f"INT8, with accuracy control: {broken}; nothing was kept: export without --int8")


def _score(truth: Truth) -> Callable[[Any, Iterable[Any]], tuple[float, None]]:
    """The mean of accuracy and Dice, as far as the task has them, of a model that is compiled."""

    def score(model: Any, items: Iterable[Any]) -> tuple[float, None]:
        answers = [model(item) for item in items]
        names = [output.get_any_name() for output in model.outputs]
        logits = {name: np.concatenate([answer[name] for answer in answers]) for name in names}
        found = [value for value in (truth.accuracy(logits), truth.dice(logits)) if value is not None]
        return float(np.mean(found)), None

    return score
