"""Interchangeable LightningModules: a network, its loss, its metrics and its optimiser."""

from busi_lab.tasks.base import BaseTask
from busi_lab.tasks.classification import ClassificationTask
from busi_lab.tasks.loading import load_task
from busi_lab.tasks.localization import LocalizationTask
from busi_lab.tasks.multitask import MultiTask
from busi_lab.tasks.segmentation import MaskTask, SegmentationTask
from busi_lab.tasks.self_supervised import SelfSupervisedTask

__all__ = [
    "BaseTask",
    "ClassificationTask",
    "LocalizationTask",
    "MaskTask",
    "MultiTask",
    "SegmentationTask",
    "SelfSupervisedTask",
    "load_task",
]
