"""What one model makes of one scan, and what speaks against believing it: everything that the page shows of a scan."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from busi_lab.app.models import Model
from busi_lab.data.known_scans import NearCopy
from busi_lab.data.scan import Scan
from busi_lab.inference.explain import Heat
from busi_lab.inference.prediction import Prediction
from busi_lab.report.results.statistics import scale_temperature


@dataclass(frozen=True)
class Finding:
    """What a model makes of a scan.

    Attributes:
        model: that has found it.
        prediction: as ``busi-predict`` gives it.
        probabilities: by class, scaled by the run's temperature where it has one; None without classes.
        heat: what speaks for the class, float32 ``[H, W]`` of 0 to 1; None where that is off.
        warnings: in sentences, the gravest first.
    """

    model: Model
    prediction: Prediction
    probabilities: Mapping[str, float] | None
    heat: Heat | None = field(repr=False)
    warnings: tuple[str, ...] = ()


def find(model: Model, scan: Scan) -> Finding:
    """Apply a model to a scan.

    Raises:
        UserError: the device has no memory for it.
    """
    prediction = model.predictor.predict_batch([scan])[0]
    shares = prediction.probabilities
    if shares is not None and model.temperature is not None:
        scaled = scale_temperature(np.array([list(shares.values())]), model.temperature)[0]
        shares = dict(zip(shares, scaled.tolist(), strict=True))
    heat = None
    if model.explainer is not None and prediction.label is not None:
        heat = model.explainer.explain(scan.pixels, prediction.label)["gradcam"]
    copy = None if model.learnt is None else model.learnt.near_copy(scan.pixels)
    return Finding(model, prediction, shares, heat, warnings(prediction, model.coverage, copy, scan))


def warnings(prediction: Prediction, coverage: float | None, copy: NearCopy | None, scan: Scan) -> tuple[str, ...]:
    """What speaks against believing a prediction.

    Args:
        prediction: of the scan.
        coverage: of its prediction set; None without one.
        copy: the scan that the model has learnt from, of which this is a near-copy; None where none is known.
        scan: that was predicted.
    """
    found = []
    if copy is not None:
        found.append(
            f"Near-copy of a scan that the model has learnt from ({copy.name}, similarity {copy.similarity:.2f}): it "
            "may have the answer by heart."
        )
    found += [f"{note[0].upper()}{note[1:]}." for note in prediction.notes]
    if prediction.lesions == () and not any("no lesion" in note for note in prediction.notes):
        found.append("No lesion was found. That does not mean that there is none.")
    chosen = prediction.prediction_set
    if chosen is not None and coverage is not None and prediction.probabilities is not None:
        if not chosen:
            found.append(
                f"No class is probable enough for the set at {coverage:.0%}: the scan is unusual for the model."
            )
        elif len(chosen) == len(prediction.probabilities):
            found.append(f"Every class is in the set at {coverage:.0%}: the model cannot tell them apart here.")
    if scan.origin.burned_in_annotation == "YES":
        found.append("The file says that the picture may show the patient's name (BurnedInAnnotation).")
    return tuple(found)
