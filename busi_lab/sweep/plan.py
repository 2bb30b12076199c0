"""What a sweep is going to do: its directory, a directory for each job, and what may not be combined."""

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from busi_lab.config import may_change_on_resume, parse_config, with_later_keys
from busi_lab.data.manifest import read_version
from busi_lab.data.splits import FOLDED, version_of
from busi_lab.errors import UserError
from busi_lab.run.resume import trusted_packages
from busi_lab.run_directory import CONFIG, SPLIT, quoted
from busi_lab.sweep.record import JobRecord
from busi_lab.sweep.work import finished

OURS = "hydra_plugins.busi_lab_launcher.BusiLocalLauncher"


def refuse_launcher(target: str) -> None:
    """Other launchers run jobs in one process, or lose what has failed; none ranks, continues or ends with a code.

    Args:
        target: the launcher's class, as ``hydra.launcher._target_`` names it.

    Raises:
        UserError: it is not ours.
    """
    if target != OURS:
        raise UserError(
            f"hydra/launcher: {target.rpartition('.')[2]} would run jobs that cannot be continued and hide those that "
            "fail; leave it out, and choose where jobs run by launcher=local|slurm|ray"
        )


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        directory: of its run.
        overrides: of its configuration, such as ``["experiment=paper/vgg16", "seed=1"]``.
        config: its configuration, composed.
    """

    directory: Path
    overrides: tuple[str, ...]
    config: DictConfig

    @property
    def continued(self) -> list[str]:
        """The command line of the job where it was cut: the overrides which a continued run takes."""
        # the number of epochs is part of the job, and already in its configuration
        kept = [item for item in self.overrides if may_change_on_resume(item) and "trainer.max_epochs" not in item]
        trusted = trusted_packages(OmegaConf.to_container(self.config))  # it was composed here
        return [f"resume={quoted(self.directory)}", *kept, *([f"trust=[{','.join(trusted)}]"] if trusted else [])]

    def record(self, arguments: Sequence[str]) -> JobRecord:
        """The command lines that begin the job and that continue it.

        Args:
            arguments: that all jobs of the sweep share.
        """
        return JobRecord(self.directory.name, (*arguments, *self.overrides), (*arguments, *self.continued))


@dataclass(frozen=True)
class Plan:
    """A sweep: its directory, its jobs in order, and arguments that all of them share."""

    directory: Path
    jobs: tuple[Job, ...]
    arguments: tuple[str, ...]


def make_plan(
    config: DictConfig, jobs: Sequence[Sequence[str]], compose: Callable[[Sequence[str]], DictConfig]
) -> Plan:
    """Give each job its directory, and refuse what would undo the sweep.

    Args:
        config: the composed multirun configuration, with its ``hydra`` node.
        jobs: the overrides of each job.
        compose: overrides -> the configuration of a job.

    Raises:
        UserError: an override would undo the sweep, or a directory holds another run.
    """
    _refuse_narrowing(config.hydra)
    if swept := [key for key in varied_keys(config.hydra) if _of_the_launcher(key)]:
        raise UserError(f"{swept[0]}: a sweep runs in one place; give one value")
    base = Path(str(config.hydra.sweep.dir)).absolute()
    names = job_names(jobs, varied_keys(config.hydra))
    planned = tuple(
        Job(base / name, tuple(overrides), compose(overrides)) for name, overrides in zip(names, jobs, strict=True)
    )
    for job in planned:
        job.config.run_dir = str(job.directory)
        _refuse_another_run(job)
    _refuse_another_split(planned)
    return Plan(base, planned, tuple(command_flags(config.hydra)))


def refuse_wrong(jobs: Sequence[Job]) -> None:
    """Check the configuration of every job, before the first has taken its hours.

    A configuration that refers to what Hydra knows of a running job alone is left to be checked there.

    Raises:
        UserError: naming the first job that is wrong, and how many are.
    """
    wrong: list[tuple[str, UserError]] = []
    for job in jobs:
        if "${hydra:" in OmegaConf.to_yaml(job.config):
            continue
        try:
            content = OmegaConf.to_container(job.config, resolve=True)
        except InterpolationResolutionError:
            continue
        resolved = OmegaConf.create(content)
        assert isinstance(resolved, DictConfig)
        try:
            parse_config(resolved)
        except UserError as error:
            wrong.append((job.directory.name, error))
    if wrong:
        name, first = wrong[0]
        verb = "is" if len(wrong) == 1 else "are"
        raise UserError(f"{first} (job {name}; {len(wrong)} of {len(jobs)} jobs {verb} wrong, so none was started)")


def directory_name(overrides: Sequence[str], launcher: str = OURS) -> str:
    """A sweep's folder name: the sweep's own, and a digest of the whole command.

    Raises:
        UserError: another launcher than ours is to run the jobs.
    """
    refuse_launcher(launcher)
    chosen = dict(item.split("=", 1) for item in overrides if "=" in item)
    label = _slug(chosen.get("sweep", "search" if "search" in chosen else "sweep"))
    own = sorted(item for item in overrides if not _of_the_launcher(item) and not item.startswith("search.trials="))
    return f"{label}-{hashlib.sha256(' '.join(own).encode()).hexdigest()[:8]}"


def _of_the_launcher(override: str) -> bool:
    """Whether an override says where jobs run, which is no part of what they are."""
    return bool(re.match(r"[+~]{0,2}launcher([.=@]|$)", override))


def job_names(jobs: Sequence[Sequence[str]], varied: Collection[str]) -> list[str]:
    """A folder name for each job: the values of the overrides that the sweep varies.

    A name depends on its job alone, since some sweepers start jobs in batches. Where values that differ give equal
    names, a digest is added.

    Args:
        jobs: the overrides of each job, such as ``["experiment=paper/vgg16", "seed=1"]``.
        varied: keys that the sweep varies.
    """
    rows = [dict(item.split("=", 1) for item in job if "=" in item) for job in jobs]
    parts = [[(key, value) for key, value in row.items() if key.lstrip("+~") in varied] for row in rows]
    return [_name(part) for part in parts]


def _name(varied: Sequence[tuple[str, str]]) -> str:
    plain = "-".join(_part(key, value) for key, value in varied)
    slug = _slug(plain)
    if slug == plain.replace("/", "-") and len({key.split(".")[-1] for key, _ in varied}) == len(varied):
        return slug or "job"
    return f"{slug}-{hashlib.sha256(str(varied).encode()).hexdigest()[:6]}"


def varied_keys(hydra: Any) -> set[str]:
    """The keys that a sweep varies, by its command line and by its sweeper's parameters."""
    overrides = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    swept = {item.key_or_group for item in overrides if item.is_sweep_override()}
    return swept | {str(key).lstrip("+~") for key in hydra.sweeper.get("params") or {}}


