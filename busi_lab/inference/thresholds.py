"""The thresholds of prediction sets that a run has found on its validation images."""

from collections.abc import Mapping
from pathlib import Path

from busi_lab.errors import UserError
from busi_lab.report.results.conformal import COVERAGES
from busi_lab.summary import Summary


def set_thresholds(runs: Mapping[Path, Summary], coverage: float, changed: bool) -> dict[str, float]:
    """By class, the probability from which on it is in the set.

    Args:
        runs: the classifiers, by directory.
        coverage: that is asked for.
        changed: whether probabilities are others than those that the thresholds were found with.

    Raises:
        UserError: there is not one run, or it has no thresholds for its probabilities.
    """
    where = f"--sets {coverage:g}"
    if coverage not in COVERAGES:
        raise UserError(f"{where}: expected one of {', '.join(map(str, COVERAGES))}")
    if not runs:
        raise UserError(f"{where}: sets are of classes, and no run here gives them; leave it out")
    if len(runs) > 1:
        raise UserError(
            f"{where}: thresholds are of one run, and the mean of {len(runs)} has none; make an ensemble of them with "
            "busi-ensemble, which finds its own"
        )
    ((path, summary),) = runs.items()
    if changed or (summary.export is not None and summary.export.int8):
        raise UserError(
            f"{where}: thresholds are of the probabilities as the run gives them in 32 bits; leave --tta, --calibrated "
            "and --precision out, and take no INT8 export"
        )
    found, names = summary.set_thresholds.get(str(coverage)), summary.data.roles.names
    if not isinstance(found, dict) or not all(isinstance(found.get(name), int | float) for name in names):
        raise UserError(
            f"{where}: {path} has no thresholds of sets (of an older version, or without validation images); "
            "leave it out"
        )
    return {name: float(found[name]) for name in names}
