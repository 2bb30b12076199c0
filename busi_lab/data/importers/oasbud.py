"""OASBUD: radio-frequency echoes of 52 malignant and 48 benign lesions, two orthogonal planes each.

Piotrzkowska-Wróblewska et al., Open access database of raw ultrasonic signals acquired from malignant and benign breast
lesions, Medical Physics 44:6105, 2017; Zenodo 545928. As published with the data, ``OASBUD.mat`` holds an array of
structures ``data`` with ``id``, ``rf1``, ``rf2`` (samples x 510 lines), ``roi1``, ``roi2`` (the same size, 1 in the
lesion), ``birads`` and ``class`` (0 benign, 1 malignant).

B-mode: the envelope is the magnitude of the analytic signal (Hilbert transform along depth), in decibels below the
largest value of the plane, of which :data:`RANGE_DB` are drawn, black to white.

Pixels are not square. Between rows lie 1540 m/s / (2 x 40 MHz) = 0.01925 mm, the column ``axial_spacing_mm``. The
distance between lines is not part of the data, so ``spacing``, which would give areas and diameters, stays empty.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.signal import hilbert

from busi_lab.data.importers.item import Item, Made
from busi_lab.data.importers.source import Source, shown
from busi_lab.data.scan import Gray
from busi_lab.errors import UserError, one_line

RANGE_DB = 50.0
SAMPLING_HZ = 40e6
SOUND_MM_PER_S = 1540e3
AXIAL_MM = SOUND_MM_PER_S / (2 * SAMPLING_HZ)

_FIELDS = ("id", "rf1", "rf2", "roi1", "roi2", "birads", "class")
_CLASSES = {"0": "benign", "1": "malignant"}


def b_mode(echoes: NDArray[Any]) -> Gray:
    """The picture of radio-frequency lines.

    Args:
        echoes: samples along depth in rows, a line a column, ``[H, W]``.

    Returns:
        uint8 ``[H, W]``; 255 is the largest envelope, 0 is :data:`RANGE_DB` below it or less.
    """
    envelope = np.abs(hilbert(np.asarray(echoes, np.float64), axis=0))
    largest = envelope.max()
    if not largest > 0:
        return np.zeros(envelope.shape, np.uint8)
    decibels = 20 * np.log10(np.maximum(envelope / largest, 10 ** (-RANGE_DB / 20)))
    picture: Gray = np.rint(255 * (decibels / RANGE_DB + 1)).astype(np.uint8)
    return picture


def read(source: Source) -> Iterator[Item]:
    """The planes of OASBUD.

    Raises:
        UserError: there is not one MATLAB file with its structures.
    """
    files = source.ending(".mat")
    if len(files) != 1:
        raise source.refuse(f"one MATLAB file OASBUD.mat, not {len(files)}")
    lesions = _load(source, files[0])
    source.use(files[0], "table")
    for number, lesion in enumerate(lesions, start=1):
        place = f"{files[0]}, lesion {number}"
        if absent := [name for name in _FIELDS if name not in lesion]:
            source.leave(place, f"has no field {absent[0]}")
            continue
        label = _CLASSES.get(_plain(lesion["class"]), "")
        if not label:
            source.leave(place, f"class '{_plain(lesion['class'])}' is neither 0 nor 1: the label is left empty")
        patient = _plain(lesion["id"]) or f"lesion{number}"
        further = {"birads": _plain(lesion["birads"]), "axial_spacing_mm": f"{AXIAL_MM:.5f}"}
        for plane in (1, 2):
            echoes, roi = np.asarray(lesion[f"rf{plane}"]), np.asarray(lesion[f"roi{plane}"])
            where = f"{place}, plane {plane}"
            if echoes.ndim != 2 or echoes.dtype.kind not in "iuf" or min(echoes.shape) < 2 or not _finite(echoes):
                source.leave(where, "holds no radio-frequency lines")
                continue
            masks: tuple[Made, ...] = ()
            if roi.ndim == 2 and roi.dtype.kind in "biuf":
                masks = (Made(roi > 0, where),)
            else:
                source.leave(where, "has no outline: no known mask")
            named = {**further, "plane": str(plane)}
            yield Item(
                f"lesion{number:03}_plane{plane}", Made(b_mode(echoes), where), masks, label, patient, further=named
            )


def _load(source: Source, name: str) -> list[Mapping[str, Any]]:
    try:
        data = loadmat(source.path(name), simplify_cells=True, variable_names=["data"]).get("data")
    except NotImplementedError:
        raise UserError(f"{source.path(name)}: is of MATLAB 7.3; save it with -v7") from None
    except Exception as error:  # whatever a damaged file makes the parser raise
        raise UserError(f"{source.path(name)}: cannot be read ({shown(one_line(error))}); restore it") from None
    lesions = [data] if isinstance(data, Mapping) else list(data) if isinstance(data, np.ndarray | list) else []
    if not lesions or not all(isinstance(lesion, Mapping) for lesion in lesions):
        raise UserError(f"{source.path(name)}: expected an array of structures 'data' with {', '.join(_FIELDS)}")
    return lesions


def _plain(value: Any) -> str:
    """A text or number of MATLAB; empty arrays are nothing."""
    if np.ndim(value) != 0:
        return ""
    return f"{value:g}" if isinstance(value, float | np.floating) else shown(str(value))


def _finite(echoes: NDArray[Any]) -> bool:
    return bool(np.isfinite(echoes).all())