def _part(key: str, value: str) -> str:
    word = key.strip("+~").split(".")[-1]
    return value if not re.fullmatch(r"[\d.eE+-]+|true|false|null", value, re.IGNORECASE) else f"{word}{value}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:100]


def _refuse_another_run(job: Job) -> None:
    """A job's directory may hold that job alone, finished or cut.

    Raises:
        UserError: it holds a run of another configuration.
    """
    directory, config = job.directory, job.config
    if not (directory / CONFIG).is_file():
        return
    saved = OmegaConf.load(directory / CONFIG)
    both: list[Any] = [OmegaConf.to_container(saved), OmegaConf.to_container(config, resolve=True)]
    before, wanted = map(with_later_keys, both)
    done = finished(directory) is not None
    for part in (before, wanted):
        part.setdefault("test", True)
        trainer = part.get("trainer") or {}
        part["epochs"] = trainer.pop("max_epochs", None)
        for key in _OF_THE_MACHINE:
            trainer.pop(key, None)
        for key in ("num_workers", "cache_dir", *(() if done else ("root", "labels"))):
            (part.get("data") or {}).pop(key, None)
        for group in ("data", "model", "optim"):
            part[group] = {key: value for key, value in (part.get(group) or {}).items() if value is not None}
        part["manifest"] = (part.get("split") or {}).pop("manifest", None)
        part["callbacks"] = {name: _settings(item) for name, item in (part.get("callbacks") or {}).items() if item}
    for key in _OF_A_JOB:
        if before.get(key) != wanted.get(key):
            raise UserError(
                f"{directory} holds a run with another {key}; choose another hydra.sweep.dir or remove that folder"
            )


