"""Test images of an evaluation that the run has learnt from, or whose near-copy or patient it has."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.duplicates import cached_groups
from busi_lab.data.groups import NO_SEARCH
from busi_lab.data.index import Case, Index, index_dataset
from busi_lab.data.manifest import Manifest, read_manifest
from busi_lab.data.options import recorded_options
from busi_lab.errors import UserError, one_line
from busi_lab.models.transfer import parent_run
from busi_lab.run_directory import CONFIG, SPLIT
from busi_lab.summary import InitialWeights, Summary, read_summary

log = logging.getLogger(__name__)

LEARNT, TEST = "learnt/", "test/"  # what the names of two datasets begin with where they stand together


def find_leaked(source: Summary, source_directory: Path, data: BusiDataModule) -> dict[str, str] | None:
    """Test images that the run has learnt from, or that have a near-copy or their patient among those, by that image.

    At least these: what no search finds and no table says is not among them. None where the data that it learnt from
    are not at hand, or near-copies are not to be looked for. Patients are not compared across datasets, because equal
    names need not mean the same person.
    """
    if data.near_copies == NO_SEARCH:
        return None
    try:
        index = data.index
        if index.digest == source.data.digest:
            learnt = used_manifest(source_directory, index)
            known = replace(data.manifest, train=learnt.train, val=learnt.val, unlabelled=learnt.unlabelled)
            same = learnt.learnt
            found = _first_of_group(known.leaked(data.groups), sorted(same), data.groups)
            return found | {case_id: case_id for case_id in data.manifest.test if case_id in same}
        root = source.data.root
        if not root or not Path(root).is_dir():
            return None
        source_index = index_dataset(root, options=recorded_options(source.data))
        if source_index.digest != source.data.digest:
            return None
        learnt = used_manifest(source_directory, source_index)
    except UserError as error:
        log.info("leaks: %s", one_line(error))
        return None
    log.info("looking for near-copies of the test images among those that the run has learnt from")
    train = learnt.learnt
    cases = [*_named(LEARNT, source_index, train), *_named(TEST, index, set(data.manifest.test))]
    joined = Index(Path("/"), tuple(cases))
    groups = cached_groups(joined, data.cache_dir)
    together = Manifest("all", 0, None, "", *_split_names(cases))
    found = _first_of_group(together.leaked(groups), together.train, groups)
    named = {case_id.removeprefix(TEST): copy.removeprefix(LEARNT) for case_id, copy in found.items()}
    pixels = {case.content_hash: case.case_id for case in source_index.cases if case.case_id in train}
    equal = {c.case_id: pixels[c.content_hash] for c in data.tested_cases() if c.content_hash in pixels}
    return named | equal  # the latter also without features


def inherited(initial: InitialWeights, data: BusiDataModule) -> dict[str, str] | None:
    """Test images that the runs behind initial weights have learnt from, as :func:`known_to`."""
    folder = parent_run(Path(str(initial.source)))
    return {} if folder is None else known_to(folder, data)


def known_to(run: Path, data: BusiDataModule) -> dict[str, str] | None:
    """Test images that a run has learnt from, or a run behind it, by that image.

    Behind it are the runs whose weights it began with, that taught it, or that it is an ensemble of, and those behind
    them. At least these, as of :func:`find_leaked`; a run whose data are not at hand is named in a warning. None where
    that is the run itself and no other has learnt from a test image, or near-copies are not to be looked for.
    """
    if data.near_copies == NO_SEARCH:
        return None
    found: dict[str, str] = {}
    uncounted: set[Path] = set()
    seen: set[Path] = set()
    counted: set[Path] = set()  # members of an ensemble, whose own scans are among those of the ensemble
    waiting: list[Path | None] = [run]
    while waiting:
        folder = waiting.pop(0)
        if folder is None or folder in seen:
            continue
        seen.add(folder)
        known = None
        try:
            summary = read_summary(folder)
            waiting += _behind(summary)
            known = {} if folder in counted else find_leaked(summary, folder, data)
            if known is not None:
                counted.update(Path(each.directory) for each in summary.members if each.directory)
        except UserError as error:
            log.info("leaks: %s", one_line(error))
        if known is None:
            uncounted.add(folder)
            log.warning("leaks: not counted for %s: it, or the data that it learnt from, are not here", folder)
        else:
            found = known | found
    return None if run in uncounted and not found else found


def _behind(summary: Summary) -> Iterator[Path | None]:
    """The directories of the runs that a run has what it knows from."""
    if summary.initial is not None and summary.initial.source is not None:
        yield parent_run(Path(summary.initial.source))
    directories = [member.directory for member in summary.members]
    if summary.teacher is not None:
        directories.append(summary.teacher.directory)
    yield from (Path(directory) for directory in directories if directory is not None)


def _first_of_group(leaked: Sequence[str], learnt: Sequence[str], groups: Mapping[str, int]) -> dict[str, str]:
    """The first of the ``learnt`` images in the group of each of the ``leaked`` ones."""
    first: dict[int, str] = {}
    for case_id in learnt:
        if case_id in groups:
            first.setdefault(groups[case_id], case_id)
    return {case_id: first[groups[case_id]] for case_id in leaked if groups.get(case_id) in first}


def used_manifest(source: Path, index: Index) -> Manifest:
    """What a run has learnt from and tested: its manifest, but for the classes and the number of scans it used.

    Raises:
        UserError: its manifest is missing, damaged, or of other data.
    """
    manifest = read_manifest(source / SPLIT, index)
    try:
        used: Any = OmegaConf.load(source / CONFIG)
        limit, classes = used.data.subset, used.data.classes
    except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException, AttributeError):
        return manifest
    labels = {case.case_id: case.label for case in index.cases}
    return manifest.subset(labels, limit, classes)


def _named(prefix: str, index: Index, chosen: Collection[str]) -> Iterator[Case]:
    """Cases that can stand in an index with those of other datasets."""
    root = index.root.resolve()
    for case in index.cases:
        if case.case_id in chosen:
            masks = tuple(str(root / mask) for mask in case.masks)
            yield replace(case, case_id=f"{prefix}{case.case_id}", image=str(root / case.image), masks=masks)


def _split_names(cases: Sequence[Case]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    train, test = ([c.case_id for c in cases if c.case_id.startswith(prefix)] for prefix in (LEARNT, TEST))
    return tuple(train), (), tuple(test)
