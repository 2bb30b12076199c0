"""Interchangeable LightningModules: a network, its loss, its metrics and its optimiser."""

from busi_lab.tasks.base import BaseTask
from busi_lab.tasks.classification import ClassificationTask
from busi_lab.tasks.loading import load_task
from busi_lab.tasks.localization import LocalizationTask
from busi_lab.tasks.multitask import MultiTask
from busi_lab.tasks.segmentation import MaskTask, SegmentationTask

__all__ = [
    "BaseTask",
    "ClassificationTask",
    "LocalizationTask",
    "MaskTask",
    "MultiTask",
    "SegmentationTask",
    "load_task",
]