def _refuse_another_split(jobs: Sequence[Job]) -> None:
    """Jobs that are still to be split are split by this version; folds of an older one do not fit beside them.

    Raises:
        UserError: some jobs are split already, by another version.
    """
    old: dict[str, Job] = {}
    new: dict[str, Job] = {}
    for job in jobs:
        protocol = str(OmegaConf.select(job.config, "split.protocol"))
        if OmegaConf.select(job.config, "split.manifest"):
            continue
        found = read_version(job.directory / SPLIT)
        if found is None:
            new[protocol] = job
        elif found != version_of(protocol):
            old[protocol] = job
    for protocol, job in old.items():
        if protocol in new:
            raise UserError(
                f"{job.directory} was split by another version of split={protocol}, and {new[protocol].directory.name} "
                "would be split by this one: their test images could overlap; choose another hydra.sweep.dir, or "
                "finish the sweep with the version that began it"
            )


_OF_A_JOB = (
    *("name", "seed", "data", "split", "augment", "model", "task", "optim", "scheduler", "epochs", "test"),
    *("trainer", "callbacks", "ema", "variant"),
)
_OF_THE_MACHINE = ("accelerator", "devices", "num_nodes", "strategy", "benchmark", "enable_progress_bar")


def _settings(callback: Any) -> dict[str, Any]:
    """A callback without where it is and where it writes, which may have moved, and without switches that are off."""
    settings = {key: value for key, value in callback.items() if key not in ("_target_", "dirpath")}
    settings["class"] = str(callback.get("_target_")).rpartition(".")[2]
    return {key: value for key, value in settings.items() if value is not False}


def _refuse_narrowing(hydra: Any) -> None:
    """``experiment=X`` beside a sweep over experiments would leave one job: say so instead.

    A key for which the sweep has one value may have another one.
    """
    parser = OverridesParser.create()
    chosen = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
    swept = {item.key_or_group for item in parser.parse_overrides(chosen) if item.is_sweep_override()}
    for override in parser.parse_overrides(list(hydra.overrides.task)):
        if override.key_or_group in swept and not override.is_sweep_override():
            raise UserError(
                f"{override.input_line}: the chosen sweep varies {override.key_or_group}, one value would leave "
                f"one job; drop it, or drop sweep="
            )


def of_the_jobs(hydra: Any, jobs: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The overrides of each job without those that say where it runs.

    Nor has it the sweep's folds where the command line has chosen a split that has none: jobs that differed in their
    fold alone are then equal.

    Args:
        hydra: the node of the composed multirun configuration.
        jobs: the overrides of each job.
    """
    typed = {item.key_or_group for item in OverridesParser.create().parse_overrides(list(hydra.overrides.task))}
    own_folds = _FOLD in (hydra.sweeper.get("params") or {}) and _FOLD not in typed and "split" in typed
    found = []
    for job in jobs:
        split = next((item.split("=", 1)[1] for item in job if item.startswith("split=")), None)
        drop = own_folds and split is not None and split not in FOLDED
        kept = (item for item in job if not _of_the_launcher(item))
        found.append(tuple(item for item in kept if not (drop and item.startswith(f"{_FOLD}="))))
    return found


_FOLD = "split.fold"


def command_flags(hydra: Any) -> list[str]:
    """What of the command line is not among the job's overrides but belongs to each job."""
    sources = [source for source in hydra.runtime.config_sources if source.provider == "command-line"]
    flags = [part for source in sources for part in ("--config-dir", source.path)]
    own = ("hydra.mode", "hydra.sweep", "hydra.sweeper", "hydra.launcher", "hydra/launcher", "hydra/sweeper")
    return flags + [item for item in hydra.overrides.hydra if not item.lstrip("+~").startswith(own)]
