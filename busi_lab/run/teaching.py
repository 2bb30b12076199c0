"""What a run learns from beside annotations: scans without them, and the answers of a finished run."""

from dataclasses import fields
from pathlib import Path

from busi_lab.config import RunConfig
from busi_lab.errors import UserError
from busi_lab.summary import TeacherRecord
from busi_lab.tasks import BaseTask
from busi_lab.tasks.consistency import make_consistency
from busi_lab.tasks.distillation import Distillation
from busi_lab.tasks.guidance import Guidance
from busi_lab.tasks.loading import load_task


def add_guides(config: RunConfig, task: BaseTask) -> None:
    """Give a task the losses that ``task.semi`` and ``task.teacher`` name.

    Raises:
        UserError: a setting outside its range, or one that does not fit the others; no finished run as a teacher, one
            of other classes or of cut scans, or one that has nothing to teach.
    """
    guidance = Guidance(**{item.name: config.task[item.name] for item in fields(Guidance) if item.name in config.task})
    if guidance.wants_unlabelled and config.data.roi:
        raise UserError(
            "data.roi beside task.semi or task.teacher: scans without annotation are not cut; leave one out"
        )
    if consistency := make_consistency(guidance):
        task.guides.append(consistency)
    if guidance.teacher is not None:
        task.guides.append(_teacher(guidance, guidance.teacher, task))


def _teacher(guidance: Guidance, directory: str, task: BaseTask) -> Distillation:
    where = f"task.teacher={directory}"
    path = Path(directory).expanduser()
    try:
        teacher, summary = load_task(path)
    except UserError as error:
        raise UserError(f"task.teacher: {error}") from None
    if summary.first_stage is not None:
        raise UserError(f"{where}: reads scans that another run has cut (data.roi); give one of whole scans")
    if not (task.needs_labels and teacher.needs_labels) and not (task.needs_masks and teacher.needs_masks):
        raise UserError(f"{where}: a run of {teacher.kind} has nothing to teach to {task.kind}")
    if task.needs_labels and teacher.needs_labels and teacher.roles != task.roles:
        raise UserError(
            f"{where}: knows {', '.join(teacher.roles.names)}; expected {', '.join(task.roles.names)}, as in the data"
        )
    record = TeacherRecord(str(path.resolve()), summary.model, summary.data.name)
    return Distillation(teacher, guidance.teacher_weight, guidance.teacher_temperature, record)


def find_teacher(task: BaseTask) -> TeacherRecord | None:
    """The record of a task's teacher; None without one."""
    return next((guide.record for guide in task.guides if isinstance(guide, Distillation)), None)
