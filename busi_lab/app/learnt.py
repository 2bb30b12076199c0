"""The scans that runs have learnt from, found again where their data are at hand.

Those of validation count: the epoch, the thresholds and the temperature were chosen on them.
"""

import logging
from functools import partial
from pathlib import Path

from busi_lab.data.index import Case, Index, index_dataset, read_case
from busi_lab.data.known_scans import KnownScans
from busi_lab.data.options import recorded_options
from busi_lab.data.scan import Gray
from busi_lab.errors import UserError, one_line
from busi_lab.plurals import counted
from busi_lab.run.leaks import used_manifest
from busi_lab.summary import Summary, is_export

log = logging.getLogger(__name__)


class Learnt:
    """Finds them; models that have learnt from the same scans share them.

    Args:
        wanted: whether to look for them at all.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._found: dict[tuple[str, tuple[str, ...]], KnownScans] = {}

    def scans(self, run: Path, summary: Summary) -> tuple[KnownScans | None, str]:
        """The scans, or why there are none."""
        if not self._wanted:
            return None, "switched off (--no-training-scans)"
        try:
            index, names = _learnt_names(run, summary)
        except UserError as error:
            return None, one_line(error)
        key = index.digest, names
        if key not in self._found:
            log.info("describing %s that %s has learnt from", counted(len(names), "scan"), run.name)
            cases = {case.case_id: case for case in index.cases}
            self._found[key] = KnownScans({name: partial(_pixels, index.root, cases[name]) for name in names})
        return self._found[key], ""


def _learnt_names(run: Path, summary: Summary) -> tuple[Index, tuple[str, ...]]:
    """The dataset of a run, and the images of it that the run has learnt from.

    Raises:
        UserError: they are not at hand.
    """
    if is_export(run):
        raise UserError("an exported run does not say what it has learnt from")
    root = summary.data.root
    if not root or not Path(root).is_dir():
        raise UserError(f"the training data are not here ({root or 'unknown folder'})")
    index = index_dataset(root, options=recorded_options(summary.data))
    if index.digest != summary.data.digest:
        raise UserError(f"the training data in {root} have changed since")
    learnt = used_manifest(run, index)
    names = tuple(sorted(learnt.learnt))
    if not names:
        raise UserError("the run has learnt from no scan")
    return index, names


def _pixels(root: Path, case: Case) -> Gray:
    return read_case(root, case)[0]
