"""busi-eval: a finished run on another split, or on other data."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from busi_lab.commandline import Application, command_line, overridden_keys
from busi_lab.config import EvalConfig, parse_eval_config
from busi_lab.errors import UserError, exit_on_user_error, one_line
from busi_lab.run.own_data import own_data, saved_group
from busi_lab.run_directory import SPLIT, refuse_result
from busi_lab.summary import Summary, read_summary
from busi_lab.tracking import check_trackers

_MAY_CHANGE = ("root", "labels", "num_workers", "cache_dir", "eval_batch_size")  # of data that stay the run's own


def evaluate(config: DictConfig, overrides: Sequence[str] = (), command: str | None = None) -> Summary:
    """Evaluate a run as a composed configuration says.

    Without ``data=`` among the overrides the run's own data are taken, and without ``split=`` its own test set; of
    other data, all images.

    Args:
        config: composed from ``conf/evaluate.yaml``.
        overrides: the command line's.
        command: the command line that gives this result, for its record.

    Raises:
        UserError: an input is wrong, or the result directory is taken.
    """
    resolved: Any = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    if not resolved.run:
        raise UserError("run is not set: give the directory of a finished run, as run=runs/mobilenet")
    source = Path(str(resolved.run))
    if not source.is_dir():
        raise UserError(f"run={source}: no such folder; give the directory of a finished run")
    summary = read_summary(source)
    resolved.run, resolved.command = str(source), command
    keys = overridden_keys(overrides)
    if "data.image_size" in keys:
        raise UserError("data.image_size: the run's network has its own; leave it out")
    if own := [key for key in keys if key in ("data.roi", "data.roi_mode", "data.roi_margin")]:
        raise UserError(f"{own[0]}: scans are cut as those that the run has learnt from; leave it out")
    if "data" not in keys:
        saved = own_data(source, summary)
        if foreign := [key for key in keys if key.startswith("data.") and key[5:] not in _MAY_CHANGE]:
            raise UserError(f"{foreign[0]}: belongs to other data; name them with data=, or leave it out")
        for key in ("cache_dir", "num_workers", "eval_batch_size"):  # of this machine, not of the run's
            saved[key] = resolved.data[key]
        for key in (key[5:] for key in keys if key.startswith("data.")):
            saved[key] = resolved.data[key]
        resolved.data = saved
        if "split" not in keys and "split.manifest" not in keys:
            if foreign := [key for key in keys if key.startswith("split.")]:
                raise UserError(f"{foreign[0]}: belongs to another split; name it with split=, or leave it out")
            resolved.split = saved_group(source, "split")
            resolved.split.manifest, resolved.split.exclude = str(source / SPLIT), None
    parsed = parse_eval_config(resolved)
    check_trackers(parsed.logger)
    refuse_result(Path(parsed.run_dir))
    from busi_lab.run.evaluation import evaluate as run  # torch and its company take seconds: not for --help

    return run(parsed, resolved)


def main(argv: Sequence[str] | None = None) -> None:
    """Console script ``busi-eval``.

    Exit code 0; 1 for a bug; 2 for a wrong input.

    Args:
        argv: the command line without the program's name; None for the process's own.
    """
    results: list[Path] = []

    def job(config: DictConfig) -> float:
        hydra = HydraConfig.get()
        os.chdir(hydra.runtime.cwd)  # paths are meant from where the command was typed, also under hydra.job.chdir
        evaluate(config, list(hydra.overrides.task), command_line("busi-eval", hydra))
        results.append(Path(config.run_dir))
        return 0.0

    application = Application(job)
    with exit_on_user_error():
        arguments = application.run("evaluate", EvalConfig, argv, flags=("--compare",))
        if arguments.compare and results:
            _compare(results)
        if application.rejected:  # in a sweep perhaps several
            raise UserError("; ".join(dict.fromkeys(map(one_line, application.rejected))))


def _compare(results: Sequence[Path]) -> None:
    """Print the drop against each source, and write the report of all."""
    from busi_lab.compare import compare, show

    sources = {source.directory: source for result in results if (source := read_summary(result).source)}
    folders = [*sorted(path for path in map(Path, map(str, sources)) if path.is_dir()), *results]
    out = results[0] / "comparison"
    show(compare(folders, out), out)
    for directory, source in sources.items():
        if not source.metrics:
            print(f"{directory} was not tested (test=false), so there is no figure that these results could drop from")


if __name__ == "__main__":
    main()
