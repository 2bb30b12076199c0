"""Hydra launcher ``busi_local``; Hydra looks for plugins in this namespace only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class BusiLocalConf:
    """Settings: jobs at once, None for one on each GPU or one on the CPU."""

    _target_: str = "hydra_plugins.busi_lab_launcher.BusiLocalLauncher"
    n_jobs: int | None = None


ConfigStore.instance().store(group="hydra/launcher", name="busi_local", node=BusiLocalConf, provider="busi_lab")


class BusiLocalLauncher(Launcher):
    """Run every job of a sweep as a ``busi-train`` process."""

    def __init__(self, n_jobs: int | None = None) -> None:
        self._n_jobs = n_jobs
        self._config: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the composed configuration."""
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; one that failed returns NaN."""
        from busi_lab.sweep import launch

        values = launch(self._config, job_overrides, self._n_jobs)
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=value)
            for overrides, value in zip(job_overrides, values, strict=True)
        ]
