"""What the page and the papers say of a finding, in rows of words; markup and layout are elsewhere."""

from busi_lab.app.findings import Finding
from busi_lab.inference.measures import Lesion

PRIVACY = (
    "Files stay on this computer and are deleted when you close the page. Of DICOM files the picture, pixel spacing "
    "and the modality are read; names, dates and numbers of patients are neither shown nor stored. What is written "
    "into the picture itself stays visible."
)
MOST_LESIONS = 3


def probability_rows(finding: Finding) -> list[tuple[str, float]]:
    """Classes and their probabilities, the most probable first."""
    shares = finding.probabilities or {}
    return sorted(shares.items(), key=lambda item: -item[1])


def probability_note(finding: Finding) -> str:
    """How the probabilities are to be read; empty without any."""
    if finding.probabilities is None:
        return ""
    temperature = finding.model.temperature
    return "not calibrated" if temperature is None else f"calibrated with temperature {temperature:.2g}"


def set_sentence(finding: Finding) -> str:
    """The prediction set in a sentence; empty where there is none."""
    chosen, coverage = finding.prediction.prediction_set, finding.model.coverage
    if chosen is None or coverage is None:
        return ""
    return f"Prediction set at {coverage:.0%}: {', '.join(chosen) or 'empty'}"


def measure_rows(finding: Finding) -> list[tuple[str, str]]:
    """Measures of the largest lesions, in millimetres where the spacing is known; empty without a mask output.

    Behind them stands how their confidence is to be read.
    """
    lesions = finding.prediction.lesions
    if lesions is None:
        return []
    if not lesions:
        return [("lesions", "none found")]
    rows = [("lesions", str(len(lesions)))]
    for number, lesion in enumerate(lesions[:MOST_LESIONS], start=1):
        name = "lesion" if len(lesions) == 1 else f"lesion {number}"
        rows.append((name, _measures(lesion)))
    if len(lesions) > MOST_LESIONS:
        rows.append((f"{len(lesions) - MOST_LESIONS} more", "smaller, in the JSON file"))
    calibrated = finding.prediction.confidence_calibrated
    if calibrated is not None:
        rows.append(("confidence", "chance that an outline is right" if calibrated else "not calibrated"))
    return rows


def _measures(lesion: Lesion) -> str:
    sure = "" if lesion.confidence is None else f", confidence {lesion.confidence:.0%}"
    if lesion.area_mm2 is not None and lesion.longest_diameter_mm is not None:
        return f"{lesion.longest_diameter_mm:.1f} mm long, {lesion.area_mm2:.0f} mm²{sure}"
    return f"{lesion.longest_diameter_pixels:.0f} pixels long, {lesion.area_pixels:,} pixels{sure}"
