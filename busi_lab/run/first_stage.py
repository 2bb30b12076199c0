"""``data.roi``: the scans of a run are cut to the lesion that a finished run, its first stage, predicts in them."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from busi_lab.classes import Classes
from busi_lab.config import DataConfig
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.index import read_case
from busi_lab.data.lesion_cut import lesion_cut
from busi_lab.data.manifest import read_manifest
from busi_lab.data.resizing import resize_scan
from busi_lab.data.scan import Gray
from busi_lab.errors import UserError
from busi_lab.inference.first_stage import checkpoint_digest, recorded_runs
from busi_lab.inference.predictor import Predictor, can_segment
from busi_lab.plurals import counted
from busi_lab.run.leaks import known_to
from busi_lab.run_directory import SPLIT, find_run_directories
from busi_lab.summary import SUMMARY, FirstStageRecord, Summary, read_summary
from busi_lab.tasks import BaseTask

log = logging.getLogger(__name__)

_AT_ONCE = 16  # scans in a batch


@dataclass(frozen=True)
class FirstStage:
    """Runs whose predicted masks cut scans; the true masks are never used.

    One run cuts all scans. Several are the folds of a cross-validation: each scan is cut by those that have it in
    their test fold, so by none that has learnt from it; scans of other data by all of them together.

    Attributes:
        runs: directory to summary.
        mode: ``data.roi_mode``.
        margin: ``data.roi_margin``.
    """

    runs: Mapping[Path, Summary]
    mode: str
    margin: float

    def cut(self, data: BusiDataModule) -> FirstStageRecord:
        """Cut the scans that take part, at their own resolution, before they are resized.

        Args:
            data: after its setup; networks then see the cut scans.

        Raises:
            UserError: a scan was tested by no fold, or a run or a scan cannot be read.
        """
        cutting = self._cutting(data)
        digests = tuple(checkpoint_digest(run) for run in self.runs)
        scans: dict[str, Gray] = {}
        whole = 0
        for runs, case_ids in cutting.items():
            found, empty = self._cut(data, runs, case_ids)
            scans |= found
            whole += empty
        origin = hashlib.sha256(f"{sorted(digests)} {self.mode} {self.margin}".encode()).hexdigest()[:16]
        data.replace_scans(scans, origin)
        log.info(
            "data.roi: %s %s the lesion that %s; no lesion found in %d, left whole",
            *(counted(len(scans), "scan"), "cut to" if self.mode == "crop" else "black outside"),
            "one run predicts" if len(self.runs) == 1 else f"{len(self.runs)} runs predict",
            whole,
        )
        directories = tuple(str(run.resolve()) for run in self.runs)
        return FirstStageRecord(directories, digests, self.mode, self.margin, len(scans), whole)

    def leaked(self, data: BusiDataModule) -> dict[str, str] | None:
        """Test images that a run which cuts them has learnt from, as :func:`busi_lab.run.leaks.known_to`.

        None where that is not known of one of the runs and none is found for the others.
        """
        found: dict[str, str] = {}
        uncounted = False
        cutting = self._cutting(data)
        for run in self.runs:
            mine = {case_id for runs, case_ids in cutting.items() if run in runs for case_id in case_ids}
            known = known_to(run, data)
            uncounted |= known is None
            found |= {case_id: copy for case_id, copy in (known or {}).items() if case_id in mine}
        return None if uncounted and not found else found

    def _cutting(self, data: BusiDataModule) -> dict[tuple[Path, ...], list[str]]:
        """The runs that cut a scan -> the cases that they cut together."""
        manifest = data.manifest
        used = [*manifest.train, *manifest.val, *manifest.test]
        same = all(summary.data.digest == data.index.digest for summary in self.runs.values())
        if len(self.runs) == 1 or not same:
            return {tuple(self.runs): list(dict.fromkeys(used))}
        tested = {run: set(read_manifest(run / SPLIT, data.index).test) for run in self.runs}
        cutting: dict[tuple[Path, ...], list[str]] = defaultdict(list)
        for case_id in dict.fromkeys(used):
            cutting[tuple(run for run, cases in tested.items() if case_id in cases)].append(case_id)
        if missing := cutting.get(()):
            raise UserError(
                f"data.roi: none of the {len(self.runs)} runs has {missing[0]} in its test fold, nor "
                f"{counted(len(missing) - 1, 'other scan')}; give all folds of a cross-validation, or one run"
            )
        return dict(cutting)

    def _cut(self, data: BusiDataModule, runs: Sequence[Path], case_ids: Sequence[str]) -> tuple[dict[str, Gray], int]:
        """Scans uint8 ``[S, S]`` by case id, and in how many of them no lesion was found."""
        assert data.cache is not None
        predictor = Predictor([], runs)
        cases = {case.case_id: case for case in data.index.cases}
        found: dict[str, Gray] = {}
        empty = 0
        for start in range(0, len(case_ids), _AT_ONCE):
            batch = case_ids[start : start + _AT_ONCE]
            images = [read_case(data.index.root, cases[case_id])[0] for case_id in batch]
            for case_id, image, mask in zip(batch, images, predictor.masks(images), strict=True):
                empty += not mask.any()
                found[case_id] = resize_scan(lesion_cut(image, mask, self.mode, self.margin), data.cache.image_size)
        return found, empty


def find_first_stage(data: DataConfig, classes: Classes, task: BaseTask) -> FirstStage:
    """The first stage that ``data.roi`` names: a finished run, or a folder with the folds of one experiment.

    Args:
        data: the checked group.
        classes: of the data that are to be cut.
        task: of the second stage.

    Raises:
        UserError: a task that learns masks, no such run, an unfinished one, an evaluation, one without masks or of
            other classes, or runs of several experiments.
    """
    what, folder = f"data.roi={data.roi}", Path(str(data.roi)).expanduser()
    expected = "expected a finished run of task=segmentation or task=multitask, or a folder with the folds of one"
    if task.needs_masks:
        raise UserError(f"{what}: scans are cut for tasks without masks alone, found {task.kind}; leave data.roi out")
    if not folder.is_dir():
        raise UserError(f"{what}: no such folder; {expected}")
    paths = [folder] if (folder / SUMMARY).is_file() else find_run_directories([folder])
    runs = {path: read_summary(path) for path in paths}
    if paths == [folder]:
        if runs[folder].status != "finished":
            raise UserError(f"{what}: the run failed ({runs[folder].error}); {expected}")
        if runs[folder].source is not None:
            raise UserError(f"{what}: the evaluation of a run; {expected}")
    else:
        runs = {path: each for path, each in runs.items() if each.status == "finished" and each.source is None}
        if len(runs) < 2:
            raise UserError(f"{what}: {counted(len(runs), 'finished run')} in that folder; {expected}")
        if len({(each.experiment, each.model, each.data.digest) for each in runs.values()}) > 1:
            raise UserError(f"{what}: runs of several experiments or datasets are in that folder; {expected}")
    for path, each in runs.items():
        if not can_segment(each.task):
            raise UserError(f"{what}: {path.name} is a {each.task} run and predicts no masks; {expected}")
        if each.data.roles.names != classes.names:
            raise UserError(
                f"{what}: {path.name} has learnt from data of {', '.join(each.data.roles.names)}, and those here "
                f"are of {', '.join(classes.names)}; {expected}"
            )
    return FirstStage(runs, data.roi_mode, data.roi_margin)


def recorded_first_stage(second: Path, record: FirstStageRecord) -> FirstStage:
    """The first stage of a finished run.

    Raises:
        UserError: it has moved, or has other weights.
    """
    runs = {run: read_summary(run) for run in recorded_runs(second, record)}
    return FirstStage(runs, record.mode, record.margin)
