"""Interchangeable LightningModules: a network, its loss, its metrics and its optimiser."""

from busi_lab.tasks.base import BaseTask
from busi_lab.tasks.classification import ClassificationTask

__all__ = ["BaseTask", "ClassificationTask"]
