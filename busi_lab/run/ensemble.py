"""Several finished runs -> a run directory of their ensemble, which is used as that of any run."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from omegaconf import OmegaConf

from busi_lab.config import EvalConfig, parse_eval_config
from busi_lab.data.datamodule import BusiDataModule
from busi_lab.data.index import index_dataset
from busi_lab.data.manifest import Manifest, join_manifests, write_manifest
from busi_lab.data.options import recorded_options
from busi_lab.errors import UserError
from busi_lab.files import PROBABILITY_DIGITS, new_folder, write_rows
from busi_lab.plurals import counted
from busi_lab.run.build import build_data, build_trainer, trainer_settings
from busi_lab.run.calibration import learn_confidence
from busi_lab.run.checkpoints import AtomicCheckpointIO
from busi_lab.run.environment import device_name, environment_record, quieten
from busi_lab.run.leaks import known_to, used_manifest
from busi_lab.run.lesions import lesion_rows, write_lesions
from busi_lab.run.members import Member, join_tasks, read_members
from busi_lab.run.mixture import fit_weights
from busi_lab.run.own_data import own_data, saved_group
from busi_lab.run.record import (
    class_line,
    data_record,
    leak_line,
    learnt_classes,
    plain_metrics,
    refuse_nonfinite,
    split_record,
    with_columns,
    write_inputs,
)
from busi_lab.run_directory import BEST_CHECKPOINT, MASKS, PREDICTIONS, SPLIT, VALIDATION, write_masks
from busi_lab.summary import Objective, Summary, write_summary
from busi_lab.tasks import BaseTask


def make_ensemble(
    directories: Sequence[Path],
    out: Path,
    name: str | None = None,
    fit: bool = False,
    root: Path | None = None,
    accelerator: str = "auto",
    command: str | None = None,
) -> tuple[Summary, list[str]]:
    """Make the run directory of an ensemble; where all members have test images in common, it is tested on them.

    Args:
        directories: of the members.
        out: a new or an empty folder; it is written whole or not at all.
        name: of the experiment; None for one that names the members'.
        fit: choose the members' shares on validation images that they have in common; else all are equal.
        root: folder of the data that they have learnt from; None for where it was.
        accelerator: of Lightning's Trainer.
        command: the command line that gives this, for its record.

    Returns:
        Its summary, and what a user should know, in lines.

    Raises:
        UserError: an input is wrong; nothing has been written then.
    """
    started = time.perf_counter()
    quieten()
    with new_folder(out) as directory:
        members = read_members(directories)
        manifests, joined = _joined(members, root)
        weights = fit_weights(members, joined.val) if fit else None
        task = join_tasks(members, weights)
        write_manifest(directory / SPLIT, joined)
        config = _evaluation(members[0], directory, root, accelerator)
        data = build_data(config.data, config.split, task)
        data.record_unlabelled(joined.unlabelled)
        task.learnt = learnt_classes(data)
        trainer = build_trainer(trainer_settings({**config.trainer, "max_epochs": 1}), [], directory)
        summary = _start_summary(members, task, data, trainer, name, weights)
        summary.command = command
        _write_inputs(directory, members, summary, data, fit)
        _judge(task, data, trainer, summary, directory)
        _save(task, directory)
        summary.status, summary.seconds["total"] = "finished", time.perf_counter() - started
        write_summary(directory, summary)
    return summary, _lines(summary, manifests, joined)


def _joined(members: Sequence[Member], root: Path | None) -> tuple[list[Manifest], Manifest]:
    """What each member has learnt from and tested, and what all of them have together."""
    record = members[0].summary.data
    if not (folder := root or record.root) or not Path(folder).is_dir():
        raise UserError(f"the data that the members have learnt from are not in {folder} now; give --root DIR")
    index = index_dataset(str(folder), options=recorded_options(record))
    manifests = [used_manifest(member.directory, index) for member in members]
    return manifests, join_manifests(manifests, [case.case_id for case in index.cases])


def _evaluation(first: Member, directory: Path, root: Path | None, accelerator: str) -> EvalConfig:
    """The members' data under the split that was joined, checked as for an evaluation."""
    data = own_data(first.directory, first.summary)
    data.update(root=str(root) if root else data.root, num_workers=None, cache_dir="auto")
    if root is not None:
        data.update(sources=None)  # that folder holds them all
    data.update(subset=None, classes=None)  # the split has what the members used
    split = saved_group(first.directory, "split")
    split.update(manifest=str(directory / SPLIT), exclude=None)
    trainer = {"accelerator": accelerator, "devices": 1, "precision": "32-true"}
    content = {"run_dir": str(directory), "run": str(first.directory), "data": data, "split": split, "trainer": trainer}
    return parse_eval_config(OmegaConf.create(content))


def _start_summary(
    members: Sequence[Member],
    task: BaseTask,
    data: BusiDataModule,
    trainer: Trainer,
    name: str | None,
    weights: Sequence[float] | None,
) -> Summary:
    """What is known before anything is predicted; it counts as failed until then."""
    first = members[0].summary
    shares = [1.0] * len(members) if weights is None else list(weights)
    return Summary(
        status="failed",
        task=task.kind,
        experiment=name or f"ensemble of {', '.join(dict.fromkeys(_name(member) for member in members))}",
        model=task.model_name,
        weights=first.weights if len({member.summary.weights for member in members}) == 1 else None,
        split=split_record(data.manifest, _leaked(members, data), data.near_copies),
        data=data_record(data, str(first.data.name), first.data.classes, task.roles),
        parameters=sum(parameter.numel() for parameter in task.network.parameters()),
        objective=Objective(task.monitor, task.monitor_mode),
        device=device_name(trainer),
        precision=str(trainer.precision),
        members=tuple(member.record(share / sum(shares)) for member, share in zip(members, shares, strict=True)),
        **environment_record(),
    )


