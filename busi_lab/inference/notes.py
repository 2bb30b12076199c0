"""What a user should know of a scan or of what was predicted for it, before anyone relies on it."""

from collections.abc import Sequence

import cv2
import numpy as np

from busi_lab.data.scan import Gray, Scan
from busi_lab.inference.measures import Lesion
from busi_lab.inference.prediction import UsedRun

_ULTRASOUND = ("US", "IVUS")
_CONTRAST = 20  # gray levels between the darkest and the brightest hundredth; BUSI's scans have 121 at least
_OF_A_MASK = 0.995  # share of pixels near the darkest or the brightest level
_NEAR = 4  # gray levels; masks that were saved as JPEG are no sharper
_AREA_MM2, _AREA_SHARE = 5.0, 0.001  # of a lesion that is no speck


def notes_on_runs(runs: Sequence[UsedRun]) -> tuple[str, ...]:
    """What holds for every scan that these runs are applied to, in short sentences; none where nothing is odd."""
    of_phantoms = {run.directory: run.of_phantoms for run in runs}  # a joint run stands there once for each role
    found = sum(of_phantoms.values())
    if not found:
        return ()
    if len(of_phantoms) == 1:
        return ("this run has learnt from phantoms alone: its answer says nothing about a patient",)
    runs_have = f"{found} of these {len(of_phantoms)} runs {'has' if found == 1 else 'have'}"
    return (f"{runs_have} learnt from phantoms alone: the answer says nothing about a patient",)


def find_notes(
    scan: Scan, label: str | None, lesions: Sequence[Lesion] | None, without_lesion: str | None
) -> tuple[str, ...]:
    """Short sentences, none where nothing is odd.

    Args:
        scan: what was predicted.
        label: the predicted class; None without a classifier.
        lesions: the predicted lesions, largest first; None without a segmenter.
        without_lesion: the class of scans without a lesion; None where there is none.
    """
    notes = []
    modality = scan.origin.modality
    if modality is not None and modality not in _ULTRASOUND:
        notes.append(f"the modality is {modality}, expected US")
    notes += _of_pixels(scan.pixels)
    if label is not None and lesions is not None and without_lesion is not None:
        notes += _contradiction(scan.pixels.size, label, lesions, without_lesion)
    return tuple(notes)


def _of_pixels(pixels: Gray) -> list[str]:
    histogram = cv2.calcHist([pixels], [0], None, [256], [0, 256]).ravel()
    share = histogram.cumsum() / histogram.sum()
    levels = np.flatnonzero(histogram)
    lowest, largest = int(levels[0]), int(levels[-1])
    near = histogram[: lowest + _NEAR + 1].sum() + histogram[max(largest - _NEAR, lowest + _NEAR + 1) :].sum()
    if lowest < largest and (len(levels) == 2 or (largest - lowest > 8 * _NEAR and near >= _OF_A_MASK * pixels.size)):
        return ["the scan has two gray levels, as a mask"]
    dark, bright = int(np.searchsorted(share, 0.01)), int(np.searchsorted(share, 0.99))
    if bright - dark < _CONTRAST:
        return [f"the scan has hardly any contrast: 98 % of its gray levels are from {dark} to {bright} of 255"]
    return []


def _contradiction(pixels: int, label: str, lesions: Sequence[Lesion], without_lesion: str) -> list[str]:
    """What class and mask say against each other."""
    if label != without_lesion:
        return [] if lesions else [f"{label}, but no lesion was found"]
    if not lesions:
        return []
    area, mm2 = lesions[0].area_pixels, lesions[0].area_mm2
    if mm2 is not None:
        return [f"{label}, beside a lesion of {mm2:.0f} mm²"] if mm2 >= _AREA_MM2 else []
    return [f"{label}, beside a lesion of {area:,} pixels"] if area >= _AREA_SHARE * pixels else []
