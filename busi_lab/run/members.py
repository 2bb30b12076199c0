"""The runs that an ensemble is made of: read, and refused where they have no mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busi_lab.errors import UserError
from busi_lab.inference.first_stage import checkpoint_digest
from busi_lab.summary import MemberRecord, Summary
from busi_lab.tasks import BaseTask, load_task

_NEUTRAL = {"class_loss": "cross_entropy", "class_focal_gamma": 0.0, "label_smoothing": 0.0, "class_weights": None}
"""Settings of the loss that belong to training: that of an ensemble is the cross-entropy of its probabilities."""


@dataclass(frozen=True)
class Member:
    """A finished run: its directory, its task with the weights of the best epoch, its summary."""

    directory: Path
    task: BaseTask
    summary: Summary

    def record(self, weight: float) -> MemberRecord:
        """What the summary of an ensemble says of it.

        Args:
            weight: its share of the mean.
        """
        digest, split = checkpoint_digest(self.directory), self.summary.split
        name, seed = self.summary.experiment, self.summary.seed
        return MemberRecord(str(self.directory.resolve()), digest, name, seed, split.fold, weight)


def read_members(directories: Sequence[Path]) -> list[Member]:
    """The runs of an ensemble.

    Raises:
        UserError: fewer than two, one that cannot be used, or runs whose answers have no mean: of several tasks,
            classes, datasets, image sizes, views or resolutions.
    """
    if len(directories) < 2:
        raise UserError(f"an ensemble needs two different runs at least, found {len(directories)}; give more")
    members = []
    for directory in directories:
        task, summary = load_task(directory)
        if summary.export is not None:
            raise UserError(f"{directory}: is exported, and has no weights to take; give the run that it is of")
        if summary.first_stage is not None:
            raise UserError(
                f"{directory}: sees scans that are cut by another run (data.roi), which no ensemble does; leave it out"
            )
        if task.kind == "localization":
            raise UserError(
                f"{directory}: its masks are class activation maps (task=localization) and have no mean; leave it out"
            )
        members.append(Member(directory, task, summary))
    first, *others = members
    for other in others:
        _refuse_different(first, other)
    return members


def _refuse_different(first: Member, other: Member) -> None:
    for what, ours, theirs in (
        ("the task", first.task.kind, other.task.kind),
        ("the classes", ", ".join(first.task.roles.names), ", ".join(other.task.roles.names)),
        ("the learnt classes", *(", ".join(each.summary.data.classes) for each in (first, other))),
        ("the dataset", *(f"{each.summary.data.name} ({each.summary.data.digest})" for each in (first, other))),
        ("data.image_size", first.task.image_size, other.task.image_size),
        ("task.views", first.task.views, other.task.views),
        ("task.resolution", first.task.hparams.get("resolution"), other.task.hparams.get("resolution")),
    ):
        if ours != theirs:
            raise UserError(
                f"{other.directory}: {what} of an ensemble must be one, found {theirs} here and {ours} in "
                f"{first.directory}; give runs that agree"
            )


def join_tasks(members: Sequence[Member], weights: Sequence[float] | None) -> BaseTask:
    """One task whose network has those of all members; masks are cut at the mean of their thresholds.

    Args:
        members: at least two that agree.
        weights: a factor for each; None for equal ones.
    """
    settings: dict[str, Any] = dict(members[0].task.hparams)
    settings |= {key: value for key, value in _NEUTRAL.items() if key in settings}
    if any(member.task.hparams.get("refine") != settings.get("refine") for member in members):
        settings["refine"] = "none"
    if "threshold" in settings:
        settings["threshold"] = mean_threshold(members, weights)
    parts = [{**member.task.model_settings, "weights": "none"} for member in members]
    settings["model"] = {"name": "ensemble", "members": parts, "weights_of": None if weights is None else list(weights)}
    task = type(members[0].task)(**settings)
    joined: Any = task.network
    for part, member in zip(joined.members, members, strict=True):
        part.network.load_state_dict(member.task.network.state_dict())
        part.mean.copy_(member.task.get_buffer("_mean"))
        part.std.copy_(member.task.get_buffer("_std"))
    return task.eval()


def mean_threshold(members: Sequence[Member], weights: Sequence[float] | None) -> float:
    """The weighted mean of the lesion probabilities from which on the members call a pixel lesion."""
    thresholds = [float(value) for member in members if (value := member.task.mask_threshold) is not None]
    factors = [1.0] * len(thresholds) if weights is None else list(weights)
    return sum(value * factor for value, factor in zip(thresholds, factors, strict=True)) / sum(factors)
