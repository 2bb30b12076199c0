"""The runs whose masks cut the scans of another run, as its summary records them: found again, and checked."""

import hashlib
from pathlib import Path

from busi_lab.errors import UserError
from busi_lab.run_directory import BEST_CHECKPOINT
from busi_lab.summary import FirstStageRecord


def checkpoint_digest(run: Path) -> str:
    """Of the weights of a run, sixteen hex digits.

    Raises:
        UserError: there are none.
    """
    try:
        return hashlib.sha256((run / BEST_CHECKPOINT).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{run / BEST_CHECKPOINT} cannot be read ({error.strerror}); copy the whole run") from None


def recorded_runs(second: Path, record: FirstStageRecord) -> list[Path]:
    """The runs of the first stage of ``second``, with the weights that they had then.

    Raises:
        UserError: one has moved, or has other weights.
    """
    runs = [Path(run) for run in record.runs]
    for run, digest in zip(runs, record.digests, strict=True):
        needs = f"{second} reads scans that are cut by the masks of another run, {run}"
        if not (run / BEST_CHECKPOINT).is_file():
            raise UserError(f"{needs}, which is not there (data.roi); put that run back in its place")
        if checkpoint_digest(run) != digest:
            raise UserError(f"{needs}, which has other weights now; put the run back with which it was trained")
    return runs
