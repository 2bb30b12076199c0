"""Hydra launcher ``busi_local``; Hydra looks for plugins in this namespace only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


@dataclass
class BusiLocalConf:
    """No settings: the group ``launcher`` says where jobs run."""

    _target_: str = "hydra_plugins.busi_lab_launcher.BusiLocalLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="busi_local", node=BusiLocalConf, provider="busi_lab")

for _fold in range(5):  # a fold as a choice, for sweeps over protocols; otherwise split=grouped_kfold split.fold=N
    _node = {"defaults": ["/split/grouped_kfold@_here_", "_self_"], "fold": _fold}
    ConfigStore.instance().store(group="split/fold", name=str(_fold), node=_node, package="split", provider="busi_lab")


class BusiLocalLauncher(Launcher):
    """Run every job of a sweep as a ``busi-train`` process."""

    def __init__(self) -> None:
        self._config: Any = None
        self._loader: Any = None
        self._application: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the composed configuration, how to compose others, and whose sweep this is."""
        self._config = config
        self._application = task_function
        self._loader = hydra_context.config_loader

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; one that failed returns NaN, or the worst value for a sweeper with a direction."""
        from busi_lab.sweep.launch import launch
        from busi_lab.sweep.plan import of_the_jobs

        def compose(overrides: Sequence[str]) -> DictConfig:
            composed: DictConfig = self._loader.load_sweep_config(self._config, list(overrides))
            with open_dict(composed):
                del composed["hydra"]
                del composed["launcher"], composed["search"]
            return composed

        before = self._application.sweep
        wanted = of_the_jobs(self._config.hydra, job_overrides)
        jobs = list(dict.fromkeys(wanted))
        if self._config.get("search") is not None:
            return self._search(jobs, compose)
        launcher: Any = OmegaConf.to_container(self._config.launcher, resolve=True)
        sweep, of_jobs = launch(self._config, jobs, compose, launcher, before)
        value_of = dict(zip(jobs, of_jobs, strict=True))
        self._application.sweep = sweep
        failed = worst_value(self._config.hydra.sweeper.get("direction"))
        return [
            JobReturn(
                overrides=list(overrides),
                status=JobStatus.COMPLETED,
                _return_value=failed if math.isnan(value) else value,
            )
            for overrides, value in zip(job_overrides, (value_of[job] for job in wanted), strict=True)
        ]

    def _search(self, jobs: Sequence[Sequence[str]], compose: Any) -> Sequence[JobReturn]:
        """Search instead of running one job."""
        from busi_lab.errors import UserError
        from busi_lab.sweep.search.search import search

        if len(jobs) > 1:
            raise UserError(
                f"search= beside a sweep of {len(jobs)} jobs: it proposes values itself; give one value to each key, "
                "and leave sweep= out"
            )
        launcher: Any = OmegaConf.to_container(self._config.launcher, resolve=True)
        kept = [item for item in jobs[0] if not item.lstrip("+~").startswith(("search=", "search."))]
        self._application.sweep, best = search(self._config, kept, compose, launcher)
        return [JobReturn(overrides=list(jobs[0]), status=JobStatus.COMPLETED, _return_value=best)]


def worst_value(direction: Any) -> float:
    """What a failed job returns: the worst value where a sweeper has one direction, as Optuna's, else NaN.

    hydra-optuna-sweeper 1.3 ends the whole sweep at a NaN, because it passes it on as the value of a failed trial.
    """
    word = str(getattr(direction, "name", direction)).lower()
    return {"maximize": -math.inf, "minimize": math.inf}.get(word, math.nan)