def _name(member: Member) -> str:
    return member.summary.experiment or member.directory.name


def _leaked(members: Sequence[Member], data: BusiDataModule) -> int | None:
    """Test images that a member, or a run behind it, has learnt from; None where that is not looked for."""
    if data.leaked() is None:
        return None
    known = set(data.manifest.leaked(data.groups))
    for member in members:
        known |= set(known_to(member.directory, data) or {})
    return len(known)


def _write_inputs(
    directory: Path, members: Sequence[Member], summary: Summary, data: BusiDataModule, fit: bool
) -> None:
    """Write configuration, split and packages: of the settings, those in which all members agree."""
    groups = [OmegaConf.to_container(OmegaConf.create(_configuration(member))) for member in members]
    agreed = _agreed(groups)
    agreed |= {group: groups[0][group] for group in ("data", "split")}  # type: ignore[index,call-overload]
    agreed["data"] |= {"subset": None, "classes": None}  # the split has what the members used
    if agreed["data"].get("root"):
        agreed["data"]["root"] = summary.data.root
    names, shares = sorted(_name(member) for member in members), "fit" if fit else "equal"
    agreed["model"] = {"name": "ensemble", "weights": "none", "members": names, "shares": shares}
    agreed |= {"name": summary.experiment, "seed": None}
    write_inputs(directory, OmegaConf.create(agreed), data)


def _configuration(member: Member) -> dict[str, Any]:
    groups = ("data", "split", "augment", "optim", "scheduler", "task", "trainer", "callbacks")
    found = {group: saved_group(member.directory, group) for group in groups}
    return {**found, "data": own_data(member.directory, member.summary)}


def _agreed(values: Sequence[Any]) -> Any:
    """What several configurations have in common; None where they differ."""
    if all(isinstance(value, Mapping) for value in values):
        return {key: _agreed([value.get(key) for value in values]) for key in values[0]}
    return values[0] if all(value == values[0] for value in values) else None


def _judge(task: BaseTask, data: BusiDataModule, trainer: Trainer, summary: Summary, directory: Path) -> None:
    """Judge it on the validation and the test images that all members have in common, where there are any."""
    clock = time.perf_counter()
    for split, judge, file in (("val", trainer.validate, VALIDATION), ("test", trainer.test, PREDICTIONS)):
        if not getattr(data.manifest, split):
            continue
        judge(task, datamodule=data, verbose=False)
        refuse_nonfinite(task, split)
        summary.metrics |= plain_metrics(task.results[split], split)
        rows = with_columns(task.predictions(split), data)
        write_rows(directory / file, rows, rows[0], PROBABILITY_DIGITS)
        if split == "val":
            learn_confidence(summary, rows, lesion_rows(task, data, "val"), task.roles.names)
    if data.manifest.test:
        write_masks(directory / MASKS, task.predicted_masks())
        write_lesions(directory, lesion_rows(task, data, "test"))
    summary.seconds["test"] = time.perf_counter() - clock


def _save(task: BaseTask, directory: Path) -> None:
    """Write the checkpoint as busi-train does: the settings and all weights, in one file."""
    task.cpu()
    checkpoint: dict[str, Any] = {"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict(), "epoch": 0}
    task.on_save_checkpoint(checkpoint)
    AtomicCheckpointIO().save_checkpoint(checkpoint, directory / BEST_CHECKPOINT)


def _lines(summary: Summary, manifests: Sequence[Manifest], joined: Manifest) -> list[str]:
    """What a user should know of it."""
    data = summary.data
    counts = Counter(str(member.experiment) for member in summary.members)
    told = ", ".join(f"{count} of {name}" for name, count in counts.items())
    shares = [f"{member.weight:.3f}" for member in summary.members]
    mean = "equal shares" if len(set(shares)) == 1 else f"shares {', '.join(shares)}"
    lines = [
        f"{summary.experiment}: {counted(len(summary.members), 'run')} ({told}), {mean}; "
        f"{summary.parameters or 0:,} parameters; together {data.train} train, {data.val} val, {data.test} test"
    ]
    tested = {case_id for manifest in manifests for case_id in manifest.test}
    if not joined.test:
        rest = "have learnt from every image" if not joined.excluded else "leave no image to test on"
        lines.append(f"together the members {rest}, so nothing is tested: evaluate on other data")
        return lines
    if apart := len(tested) - len(joined.test):
        lines.append(
            f"{counted(apart, 'image')} that single members have tested left out, because others have not tested them"
        )
    lines += [leak_line(summary), class_line(summary)]
    shown = [f"{key} {value:.4f}" for key, value in summary.metrics.items() if isinstance(value, float)]
    lines.append("  ".join(each for each in shown if each.split("/")[1].split()[0] in _SHOWN))
    return lines


_SHOWN = ("accuracy", "f1", "auroc", "dice", "iou")
