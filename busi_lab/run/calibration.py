"""The temperature of a run: how sure it is of its classes, set right on its validation images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from busi_lab.report.results.statistics import fit_temperature, has_no_optimum


def validation_temperature(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> float | None:
    """The temperature that fits validation images best, see :func:`fit_temperature`.

    Args:
        rows: of ``validation.csv``.
        classes: in the order of probabilities.

    Returns:
        None without classes, and where none inside the range is best.
    """
    if not rows or "prediction" not in rows[0]:
        return None
    probabilities = np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows])
    actual = np.array([classes.index(row["label"]) for row in rows])
    if (probabilities.argmax(axis=1) == actual).all():  # the surer the better
        return None
    found = fit_temperature(probabilities, actual)
    return None if has_no_optimum(found) else found
